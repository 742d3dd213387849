"""How far the ends of stores have come."""

from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.http import Page, cursor_at, position_in
from services.privacy.desk_schemas import EndingView

_ENDINGS = text("""
    SELECT ending.*, known.name, coalesce(parts, '[]'::jsonb) AS parts
    FROM store_ending AS ending
    LEFT JOIN known_store AS known USING (store_id)
    LEFT JOIN LATERAL (
        SELECT jsonb_agg(jsonb_build_object('participant', participant, 'cleaned_at', cleaned_at, 'kept', kept)
            ORDER BY participant) AS parts
        FROM store_ending_part AS part WHERE part.store_id = ending.store_id
    ) AS parts ON true
    WHERE CAST(:at AS timestamptz) IS NULL OR (ending.ended_at, ending.store_id) < (:at, CAST(:id AS uuid))
    ORDER BY ending.ended_at DESC, ending.store_id DESC LIMIT :limit
""")


async def endings(session: AsyncSession, *, cursor: str | None, limit: int) -> Page[EndingView]:
    """The latest first. Raises InvalidCursor."""
    at, id_ = position_in(cursor) if cursor is not None else (None, None)
    rows = (await session.execute(_ENDINGS, {"at": at, "id": id_, "limit": limit + 1})).all()
    shown = rows[:limit]
    following = None
    if len(rows) > limit:
        following = cursor_at(shown[-1].ended_at, shown[-1].store_id)
    return Page(items=[_view(row) for row in shown], next=following)


def _view(row: Row[Any]) -> EndingView:
    names = ("store_id", "name", "ended_at", "waits_for", "keys_destroyed_at", "erased_at", "parts")
    return EndingView.model_validate({name: getattr(row, name) for name in names})
