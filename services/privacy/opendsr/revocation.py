"""Whether a certificate was revoked: by the lists that it names (RFC 5280, 5 and 6.3), or by asking (RFC 6960).

Lists are believed when the issuer signed them and they are of now; they are kept until the next one is due.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA1, HashAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID

from libs.common.outgoing import Answer, NotSent, Outgoing

LIST_BYTES = 8 * 1024 * 1024
LONGEST = timedelta(days=7)
"""That anything is kept, however far off the next one is said to be."""
_WITHOUT_NEXT = timedelta(hours=1)
_KEPT = 200
_SOURCES = 4


class Revoked(Exception):
    """Its issuer took it back."""


class Unknown(Exception):
    """Nobody who is named could be reached, or what they said is not to be believed."""


@dataclass(frozen=True, slots=True)
class Sources:
    """Where to ask."""

    lists: Sequence[str]
    responders: Sequence[str]

    def __bool__(self) -> bool:
        return bool(self.lists or self.responders)


def sources_of(certificate: x509.Certificate) -> Sources:
    """Whom a certificate names."""
    return Sources(_lists(certificate)[:_SOURCES], _responders(certificate)[:_SOURCES])


def _lists(certificate: x509.Certificate) -> list[str]:
    try:
        points = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    # One of a few reasons, or by another than the issuer, says too little (6.3.3).
    whole = [one for one in points if one.reasons is None and one.crl_issuer is None]
    names = [name for one in whole for name in one.full_name or ()]
    return [
        one.value for one in names if isinstance(one, x509.UniformResourceIdentifier) and _is_http(one.value)
    ]


def _responders(certificate: x509.Certificate) -> list[str]:
    try:
        access = certificate.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    named = [one.access_location for one in access if one.access_method == AuthorityInformationAccessOID.OCSP]
    return [
        one.value for one in named if isinstance(one, x509.UniformResourceIdentifier) and _is_http(one.value)
    ]


def _is_http(address: str) -> bool:
    return address.lower().startswith(("http://", "https://"))


class Revocations:
    """One per process."""

    def __init__(self, outgoing: Outgoing) -> None:
        self._outgoing = outgoing
        self._lists: dict[str, x509.CertificateRevocationList] = {}

    async def check(
        self, certificate: x509.Certificate, issuer: x509.Certificate, *, now: datetime
    ) -> datetime:
        """Until when it is known that it is not revoked. Raises Revoked, Unknown."""
        sources = sources_of(certificate)
        for url in sources.lists:
            if (found := await self._list(url, issuer, now)) is not None and _covers(found, url, certificate):
                if found.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None:
                    raise Revoked
                return _until(found.next_update_utc, now)
        for url in sources.responders:
            if (until := await self._asked(url, certificate, issuer, now)) is not None:
                return until
        raise Unknown

    # --- Lists -------------------------------------------------------------------------------------------

    async def _list(
        self, url: str, issuer: x509.Certificate, now: datetime
    ) -> x509.CertificateRevocationList | None:
        known = self._lists.get(url)
        if known is not None and _is_of_now(known, now) and _is_of(known, issuer):
            return known
        answer = await self._sent("GET", url)
        try:
            found = _read(answer.content) if answer is not None else None
        except ValueError:
            return None
        if found is None or not _is_of_now(found, now) or not _is_of(found, issuer):
            return None
        if len(self._lists) >= _KEPT:
            self._lists.clear()
        self._lists[url] = found
        return found

    async def _sent(
        self, method: str, url: str, *, content: bytes = b"", headers: dict[str, str] | None = None
    ) -> Answer | None:
        try:
            answer = await self._outgoing.send(method, url, content=content, headers=headers)
        except NotSent:
            return None
        return answer if answer.status == 200 else None

    # --- Asking ------------------------------------------------------------------------------------------

    async def _asked(
        self, url: str, certificate: x509.Certificate, issuer: x509.Certificate, now: datetime
    ) -> datetime | None:
        """Until when the answer is good; None where there is none that can be believed. Raises Revoked."""
        asked = ocsp.OCSPRequestBuilder().add_certificate(certificate, issuer, SHA1()).build()  # noqa: S303 - names the issuer
        headers = {"Content-Type": "application/ocsp-request"}
        answer = await self._sent("POST", url, content=asked.public_bytes(Encoding.DER), headers=headers)
        if answer is None:
            return None
        try:
            said = ocsp.load_der_ocsp_response(answer.content)
            if not _answers(said, asked, now) or not _is_signed_for(said, issuer, now):
                return None
            if said.certificate_status is ocsp.OCSPCertStatus.REVOKED:
                raise Revoked
            if said.certificate_status is not ocsp.OCSPCertStatus.GOOD:
                return None
            return _until(said.next_update_utc, now)
        except (ValueError, UnsupportedAlgorithm):
            return None


def _until(next_update: datetime | None, now: datetime) -> datetime:
    return min(next_update or now + _WITHOUT_NEXT, now + LONGEST)


def _read(content: bytes) -> x509.CertificateRevocationList:
    if b"-----BEGIN" in content[:100]:
        return x509.load_pem_x509_crl(content)
    return x509.load_der_x509_crl(content)


def _is_of_now(found: x509.CertificateRevocationList, now: datetime) -> bool:
    return found.last_update_utc <= now and found.next_update_utc is not None and now <= found.next_update_utc


def _is_of(found: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    if found.issuer != issuer.subject:
        return False
    try:
        return found.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]
    except (TypeError, ValueError, UnsupportedAlgorithm):
        return False


def _covers(found: x509.CertificateRevocationList, url: str, certificate: x509.Certificate) -> bool:
    """Whether the list is about such certificates, for all reasons, and has nothing critical that we do not know."""
    for extension in found.extensions:
        if isinstance(extension.value, x509.IssuingDistributionPoint):
            if not _is_point(extension.value, url, certificate):
                return False
        elif extension.critical:
            return False
    return True


def _is_point(point: x509.IssuingDistributionPoint, url: str, certificate: x509.Certificate) -> bool:
    is_authority = _is_authority(certificate)
    of_others = (
        point.indirect_crl or point.only_contains_attribute_certs or point.only_some_reasons is not None
    )
    of_another_kind = point.only_contains_user_certs if is_authority else point.only_contains_ca_certs
    names = [one.value for one in point.full_name or () if isinstance(one, x509.UniformResourceIdentifier)]
    is_here = point.full_name is None or url in names
    return not of_others and not of_another_kind and is_here and point.relative_name is None


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _answers(said: ocsp.OCSPResponse, asked: ocsp.OCSPRequest, now: datetime) -> bool:
    if said.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        return False
    return (
        said.serial_number == asked.serial_number
        and said.issuer_key_hash == asked.issuer_key_hash
        and said.issuer_name_hash == asked.issuer_name_hash
        and said.this_update_utc <= now
        and (said.next_update_utc is None or now <= said.next_update_utc)
    )


def _is_signed_for(said: ocsp.OCSPResponse, issuer: x509.Certificate, now: datetime) -> bool:
    """By the issuer, or by whom it appointed to answer (4.2.2.2)."""
    for signer in (issuer, *(one for one in said.certificates if _is_appointed(one, issuer, now))):
        if _is_signature(signer, said.signature, said.tbs_response_bytes, said.signature_hash_algorithm):
            return True
    return False


def _is_appointed(one: x509.Certificate, issuer: x509.Certificate, now: datetime) -> bool:
    try:
        one.verify_directly_issued_by(issuer)
        purposes = one.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound, UnsupportedAlgorithm):
        return False
    return ExtendedKeyUsageOID.OCSP_SIGNING in purposes and (
        one.not_valid_before_utc <= now <= one.not_valid_after_utc
    )


def _is_signature(
    signer: x509.Certificate, signature: bytes, content: bytes, algorithm: HashAlgorithm | None
) -> bool:
    key = signer.public_key()
    if algorithm is None or isinstance(algorithm, SHA1):
        return False
    try:
        if isinstance(key, RSAPublicKey):
            key.verify(signature, content, PKCS1v15(), algorithm)
        elif isinstance(key, EllipticCurvePublicKey):
            key.verify(signature, content, ECDSA(algorithm))
        else:
            return False
    except InvalidSignature:
        return False
    return True
