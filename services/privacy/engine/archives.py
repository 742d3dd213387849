"""An export that everybody has answered becomes an archive, which a duty makes: see assembling.py."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.db import ring_after_commit
from libs.common.events.privacy import Verb
from services.privacy.domain.rights import Right
from services.privacy.domain.states import State
from services.privacy.engine.tasks import ids_of, verb_of

ARCHIVES = "archives"
"""NOTIFY channel: an archive is to be made."""

# One that was begun for an earlier round begins anew, and whoever is at it finds out.
_ASSEMBLE = text("""
    INSERT INTO archive (request_id, store_id, subject_id, generation, round)
    SELECT id, store_id, subject_id, generation, round FROM request
    WHERE id = ANY(CAST(:ids AS uuid[])) AND store_id = :store_id
    ON CONFLICT (request_id) DO UPDATE
        SET round = excluded.round, attempts = archive.attempts + 1, due_at = now()
""")


def is_export(request: Row[Any]) -> bool:
    """Whether the request is answered with an archive, and complete only with it."""
    return verb_of(Right(request.claim), State(request.state)) is Verb.EXPORT


async def assemble(session: AsyncSession, store_id: UUID, requests: Sequence[Row[Any]]) -> None:
    """Let the archives of these exports be made."""
    await session.execute(_ASSEMBLE, {"ids": ids_of(requests), "store_id": store_id})
    ring_after_commit(session, ARCHIVES)
