"""Processors outside: what they support, and whether what comes from them does come from them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError

from libs.common.outgoing import NotSent, Outgoing
from services.privacy.opendsr.certificates import Certificates, Untrusted
from services.privacy.opendsr.signatures import DOMAIN, SIGNATURE, is_signed, named
from services.privacy.opendsr.wire import Discovery

M = TypeVar("M", bound=BaseModel)

_KEPT_FOR = timedelta(hours=1)
_FAILURE_KEPT_FOR = timedelta(minutes=1)
_KEPT = 1000


class Doubtful(Exception):
    """Nothing is to be made of what a processor is or says. `word` says why."""

    def __init__(self, word: str) -> None:
        super().__init__(word)
        self.word = word


@dataclass(frozen=True, slots=True)
class Peer:
    """A processor, as it describes itself."""

    domain: str
    requests: str
    """Where it takes requests, by the names that it knows."""
    discovery: Discovery


def domain_of(base: str) -> str:
    """Which domain a processor at this address signs for."""
    return (urlsplit(base).hostname or "").lower()


# --- What it supports ------------------------------------------------------------------------------------

_NAMES = {"/v1/discovery": "/v1/requests", "/discovery": "/opengdpr_requests"}
"""Of OpenDSR, and before."""
_known: dict[str, tuple[datetime, Peer | str]] = {}


async def discovered(outgoing: Outgoing, base: str, *, now: datetime) -> Peer:
    """What is at an address, remembered for an hour; a failure for a minute. Raises Doubtful."""
    base = base.rstrip("/")
    until, found = _known.get(base, (now, ""))
    if now >= until:
        try:
            found, until = await _ask(outgoing, base), now + _KEPT_FOR
        except Doubtful as doubt:
            found, until = doubt.word, now + _FAILURE_KEPT_FOR
        if len(_known) >= _KEPT:
            _known.clear()
        _known[base] = until, found
    if isinstance(found, str):
        raise Doubtful(found)
    return found


def forget(base: str) -> None:
    """Whoever tests an address wants to know how it is now."""
    _known.pop(base.rstrip("/"), None)


async def _ask(outgoing: Outgoing, base: str) -> Peer:
    for path, requests in _NAMES.items():
        try:
            answer = await outgoing.send("GET", base + path, headers={"Accept": "application/json"})
        except NotSent as error:
            raise Doubtful(error.word) from None
        if answer.status == 200:
            return _peer(base, base + requests, answer.content)
        if answer.status not in {404, 405, 410}:
            raise Doubtful("discovery-refused")
    raise Doubtful("discovery-not-found")


def _peer(base: str, requests: str, content: bytes) -> Peer:
    discovery = understood(Discovery, content)
    domain = domain_of(base)
    if domain_of(discovery.processor_certificate) != domain:
        raise Doubtful("certificate-elsewhere")
    return Peer(domain, requests, discovery)


def understood(model: type[M], content: bytes) -> M:
    """A message of a processor. Raises Doubtful."""
    try:
        return model.model_validate_json(content)
    except ValidationError:
        raise Doubtful("answer-not-understood") from None


# --- Who said it -----------------------------------------------------------------------------------------


async def check_signature(
    peer: Peer, certificates: Certificates, headers: Mapping[str, str], body: bytes, *, now: datetime
) -> None:
    """That this processor signed these bytes, by a certificate that counts now. Raises Doubtful.

    `headers` by their names in lower case.
    """
    if (named(headers, _lower(DOMAIN)) or "").lower() != peer.domain:
        raise Doubtful("signed-by-another")
    signature, place = named(headers, _lower(SIGNATURE)), peer.discovery.processor_certificate
    try:
        certificate = await certificates.of(peer.domain, place, now=now)
        if is_signed(body, signature, certificate):
            return
        newer = await certificates.of(peer.domain, place, now=now, newer_than=certificate)
    except Untrusted as refusal:
        raise Doubtful(refusal.word) from None
    if not is_signed(body, signature, newer):
        raise Doubtful("signature-not-valid")


def _lower(names: tuple[str, str]) -> tuple[str, str]:
    return names[0].lower(), names[1].lower()
