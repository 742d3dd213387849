"""Writing to the log, and reading it."""

from collections.abc import AsyncIterator, Sequence
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

_CHUNK = 10_000
_APPEND = text("""
    INSERT INTO destroyed_key (key_id) SELECT unnest(CAST(:key_ids AS uuid[])) ON CONFLICT DO NOTHING
""")
_AMONG = text("SELECT key_id FROM destroyed_key WHERE key_id = ANY(CAST(:key_ids AS uuid[]))")
_AFTER = text("""
    SELECT key_id FROM destroyed_key WHERE key_id > :after ORDER BY key_id LIMIT :chunk
""")


async def append(session: AsyncSession, key_ids: Sequence[UUID]) -> None:
    """Record these keys as destroyed. It may be said twice; it can never be taken back."""
    if key_ids:
        await session.execute(_APPEND, {"key_ids": key_ids})


async def destroyed_among(session: AsyncSession, key_ids: Sequence[UUID]) -> set[UUID]:
    """Those that were destroyed."""
    return set((await session.scalars(_AMONG, {"key_ids": key_ids})).all())


async def read(session: AsyncSession) -> AsyncIterator[Sequence[UUID]]:
    """The whole log, in chunks of at most 10,000."""
    after = UUID(int=0)
    while chunk := (await session.scalars(_AFTER, {"after": after, "chunk": _CHUNK})).all():
        yield chunk
        after = chunk[-1]
