"""Over all requests of a store, or of all stores: figures, and what a store did not answer in time."""

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import exists, func, literal, or_, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.http import Page, cursor_at, position_in
from libs.common.stores import KnownStore, StoreState
from services.privacy.desk_schemas import Escalated, Figures
from services.privacy.domain.rights import Law, Right, name_of
from services.privacy.domain.states import OPEN, OVER, State
from services.privacy.models import Request

_WINDOW = timedelta(days=365)
_OPEN = text("""
    SELECT state, count(*) AS number, count(*) FILTER (WHERE overdue_at <= :now) AS overdue,
        count(*) FILTER (WHERE due_on IS NULL AND stops -> -1 -> 'until' = 'null'::jsonb) AS stopped,
        count(*) FILTER (WHERE escalated_at IS NOT NULL) AS escalated
    FROM request WHERE store_id = :store_id AND state NOT IN ('completed', 'refused', 'cancelled') GROUP BY state
""")
_ANSWERED = text("""
    WITH answered AS (
        SELECT coalesce(completed_at, decided_at) AS at, overdue_at,
            CASE law WHEN 'ccpa' THEN coalesce(received_at, opened_at) ELSE coalesce(verified_at, opened_at) END
                AS since
        FROM request WHERE store_id = :store_id AND state IN ('completed', 'refused')
    ), timed AS (SELECT *, extract(epoch FROM at - since)::float8 / 86400 AS days FROM answered WHERE at > :after)
    SELECT count(*) AS number, count(*) FILTER (WHERE at >= overdue_at) AS late,
        percentile_cont(0.5) WITHIN GROUP (ORDER BY days) AS median, max(days) AS worst
    FROM timed
""")


async def figures(session: AsyncSession, *, store_id: UUID, now: datetime) -> Figures:
    """How a store answers."""
    rows = (await session.execute(_OPEN, {"store_id": store_id, "now": now})).all()
    answered = (await session.execute(_ANSWERED, {"store_id": store_id, "after": now - _WINDOW})).one()
    return Figures(
        open=dict.fromkeys(sorted(OPEN), 0) | {State(row.state): row.number for row in rows},
        overdue=sum(row.overdue for row in rows),
        stopped=sum(row.stopped for row in rows),
        escalated=sum(row.escalated for row in rows),
        answered=answered.number,
        answered_late=answered.late,
        median_days=answered.median,
        worst_days=answered.worst,
    )


async def escalations(
    session: AsyncSession, *, now: datetime, cursor: str | None, limit: int
) -> Page[Escalated]:
    """Open requests that the platform answers, of all stores: those that are past their escalation, and those of closed
    stores. The longest first. Raises InvalidCursor.
    """
    closed = exists().where(KnownStore.store_id == Request.store_id, KnownStore.state != StoreState.OPEN)
    since = func.coalesce(Request.escalated_at, Request.opened_at)
    statement = (
        select(Request)
        .where(or_(Request.escalated_at.is_not(None), closed), Request.state.not_in(OVER))
        .order_by(since, Request.id)
        .limit(limit + 1)
    )
    if cursor is not None:
        at, id_ = position_in(cursor)
        statement = statement.where(tuple_(since, Request.id) > tuple_(literal(at), literal(id_)))
    items = [
        _escalated(row, row.escalated_at or row.opened_at, now) for row in await session.scalars(statement)
    ]
    following = None
    if len(items) > limit:
        items = items[:limit]
        following = cursor_at(items[-1].escalated_at, items[-1].request_id)
    return Page(items=items, next=following)


def _escalated(row: Request, escalated_at: datetime, now: datetime) -> Escalated:
    return Escalated(
        store_id=row.store_id,
        request_id=row.id,
        right=name_of(Right(row.claim), Law(row.law), row.purpose),
        law=Law(row.law),
        state=State(row.state),
        due_on=row.due_on,
        overdue=row.overdue_at is not None and row.overdue_at <= now,
        escalated_at=escalated_at,
    )
