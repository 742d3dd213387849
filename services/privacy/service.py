"""Opening and reading requests."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import func, literal, select, text, tuple_
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.auth import Caller
from libs.common.db import ring_after_commit
from libs.common.errors import NotFound, Unavailable
from libs.common.events.privacy import Verb
from libs.common.http import InvalidCursor, Page, decode_cursor, encode_cursor
from libs.common.outbox import publish
from libs.common.personal.data import Sealed
from libs.common.personal.errors import SubjectErased
from libs.common.personal.tombstones import guard
from libs.common.personal.vault import Vault
from libs.common.stores import KnownStore
from libs.common.telemetry import current_traceparent
from services.privacy.domain import (
    FIRST_PAUSE,
    KEYRING,
    OVER,
    SIGNED_IN,
    AddressNotOfAccount,
    ErasureUnderWay,
    Right,
    TaskState,
    due_on,
)
from services.privacy.engine import KEYRING_TASKS, SOURCE, task
from services.privacy.kinds import RequestContact
from services.privacy.models import Participant, Request, Task
from services.privacy.schemas import (
    NewRequest,
    Part,
    ParticipantView,
    RequestDetail,
    RequestSummary,
    Step,
)

ACKNOWLEDGED_AFTER = timedelta(minutes=1)
"""A request that ends sooner gets one mail instead of two."""
DEFAULT_LANGUAGE = "en"
"""Of mails, where neither the person nor the store named one that we have."""


# --- Opening ---------------------------------------------------------------------------------------------


async def sealed_contact(
    vault: Vault, *, caller: Caller, asked: NewRequest, request_id: UUID, language: str
) -> Sealed[RequestContact]:
    """The address of the answer, under a key of the request's own.

    Raises AddressNotOfAccount, SubjectErased (also for a token of an earlier life), KeyringUnavailable.
    """
    if await vault.subject_id(caller.store_id, asked.email) != caller.customer:
        raise AddressNotOfAccount
    contact = RequestContact.model_validate({"email": asked.email, "language": asked.language or language})
    sealed = await vault.seal(
        contact, store_id=caller.store_id, subject_id=caller.customer, bucket=str(request_id)
    )
    if sealed.generation != caller.generation:
        raise SubjectErased
    return sealed.box


async def language_of(session: AsyncSession, store_id: UUID) -> str:
    """The language of a store's mails."""
    language = await session.scalar(select(KnownStore.language).where(KnownStore.store_id == store_id))
    return language if language in {"en", "fr"} else DEFAULT_LANGUAGE


async def open_request(
    session: AsyncSession,
    *,
    caller: Caller,
    right: Right,
    request_id: UUID,
    contact: Sealed[RequestContact],
    participants: Sequence[str],
    now: datetime,
) -> tuple[RequestSummary, bool]:
    """Open a request and issue what comes first, or join the open one of its kind. Returns whether it is new.

    Raises SubjectErased, ErasureUnderWay, Unavailable.
    """
    await guard(session, caller.store_id, caller.customer, caller.generation)
    if right is Right.ACCESS and await _open_one(session, caller, Right.ERASURE) is not None:
        raise ErasureUnderWay
    made = await session.scalar(_insert(caller, right, request_id, contact, now))
    if made is None:
        joined = await _open_one(session, caller, right)
        if joined is None:
            # It ended between the two statements: asking again opens another.
            raise Unavailable
        return summary(joined), False
    await _expect(session, caller.store_id, right, request_id, participants)
    if right is Right.ACCESS:
        await publish(session, task(made, Verb.EXPORT), store_id=caller.store_id, source=SOURCE)
    return summary(made), True


def _insert(
    caller: Caller, right: Right, request_id: UUID, contact: Sealed[RequestContact], now: datetime
) -> Any:
    return (
        upsert(Request)
        .values(
            id=request_id,
            store_id=caller.store_id,
            subject_id=caller.customer,
            generation=caller.generation,
            claim=right,
            state=SIGNED_IN[-1],
            steps=[{"state": state, "at": now.isoformat()} for state in SIGNED_IN],
            opened_at=now,
            due_on=due_on(now.astimezone(UTC).date()),
            contact=contact,
            notice="request-received",
            notice_at=now + ACKNOWLEDGED_AFTER,
            traceparent=current_traceparent(),
        )
        .on_conflict_do_nothing()
        .returning(Request)
    )


async def _open_one(session: AsyncSession, caller: Caller, right: Right) -> Request | None:
    return await session.scalar(
        select(Request).where(
            Request.store_id == caller.store_id,
            Request.subject_id == caller.customer,
            Request.generation == caller.generation,
            Request.claim == right,
            Request.state.not_in(OVER),
        )
    )


# Whoever announced itself and whoever is expected: one row each, in the transaction that opens the request. An
# erasure begins with the keyring; until the keys are gone it is nobody else's turn.
_EXPECT = text("""
    INSERT INTO task (request_id, participant, verb, store_id, next_issue_at)
    SELECT CAST(:request_id AS uuid), name, CAST(:verb AS text), CAST(:store_id AS uuid),
        CASE WHEN name = 'keyring' THEN now() ELSE now() + make_interval(secs => :pause) END
    FROM (SELECT name FROM participant UNION SELECT unnest(CAST(:expected AS text[]))) AS everybody (name)
""")


async def _expect(
    session: AsyncSession, store_id: UUID, right: Right, request_id: UUID, expected: Sequence[str]
) -> None:
    of_access = right is Right.ACCESS
    values = {
        "request_id": request_id,
        "verb": Verb.EXPORT if of_access else Verb.ERASE,
        "store_id": store_id,
        "expected": expected if of_access else [*expected, KEYRING],
        "pause": FIRST_PAUSE.total_seconds() if of_access else None,
    }
    await session.execute(_EXPECT, values)
    if not of_access:
        ring_after_commit(session, KEYRING_TASKS)


# --- Reading ---------------------------------------------------------------------------------------------


def summary(request: Request) -> RequestSummary:
    """A request as its person may see it."""
    return RequestSummary.model_validate(_fields(request))


def _fields(request: Request) -> dict[str, Any]:
    return {
        "id": request.id,
        "right": request.claim,
        "state": request.state,
        "opened_at": request.opened_at,
        "due_on": request.due_on,
        "completed_at": request.completed_at,
    }


async def get_request(
    session: AsyncSession, *, store_id: UUID, request_id: UUID, of: Caller | None
) -> tuple[RequestDetail, int]:
    """A request with everybody's part, and its version; only that person's own when `of` is given.

    Raises NotFound.
    """
    request = await session.scalar(
        select(Request).where(Request.id == request_id, Request.store_id == store_id, *_own(of))
    )
    if request is None:
        raise NotFound
    tasks = await session.scalars(
        select(Task)
        .where(Task.request_id == request_id, Task.store_id == store_id)
        .order_by(Task.verb, Task.participant)
    )
    steps = [Step.model_validate(step) for step in request.steps]
    detail = RequestDetail(**_fields(request), steps=steps, parts=[_part(one) for one in tasks])
    return detail, request.version


def _own(of: Caller | None) -> list[Any]:
    if of is None:
        return []
    return [Request.subject_id == of.customer, Request.generation == of.generation]


def _part(one: Task) -> Part:
    answer = one.answer or {}
    return Part.model_validate(
        {
            "participant": one.participant,
            "task": one.verb,
            "state": one.state,
            "answered_at": one.answered_at,
            "attempts": one.attempts,
            **{name: answer[name] for name in ("counts", "retained", "reason") if name in answer},
        }
    )


async def list_requests(
    session: AsyncSession, *, store_id: UUID, of: Caller | None, cursor: str | None, limit: int
) -> Page[RequestSummary]:
    """Newest first. Raises InvalidCursor."""
    statement = (
        select(Request)
        .where(Request.store_id == store_id, *_own(of))
        .order_by(Request.opened_at.desc(), Request.id.desc())
        .limit(limit + 1)
    )
    if cursor is not None:
        opened_at, id_ = _position(cursor)
        statement = statement.where(
            tuple_(Request.opened_at, Request.id) < tuple_(literal(opened_at), literal(id_))
        )
    rows = list(await session.scalars(statement))
    following = None
    if len(rows) > limit:
        following = encode_cursor(rows[limit - 1].opened_at.isoformat(), str(rows[limit - 1].id))
    return Page(items=[summary(row) for row in rows[:limit]], next=following)


def _position(cursor: str) -> tuple[datetime, UUID]:
    opened_at, id_ = decode_cursor(cursor, str, str)
    try:
        return datetime.fromisoformat(opened_at), UUID(id_)
    except ValueError as error:
        raise InvalidCursor from error


async def data_map(session: AsyncSession) -> list[dict[str, Any]]:
    """Everything that every participant declares."""
    maps = await session.scalars(select(Participant.data_map).order_by(Participant.name))
    return [entry for one in maps for entry in one]


async def participants(session: AsyncSession, *, expected: Sequence[str]) -> list[ParticipantView]:
    """Who answers requests, and how much each still has to answer; over all stores."""
    announced = {one.name: one for one in await session.scalars(select(Participant))}
    counted = await session.execute(
        select(Task.participant, func.count().label("number"))
        .where(Task.state.in_([TaskState.WAITING, TaskState.FAILED]), Task.next_issue_at.is_not(None))
        .group_by(Task.participant)
    )
    waiting = {row.participant: row.number for row in counted}
    return [
        ParticipantView(
            name=name,
            announced_at=announced[name].announced_at if name in announced else None,
            public_key=announced[name].public_key if name in announced else None,
            waiting=waiting.get(name, 0),
        )
        for name in sorted({*announced, *expected})
    ]


def new_id() -> UUID:
    """The id of a request, known before anything is written: it names the key of the contact's box."""
    return uuid4()
