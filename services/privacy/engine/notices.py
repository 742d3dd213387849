"""Mails that are to be written about a request: noted with its change, written by `letters`."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.db import Query, ring_after_commit
from services.privacy.engine.phases import NOTICES
from services.privacy.models import Request

_NOTIFY = Query("""
    INSERT INTO notice (store_id, request_id, template, reader, note_id, due_at)
    VALUES (:store_id, :request_id, :template, :reader, :note_id, :due_at)
""")
_RECEIVED = frozenset({"request-received", "request-opened-for-you", "account-ended"})
ACKNOWLEDGED_AFTER = timedelta(minutes=1)
"""A request that ends sooner gets one mail instead of two."""


async def notify(
    session: AsyncSession,
    request: Row[Any] | Request,
    template: str,
    *,
    now: datetime,
    reader: str = "person",
    note_id: UUID | None = None,
) -> None:
    """A mail about the request is to be written once the session has committed; it repeats the note, if any."""
    due_at = now + ACKNOWLEDGED_AFTER if template in _RECEIVED else now
    await _NOTIFY.rows(
        session,
        store_id=request.store_id,
        request_id=request.id,
        template=template,
        reader=reader,
        note_id=note_id,
        due_at=due_at,
    )
    ring_after_commit(session, NOTICES)
