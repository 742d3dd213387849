"""The duty that sends outside: claimed under a lease, sent outside any transaction, and every try on record.

A crash between the sending and the record sends the same again, under the same id; nothing is lost by one.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import cache
from typing import Any
from uuid import UUID

from pydantic import IPvAnyNetwork
from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.db import ring_after_commit
from libs.common.errors import Unavailable
from libs.common.events.privacy import ExportedRecords, Outcome
from libs.common.outgoing import Outgoing
from libs.common.personal.data import Sealed
from libs.common.personal.errors import KeyDestroyed, SubjectErased
from libs.common.settings import key_bytes
from libs.common.telemetry import joint_spans, meter
from libs.common.worker import Work
from services.privacy.domain.problems import RecipientDisabled
from services.privacy.engine.phases import DELIVERIES
from services.privacy.recipients import composing, outcomes, results, signing_secrets
from services.privacy.recipients.protocols import Reply, Sending
from services.privacy.recipients.schedule import pause_after
from services.privacy.recipients.speaking import POLLED, PROTOCOLS
from services.privacy.recipients.words import TEST, DeliveryState, Disabled, Protocol
from services.privacy.settings import Settings, present

logger = logging.getLogger(__name__)

LEASE = timedelta(seconds=90)
_TRY_SECONDS = 60.0
"""All of one try, of however many calls it consists."""
_AT_ONCE = 40
_OF_ONE_AT_ONCE = 5
"""A recipient that is slow keeps only so many at a time from those of others."""

_tries = meter.create_counter(
    "privacy.deliveries.tries", description="Tries to deliver outside, by how they ended."
)


# --- Claiming --------------------------------------------------------------------------------------------

_CLAIM = text("""
    WITH due AS (
        SELECT delivery.id, next_try_at,
            row_number() OVER (PARTITION BY recipient_id ORDER BY next_try_at) AS position
        FROM delivery JOIN recipient ON recipient.id = recipient_id
        WHERE next_try_at <= :now
            AND (recipient.state = 'active' OR delivery.what = 'test' AND recipient.state <> 'disabled')
    ), taken AS (
        SELECT id FROM delivery WHERE next_try_at <= :now
            AND id IN (SELECT id FROM due WHERE position <= :of_one ORDER BY next_try_at LIMIT :limit)
        FOR UPDATE SKIP LOCKED
    ), claimed AS (
        UPDATE delivery SET next_try_at = :until, attempts = attempts + 1 FROM taken WHERE delivery.id = taken.id
        RETURNING delivery.*
    )
    SELECT claimed.*, recipient.role, recipient.protocol, recipient.url, recipient.options, known.name AS store_name,
        request.traceparent
    FROM claimed JOIN recipient ON recipient.id = claimed.recipient_id
        LEFT JOIN request ON request.id = claimed.request_id
        LEFT JOIN known_store AS known ON known.store_id = claimed.store_id
""")


async def deliver(work: Work) -> int:
    """Send what is due. Returns 0 unless more may be waiting. Raises Unavailable when the keyring is away."""
    now = work.clock()
    claim = {"now": now, "until": now + LEASE, "limit": _AT_ONCE, "of_one": _OF_ONE_AT_ONCE}
    async with work.database.platform_session() as session:
        rows = (await session.execute(_CLAIM, claim)).all()
    results = await asyncio.gather(*(_traced(work, row) for row in rows), return_exceptions=True)
    if problem := next((one for one in results if isinstance(one, BaseException)), None):
        raise problem
    return len(rows)


# --- One try ---------------------------------------------------------------------------------------------


async def _traced(work: Work, row: Row[Any]) -> None:
    """Every try has a span in the trace of its request; whom it is for is not in it."""
    with joint_spans([(f"deliver {row.what}", row.traceparent)], service="privacy"):
        await _deliver(work, row)


async def _deliver(work: Work, row: Row[Any]) -> None:
    try:
        body = await composing.body_of(work, row)
    except Unavailable:
        await _put_back(work, row)
        raise
    except composing.NobodyKnown:
        await _end(work, row, outcomes.nobody_known)
        return
    except (KeyDestroyed, SubjectErased):
        # Whoever was erased meanwhile is told of by their erasure.
        await _end(work, row, outcomes.erased)
        return
    began = time.monotonic()
    reply = await _tried(work, row, body)
    milliseconds = round((time.monotonic() - began) * 1000)
    _tries.add(1, {"protocol": row.protocol, "outcome": reply.word or "taken"})
    try:
        found = await results.sealed(work, row, reply.said) if reply.said is not None else None
    except SubjectErased:
        await _end(work, row, outcomes.erased)
        return
    async with work.database.session(row.store_id) as session:
        await _record(session, row, reply, found, milliseconds=milliseconds, now=work.clock())
    if reply.gone:
        async with work.database.session(row.store_id) as session:
            await disable(session, row.store_id, row.recipient_id, Disabled.GONE)


async def _tried(work: Work, row: Row[Any], body: bytes) -> Reply:
    now, settings = work.clock(), present()
    async with work.database.session(row.store_id) as session:
        secrets = await signing_secrets.in_force(
            session, row.recipient_id, key_bytes(settings.master_key), now=now
        )
    sending = Sending(
        delivery_id=row.id,
        to=composing.to(row),
        what=row.what,
        body=body,
        made_at=row.made_at,
        now=now,
        secrets=secrets,
        outgoing=outgoing_of(settings),
        memo=row.memo or {},
    )
    spoken: Any = PROTOCOLS[Protocol(row.protocol)]
    try:
        async with asyncio.timeout(_TRY_SECONDS):
            return await (spoken.poll if _is_polled(row) else spoken.send)(sending)
    except TimeoutError:
        return Reply(word="too-slow")


def _is_polled(row: Row[Any]) -> bool:
    """Whether there is nothing to send, and only to ask how far it is."""
    return row.state == DeliveryState.RECEIVED and Protocol(row.protocol) in POLLED


def outgoing_of(settings: Settings) -> Outgoing:
    """What calls outside, as the operator allows it."""
    authorities = settings.outgoing_authorities
    return _outgoing(
        tuple(settings.outgoing_networks), settings.outgoing_http, str(authorities) if authorities else None
    )


@cache
def _outgoing(networks: tuple[IPvAnyNetwork, ...], plain: bool, authorities: str | None) -> Outgoing:
    return Outgoing(networks=networks, plain=plain, authorities=authorities)


# --- What came of it -------------------------------------------------------------------------------------

_LOCK_REQUEST = text("SELECT FROM request WHERE id = :id AND store_id = :store_id FOR UPDATE")
_LOCK = text("SELECT state, failures FROM delivery WHERE id = :id AND attempts = :attempts FOR UPDATE")
_ATTEMPT = text("""
    INSERT INTO delivery_attempt (delivery_id, number, store_id, at, status, milliseconds, word)
    VALUES (:id, :attempts, :store_id, :now, :status, :milliseconds, :word) ON CONFLICT DO NOTHING
""")
_SAVE = text("""
    UPDATE delivery SET state = :state, failures = :failures, next_try_at = :next_try_at, memo = :memo,
        taken_at = CASE WHEN :taken THEN coalesce(taken_at, :now) ELSE taken_at END
    WHERE id = :id
""").bindparams(outcomes.JSON_MEMO)
_REACHED = text("""
    UPDATE recipient SET reached_at = :now, version = version + CASE state WHEN 'testing' THEN 1 ELSE 0 END,
        state = CASE state WHEN 'testing' THEN 'active' ELSE state END
    WHERE id = :recipient_id AND store_id = :store_id AND state <> 'disabled'
""")


async def _record(
    session: AsyncSession,
    row: Row[Any],
    reply: Reply,
    found: Sealed[ExportedRecords] | None,
    *,
    milliseconds: int,
    now: datetime,
) -> None:
    """The try, what it means for the delivery, and what for the request. Its request is locked first, as ever."""
    of_row = {"id": row.id, "store_id": row.store_id, "attempts": row.attempts, "now": now}
    await session.execute(_LOCK_REQUEST, {"id": row.request_id, "store_id": row.store_id})
    last = (await session.execute(_LOCK, of_row)).one_or_none()
    tried = {"status": reply.status, "milliseconds": milliseconds, "word": reply.word}
    await session.execute(_ATTEMPT, of_row | tried)
    if last is None or last.state == DeliveryState.VOID:
        # Another worker has it since the lease ended, or it is not to be sent any more.
        return
    if reply.word:
        await _failed(session, row, reply, last, now=now)
    else:
        await _taken(session, row, reply, found, last, now=now)


async def _taken(
    session: AsyncSession,
    row: Row[Any],
    reply: Reply,
    found: Sealed[ExportedRecords] | None,
    last: Row[Any],
    *,
    now: datetime,
) -> None:
    await session.execute(_REACHED, {"recipient_id": row.recipient_id, "store_id": row.store_id, "now": now})
    state = await outcomes.taken(session, row, reply, DeliveryState(last.state), found, now=now)
    again = reply.poll_at if state is DeliveryState.RECEIVED else None
    if state is DeliveryState.SENDING:
        # It was taken, and could not be done: told so, we ask again.
        await _failed(session, row, reply, last, now=now)
    else:
        await _save(session, row, reply, state, failures=0, next_try_at=again, taken=True, now=now)


async def _failed(
    session: AsyncSession, row: Row[Any], reply: Reply, last: Row[Any], *, now: datetime
) -> None:
    failures = last.failures + 1
    state, pause = DeliveryState(last.state), pause_after(failures, asked=reply.retry_after)
    if state is DeliveryState.SENDING and (pause is None or reply.gone):
        state, pause = DeliveryState.STUCK, None
    elif state is not DeliveryState.SENDING and not _is_polled(row):
        # It was taken before, and sent once more by hand.
        pause = None
    if row.what == TEST or _is_given_up(reply, last):
        state, pause = DeliveryState.STUCK, None
    next_try_at = now + pause if pause is not None else None
    await _save(session, row, reply, state, failures=failures, next_try_at=next_try_at, taken=False, now=now)
    word = reply.word or (reply.said.reason if reply.said else "") or "failed"
    await outcomes.failed(session, row, word, next_try_at=next_try_at)


def _is_given_up(reply: Reply, last: Row[Any]) -> bool:
    """Whether it had taken what it says now that it will not do: asking again changes nothing."""
    failed = reply.said is not None and reply.said.outcome is Outcome.FAILED
    return failed and last.state == DeliveryState.RECEIVED


async def _save(
    session: AsyncSession,
    row: Row[Any],
    reply: Reply,
    state: DeliveryState,
    *,
    failures: int,
    next_try_at: datetime | None,
    taken: bool,
    now: datetime,
) -> None:
    values = {
        "id": row.id,
        "state": state,
        "failures": failures,
        "next_try_at": next_try_at,
        "memo": dict(reply.memo) if reply.memo is not None else row.memo,
        "taken": taken,
        "now": now,
    }
    await session.execute(_SAVE, values)


_PUT_BACK = text(
    "UPDATE delivery SET next_try_at = :at, attempts = attempts - 1 WHERE id = :id AND attempts = :attempts"
)
_A_MOMENT = timedelta(seconds=2)


async def _put_back(work: Work, row: Row[Any]) -> None:
    """What it needed was away; nothing was tried."""
    async with work.database.session(row.store_id) as session:
        values = {"id": row.id, "attempts": row.attempts, "at": work.clock() + _A_MOMENT}
        await session.execute(_PUT_BACK, values)


_VOID = text("UPDATE delivery SET state = 'void', next_try_at = NULL WHERE id = :id")


async def _end(work: Work, row: Row[Any], ending: Callable[..., Awaitable[None]]) -> None:
    """There is nothing to send, or nothing any more: that ends the recipient's part too."""
    now = work.clock()
    async with work.database.session(row.store_id) as session:
        await session.execute(_LOCK_REQUEST, {"id": row.request_id, "store_id": row.store_id})
        await session.execute(_VOID, {"id": row.id})
        await ending(session, row, now=now)


# --- The end of a store ----------------------------------------------------------------------------------

_TELL_OF_END = text("""
    INSERT INTO delivery (id, store_id, recipient_id, what, state, next_try_at, made_at)
    SELECT gen_random_uuid(), store_id, id, 'store-ended', 'sending', :now, :now
    FROM recipient WHERE store_id = :store_id AND state <> 'disabled'
    ON CONFLICT DO NOTHING
""")


async def tell_of_end(session: AsyncSession, store_id: UUID, *, now: datetime) -> None:
    """Everybody outside is told, once, that the store is gone: what they have of it they have from nobody any more."""
    await session.execute(_TELL_OF_END, {"store_id": store_id, "now": now})
    ring_after_commit(session, DELIVERIES)


# --- By hand ---------------------------------------------------------------------------------------------

_DISABLE = text("""
    UPDATE recipient SET state = 'disabled', why = :why, version = version + 1
    WHERE id = :recipient_id AND store_id = :store_id AND state <> 'disabled' RETURNING id
""")
_STOP = text("""
    UPDATE delivery SET state = CASE WHEN state IN ('collecting', 'sending') THEN 'stuck' ELSE state END,
        next_try_at = NULL
    WHERE recipient_id = :recipient_id AND store_id = :store_id AND state NOT IN ('done', 'void')
""")
_STOPPED = text("""
    UPDATE task SET state = 'failed', next_issue_at = NULL, asked_at = coalesce(asked_at, now()),
        answer = jsonb_build_object('outcome', 'failed', 'reason', 'recipient-disabled')
    WHERE recipient_id = :recipient_id AND store_id = :store_id AND state IN ('waiting', 'failed', 'received')
""")


async def disable(session: AsyncSession, store_id: UUID, recipient_id: UUID, why: Disabled) -> None:
    """Nothing is sent there any more. What a request still waits for from it waits for whoever answers for the store:
    that somebody who has the person's data was not told is theirs to say, with a reason.
    """
    values = {"recipient_id": recipient_id, "store_id": store_id, "why": why}
    # Deliveries before their recipient, as whoever records a try takes them.
    await session.execute(_STOP, values)
    if await session.scalar(_DISABLE, values) is not None:
        await session.execute(_STOPPED, values)
        logger.warning("a recipient is disabled", extra={"reason": why, "store_id": str(store_id)})


_DRIVE = text("""
    UPDATE delivery SET next_try_at = :now, failures = 0,
        state = CASE delivery.state WHEN 'stuck' THEN 'sending' ELSE delivery.state END
    FROM recipient
    WHERE recipient.id = recipient_id AND recipient.state <> 'disabled' AND delivery.store_id = :store_id
        AND delivery.request_id = :request_id AND 'recipient-' || recipient_id = :participant AND what = :verb
        AND delivery.state IN ('sending', 'stuck', 'received')
    RETURNING delivery.id
""")


async def drive(
    session: AsyncSession, store_id: UUID, request_id: UUID, participant: str, verb: str, *, now: datetime
) -> None:
    """Send a recipient's part of a request again, now. Raises RecipientDisabled."""
    values = {"store_id": store_id, "request_id": request_id, "participant": participant, "verb": verb}
    if not (await session.scalars(_DRIVE, values | {"now": now})).all():
        raise RecipientDisabled
    ring_after_commit(session, DELIVERIES)


_STOP_PART = text("""
    UPDATE delivery SET state = 'void', next_try_at = NULL
    WHERE store_id = :store_id AND request_id = :request_id AND 'recipient-' || recipient_id = :participant
        AND what = :verb AND state IN ('collecting', 'sending', 'received', 'stuck')
""")


async def stop(session: AsyncSession, store_id: UUID, request_id: UUID, participant: str, verb: str) -> None:
    """Somebody has answered for a recipient's part: nothing is sent about it any more, nor waits for anybody."""
    values = {"store_id": store_id, "request_id": request_id, "participant": participant, "verb": verb}
    await session.execute(_STOP_PART, values)
