"""The law's clock of a request, as who answers it moves it: extended, stopped for an answer, started again.

Whoever calls has locked the request's row in this transaction.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncSession

from services.privacy.domain.deadlines import Deadline
from services.privacy.domain.decisions import Extension
from services.privacy.domain.problems import NotDecidable, NothingAsked
from services.privacy.domain.states import OVER, State
from services.privacy.engine.notices import notify
from services.privacy.evidence.entries import Noted, Step, note
from services.privacy.policies import policy_of
from services.privacy.timing import deadline_of, stops_of, timed, unsaid

_MOVED = text("""
    UPDATE request SET version = version + 1, due_on = :due_on, overdue_at = :overdue_at,
        acknowledge_by = :acknowledge_by, watch = :watch, watch_at = :watch_at, extended_at = :extended_at,
        extension = :extension, stops = CAST(:stops AS jsonb)
    WHERE id = :id AND store_id = :store_id
""")


def is_stopped(request: Any) -> bool:
    """Whether an answer of the person is waited for."""
    return bool(request.stops) and request.stops[-1]["until"] is None


async def extend(session: AsyncSession, request: Row[Any], why: Extension, *, now: datetime) -> None:
    """Take the further time that the law allows once; the person is told why (GDPR, Art. 12(3); California Civil Code,
    1798.130(a)(2)).

    Raises NotDecidable, ExtendedAlready, DeadlinePassed, NotExtendable.
    """
    policy = await policy_of(session, request.store_id)
    deadline = deadline_of(request, policy.country)
    if State(request.state) in OVER or deadline.begun_at is None:
        raise NotDecidable
    moved = {"extended_at": now, "extension": why}
    stops = request.stops if is_stopped(request) else None
    await _move(session, request, deadline.extend(now), unsaid(request, now), stops=stops, **moved)
    extended = Noted(request.id, Step.EXTENDED, {"why": why, "due_on": deadline.extend(now).due_on})
    await note(session, request.store_id, [extended], now=now)
    await notify(session, request, "request-extended", now=now)


async def ask(session: AsyncSession, request: Row[Any], note_id: UUID, *, now: datetime) -> None:
    """Ask the person something without which the request cannot be answered; until they do, the clock stands still
    where the law lets it. Raises NotDecidable, DeadlinePassed.
    """
    if State(request.state) is not State.DECIDING:
        raise NotDecidable
    policy = await policy_of(session, request.store_id)
    deadline = deadline_of(request, policy.country)
    if not is_stopped(request):
        stopped = deadline.stop(now)
        # What was to be said by now and is not yet is said when the clock goes on.
        said = min(unsaid(request, now), now).isoformat()
        stops = [*stops_of(stopped)[:-1], stops_of(stopped)[-1] | {"said": said}]
        await _move(session, request, stopped, unsaid(request, now), stops=stops)
        await note(session, request.store_id, [Noted(request.id, Step.STOPPED)], now=now)
    await notify(session, request, "request-question", now=now, note_id=note_id)


async def answered(session: AsyncSession, request: Row[Any], *, now: datetime) -> None:
    """The person has answered, whoever asked is told, and the clock goes on. Raises NothingAsked."""
    if not is_stopped(request) or State(request.state) in OVER:
        raise NothingAsked
    await resume(session, request, now=now)
    await notify(session, request, "question-answered", now=now, reader="officer")


async def resume(session: AsyncSession, request: Row[Any], *, now: datetime) -> None:
    """The clock goes on. One that was not stopped goes on as it did."""
    if not is_stopped(request):
        return
    policy = await policy_of(session, request.store_id)
    deadline = deadline_of(request, policy.country)
    said = request.stops[-1].get("said")
    after = datetime.fromisoformat(said) if request.due_on is None and said else unsaid(request, now)
    resumed = deadline.resume(now)
    await _move(session, request, resumed, after)
    await note(
        session, request.store_id, [Noted(request.id, Step.RESUMED, {"due_on": resumed.due_on})], now=now
    )


async def _move(
    session: AsyncSession,
    request: Row[Any],
    deadline: Deadline,
    after: datetime,
    *,
    stops: Any = None,
    **moved: Any,
) -> None:
    given = {"extended_at": request.extended_at, "extension": request.extension, **moved}
    await session.execute(
        _MOVED,
        {
            "id": request.id,
            "store_id": request.store_id,
            "stops": orjson.dumps(stops_of(deadline) if stops is None else stops).decode(),
            **timed(deadline, after=after),
            **given,
        },
    )
