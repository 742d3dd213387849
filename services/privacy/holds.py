"""Legal holds: of one person, or of everybody at a store, something is kept for a claim, whatever its period says.

A hold stops timers. An erasure meanwhile takes everything else; what is held is closed to all but legal claims, and
goes by itself when the hold ends: see docs/adr.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.db import Query, Transaction
from libs.common.errors import NotFound
from libs.common.events.privacy import Held
from libs.common.http import cursor_at, position_in
from libs.common.personal.holdings import Person
from libs.common.personal.vocabulary import Retention
from services.privacy.desk_schemas import NewHold
from services.privacy.domain.holds import AUTHORITY, LONGEST_YEARS
from services.privacy.domain.problems import HoldNotAllowed
from services.privacy.models import LegalHold
from services.privacy.retention.periods import choice_of


async def place(
    session: AsyncSession,
    *,
    store_id: UUID,
    subject_id: UUID | None,
    wanted: NewHold,
    placed_by: UUID,
    now: datetime,
) -> LegalHold:
    """Put a hold on somebody, or on everybody. Raises HoldNotAllowed."""
    choice = await choice_of(session, store_id)
    today = choice.today(now)
    if not today <= wanted.until <= _years_after(today):
        raise HoldNotAllowed
    hold = LegalHold(
        store_id=store_id,
        subject_id=subject_id,
        retentions=sorted(one.value for one in set(wanted.retentions)),
        ground=wanted.ground.value,
        until=wanted.until,
        ends_at=choice.due_at(wanted.until),
        placed_by=placed_by,
        placed_at=now,
    )
    session.add(hold)
    await session.flush()
    return hold


def _years_after(day: date) -> date:
    return day.replace(year=day.year + LONGEST_YEARS, day=min(day.day, 28))


async def of_store(
    session: AsyncSession,
    *,
    store_id: UUID,
    subject_id: UUID | None,
    in_force_at: datetime | None,
    cursor: str | None,
    limit: int,
) -> tuple[list[LegalHold], str | None]:
    """The holds of a store, the newest first: all, or of one person and of everybody; all, or those in force.

    Raises InvalidCursor.
    """
    statement = select(LegalHold).where(LegalHold.store_id == store_id)
    if subject_id is not None:
        statement = statement.where(or_(LegalHold.subject_id.is_(None), LegalHold.subject_id == subject_id))
    if in_force_at is not None:
        statement = statement.where(LegalHold.lifted_at.is_(None), LegalHold.ends_at > in_force_at)
    if cursor is not None:
        statement = statement.where(tuple_(LegalHold.placed_at, LegalHold.id) < position_in(cursor))
    statement = statement.order_by(LegalHold.placed_at.desc(), LegalHold.id.desc()).limit(limit + 1)
    found = list((await session.scalars(statement)).all())
    last = found[limit - 1] if len(found) > limit else None
    return found[:limit], cursor_at(last.placed_at, last.id) if last is not None else None


async def one(session: AsyncSession, *, store_id: UUID, hold_id: UUID, lock: bool = False) -> LegalHold:
    """A hold. Raises NotFound."""
    statement = select(LegalHold).where(LegalHold.store_id == store_id, LegalHold.id == hold_id)
    hold = await session.scalar(statement.with_for_update() if lock else statement)
    if hold is None:
        raise NotFound
    return hold


async def lift(session: AsyncSession, *, store_id: UUID, hold_id: UUID, by: UUID, now: datetime) -> None:
    """End a hold before its day; what was only waiting for that goes now. A second time changes nothing.

    Raises NotFound.
    """
    hold = await one(session, store_id=store_id, hold_id=hold_id, lock=True)
    if hold.lifted_at is None and hold.ends_at > now:
        hold.lifted_at, hold.lifted_by = now, by


# --- What they hold --------------------------------------------------------------------------------------

_IN_FORCE = Query("""
    SELECT asked.store_id, asked.subject_id, held.retention, max(hold.until) AS until
    FROM unnest(CAST(:stores AS uuid[]), CAST(:subjects AS uuid[])) AS asked (store_id, subject_id)
    JOIN legal_hold AS hold ON hold.store_id = asked.store_id AND hold.lifted_at IS NULL AND hold.ends_at > :now
        AND (hold.subject_id IS NULL OR hold.subject_id = asked.subject_id)
    CROSS JOIN unnest(hold.retentions) AS held (retention)
    GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
""")


async def held_of(
    session: AsyncSession | Transaction, people: Iterable[tuple[UUID, UUID]], *, now: datetime
) -> Mapping[tuple[UUID, UUID], Sequence[Held]]:
    """By (store, subject): what is held of them, until when, and on which ground of the law."""
    asked = list(dict.fromkeys(people))
    values = {"stores": [store_id for store_id, _ in asked], "subjects": [subject for _, subject in asked]}
    found: dict[tuple[UUID, UUID], list[Held]] = defaultdict(list)
    for row in await _IN_FORCE.rows(session, **values, now=now):
        held = Held(retention=Retention(row.retention), until=row.until, ground=AUTHORITY)
        found[row.store_id, row.subject_id].append(held)
    return found


_ANYBODY = Query("""
    SELECT EXISTS (SELECT FROM legal_hold
        WHERE store_id = :store_id AND subject_id IS NULL AND lifted_at IS NULL AND ends_at > now()) AS everybody,
        ARRAY(SELECT DISTINCT subject_id FROM legal_hold
            WHERE store_id = :store_id AND subject_id = ANY(CAST(:subjects AS uuid[]))
                AND lifted_at IS NULL AND ends_at > now()) AS some
""")


async def people_on_hold(
    session: AsyncSession, store_id: UUID, people: Sequence[Person]
) -> Mapping[Person, Sequence[str]]:
    """Who should be looked at before an erasure: something would be kept."""
    subjects = [person.subject_id for person in people]
    [row] = await _ANYBODY.rows(session, store_id=store_id, subjects=subjects)
    some = set(row.some)
    return {person: ["legal-hold"] for person in people if row.everybody or person.subject_id in some}


def as_answer(held: Sequence[Held]) -> list[dict[str, Any]]:
    """As an answer, and the request after it, keep it."""
    return [one.model_dump(mode="json") for one in held]
