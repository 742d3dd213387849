"""A store that chooses another period moves what runs already: every day is computed anew, a batch at a time."""

from collections import defaultdict
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.db import ALL_STORES, Batch, Query, Row, ring_after_commit
from libs.common.personal.vocabulary import Clock
from libs.common.worker import Work
from services.privacy.retention.periods import Choice, choice_from

CHANNEL = "periods"
"""NOTIFY channel: a store has chosen."""
AT_ONCE = 1000

# The revision that was read with the rows is what they are computed by: a choice made meanwhile takes another turn.
BEHIND = Batch("""
    SELECT behind.*, chosen.lengths, chosen.zone, chosen.revision, chosen.version
    FROM retention_settings AS chosen CROSS JOIN LATERAL (
        SELECT store_id, subject_id, generation, retention, bucket, clock, started_at, state FROM expiry
        WHERE expiry.store_id = chosen.store_id AND expiry.revision < chosen.revision
            AND state IN ('running', 'stopped') AND clock = ANY(CAST(:clocks AS text[]))
        ORDER BY expiry.revision LIMIT :limit FOR UPDATE SKIP LOCKED
    ) AS behind
    LIMIT :limit
""")
_MOVE = Query("""
    UPDATE expiry SET revision = given.revision, expires_on = given.expires_on, due_at = given.due_at
    FROM unnest(CAST(:stores AS uuid[]), CAST(:subjects AS uuid[]), CAST(:generations AS bigint[]),
        CAST(:retentions AS text[]), CAST(:buckets AS text[]), CAST(:revisions AS bigint[]), CAST(:days AS date[]),
        CAST(:dues AS timestamptz[]))
        AS given (store_id, subject_id, generation, retention, bucket, revision, expires_on, due_at)
    WHERE (expiry.store_id, expiry.subject_id, expiry.generation, expiry.retention, expiry.bucket)
        = (given.store_id, given.subject_id, given.generation, given.retention, given.bucket)
""")


def soon(session: AsyncSession) -> None:
    """A store has chosen, once the session commits."""
    ring_after_commit(session, CHANNEL)


async def move(work: Work) -> int:
    """Compute a batch of days anew. Returns 0 unless more are waiting."""
    async with work.database.transaction(ALL_STORES) as transaction:
        rows = await BEHIND.rows(transaction, limit=AT_ONCE, clocks=[clock.value for clock in Clock])
        if rows:
            await _MOVE.rows(transaction, **_moved(rows))
    return len(rows) // AT_ONCE


def _moved(rows: list[Row]) -> dict[str, list[Any]]:
    choices: dict[UUID, Choice] = {}
    columns: dict[str, list[Any]] = defaultdict(list)
    for row in rows:
        choice = choices.setdefault(row.store_id, choice_from(row))
        day = choice.last_day(Clock(row.clock), row.started_at) if row.state == "running" else None
        values = {
            "stores": row.store_id,
            "subjects": row.subject_id,
            "generations": row.generation,
            "retentions": row.retention,
            "buckets": row.bucket,
            "revisions": choice.revision,
            "days": day,
            "dues": choice.due_at(day) if day is not None else None,
        }
        for name, value in values.items():
            columns[name].append(value)
    return columns
