"""The duty that indexes rows by the present secrets of their stores: when one changes, and after a restore."""

import logging
from collections.abc import Collection
from uuid import UUID

from sqlalchemy import select, text

from libs.common.personal.indexing import index_anew as index_store
from libs.common.personal.participant.part import Part
from libs.common.worker import Work

logger = logging.getLogger(__name__)


async def index_anew(part: Part, work: Work) -> int:
    """Index the stores whose secret changes, and all of them once when the database was restored."""
    rotations = await work.vault.rotations()
    done = [one for one in rotations if await _is_done(part, work, one.store_id, one.epoch)]
    if done:
        await work.vault.report_indexed(done)
    await _index_restored(part, work, {one.store_id for one in rotations})
    return 0


async def _is_done(part: Part, work: Work, store_id: UUID, epoch: int) -> bool:
    if await work.vault.index_epoch(store_id) != epoch:
        # This process has not heard of it yet, or its keyring is older than its memory.
        return False
    left = await index_store(work.database, work.vault, part.holdings, store_id=store_id, epoch=epoch)
    if left:
        logger.error("rows cannot be indexed anew", extra={"count": left, "store_id": str(store_id)})
    return not left


_UNINDEXED = text("SELECT id FROM restoration WHERE indexed_at IS NULL")
_INDEXED = text("UPDATE restoration SET indexed_at = now() WHERE id = ANY(CAST(:ids AS uuid[]))")


async def _index_restored(part: Part, work: Work, seen: Collection[UUID]) -> None:
    async with work.database.platform_session() as session:
        restored = list((await session.scalars(_UNINDEXED)).all())
        if not restored:
            return
        stores = {
            store_id
            for holding in part.holdings
            if holding.indexes
            for store_id in (await session.scalars(select(holding.sql.c.store_id).distinct())).all()
        }
    for store_id in stores - set(seen):
        await _is_done(part, work, store_id, await work.vault.index_epoch(store_id))
    async with work.database.platform_session() as session:
        await session.execute(_INDEXED, {"ids": restored})
