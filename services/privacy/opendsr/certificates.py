"""Certificates of processors outside, checked for real: chain, time, name, and whether any of it was revoked.

What cannot be found out counts as bad. Whatever is refused has a fixed word, which staff are shown:

    certificate-not-reachable     the address gave none
    certificate-not-understood    what it gave is none
    certificate-self-signed       nobody else stands behind it
    certificate-expired           or is not valid yet
    certificate-of-another-name   the domain is not among its names
    certificate-not-trusted       no chain leads to an authority that we trust
    certificate-key-not-usable    no RSA key of 2048 bits at least
    certificate-revoked           its authority, or that of an authority, took it back
    revocation-unknown            nobody could say whether it was
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path
from typing import Any

import certifi
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.x509.general_name import DNSName, IPAddress
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from pydantic import IPvAnyNetwork

from libs.common.outgoing import NotSent, Outgoing
from services.privacy.opendsr import revocation
from services.privacy.opendsr.revocation import Revocations, Unknown
from services.privacy.opendsr.signatures import LEAST_BITS, names_of
from services.privacy.settings import Settings

_KEPT_FOR = timedelta(hours=1)
_REFETCHED_AFTER = timedelta(minutes=1)
"""A signature that does not fit may be of a newer key; a flood of such is no flood of calls."""
_KEPT = 1000
_INTERMEDIATES = 8
_DEPTH = 6
_SHORT_LIVED = timedelta(days=10)
"""What lives no longer needs no list of revocations (CA/Browser Forum, Baseline Requirements, 1.6.1)."""


class Untrusted(Exception):
    """The certificate is not to be believed. `word` says why."""

    def __init__(self, word: str) -> None:
        super().__init__(word)
        self.word = word


@dataclass(frozen=True, slots=True)
class _Known:
    certificate: x509.Certificate
    fetched_at: datetime
    until: datetime


class Certificates:
    """One per process: what was found out is remembered, for an hour at most."""

    def __init__(
        self,
        outgoing: Outgoing,
        revocations: Revocations,
        roots: Sequence[x509.Certificate],
        *,
        of_ours: bool,
    ) -> None:
        self._outgoing = outgoing
        self._revocations = revocations
        self._roots = Store(list(roots))
        self._of_ours = of_ours
        """Whether the operator named the authorities: those may have no list of what they revoked."""
        self._known: dict[tuple[str, str], _Known] = {}
        self._fetching: dict[tuple[str, str], asyncio.Lock] = {}

    async def of(
        self, domain: str, url: str, *, now: datetime, newer_than: x509.Certificate | None = None
    ) -> x509.Certificate:
        """The certificate of a domain, which lies at `url`, checked. Raises Untrusted.

        `newer_than`: one that did not fit a signature. It is fetched again, at most once in a minute.
        """
        place = (domain, url)
        async with self._fetching.setdefault(place, asyncio.Lock()):
            known = self._known.get(place)
            if known is not None and not _is_stale(known, newer_than, now):
                return known.certificate
            found = await self._fetched(url)
            until = await self._checked(domain, found, now)
            if len(self._known) >= _KEPT:
                self._known.clear()
                self._fetching.clear()
            self._known[place] = _Known(found[0], now, until)
            return found[0]

    async def _fetched(self, url: str) -> Sequence[x509.Certificate]:
        try:
            answer = await self._outgoing.send("GET", url)
        except NotSent:
            raise Untrusted("certificate-not-reachable") from None
        if answer.status != 200:
            raise Untrusted("certificate-not-reachable")
        return _read(answer.content)

    async def _checked(self, domain: str, found: Sequence[x509.Certificate], now: datetime) -> datetime:
        """Until when it may be believed. Raises Untrusted."""
        certificate, *between = found
        key = _public_key(certificate)
        if not isinstance(key, RSAPublicKey) or key.key_size < LEAST_BITS:
            raise Untrusted("certificate-key-not-usable")
        if certificate.issuer == certificate.subject:
            raise Untrusted("certificate-self-signed")
        if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
            raise Untrusted("certificate-expired")
        if domain not in names_of(certificate) and not _by_wildcard(domain, certificate):
            raise Untrusted("certificate-of-another-name")
        chain = self._chain(domain, certificate, between, now)
        until = min(now + _KEPT_FOR, certificate.not_valid_after_utc)
        for one, issuer in pairwise(chain):
            if self._may_do_without(one):
                continue
            try:
                until = min(until, await self._revocations.check(one, issuer, now=now))
            except revocation.Revoked:
                raise Untrusted("certificate-revoked") from None
            except Unknown:
                raise Untrusted("revocation-unknown") from None
        return until

    def _chain(
        self, domain: str, certificate: x509.Certificate, between: Sequence[x509.Certificate], now: datetime
    ) -> list[x509.Certificate]:
        """From the certificate to its authority."""
        policy = PolicyBuilder().store(self._roots).time(now.replace(tzinfo=None)).max_chain_depth(_DEPTH)
        try:
            return policy.build_server_verifier(_subject(domain)).verify(certificate, list(between))
        except (VerificationError, ValueError):
            raise Untrusted("certificate-not-trusted") from None

    def _may_do_without(self, certificate: x509.Certificate) -> bool:
        """Where nobody is named who could say that it was revoked."""
        lives = certificate.not_valid_after_utc - certificate.not_valid_before_utc
        return not revocation.sources_of(certificate) and (self._of_ours or lives <= _SHORT_LIVED)


def _is_stale(known: _Known, newer_than: x509.Certificate | None, now: datetime) -> bool:
    if not known.fetched_at <= now < known.until:
        return True
    return newer_than == known.certificate and now - known.fetched_at > _REFETCHED_AFTER


def _read(content: bytes) -> Sequence[x509.Certificate]:
    """One in DER, or several in PEM, the processor's own first. Raises Untrusted."""
    try:
        if b"-----BEGIN" not in content:
            return [x509.load_der_x509_certificate(content)]
        found = x509.load_pem_x509_certificates(content)
    except ValueError:
        raise Untrusted("certificate-not-understood") from None
    if len(found) > _INTERMEDIATES:
        raise Untrusted("certificate-not-understood")
    return found


def _public_key(certificate: x509.Certificate) -> Any:
    try:
        return certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        raise Untrusted("certificate-key-not-usable") from None


def _subject(domain: str) -> DNSName | IPAddress:
    try:
        return IPAddress(ip_address(domain))
    except ValueError:
        return DNSName(domain)


def _by_wildcard(domain: str, certificate: x509.Certificate) -> bool:
    return f"*.{domain.partition('.')[2]}" in names_of(certificate)


# --- Of the platform -------------------------------------------------------------------------------------


def certificates_of(settings: Settings) -> Certificates:
    """The platform's, as its operator allows it."""
    authorities = settings.outgoing_authorities
    return _certificates(
        tuple(settings.outgoing_networks),
        settings.outgoing_http,
        str(authorities) if authorities else None,
        settings.opendsr_authorities,
    )


@cache
def _certificates(
    networks: tuple[IPvAnyNetwork, ...], plain: bool, authorities: str | None, trusted: str | None
) -> Certificates:
    pem = trusted.encode() if trusted else Path(certifi.where()).read_bytes()
    return Certificates(
        Outgoing(networks=networks, plain=plain, authorities=authorities),
        # A list of revocations is signed, and its address is one of http as a rule (RFC 5280, 8).
        Revocations(Outgoing(networks=networks, plain=True, reply_bytes=revocation.LIST_BYTES)),
        x509.load_pem_x509_certificates(pem),
        of_ours=trusted is not None,
    )
