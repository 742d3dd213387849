"""What becomes of a recipient's part of a request. Whoever calls has locked the request, then the delivery."""

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import Row, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.events.privacy import ExportedRecords, Outcome, Verb
from libs.common.personal.data import Sealed
from services.privacy.domain.parts import ERASED
from services.privacy.domain.states import RECIPIENT, TERMINAL, TaskState
from services.privacy.engine.answers import record, settled
from services.privacy.engine.decisions import locked
from services.privacy.engine.tasks import IS_UNANSWERED, Answer
from services.privacy.evidence.entries import Noted, Step, note
from services.privacy.recipients import results
from services.privacy.recipients.protocols import Reply, Said
from services.privacy.recipients.words import DeliveryState, Role
from services.privacy.settings import present

JSON_MEMO = bindparam("memo", type_=JSONB(none_as_null=True))


def name_of(recipient_id: Any) -> str:
    """Under which name a recipient has its part: nobody can announce such a one."""
    return f"{RECIPIENT}{recipient_id}"


async def taken(
    session: AsyncSession,
    row: Row[Any],
    reply: Reply,
    state: DeliveryState,
    found: Sealed[ExportedRecords] | None,
    *,
    now: datetime,
) -> DeliveryState:
    """The recipient has it. What it says that it has done counts; if it says nothing, it has received or been told.

    Returns where the delivery is then: SENDING when it could not be done.
    """
    if row.request_id is None or state is DeliveryState.DONE:
        return DeliveryState.DONE
    if reply.said is not None:
        return await said(session, row, reply.said, found, now=now)
    role = Role(row.role)
    if state is DeliveryState.RECEIVED and role is Role.PROCESSOR:
        return state
    reached = TaskState.RECEIVED if role is Role.PROCESSOR else TaskState.TOLD
    await _answer(session, row, reached, {"outcome": reached}, now=now)
    return DeliveryState.RECEIVED if reached is TaskState.RECEIVED else DeliveryState.DONE


_ANSWERED = text("""
    UPDATE delivery SET answered_at = :now, answer_hash = :hash WHERE id = :id
""")


async def said(
    session: AsyncSession,
    row: Row[Any],
    what: Said,
    found: Sealed[ExportedRecords] | None = None,
    *,
    now: datetime,
) -> DeliveryState:
    """What a recipient says that it has done, and has found. A failure is no end: it is asked again."""
    if what.outcome is Outcome.FAILED:
        return DeliveryState.SENDING
    content = {
        "outcome": what.outcome,
        "counts": dict(what.counts),
        "retained": [dict(one) for one in what.retained],
    }
    if found is not None:
        content |= await results.keep(session, row, name_of(row.recipient_id), found)
    await _answer(session, row, TaskState(what.outcome), content, now=now)
    await session.execute(_ANSWERED, {"id": row.id, "now": now, "hash": hash_of(what)})
    return DeliveryState.DONE


def hash_of(what: Said) -> bytes:
    """By which the same answer, given again, is known."""
    content = [what.outcome, dict(what.counts), [dict(one) for one in what.retained], what.reason]
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).digest()


async def nobody_known(session: AsyncSession, row: Row[Any], *, now: datetime) -> None:
    """Nothing is known by which anybody outside could find the person: there is nothing to tell."""
    content = {"outcome": TaskState.NOTHING_HELD, "reason": "nobody-known"}
    await _answer(session, row, TaskState.NOTHING_HELD, content, now=now)


_SETTLED = text(f"""
    UPDATE task SET state = 'settled', answer = CAST(:answer AS jsonb), answered_at = :now, next_issue_at = NULL
    WHERE request_id = :id AND recipient_id = :recipient_id AND verb = :verb AND {IS_UNANSWERED}
    RETURNING participant
""")  # noqa: S608 - a constant of the engine


async def erased(session: AsyncSession, row: Row[Any], *, now: datetime) -> None:
    """Its person was erased before it was told of this: it is told of that."""
    request = await locked(session, row.store_id, row.request_id)
    said = {"outcome": TaskState.SETTLED, "ground": ERASED}
    answer = orjson.dumps({**said, "counts": {}, "retained": []}).decode()
    of_part = {"id": row.request_id, "recipient_id": row.recipient_id, "verb": row.what}
    if await session.scalar(_SETTLED, of_part | {"answer": answer, "now": now}) is None:
        return
    name = name_of(row.recipient_id)
    facts = {"participant": name, "verb": row.what, "round": request.round, **said}
    await note(session, row.store_id, [Noted(request.id, Step.SETTLED, facts)], now=now)
    taken = [(request.id, name, Verb(row.what))]
    expected = sorted(present().participants)
    await settled(session, row.store_id, {request.id: request}, taken, expected=expected, now=now)


_ROUND = text("SELECT round FROM request WHERE id = :id AND store_id = :store_id")


async def _answer(
    session: AsyncSession, row: Row[Any], state: TaskState, content: Mapping[str, Any], *, now: datetime
) -> None:
    """As a participant's answer, in the round that the request is in: what a recipient was told holds for all."""
    values = {"id": row.request_id, "store_id": row.store_id}
    present_round = (await session.execute(_ROUND, values)).scalar_one()
    answer = Answer(
        request_id=row.request_id,
        participant=name_of(row.recipient_id),
        verb=Verb(row.what),
        round=present_round,
        state=state,
        content=content,
    )
    await record(session, row.store_id, [answer], expected=sorted(present().participants), now=now)
    if state not in TERMINAL:
        await session.execute(_WAITED_FOR, values | {"recipient_id": row.recipient_id, "verb": row.what})


_WAITED_FOR = text("""
    UPDATE task SET next_issue_at = NULL
    WHERE request_id = :id AND recipient_id = :recipient_id AND verb = :verb
""")
_FAILED = text("""
    UPDATE task SET attempts = attempts + 1, next_issue_at = :next_try_at,
        state = CASE state WHEN 'received' THEN state ELSE 'failed' END,
        answer = jsonb_build_object('outcome', 'failed', 'reason', CAST(:reason AS text))
    WHERE request_id = :id AND recipient_id = :recipient_id AND verb = :verb AND store_id = :store_id
        AND state IN ('waiting', 'failed', 'received')
""")


async def failed(session: AsyncSession, row: Row[Any], reason: str, *, next_try_at: datetime | None) -> None:
    """It does not have it yet: that and when it is tried again is seen at the request. Every try is on record with the
    delivery, and none is in the evidence, which says what came of them.
    """
    if row.request_id is not None:
        values = {
            "id": row.request_id,
            "store_id": row.store_id,
            "recipient_id": row.recipient_id,
            "verb": row.what,
            "reason": reason,
            "next_try_at": next_try_at,
        }
        await session.execute(_FAILED, values)
