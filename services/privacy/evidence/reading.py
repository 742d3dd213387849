"""Reading a store's log: hashes, proofs and heads, for anybody; what entries say, for who answers for the store."""

from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.db import Database, fetch
from services.privacy.domain.problems import LogCutShort, NotInLog
from vitrine import merkle
from vitrine.merkle import Span, Subtree

# --- Hashes ----------------------------------------------------------------------------------------------

_HASHES = """
    SELECT index, hash, nodes FROM evidence_leaf WHERE store_id = $1 AND index = ANY($2::bigint[])
"""


async def hashes_of(session: AsyncSession, store_id: UUID, subtrees: Sequence[Subtree]) -> list[bytes]:
    """The hashes of perfect subtrees, by the rows of the leaves that complete them. Raises LogCutShort."""
    places = sorted({one.completed_by for one in subtrees})
    rows = {row.index: row for row in await fetch(session, _HASHES, store_id, places)} if places else {}
    if len(rows) < len(places):
        raise LogCutShort
    return [_hash(rows[one.completed_by], one.level) for one in subtrees]


def _hash(row: Any, level: int) -> bytes:
    if level == 0:
        return row.hash
    return row.nodes[(level - 1) * merkle.HASH_BYTES : level * merkle.HASH_BYTES]


async def over(session: AsyncSession, store_id: UUID, spans: Sequence[Span]) -> list[bytes]:
    """The hashes of spans, in one query."""
    parts = [span.subtrees for span in spans]
    hashes = iter(await hashes_of(session, store_id, [one for part in parts for one in part]))
    return [merkle.fold([next(hashes) for _ in part]) for part in parts]


# --- Heads and proofs ------------------------------------------------------------------------------------

_LATEST = "SELECT size, root, signed_at, signature FROM evidence_head WHERE store_id = $1 ORDER BY size DESC LIMIT 1"
_AT_SIZE = "SELECT size, root, signed_at, signature FROM evidence_head WHERE store_id = $1 AND size = $2"
_OLDER = """
    SELECT size, root, signed_at, signature FROM evidence_head
    WHERE store_id = $1 AND size < $2 ORDER BY size DESC LIMIT $3
"""
_LEAVES = "SELECT hash FROM evidence_leaf WHERE store_id = $1 AND index >= $2 ORDER BY index LIMIT $3"
_INDEX = "SELECT index FROM evidence_leaf WHERE store_id = $1 AND hash = $2"


async def latest_head(session: AsyncSession, store_id: UUID) -> Any | None:
    """The newest head of a log; None for one without entries."""
    return next(iter(await fetch(session, _LATEST, store_id)), None)


async def head_of(session: AsyncSession, store_id: UUID, size: int) -> Any:
    """The head of this size. Raises NotInLog: not every size has one."""
    rows = await fetch(session, _AT_SIZE, store_id, size)
    if not rows:
        raise NotInLog(reason="no-head-of-this-size")
    return rows[0]


async def heads_below(session: AsyncSession, store_id: UUID, size: int, *, limit: int) -> list[Any]:
    """Heads smaller than `size`, the largest first."""
    return await fetch(session, _OLDER, store_id, size, limit)


async def leaves(session: AsyncSession, store_id: UUID, first: int, *, limit: int) -> list[bytes]:
    """The hashes of entries from this index on."""
    return [row.hash for row in await fetch(session, _LEAVES, store_id, first, limit)]


async def inclusion(session: AsyncSession, store_id: UUID, leaf: bytes, size: int) -> tuple[int, list[bytes]]:
    """The index of a leaf, and the path from it to the root of the tree of `size` leaves. Raises NotInLog."""
    rows = await fetch(session, _INDEX, store_id, leaf)
    if not rows or rows[0].index >= size:
        raise NotInLog(reason="no-such-leaf")
    index: int = rows[0].index
    return index, await over(session, store_id, merkle.inclusion(index, size))


async def consistency(session: AsyncSession, store_id: UUID, first: int, second: int) -> list[bytes]:
    """The proof that the tree of `second` leaves begins with that of `first`."""
    return await over(session, store_id, merkle.consistency(first, second)) if first else []


# --- The whole log ---------------------------------------------------------------------------------------

_AT_ONCE = 1000
_WHOLE = """
    SELECT leaf.index, leaf.hash, entry.content FROM evidence_leaf AS leaf
    LEFT JOIN evidence_entry AS entry USING (store_id, index)
    WHERE store_id = $1 AND index >= $2 AND index < $3 ORDER BY index LIMIT $4
"""
_HEADS = """
    SELECT size, signature FROM evidence_head WHERE store_id = $1 AND size > $2 AND size <= $3 ORDER BY size LIMIT $4
"""


async def whole(database: Database, store_id: UUID) -> AsyncIterator[dict[str, Any]]:
    """Every entry up to the newest head, then every head, as an audit reads them; a part in memory at a time."""
    async with database.session(store_id) as session:
        newest = await latest_head(session, store_id)
    end = 0 if newest is None else newest.size
    for first in range(0, end, _AT_ONCE):
        async with database.session(store_id) as session:
            rows = await fetch(session, _WHOLE, store_id, first, end, _AT_ONCE)
        for row in rows:
            entry = None if row.content is None else orjson.loads(row.content)
            yield {"index": row.index, "hash": row.hash.hex(), "entry": entry}
    size = 0
    while size < end:
        async with database.session(store_id) as session:
            heads = await fetch(session, _HEADS, store_id, size, end, _AT_ONCE)
        for head in heads:
            yield {"head": head.signature}
            size = head.size
