"""Where OpenDSR is spoken here. Discovery, the certificate and all that is signed are of one domain."""

from uuid import UUID


def certificate_of(public_url: str) -> str:
    """Where our certificate is."""
    return f"{public_url}/privacy/opendsr/certificate.pem"


def base_of(public_url: str, store_id: UUID) -> str:
    """Where tools of a store speak to: the paths of the specification follow it."""
    return f"{public_url}/privacy/opendsr/{store_id}"


def requests_of(public_url: str, store_id: UUID) -> str:
    """Where their requests are."""
    return f"{base_of(public_url, store_id)}/v1/requests"


def callbacks_of(public_url: str) -> str:
    """Where processors outside call us back."""
    return f"{public_url}/privacy/opendsr/callbacks"


def former_callbacks_of(public_url: str) -> str:
    """The same by its former name."""
    return f"{public_url}/privacy/opendsr/opengdpr_callbacks"
