"""The recipients of a store: registered, changed, tested, paused and disabled by whoever answers for it."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import httpx
from sqlalchemy import func, literal, select, text, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.db import ring_after_commit
from libs.common.errors import NotFound, Unprocessable
from libs.common.events.privacy import Verb
from libs.common.http import cursor_at, position_in, require_match
from libs.common.settings import key_bytes
from services.privacy.domain.problems import (
    AddressNotAllowed,
    DeliveryOver,
    RecipientDisabled,
    RecipientNotTested,
    TooManyRecipients,
)
from services.privacy.engine.phases import DELIVERIES
from services.privacy.models import Task
from services.privacy.recipients import deliveries, signing_secrets
from services.privacy.recipients.models import Delivery, DeliveryAttempt, Recipient
from services.privacy.recipients.schemas import NewRecipient, RecipientChange
from services.privacy.recipients.speaking import PARTIAL_PROTOCOLS, part_in
from services.privacy.recipients.words import TEST, DeliveryState, Disabled, Protocol, RecipientState
from services.privacy.settings import Settings

MOST = 100
"""Recipients that a store has at once, without the disabled ones."""
_ONE_AT_A_TIME = text("SELECT pg_advisory_xact_lock(hashtextextended('recipients of ' || :store_id, 0))")


def check_address(url: str, settings: Settings) -> None:
    """Raises AddressNotAllowed. Where its name leads is looked at whenever something is sent."""
    try:
        parsed = httpx.URL(url)
        host, _ = parsed.host, parsed.netloc.decode("ascii")
    except (httpx.InvalidURL, ValueError):
        raise AddressNotAllowed from None
    schemes = {"https", "http"} if settings.outgoing_http else {"https"}
    if parsed.scheme not in schemes or not host or parsed.userinfo or parsed.fragment or "#" in url:
        raise AddressNotAllowed


async def register(
    session: AsyncSession, *, store_id: UUID, wanted: NewRecipient, settings: Settings, now: datetime
) -> tuple[Recipient, str | None]:
    """A new recipient and its secret, unless that is its own. Raises AddressNotAllowed, TooManyRecipients."""
    check_address(wanted.url, settings)
    await session.execute(_ONE_AT_A_TIME, {"store_id": str(store_id)})
    number = await session.scalar(
        select(func.count())
        .select_from(Recipient)
        .where(Recipient.store_id == store_id, Recipient.state != RecipientState.DISABLED)
    )
    if (number or 0) >= MOST:
        raise TooManyRecipients(most=MOST)
    recipient = Recipient(
        id=uuid4(),
        store_id=store_id,
        **wanted.model_dump(exclude={"credential"}),
        state=RecipientState.TESTING,
        verbs=[verb.value for verb in part_in(wanted.role, wanted.protocol)],
        registered_at=now,
        version=1,
    )
    session.add(recipient)
    given = wanted.credential.get_secret_value() if wanted.credential else None
    secret = signing_secrets.make(session, recipient, key_bytes(settings.master_key), now=now, given=given)
    await session.flush()
    return recipient, None if given else secret


async def one(session: AsyncSession, *, store_id: UUID, recipient_id: UUID, lock: bool = False) -> Recipient:
    """A recipient. Raises NotFound."""
    statement = select(Recipient).where(Recipient.store_id == store_id, Recipient.id == recipient_id)
    found = await session.scalar(statement.with_for_update() if lock else statement)
    if found is None:
        raise NotFound
    return found


async def names_of(session: AsyncSession, store_id: UUID, tasks: Iterable[Task]) -> Mapping[UUID, str]:
    """The names of the recipients among these parts."""
    ids = {one.recipient_id for one in tasks if one.recipient_id is not None}
    if not ids:
        return {}
    rows = await session.execute(
        select(Recipient.id, Recipient.name).where(Recipient.store_id == store_id, Recipient.id.in_(ids))
    )
    return {row.id: row.name for row in rows}


async def names_for(session: AsyncSession, store_id: UUID, verb: Verb, *, in_part: bool) -> Sequence[str]:
    """Who would have a part in something that is asked now; `in_part`: in an erasure that is not of everything."""
    conditions = [Recipient.protocol.in_(PARTIAL_PROTOCOLS)] if in_part else []
    found = await session.scalars(
        select(Recipient.name).where(
            Recipient.store_id == store_id,
            Recipient.state != RecipientState.DISABLED,
            literal(verb.value) == Recipient.verbs.any_(),
            *conditions,
        )
    )
    return found.all()


async def of_store(
    session: AsyncSession, *, store_id: UUID, state: RecipientState | None, cursor: str | None, limit: int
) -> tuple[list[Recipient], str | None]:
    """The recipients of a store, the newest first. Raises InvalidCursor."""
    statement = select(Recipient).where(Recipient.store_id == store_id)
    if state is not None:
        statement = statement.where(Recipient.state == state)
    if cursor is not None:
        statement = statement.where(tuple_(Recipient.registered_at, Recipient.id) < position_in(cursor))
    statement = statement.order_by(Recipient.registered_at.desc(), Recipient.id.desc()).limit(limit + 1)
    found = list((await session.scalars(statement)).all())
    last = found[limit - 1] if len(found) > limit else None
    return found[:limit], cursor_at(last.registered_at, last.id) if last is not None else None


async def change(
    session: AsyncSession,
    *,
    store_id: UUID,
    recipient_id: UUID,
    wanted: RecipientChange,
    settings: Settings,
    if_match: str | None,
) -> Recipient:
    """Raises NotFound, PreconditionRequired, PreconditionFailed, AddressNotAllowed, RecipientDisabled."""
    recipient = await one(session, store_id=store_id, recipient_id=recipient_id, lock=True)
    require_match(if_match, recipient.version)
    if recipient.state == RecipientState.DISABLED:
        raise RecipientDisabled
    changes = wanted.model_dump(exclude_unset=True)
    if wanted.url is not None and wanted.url != recipient.url:
        check_address(wanted.url, settings)
        recipient.state = RecipientState.TESTING
    for name, value in changes.items():
        if value is not None or name in {"country", "contract_on"}:
            setattr(recipient, name, value)
    recipient.version += 1
    await session.flush()
    return recipient


# --- Whether it is sent to -------------------------------------------------------------------------------


async def pause(session: AsyncSession, *, store_id: UUID, recipient_id: UUID) -> Recipient:
    """What is for it waits. A second time changes nothing. Raises NotFound, RecipientDisabled."""
    recipient = await _enabled(session, store_id, recipient_id)
    if recipient.state != RecipientState.PAUSED:
        recipient.state, recipient.version = RecipientState.PAUSED, recipient.version + 1
    return recipient


async def resume(session: AsyncSession, *, store_id: UUID, recipient_id: UUID) -> Recipient:
    """What waited is sent. Raises NotFound, RecipientDisabled, RecipientNotTested."""
    recipient = await _enabled(session, store_id, recipient_id)
    if recipient.reached_at is None or recipient.state == RecipientState.TESTING:
        raise RecipientNotTested
    if recipient.state != RecipientState.ACTIVE:
        recipient.state, recipient.version = RecipientState.ACTIVE, recipient.version + 1
    ring_after_commit(session, DELIVERIES)
    return recipient


async def disable(session: AsyncSession, *, store_id: UUID, recipient_id: UUID) -> Recipient:
    """Nothing is sent to it any more. Raises NotFound."""
    await one(session, store_id=store_id, recipient_id=recipient_id)
    await deliveries.disable(session, store_id, recipient_id, Disabled.BY_MERCHANT)
    session.expire_all()
    return await one(session, store_id=store_id, recipient_id=recipient_id)


async def rotate(
    session: AsyncSession,
    *,
    store_id: UUID,
    recipient_id: UUID,
    at_once: bool,
    given: str | None,
    settings: Settings,
    now: datetime,
) -> str | None:
    """A new secret, or the recipient's own that it has `given`. Raises NotFound, RecipientDisabled, Unprocessable."""
    recipient = await _enabled(session, store_id, recipient_id)
    if (given is not None) != (recipient.protocol == Protocol.OPENDSR):
        raise Unprocessable("An OpenDSR processor gives you a credential; for others a secret is made here.")
    recipient.version += 1
    key = key_bytes(settings.master_key)
    secret = await signing_secrets.rotate(session, recipient, key, at_once=at_once, now=now, given=given)
    return None if given else secret


async def _enabled(session: AsyncSession, store_id: UUID, recipient_id: UUID) -> Recipient:
    recipient = await one(session, store_id=store_id, recipient_id=recipient_id, lock=True)
    if recipient.state == RecipientState.DISABLED:
        raise RecipientDisabled
    return recipient


# --- What is sent to it ----------------------------------------------------------------------------------


async def test(session: AsyncSession, *, store_id: UUID, recipient_id: UUID, now: datetime) -> Delivery:
    """Something about nobody is sent, once. Raises NotFound, RecipientDisabled."""
    await _enabled(session, store_id, recipient_id)
    delivery = Delivery(
        id=uuid4(),
        store_id=store_id,
        recipient_id=recipient_id,
        what=TEST,
        state=DeliveryState.SENDING,
        next_try_at=now,
        made_at=now,
        attempts=0,
        failures=0,
        round=1,
    )
    session.add(delivery)
    await session.flush()
    ring_after_commit(session, DELIVERIES)
    return delivery


async def delivery(
    session: AsyncSession, *, store_id: UUID, recipient_id: UUID, delivery_id: UUID, lock: bool = False
) -> Delivery:
    """A delivery. Raises NotFound."""
    statement = select(Delivery).where(
        Delivery.store_id == store_id, Delivery.recipient_id == recipient_id, Delivery.id == delivery_id
    )
    found = await session.scalar(statement.with_for_update() if lock else statement)
    if found is None:
        raise NotFound
    return found


async def deliveries_of(
    session: AsyncSession,
    *,
    store_id: UUID,
    recipient_id: UUID,
    state: DeliveryState | None,
    cursor: str | None,
    limit: int,
) -> tuple[list[Delivery], str | None]:
    """What was sent to a recipient, the newest first. Raises NotFound, InvalidCursor."""
    await one(session, store_id=store_id, recipient_id=recipient_id)
    statement = select(Delivery).where(Delivery.store_id == store_id, Delivery.recipient_id == recipient_id)
    if state is not None:
        statement = statement.where(Delivery.state == state)
    if cursor is not None:
        statement = statement.where(tuple_(Delivery.made_at, Delivery.id) < position_in(cursor))
    statement = statement.order_by(Delivery.made_at.desc(), Delivery.id.desc()).limit(limit + 1)
    found = list((await session.scalars(statement)).all())
    last = found[limit - 1] if len(found) > limit else None
    return found[:limit], cursor_at(last.made_at, last.id) if last is not None else None


async def attempts_of(
    session: AsyncSession,
    *,
    store_id: UUID,
    recipient_id: UUID,
    delivery_id: UUID,
    after: int,
    limit: int,
) -> tuple[list[DeliveryAttempt], int | None]:
    """The tries of a delivery, in their order. Raises NotFound."""
    await delivery(session, store_id=store_id, recipient_id=recipient_id, delivery_id=delivery_id)
    statement = (
        select(DeliveryAttempt)
        .where(DeliveryAttempt.delivery_id == delivery_id, DeliveryAttempt.store_id == store_id)
        .where(DeliveryAttempt.number > after)
        .order_by(DeliveryAttempt.number)
        .limit(limit + 1)
    )
    found = list((await session.scalars(statement)).all())
    return found[:limit], found[limit - 1].number if len(found) > limit else None


async def send_again(
    session: AsyncSession, *, store_id: UUID, recipient_id: UUID, delivery_id: UUID, now: datetime
) -> Delivery:
    """The same, under the same id, once more and now. Raises NotFound, RecipientDisabled, DeliveryOver."""
    row = await delivery(
        session, store_id=store_id, recipient_id=recipient_id, delivery_id=delivery_id, lock=True
    )
    if (await one(session, store_id=store_id, recipient_id=recipient_id)).state == RecipientState.DISABLED:
        raise RecipientDisabled
    if row.state in {DeliveryState.VOID, DeliveryState.COLLECTING}:
        raise DeliveryOver
    again: dict[str, Any] = {"next_try_at": now, "failures": 0}
    if row.state == DeliveryState.STUCK:
        again["state"] = DeliveryState.SENDING
    await session.execute(update(Delivery).where(Delivery.id == delivery_id).values(again))
    await session.refresh(row)
    ring_after_commit(session, DELIVERIES)
    return row
