"""Writing to the log, and reading it."""

from collections.abc import AsyncIterator, Sequence
from uuid import UUID

from libs.common.db import Query, Transaction

_CHUNK = 10_000
_APPEND = Query("""
    INSERT INTO destroyed_key (key_id) SELECT unnest(CAST(:key_ids AS uuid[])) ON CONFLICT DO NOTHING
""")
_AMONG = Query("SELECT key_id FROM destroyed_key WHERE key_id = ANY(CAST(:key_ids AS uuid[]))")
_AFTER = Query("""
    SELECT key_id FROM destroyed_key WHERE key_id > :after ORDER BY key_id LIMIT :chunk
""")
_IDENTITY = Query("SELECT id FROM log_identity")


async def append(transaction: Transaction, key_ids: Sequence[UUID]) -> None:
    """Record these keys as destroyed. It may be said twice; it can never be taken back."""
    if key_ids:
        await _APPEND.rows(transaction, key_ids=key_ids)


async def destroyed_among(transaction: Transaction, key_ids: Sequence[UUID]) -> set[UUID]:
    """Those that were destroyed."""
    return {row.key_id for row in await _AMONG.rows(transaction, key_ids=key_ids)}


async def read(transaction: Transaction) -> AsyncIterator[Sequence[UUID]]:
    """The whole log, in chunks of at most 10,000."""
    after = UUID(int=0)
    while chunk := [row.key_id for row in await _AFTER.rows(transaction, after=after, chunk=_CHUNK)]:
        yield chunk
        after = chunk[-1]


async def identity(transaction: Transaction) -> UUID:
    """Which log this is."""
    [row] = await _IDENTITY.rows(transaction)
    return row.id
