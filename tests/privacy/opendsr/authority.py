"""A real authority with one between it and those it certifies, its lists of revocations, and a responder."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(one.public_bytes(Encoding.PEM) for one in certificates)


def secret(key: RSAPrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def new_key(bits: int = 2048) -> RSAPrivateKey:
    return generate_private_key(public_exponent=65537, key_size=bits)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority, key_cert_sign=authority, crl_sign=authority, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


@dataclass
class Issuer:
    """Whoever signs certificates."""

    name: str
    key: Any
    certificate: x509.Certificate
    revoked: list[int] = field(default_factory=list[int])

    def issue(
        self,
        names: Sequence[str],
        key: Any,
        *,
        authority: bool = False,
        since: timedelta = timedelta(days=-1),
        until: timedelta = timedelta(days=90),
        lists: Sequence[str] = (),
        responders: Sequence[str] = (),
        purposes: Sequence[Any] = (ExtendedKeyUsageOID.SERVER_AUTH,),
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .issuer_name(self.certificate.subject)
            .subject_name(_named(names[0]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now() + since)
            .not_valid_after(now() + until)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
            )
            .add_extension(
                x509.BasicConstraints(ca=authority, path_length=0 if authority else None), critical=True
            )
            .add_extension(_usage(authority=authority), critical=True)
        )
        if not authority:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([alternative(name) for name in names]), critical=False
            ).add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        if lists:
            points = [
                x509.DistributionPoint([x509.UniformResourceIdentifier(url)], None, None, None)
                for url in lists
            ]
            builder = builder.add_extension(x509.CRLDistributionPoints(points), critical=False)
        if responders:
            access = [
                x509.AccessDescription(
                    AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier(url)
                )
                for url in responders
            ]
            builder = builder.add_extension(x509.AuthorityInformationAccess(access), critical=False)
        return builder.sign(self.key, SHA256())

    def list_of_revoked(
        self, *, since: timedelta = timedelta(hours=-1), until: timedelta = timedelta(days=1), key: Any = None
    ) -> bytes:
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(now() + since)
            .next_update(now() + until)
        )
        for serial in self.revoked:
            taken_back = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now())
            builder = builder.add_revoked_certificate(taken_back.build())
        return builder.sign(key or self.key, SHA256()).public_bytes(Encoding.DER)

    def answer(
        self,
        certificate: x509.Certificate,
        *,
        status: Any = None,
        by: "Issuer | None" = None,
        until: timedelta = timedelta(days=1),
    ) -> bytes:
        is_revoked = certificate.serial_number in self.revoked
        builder = ocsp.OCSPResponseBuilder().add_response(
            cert=certificate,
            issuer=self.certificate,
            algorithm=SHA1(),
            cert_status=status or (ocsp.OCSPCertStatus.REVOKED if is_revoked else ocsp.OCSPCertStatus.GOOD),
            this_update=now() - timedelta(days=2),
            next_update=now() + until,
            revocation_time=now() - timedelta(hours=1) if is_revoked else None,
            revocation_reason=None,
        )
        signer = by or self
        builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, signer.certificate)
        if by is not None:
            builder = builder.certificates([by.certificate])
        return builder.sign(signer.key, SHA256()).public_bytes(Encoding.DER)


def root() -> Issuer:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _named("Canary root")
    certificate = (
        x509.CertificateBuilder()
        .issuer_name(name)
        .subject_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now() - timedelta(days=400))
        .not_valid_after(now() + timedelta(days=4000))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=2), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .sign(key, SHA256())
    )
    return Issuer("root", key, certificate)


def self_signed(name: str, key: RSAPrivateKey) -> x509.Certificate:
    """As somebody makes who knows no authority."""
    alone = Issuer(name, key, root().certificate)
    builder = (
        x509.CertificateBuilder()
        .issuer_name(_named(name))
        .subject_name(_named(name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now() - timedelta(days=1))
        .not_valid_after(now() + timedelta(days=5))
        .add_extension(x509.SubjectAlternativeName([alternative(name)]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    )
    return builder.sign(alone.key, SHA256())


class Web:
    """Files that are served, and what was asked for. A file may be a function of the request's body."""

    def __init__(self) -> None:
        self.files: dict[str, bytes | Callable[[bytes], bytes] | int] = {}
        self.asked: list[str] = []
        self.app = Starlette(routes=[Route("/{path:path}", self._serve, methods=["GET", "POST"])])

    async def _serve(self, request: Request) -> Response:
        path = request.path_params["path"]
        self.asked.append(path)
        found = self.files.get(path, 404)
        if isinstance(found, int):
            return Response(status_code=found)
        return Response(found(await request.body()) if callable(found) else found)
