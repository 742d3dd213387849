"""The end of a store: its key is destroyed, then everybody removes what they hold of it, looks again, and says so.

Each step is saved before the next, may be repeated, and is taken by a duty, so that a crash or an outage only delays.
What somebody asked for before the end is answered first, and what is on hold is not destroyed (GDPR, Art. 18(2)).
"""

import logging
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.db import ring_after_commit
from libs.common.events import Received
from libs.common.events.identity import StoreEnded
from libs.common.events.privacy import KeptOfStore, StoreCleaned, StoreErased, StoreKeysDestroyed
from libs.common.outbox import publish
from libs.common.stores import on_store_ended as know_that_it_ended
from libs.common.worker import Work
from services.privacy.believing import believed
from services.privacy.domain.states import KEYRING
from services.privacy.endings import keyring_of
from services.privacy.engine.tasks import SOURCE
from services.privacy.models import StoreEnding
from services.privacy.recipients import deliveries
from services.privacy.settings import present

logger = logging.getLogger(__name__)

CHANNEL = "store_endings"
"""NOTIFY channel: a store has ended, or somebody has removed what they held of it."""
_LEASE = timedelta(seconds=30)
_AGAIN = timedelta(minutes=1)
"""Between two looks at what has to be over first, and two calls to who has not answered."""
_STEPS_AT_ONCE = 20


async def on_store_ended(session: AsyncSession, event: Received[StoreEnded]) -> None:
    """Nothing is sold any more, and the key is to be destroyed."""
    await know_that_it_ended(session, event)
    at = event.envelope.time
    row = {"store_id": event.data.store_id, "ended_at": at, "next_step_at": at}
    await session.execute(upsert(StoreEnding).values(row).on_conflict_do_nothing())
    ring_after_commit(session, CHANNEL)


_CLEANED = text("""
    INSERT INTO store_ending_part AS part (store_id, participant, kept, cleaned_at)
    VALUES (:store_id, :participant, CAST(:kept AS jsonb), :at)
    ON CONFLICT (store_id, participant) DO UPDATE SET
        kept = excluded.kept, cleaned_at = coalesce(part.cleaned_at, excluded.cleaned_at)
""")
_SOON = text("""
    UPDATE store_ending SET next_step_at = least(next_step_at, :at) WHERE store_id = :store_id AND erased_at IS NULL
""")


async def on_store_cleaned(session: AsyncSession, event: Received[StoreCleaned]) -> None:
    """Note what a participant keeps, if it was the one that said so; of the last one follows that all is done."""
    if not await believed(session, [event]):
        return
    cleaned, at = event.data, event.envelope.time
    kept = f"[{', '.join(one.model_dump_json() for one in cleaned.kept)}]"
    values = {
        "store_id": cleaned.store_id,
        "participant": cleaned.participant,
        "kept": kept,
        "at": at,
    }
    await session.execute(_CLEANED, values)
    await session.execute(_SOON, {"store_id": cleaned.store_id, "at": at})
    ring_after_commit(session, CHANNEL)


# --- Steps -----------------------------------------------------------------------------------------------

_CLAIM = text("""
    UPDATE store_ending SET next_step_at = :until
    WHERE store_id IN (
        SELECT store_id FROM store_ending WHERE next_step_at <= :now
        ORDER BY next_step_at LIMIT :limit FOR UPDATE SKIP LOCKED)
    RETURNING store_id, ended_at, keys_destroyed_at
""")


async def step(work: Work) -> int:
    """Take the next step of stores that end. Returns 0 unless more are waiting. Raises KeyringUnavailable."""
    now = work.clock()
    async with work.database.platform_session() as session:
        claim = {"now": now, "until": now + _LEASE, "limit": _STEPS_AT_ONCE}
        rows = (await session.execute(_CLAIM, claim)).all()
    for row in rows:
        if row.keys_destroyed_at is not None:
            await _conclude(work, row.store_id, now)
        elif not await _waits(work, row, now):
            await _destroy(work, row.store_id, now)
    return len(rows) // _STEPS_AT_ONCE


# A request that was opened at a store that is gone does not bring it back.
_WAITS = text("""
    UPDATE store_ending SET next_step_at = :again, waits_for = CASE
        WHEN EXISTS (SELECT FROM request WHERE store_id = :store_id AND opened_at < :ended_at
            AND state NOT IN ('completed', 'refused', 'cancelled')) THEN 'requests'
        WHEN EXISTS (SELECT FROM restricted_subject WHERE store_id = :store_id) THEN 'restrictions'
        WHEN EXISTS (SELECT FROM legal_hold WHERE store_id = :store_id AND lifted_at IS NULL AND ends_at > :now)
            THEN 'holds' END
    WHERE store_id = :store_id RETURNING waits_for
""")


async def _waits(work: Work, row: Row[Any], now: datetime) -> bool:
    async with work.database.session(row.store_id) as session:
        values = {"store_id": row.store_id, "ended_at": row.ended_at, "now": now, "again": now + _AGAIN}
        return (await session.execute(_WAITS, values)).scalar_one() is not None


_DESTROYED = text("""
    UPDATE store_ending SET keys_destroyed_at = coalesce(keys_destroyed_at, :now), next_step_at = :again
    WHERE store_id = :store_id
""")
_EXPECT = text("""
    INSERT INTO store_ending_part (store_id, participant)
    SELECT CAST(:store_id AS uuid), name
    FROM (SELECT name FROM participant UNION SELECT unnest(CAST(:expected AS text[]))) AS everybody (name)
    ON CONFLICT DO NOTHING
""")


async def _destroy(work: Work, store_id: UUID, now: datetime) -> None:
    """From the first answer of the keyring on nothing opens; it is asked until nothing is left there either."""
    await _destroy_keys(work, store_id)
    async with work.database.session(store_id) as session:
        await session.execute(_DESTROYED, {"store_id": store_id, "now": now, "again": now + _AGAIN})
        expected = sorted(present().participants)
        await session.execute(_EXPECT, {"store_id": store_id, "expected": expected})
        await deliveries.tell_of_end(session, store_id, now=now)
        await publish(session, StoreKeysDestroyed(store_id=store_id), store_id=store_id, source=SOURCE)
    logger.info("the key of a store is destroyed", extra={"store_id": str(store_id)})


async def _destroy_keys(work: Work, store_id: UUID) -> None:
    keyring = keyring_of(work.settings, work.http)
    while (await keyring.destroy_tenants([store_id]))[0]:
        pass


_LOCK = text("SELECT erased_at FROM store_ending WHERE store_id = :store_id FOR UPDATE")
_PARTS = text("SELECT participant, kept, cleaned_at FROM store_ending_part WHERE store_id = :store_id")
_OVER = text("""
    UPDATE store_ending SET erased_at = :now, next_step_at = NULL WHERE store_id = :store_id
""")
_WAIT = text("UPDATE store_ending SET next_step_at = :again WHERE store_id = :store_id")


async def _conclude(work: Work, store_id: UUID, now: datetime) -> None:
    """Everybody is done, or is asked again."""
    async with work.database.session(store_id) as session:
        erased_at = (await session.execute(_LOCK, {"store_id": store_id})).scalar_one()
        parts = (await session.execute(_PARTS, {"store_id": store_id})).all()
        if erased_at is not None:
            return
        if all(part.cleaned_at is not None for part in parts):
            await session.execute(_OVER, {"store_id": store_id, "now": now})
            erased = StoreErased(store_id=store_id, kept_until=_last_day(parts))
            await publish(session, erased, store_id=store_id, source=SOURCE)
        else:
            await session.execute(_WAIT, {"store_id": store_id, "again": now + _AGAIN})
            await publish(session, StoreKeysDestroyed(store_id=store_id), store_id=store_id, source=SOURCE)


def _last_day(parts: Sequence[Row[Any]]) -> date | None:
    kept = [KeptOfStore.model_validate(one) for part in parts for one in part.kept]
    return max((one.until for one in kept if one.until is not None), default=None)


# --- After a restore -------------------------------------------------------------------------------------

_FORGOTTEN = text("""
    WITH again AS (
        UPDATE store_ending_part SET cleaned_at = NULL
        WHERE participant = :participant AND cleaned_at >= :since RETURNING store_id
    )
    UPDATE store_ending AS ending SET erased_at = NULL, next_step_at = :now
    FROM again WHERE ending.store_id = again.store_id
""")
_DESTROYED_SINCE = text(
    "SELECT store_id FROM store_ending WHERE keys_destroyed_at >= :since ORDER BY store_id"
)


async def end_again(work: Work, participant: str, since: datetime) -> None:
    """Whoever was restored removes again what ended stores left. Raises KeyringUnavailable."""
    if participant == KEYRING:
        async with work.database.platform_session() as session:
            ended = (await session.scalars(_DESTROYED_SINCE, {"since": since})).all()
        for store_id in ended:
            await _destroy_keys(work, store_id)
    else:
        async with work.database.platform_session() as session:
            values = {"participant": participant, "since": since, "now": work.clock()}
            await session.execute(_FORGOTTEN, values)
            ring_after_commit(session, CHANNEL)
