"""Processors outside call us back. Nothing of a call is read before it is known whose it is.

domain on our list ──► certificate ──► signature over the raw bytes ──► our own address ──► a request of theirs
       403                 403                    403                          400                  404
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text

from libs.common.db import Database
from libs.common.errors import NotFound
from libs.common.events.privacy import Verb
from libs.common.outgoing import Outgoing
from services.privacy.domain.problems import CallbackNotSigned
from services.privacy.opendsr.certificates import Certificates
from services.privacy.opendsr.peers import Doubtful, check_signature, discovered, domain_of
from services.privacy.opendsr.signatures import DOMAIN, named
from services.privacy.opendsr.wire import Callback, Fault, RequestStatus, read, refused
from services.privacy.recipients import answering
from services.privacy.recipients.opendsr import said_of

_ADDRESSES = 5
"""Of one domain that are looked at: a processor has one, or one for each of its customers."""
# The host of an address, and its port, if any, begin behind the scheme.
_OF_DOMAIN = text("""
    SELECT url FROM recipient
    WHERE protocol = 'opendsr' AND state <> 'disabled'
        AND (url ~* ('^https?://' || CAST(:escaped AS text) || '([:/]|$)'))
    GROUP BY url ORDER BY max(reached_at) DESC NULLS LAST, url LIMIT :limit
""")
_DELIVERY = text("""
    SELECT delivery.*, recipient.role, recipient.protocol, recipient.url FROM delivery
    JOIN recipient ON recipient.id = delivery.recipient_id
    WHERE delivery.id = :id AND delivery.request_id IS NOT NULL AND recipient.protocol = 'opendsr'
        AND recipient.state <> 'disabled'
""")
_LOOK = text("""
    UPDATE delivery SET next_try_at = :now WHERE id = :id AND store_id = :store_id AND state = 'received'
""")


@dataclass(frozen=True, slots=True, repr=False)
class Call:
    """What came, unread."""

    headers: Mapping[str, str]
    body: bytes


async def hear(
    database: Database,
    outgoing: Outgoing,
    certificates: Certificates,
    call: Call,
    *,
    addresses: frozenset[str],
    now: datetime,
) -> None:
    """Take what a processor says of a request. Raises CallbackNotSigned, NotOpenDsr, NotFound, AlreadyAnswered."""
    domain = await _sender(database, outgoing, certificates, call, now=now)
    callback = read(Callback, call.body)
    if callback.status_callback_url not in addresses:
        words = "status_callback_url is not the address that was given."
        raise refused([Fault(domain="Validation", reason="address", message=words)])
    async with database.platform_session() as session:
        found = (await session.execute(_DELIVERY, {"id": UUID(callback.subject_request_id)})).one_or_none()
    if found is None or domain_of(found.url) != domain:
        raise NotFound
    await _take(database, found, callback, now=now)


async def _sender(
    database: Database,
    outgoing: Outgoing,
    certificates: Certificates,
    call: Call,
    *,
    now: datetime,
) -> str:
    """The domain that signed these bytes. Whoever it is not is told no more than that."""
    domain = (named(call.headers, (DOMAIN[0].lower(), DOMAIN[1].lower())) or "").lower()
    if not 0 < len(domain) <= 253 or not domain.isascii() or "\0" in domain:
        raise CallbackNotSigned
    async with database.platform_session() as session:
        values = {"escaped": _escaped(domain), "limit": _ADDRESSES}
        bases = (await session.scalars(_OF_DOMAIN, values)).all()
    for base in bases:
        try:
            peer = await discovered(outgoing, base, now=now)
            await check_signature(peer, certificates, call.headers, call.body, now=now)
        except Doubtful:
            continue
        return domain
    raise CallbackNotSigned


def _escaped(domain: str) -> str:
    return "".join(one if one.isalnum() else f"\\{one}" for one in domain)


async def _take(database: Database, found: Any, callback: Callback, *, now: datetime) -> None:
    said = said_of(callback.request_status, callback.results_count)
    if said is None:
        return
    async with database.session(found.store_id) as session:
        if found.what == Verb.EXPORT and callback.request_status is RequestStatus.COMPLETED:
            # What it found is fetched, by whoever asks for its state next: that is now.
            await session.execute(_LOOK, {"id": found.id, "store_id": found.store_id, "now": now})
        else:
            await answering.take(session, found, said, now=now)
