"""Requests that wait: a list over all stores or of one, and an explanation of each."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import exists, func, literal, not_, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.errors import NotFound
from libs.common.events.privacy import Verb
from libs.common.http import Page, cursor_at, position_in
from libs.common.stores import KnownStore
from services.privacy.calendars import NOWHERE, calendar_for
from services.privacy.domain.parts import is_stuck
from services.privacy.domain.rights import Law, Right, name_of
from services.privacy.domain.states import KEYRING, OVER, TERMINAL, State, TaskState
from services.privacy.domain.waiting import (
    EndedBy,
    For,
    Part,
    Waits,
    before,
    ended_by,
    error_word,
    waits,
    waits_for,
)
from services.privacy.engine.tasks import IS_STUCK, verbs_of
from services.privacy.models import Request, Task
from services.privacy.policies import policy_of
from services.privacy.recipients.models import Delivery, DeliveryAttempt
from services.privacy.service.reading import Sought
from services.privacy.waiting_schemas import (
    Waiting,
    WaitingDeadline,
    WaitingPart,
    WaitingSummary,
)
from services.privacy.waiting_words import Wording
from services.privacy.words import Language

# --- A list ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which requests of a list are wanted; None is no condition. `older` is in days."""

    sought: Sought
    store_id: UUID | None = None
    waiting_for: str | None = None
    older: int | None = None
    stuck: bool = False
    ended: bool = False

    def conditions(self, now: datetime) -> list[Any]:
        """As conditions of a query."""
        over = Request.state.in_(OVER)
        wanted = [over if self.ended else not_(over), *self.sought.conditions(now)]
        if self.store_id is not None:
            wanted.append(Request.store_id == self.store_id)
        if self.older is not None:
            wanted.append(Request.opened_at <= now - timedelta(days=self.older))
        awaited = [Task.request_id == Request.id, Task.state.not_in(TERMINAL), Task.asked_at <= now]
        if self.waiting_for is not None:
            wanted.append(exists().where(*awaited, Task.participant == self.waiting_for))
        if self.stuck:
            wanted.append(exists().where(*awaited, text(IS_STUCK).bindparams(now=now)))
        return wanted


async def listed(
    session: AsyncSession, wanted: Wanted, *, cursor: str | None, limit: int, now: datetime
) -> Page[WaitingSummary]:
    """Those that wait longest first; of those that have ended, the latest. Raises InvalidCursor."""
    place, order = tuple_(Request.opened_at, Request.id), (Request.opened_at, Request.id)
    statement = select(Request, KnownStore.name).outerjoin(
        KnownStore, KnownStore.store_id == Request.store_id
    )
    statement = statement.where(*wanted.conditions(now)).limit(limit + 1)
    statement = statement.order_by(*(one.desc() for one in order) if wanted.ended else order)
    if cursor is not None:
        at = tuple_(*(literal(one) for one in position_in(cursor)))
        statement = statement.where(place < at if wanted.ended else place > at)
    rows = (await session.execute(statement)).all()
    shown = [(request, store) for request, store in rows[:limit]]
    parts = await _parts(session, [request for request, _ in shown])
    following = cursor_at(shown[-1][0].opened_at, shown[-1][0].id) if len(rows) > limit else None
    items = [
        WaitingSummary.model_validate(_summary(request, name, parts.get(request.id, []), now))
        for request, name in shown
    ]
    return Page(items=items, next=following)


async def _parts(session: AsyncSession, requests: Sequence[Request]) -> Mapping[UUID, list[Part]]:
    """Everybody's part of the present phase of each request, by its id."""
    verbs = {one.id: verbs_of(Right(one.claim), State(one.state)) for one in requests}
    tasks = await session.scalars(
        select(Task)
        .where(Task.request_id.in_(verbs), Task.store_id.in_({one.store_id for one in requests}))
        .order_by(Task.request_id, Task.verb, Task.participant)
    )
    wanted = [task for task in tasks if task.verb in verbs[task.request_id]]
    tried = await _tried(session, [task for task in wanted if task.recipient_id is not None])
    found: defaultdict[UUID, list[Part]] = defaultdict(list)
    for task in wanted:
        at = tried.get((task.request_id, task.recipient_id, task.verb))
        found[task.request_id].append(_part(task, at or task.answered_at))
    return found


async def _tried(session: AsyncSession, outside: Sequence[Task]) -> dict[tuple[Any, ...], datetime]:
    """When what is for recipients was tried last: a try that failed is no answer of theirs."""
    if not outside:
        return {}
    place = (Delivery.request_id, Delivery.recipient_id, Delivery.what)
    rows = await session.execute(
        select(*place, func.max(DeliveryAttempt.at))
        .join(DeliveryAttempt, DeliveryAttempt.delivery_id == Delivery.id)
        .where(Delivery.request_id.in_({task.request_id for task in outside}))
        .group_by(*place)
    )
    return {(request_id, recipient_id, what): at for request_id, recipient_id, what, at in rows}


def _part(task: Task, answered_at: datetime | None) -> Part:
    # The keyring counts its tries when it begins them; everybody else's first is no repetition.
    tries = task.attempts if task.participant == KEYRING else task.attempts + 1
    return Part(
        participant=task.participant,
        verb=task.verb,
        state=TaskState(task.state),
        attempts=task.attempts,
        tries=max(1, tries) if task.asked_at is not None else 0,
        asked_at=task.asked_at,
        next_issue_at=task.next_issue_at,
        answered_at=answered_at,
        reason=(task.answer or {}).get("reason", ""),
        is_outside=task.recipient_id is not None,
    )


def _summary(request: Request, store: str | None, parts: Sequence[Part], now: datetime) -> dict[str, Any]:
    asked = [part for part in parts if not part.has_ended and waits(part, now=now) is not Waits.TURN]
    is_open = State(request.state) not in OVER
    return {
        "store_id": request.store_id,
        "store": store,
        "request_id": request.id,
        "right": name_of(Right(request.claim), Law(request.law), request.purpose),
        "law": request.law,
        "state": request.state,
        "opened_at": request.opened_at,
        "due_on": request.due_on,
        "overdue": is_open and request.overdue_at is not None and request.overdue_at <= now,
        "escalated_at": request.escalated_at,
        "waits_for": _waits_for(request, parts, now),
        "participants": sorted({part.participant for part in asked}),
        "since": min((part.asked_at for part in asked if part.asked_at is not None), default=None),
        "failing": sorted({part.participant for part in asked if part.state is TaskState.FAILED}),
        "stuck": sorted({part.participant for part in asked if _stands(part, now)}),
    }


def _stands(part: Part, now: datetime) -> bool:
    return is_stuck(part.state, part.attempts, part.asked_at, now)


def _waits_for(request: Request, parts: Sequence[Part], now: datetime) -> For:
    return waits_for(
        State(request.state),
        parts,
        is_stopped=_stopped_since(request) is not None,
        begins_at=request.begins_at,
        now=now,
    )


def _stopped_since(request: Request) -> datetime | None:
    stop = request.stops[-1] if request.stops else None
    since = stop["from"] if stop is not None and stop["until"] is None else None
    return datetime.fromisoformat(since) if since is not None else None


# --- One -------------------------------------------------------------------------------------------------


async def explained(
    session: AsyncSession,
    *,
    store_id: UUID | None,
    request_id: UUID,
    language: Language,
    services: Collection[str],
    as_platform: bool,
    now: datetime,
) -> Waiting:
    """Whom a request waits for, since when, and what would end it; of any store's where none is named.

    `services` are the platform's own, `as_platform` says who looks: what they can do differs. Raises NotFound.
    """
    conditions = [Request.store_id == store_id] if store_id is not None else []
    request = await session.scalar(select(Request).where(Request.id == request_id, *conditions))
    if request is None:
        raise NotFound
    store = await session.scalar(select(KnownStore.name).where(KnownStore.store_id == request.store_id))
    policy = await policy_of(session, request.store_id)
    zone = calendar_for(Law(request.law), policy.country or NOWHERE).zone
    parts = (await _parts(session, [request])).get(request.id, [])
    wording = Wording(language, zone, now)
    waiting = [
        _waiting(part, parts, wording, now, ended_by(part, services=services, as_platform=as_platform))
        for part in parts
        if not part.has_ended
    ]
    summary = _summary(request, store, parts, now)
    return Waiting.model_validate(
        {
            **summary,
            "version": request.version,
            "zone": zone.key,
            "parts": waiting,
            "ended": sum(part.has_ended for part in parts),
            "deadline": _deadline(request, wording, now),
            "words": wording.request(summary["waits_for"], waiting, request.begins_at),
        }
    )


def _waiting(
    part: Part, parts: Sequence[Part], wording: Wording, now: datetime, ways: list[EndedBy]
) -> WaitingPart:
    failed = part.state is TaskState.FAILED
    waiting = WaitingPart(
        participant=part.participant,
        task=Verb(part.verb),
        state=part.state,
        waits=waits(part, now=now),
        after=sorted({one.participant for one in before(part, parts)}) if part.asked_at is None else [],
        since=part.asked_at,
        tries=part.tries,
        next_try_at=part.next_issue_at,
        error=error_word(part.reason) or None if failed else None,
        error_at=part.answered_at if failed else None,
        stuck=_stands(part, now),
        ended_by=ways,
        words="",
    )
    return waiting.model_copy(update={"words": wording.part(waiting)})


def _deadline(request: Request, wording: Wording, now: datetime) -> WaitingDeadline:
    over_at = request.overdue_at if State(request.state) not in OVER else None
    deadline = WaitingDeadline(
        due_on=request.due_on,
        over_at=over_at,
        seconds_left=int((over_at - now).total_seconds()) if over_at is not None else None,
        stopped_since=_stopped_since(request) if State(request.state) not in OVER else None,
        words="",
    )
    return deadline.model_copy(update={"words": wording.deadline(deadline)})
