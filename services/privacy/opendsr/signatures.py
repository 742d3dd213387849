"""Signatures of OpenDSR: RSA with SHA-256, PKCS#1 v1.5, over the raw bytes of a body, in base64.

Under both names that the headers have had. A message that has both has to mean the same by them.
"""

import base64
import binascii
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from services.privacy.domain.problems import NotSetUpForOpenDsr
from services.privacy.settings import Settings

logger = logging.getLogger(__name__)

DOMAIN = ("X-OpenDSR-Processor-Domain", "X-OpenGDPR-Processor-Domain")
SIGNATURE = ("X-OpenDSR-Signature", "X-OpenGDPR-Signature")
LEAST_BITS = 2048


@dataclass(frozen=True, slots=True, repr=False)
class Signer:
    """Who we are to others, and what shows it."""

    domain: str
    key: RSAPrivateKey
    certificate: bytes
    """Ours and those between it and its authority, in PEM."""

    def headers(self, body: bytes) -> dict[str, str]:
        """The headers of a body, by both names."""
        signature = base64.b64encode(self.key.sign(body, PKCS1v15(), SHA256())).decode()
        return {**dict.fromkeys(DOMAIN, self.domain), **dict.fromkeys(SIGNATURE, signature)}


def signer_of(settings: Settings) -> Signer:
    """The platform's. Raises NotSetUpForOpenDsr."""
    if settings.opendsr_key is None or settings.opendsr_certificate is None:
        raise NotSetUpForOpenDsr
    return _signer(
        urlsplit(settings.public_url).hostname or "",
        settings.opendsr_key.get_secret_value(),
        settings.opendsr_certificate,
    )


@cache
def _signer(domain: str, key: str, certificate: str) -> Signer:
    private = load_pem_private_key(key.encode(), password=None)
    own = x509.load_pem_x509_certificates(certificate.encode())[0]
    if not isinstance(private, RSAPrivateKey) or private.key_size < LEAST_BITS:
        raise ValueError("PRIVACY_OPENDSR_KEY is to be an RSA key of 2048 bits at least")
    if own.public_key() != private.public_key():
        raise ValueError("PRIVACY_OPENDSR_CERTIFICATE is not that of PRIVACY_OPENDSR_KEY")
    if domain not in names_of(own):
        logger.error("the certificate for OpenDSR is of another host than PUBLIC_URL")
        raise NotSetUpForOpenDsr
    return Signer(domain, private, certificate.encode())


def names_of(certificate: x509.Certificate) -> frozenset[str]:
    """The hosts that a certificate is for."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    hosts = names.get_values_for_type(x509.DNSName)
    return frozenset([*map(str.lower, hosts), *map(str, names.get_values_for_type(x509.IPAddress))])


def named(headers: Mapping[str, str], names: tuple[str, str]) -> str | None:
    """What a header says by either of its names; None where both are there and differ."""
    found = {headers[name] for name in names if name in headers}
    return found.pop() if len(found) == 1 else None


def is_signed(body: bytes, signature: str | None, certificate: x509.Certificate) -> bool:
    """Whether the holder of this certificate signed exactly these bytes."""
    key = certificate.public_key()
    if signature is None or not isinstance(key, RSAPublicKey) or key.key_size < LEAST_BITS:
        return False
    try:
        key.verify(base64.b64decode(signature, validate=True), body, PKCS1v15(), SHA256())
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True
