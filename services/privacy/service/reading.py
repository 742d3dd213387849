"""Reading requests, the data map, and who answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any
from uuid import UUID

from sqlalchemy import Row, and_, func, literal, not_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.auth import Caller
from libs.common.errors import NotFound
from libs.common.events.privacy import Life
from libs.common.http import Page, cursor_at, position_in
from services.privacy.authorities import supervisor_of
from services.privacy.domain.decisions import Ground, authority
from services.privacy.domain.rights import Law, Right, RightName, name_of, named
from services.privacy.domain.states import OVER, TERMINAL, State, TaskState
from services.privacy.domain.verification import ALIKE_WITHIN
from services.privacy.engine.people import of_person
from services.privacy.engine.tasks import lives_of
from services.privacy.evidence import certificates
from services.privacy.models import Participant, Request, RequestNote, Task
from services.privacy.participant_schemas import ParticipantView
from services.privacy.policies import Policy, policy_of
from services.privacy.recipients import registry
from services.privacy.schemas import (
    Desk,
    Part,
    RequestDetail,
    RequestSummary,
    Step,
    Stop,
)


def summary(request: Row[Any] | Request) -> RequestSummary:
    """A request as its person may see it."""
    return RequestSummary.model_validate(fields(request))


def fields(request: Row[Any] | Request) -> dict[str, Any]:
    """What a summary and all that is more than one have in common."""
    return {
        "id": request.id,
        "right": name_of(Right(request.claim), Law(request.law), request.purpose),
        "law": request.law,
        "purpose": request.purpose,
        "category": request.category,
        "state": request.state,
        "opened_at": request.opened_at,
        "received_at": request.received_at,
        "verified_at": request.verified_at,
        "due_on": request.due_on,
        "completed_at": request.completed_at,
    }


async def get_request(
    session: AsyncSession, *, store_id: UUID, request_id: UUID, of: Caller | None, now: datetime
) -> tuple[RequestDetail, int]:
    """A request with everybody's part, and its version; only that person's own when `of` is given.

    Raises NotFound.
    """
    request = await session.scalar(
        select(Request).where(Request.id == request_id, Request.store_id == store_id, *own(of))
    )
    if request is None:
        raise NotFound
    statement = select(Task).where(Task.request_id == request_id, Task.store_id == store_id)
    tasks = (await session.scalars(statement.order_by(Task.verb, Task.participant))).all()
    names = await registry.names_of(session, store_id, tasks)
    steps = [Step.model_validate(step) for step in request.steps]
    policy = await policy_of(session, store_id)
    detail = RequestDetail(
        **fields(request),
        **_deadline(request, now),
        **_decision(request),
        steps=steps,
        parts=[part(one, names) for one in tasks],
        supervisor=supervisor_of(Law(request.law), policy.country),
        certificate=await certificates.standing(session, request.id),
        desk=await _desk(session, request, policy) if of is None else None,
        alike=await _alike(session, request) if of is None else None,
    )
    return detail, request.version


async def seen_by(session: AsyncSession, *, store_id: UUID, request_id: UUID, of: Caller | None) -> None:
    """Raises NotFound for a request that is not that person's own, when `of` is given."""
    known = await session.scalar(
        select(Request.id).where(Request.id == request_id, Request.store_id == store_id, *own(of))
    )
    if known is None:
        raise NotFound


async def _alike(session: AsyncSession, request: Request) -> int:
    """What nobody verified was perhaps somebody else's, and does not count against the person."""
    number = await session.scalar(
        select(func.count())
        .select_from(Request)
        .where(
            Request.store_id == request.store_id,
            Request.subject_id.in_([life.subject_id for life in lives_of(request)]),
            Request.claim == request.claim,
            Request.purpose.is_not_distinct_from(request.purpose),
            Request.category.is_not_distinct_from(request.category),
            Request.verified_at.is_not(None),
            Request.opened_at.between(request.opened_at - ALIKE_WITHIN, request.opened_at),
            Request.id != request.id,
        )
    )
    return 1 + (number or 0)


def _deadline(request: Request, now: datetime) -> dict[str, Any]:
    stops = [Stop.model_validate({"since": one["from"], "until": one["until"]}) for one in request.stops]
    is_open = State(request.state) not in OVER
    return {
        "overdue": is_open and request.overdue_at is not None and request.overdue_at <= now,
        "acknowledge_by": request.acknowledge_by,
        "acknowledged_at": request.acknowledged_at,
        "extension": request.extension,
        "extended_at": request.extended_at,
        "stops": stops,
        "stopped_since": stops[-1].since if is_open and stops and stops[-1].until is None else None,
        "begins_at": request.begins_at,
    }


def _decision(request: Request) -> dict[str, Any]:
    ground = Ground(request.ground) if request.ground else None
    return {
        "decision": request.decision,
        "decided_at": request.decided_at,
        "ground": ground,
        "authority": authority(ground, Right(request.claim), Law(request.law)) if ground else None,
    }


async def _desk(session: AsyncSession, request: Request, policy: Policy) -> Desk:
    notes = await session.scalar(
        select(func.count()).select_from(RequestNote).where(
            RequestNote.request_id == request.id, RequestNote.store_id == request.store_id
        )
    )  # fmt: skip
    may_decide = [] if policy.closed else ["store"]
    if policy.closed or request.escalated_at is not None:
        may_decide.append("platform")
    return Desk.model_validate(
        {
            "way": request.way,
            "proofs": [one["proof"] for one in request.proofs],
            "assignee": request.assignee,
            "decided_by": request.decided_by,
            "escalated_at": request.escalated_at,
            "notes": notes,
            "subjects": len(lives_of(request)),
            "may_decide": may_decide,
            "watch": request.watch,
            "watch_at": request.watch_at,
        }
    )


def own(of: Caller | None) -> list[Any]:
    """In SQL, that a request is this person's, by whichever of their addresses; any when nobody is named."""
    if of is None:
        return []
    return [of_person(of.store_id, Life(subject_id=of.customer, generation=of.generation))]


def part(one: Task, names: Mapping[UUID, str] = MappingProxyType({})) -> Part:
    """A part as everybody may see it."""
    answer = one.answer or {}
    return Part.model_validate(
        {
            "participant": one.participant,
            "recipient": names.get(one.recipient_id) if one.recipient_id is not None else None,
            "task": one.verb,
            "state": one.state,
            "answered_at": one.answered_at,
            "attempts": one.attempts,
            "asked_at": one.asked_at,
            **{name: answer[name] for name in ("counts", "retained", "reason") if name in answer},
            **({"settlement": answer} if one.state == TaskState.SETTLED else {}),
        }
    )


@dataclass(frozen=True, slots=True)
class Sought:
    """Which requests of a list are wanted; None is no condition."""

    state: State | None = None
    right: RightName | None = None
    assignee: UUID | None = None
    overdue: bool | None = None

    def conditions(self, now: datetime) -> list[Any]:
        """As conditions of a query."""
        wanted: list[Any] = []
        if self.state is not None:
            wanted.append(Request.state == self.state)
        if self.right is not None:
            meant = named(self.right)
            wanted += [Request.claim == meant.right, Request.law == meant.law]
            wanted += [Request.purpose == meant.purpose] if meant.purpose else []
        if self.assignee is not None:
            wanted.append(Request.assignee == self.assignee)
        if self.overdue is not None:
            late = and_(
                Request.overdue_at.is_not(None), Request.overdue_at <= now, Request.state.not_in(OVER)
            )
            wanted.append(late if self.overdue else not_(late))
        return wanted


async def list_requests(
    session: AsyncSession,
    *,
    store_id: UUID,
    of: Caller | None,
    cursor: str | None,
    limit: int,
    sought: Sought,
    now: datetime,
) -> Page[RequestSummary]:
    """Newest first. Raises InvalidCursor."""
    statement = (
        select(Request)
        .where(Request.store_id == store_id, *own(of), *sought.conditions(now))
        .order_by(Request.opened_at.desc(), Request.id.desc())
        .limit(limit + 1)
    )
    if cursor is not None:
        opened_at, id_ = position_in(cursor)
        statement = statement.where(
            tuple_(Request.opened_at, Request.id) < tuple_(literal(opened_at), literal(id_))
        )
    rows = list(await session.scalars(statement))
    following = None
    if len(rows) > limit:
        following = cursor_at(rows[limit - 1].opened_at, rows[limit - 1].id)
    return Page(items=[summary(row) for row in rows[:limit]], next=following)


async def data_map(session: AsyncSession) -> list[dict[str, Any]]:
    """Everything that every participant declares."""
    maps = await session.scalars(select(Participant.data_map).order_by(Participant.name))
    return [entry for one in maps for entry in one]


async def participants(session: AsyncSession, *, expected: Sequence[str]) -> list[ParticipantView]:
    """Who answers requests, and how much each still has to answer; over all stores."""
    announced = {one.name: one for one in await session.scalars(select(Participant))}
    counted = await session.execute(
        select(Task.participant, func.count().label("number"))
        .where(Task.state.not_in(TERMINAL), Task.next_issue_at.is_not(None), Task.recipient_id.is_(None))
        .group_by(Task.participant)
    )
    waiting = {row.participant: row.number for row in counted}
    return [
        ParticipantView(
            name=name,
            announced_at=announced[name].announced_at if name in announced else None,
            public_key=announced[name].public_key if name in announced else None,
            waiting=waiting.get(name, 0),
            required=name in expected,
        )
        for name in sorted({*announced, *expected})
    ]
