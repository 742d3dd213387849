"""Deadlines are watched: reminders before the last day, the escalation on it, the alarm once it is over."""

import logging
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.telemetry import is_kept, meter
from libs.common.worker import Work
from services.privacy.domain.deadlines import Deadline, Word
from services.privacy.domain.rights import Right
from services.privacy.domain.states import State
from services.privacy.engine.notices import notify
from services.privacy.engine.tasks import COLUMNS
from services.privacy.evidence.entries import Noted, Step, note
from services.privacy.policies import policy_of
from services.privacy.timing import deadline_of

logger = logging.getLogger(__name__)

_AT_ONCE = 100
_VERIFIED = frozenset({State.DECIDING, State.RUNNING, State.CHECKING})

# What is said and that it was said are one transaction: a crash between the two says nothing, and it is said later.
_CLAIM = text(f"""
    SELECT {COLUMNS} FROM request WHERE watch_at <= :now ORDER BY watch_at LIMIT :limit FOR UPDATE SKIP LOCKED
""")  # noqa: S608 - a constant of the engine
_SAID = text("""
    UPDATE request SET watch = :watch, watch_at = :watch_at, escalated_at = CAST(:escalated_at AS timestamptz),
        acknowledged_at = :acknowledged_at,
        version = version + CASE WHEN escalated_at IS DISTINCT FROM CAST(:escalated_at AS timestamptz) THEN 1 ELSE 0 END
    WHERE id = :id AND store_id = :store_id
""")


async def watch(work: Work) -> int:
    """Say what is due about requests' deadlines, once each. Returns 0 unless more may be due."""
    now = work.clock()
    async with work.database.platform_session() as session:
        due = (await session.execute(_CLAIM, {"now": now, "limit": _AT_ONCE})).all()
        for request in due:
            await _say(session, request, now)
    await _measure(work, now)
    return len(due)


async def _say(session: AsyncSession, request: Row[Any], now: datetime) -> None:
    policy = await policy_of(session, request.store_id)
    deadline = deadline_of(request, policy.country)
    said: dict[str, Any] = {
        "escalated_at": request.escalated_at,
        "acknowledged_at": request.acknowledged_at,
    }
    match Word(request.watch):
        case Word.REMINDER:
            await _remind(session, request, deadline, now)
        case Word.ESCALATION if State(request.state) in _VERIFIED:
            said["escalated_at"] = request.escalated_at or now
            await note(session, request.store_id, [Noted(request.id, Step.ESCALATED)], now=now)
            await notify(session, request, "decision-escalated", now=now, reader="officer")
            await notify(session, request, "request-escalated", now=now, reader="platform")
        case Word.ALARM if State(request.state) in _VERIFIED:
            logger.error(
                "a request is overdue",
                extra={
                    "request_id": str(request.id),
                    "store_id": str(request.store_id),
                    "state": request.state,
                },
            )
        case Word.ACKNOWLEDGEMENT_REMINDER | Word.ACKNOWLEDGEMENT_ESCALATION | Word.ACKNOWLEDGEMENT_ALARM:
            # Nobody needs to weigh this: the receipt is confirmed.
            said["acknowledged_at"] = now
            await notify(session, request, "request-acknowledged", now=now)
        case _:
            pass
    await _go_on(session, request, policy.country, said)


async def _remind(session: AsyncSession, request: Row[Any], deadline: Deadline, now: datetime) -> None:
    """Of several reminders that are late, after an outage for instance, the last is enough."""
    following = deadline.following(request.watch_at)
    if State(request.state) is State.DECIDING and (following is None or following.at > now):
        await notify(session, request, "decision-reminder", now=now, reader="officer")


async def _go_on(session: AsyncSession, request: Row[Any], country: str | None, said: dict[str, Any]) -> None:
    deadline = replace(deadline_of(request, country), acknowledged_at=said["acknowledged_at"])
    following = deadline.following(request.watch_at)
    values = {
        "id": request.id,
        "store_id": request.store_id,
        "watch": following.word if following else None,
        "watch_at": following.at if following else None,
    }
    await session.execute(_SAID, values | said)


# --- Measuring -------------------------------------------------------------------------------------------

_overdue = meter.create_gauge("privacy.requests.overdue", description="Open requests past their last day.")
_COUNT = text("""
    SELECT claim, count(*) AS number FROM request
    WHERE overdue_at <= :now AND state IN ('deciding', 'running', 'checking') GROUP BY claim
""")


async def _measure(work: Work, now: datetime) -> None:
    """0 is told too, or the last figure would stay."""
    if not is_kept():
        return
    async with work.database.platform_session() as session:
        found = {row.claim: row.number for row in await session.execute(_COUNT, {"now": now})}
    for right in Right:
        _overdue.set(found.get(right, 0), {"right": right})
