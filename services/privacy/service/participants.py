"""Participants that leave, and come back."""

from collections.abc import Collection
from datetime import datetime
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.db import ring_after_commit
from libs.common.errors import NotFound
from services.privacy.domain.problems import DepartedAlready, ParticipantRequired, SuccessorUnknown
from services.privacy.engine.joining import CHANNEL
from services.privacy.engine.leaving import COUNT_OPEN
from services.privacy.models import Departure, Participant
from services.privacy.participant_schemas import Departed, DepartureView, NewDeparture


async def leave(
    session: AsyncSession,
    *,
    name: str,
    wanted: NewDeparture,
    by: UUID,
    now: datetime,
    required: Collection[str],
) -> DepartureView:
    """Expect a participant no more, and believe it no more; what is open goes to its successor. To say the same again
    changes nothing. Raises NotFound, ParticipantRequired, SuccessorUnknown, DepartedAlready.
    """
    if name in required:
        raise ParticipantRequired
    row = await session.get(Participant, name, with_for_update=True)
    if row is None:
        return await _said_before(session, name, wanted)
    if wanted.successor is not None:
        await _check_successor(session, wanted.successor, of=name)
    left = Departure(
        name=name,
        departed_at=now,
        departed_by=by,
        ground=wanted.why,
        successor=wanted.successor,
        public_key=row.public_key,
        data_map=row.data_map,
    )
    session.add(left)
    await session.delete(row)
    await session.flush()
    ring_after_commit(session, CHANNEL)
    return await _view(session, left)


async def _said_before(session: AsyncSession, name: str, wanted: NewDeparture) -> DepartureView:
    left = await departure_of(session, name)
    if left is None:
        raise NotFound
    if (left.ground, left.successor) != (wanted.why, wanted.successor):
        raise DepartedAlready
    return await _view(session, left)


async def _check_successor(session: AsyncSession, successor: str, *, of: str) -> None:
    """Locked, so that of two who leave to each other one stays."""
    known = await session.scalar(
        select(Participant.name).where(Participant.name == successor).with_for_update(read=True)
    )
    if known is None or known == of:
        raise SuccessorUnknown


async def departure(session: AsyncSession, *, name: str) -> DepartureView:
    """How a participant left. Raises NotFound."""
    left = await departure_of(session, name)
    if left is None:
        raise NotFound
    return await _view(session, left)


async def readmit(session: AsyncSession, *, name: str, by: UUID, now: datetime) -> None:
    """Let a participant announce itself again, with whatever key it comes. A second time changes nothing.

    Raises NotFound.
    """
    left = await departure_of(session, name, lock=True)
    if left is None:
        if await session.get(Participant, name) is None and not await _ever_left(session, name):
            raise NotFound
        return
    left.readmitted_at, left.readmitted_by = now, by


async def departure_of(session: AsyncSession, name: str, *, lock: bool = False) -> Departure | None:
    """The departure of somebody who has not been let in again."""
    statement = select(Departure).where(Departure.name == name, Departure.readmitted_at.is_(None))
    return await session.scalar(statement.with_for_update() if lock else statement)


async def departed(session: AsyncSession) -> list[Departed]:
    """Who left, and who has their data now."""
    rows = await session.scalars(
        select(Departure).where(Departure.readmitted_at.is_(None)).order_by(Departure.name)
    )
    return [Departed.model_validate(row) for row in rows]


async def _ever_left(session: AsyncSession, name: str) -> bool:
    return await session.scalar(select(Departure.name).where(Departure.name == name).limit(1)) is not None


async def _view(session: AsyncSession, left: Departure) -> DepartureView:
    waiting = await session.scalar(COUNT_OPEN, {"name": left.name})
    known = Departed.model_validate(left).model_dump()
    return DepartureView(
        **known, departed_by=left.departed_by, handed_over_at=left.handed_over_at, open=waiting or 0
    )
