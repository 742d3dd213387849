"""However many buckets wait, the next batch of them is found by reading about as many as it has."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from libs.common.db import ALL_STORES, Batch, Transaction, fetch
from libs.common.personal.vocabulary import Clock
from services.privacy.retention import expiring, moving
from tests.privacy.lasting import NOW, Lasting, lasting

__all__ = ["lasting"]

_MANY = 5_000
_BATCH = 50
_AGO = NOW - timedelta(minutes=10)
_DAY = (NOW - timedelta(days=5)).date()

_CHOICE = """
    INSERT INTO retention_settings (store_id, revision) VALUES ($1, 1) ON CONFLICT (store_id) DO UPDATE SET revision = 1
"""
_FILL = f"""
    INSERT INTO expiry (store_id, subject_id, generation, retention, bucket, clock, started_at, state, expires_on,
        due_at, told_on, next_try_at, waiting, destroyed_at)
    SELECT $1, gen_random_uuid(), 1, 'order', number::text, 'order-cancelled', $2::timestamptz - interval '20 days', $3,
        $4::date, $2::timestamptz + number * interval '1 microsecond', $5::date, $6::timestamptz, $7::text[],
        $8::timestamptz
    FROM generate_series(1, {_MANY}) AS number
"""
_READ = """
    SELECT coalesce(sum(seq_tup_read), 0)::bigint AS sequentially, coalesce(sum(idx_tup_fetch), 0)::bigint AS by_index
    FROM pg_stat_xact_user_tables WHERE relname = 'expiry'
"""

_RUNNING = {"state": "running", "told": _DAY}
_CLAIMED = {"now": NOW, "due": NOW, "until": NOW + timedelta(minutes=1), "even_on_hold": []}
_BATCHES: dict[str, tuple[Batch, dict[str, Any], dict[str, Any]]] = {
    "behind-a-choice": (moving.BEHIND, _RUNNING, {"clocks": [clock.value for clock in Clock]}),
    "untold": (expiring.UNTOLD, {"state": "running"}, {}),
    "due": (expiring.CLAIM, _RUNNING, _CLAIMED),
    "claimed-before": (expiring.CLAIM, {"state": "destroying", "told": _DAY, "next": _AGO}, _CLAIMED),
    "unheard": (
        expiring.UNHEARD,
        {"state": "cleaning", "next": _AGO, "waiting": ["shop"], "destroyed": _AGO},
        {"now": NOW, "first": 30.0, "longest": 600.0},
    ),
    "clean": (
        expiring.FINISH,
        {"state": "cleaning", "next": _AGO, "destroyed": _AGO},
        {"now": NOW, "forgotten": NOW},
    ),
}
"""By what waits: the statement that takes a batch of it, rows that wait for it, and what it is told."""


@pytest.mark.parametrize("statistics", ["of-nothing", "of-before", "of-now"])
@pytest.mark.parametrize("waits", _BATCHES)
async def test_a_batch_reads_about_as_many_rows_as_it_has(
    lasting: Lasting, privacy_environment: Mapping[str, str], waits: str, statistics: str
) -> None:
    batch, row, told = _BATCHES[waits]
    # Only the owner of a table may analyze it. What is filled in is rolled back.
    owner = await asyncpg.connect(privacy_environment["PRIVACY_MIGRATION_DATABASE_URL"])
    transaction = Transaction(owner)
    try:
        await owner.execute(f"BEGIN; SELECT set_config('app.store', '{ALL_STORES}', true)")
        if statistics == "of-before":
            await owner.execute("ANALYZE expiry")
        await fetch(transaction, _CHOICE, lasting.store_id)
        await fetch(
            transaction, _FILL, lasting.store_id, _AGO - timedelta(days=4), row["state"], _DAY, row.get("told"),
            row.get("next"), row.get("waiting", []), row.get("destroyed"),
        )  # fmt: skip
        if statistics == "of-now":
            await owner.execute("ANALYZE expiry")
        [before] = await fetch(transaction, _READ)
        taken = await batch.rows(transaction, limit=_BATCH, **told)
        [after] = await fetch(transaction, _READ)
        assert len(taken) == _BATCH
        assert after.sequentially == before.sequentially
        # Each is found, locked, and found once more to be changed.
        assert after.by_index - before.by_index <= 4 * _BATCH
    finally:
        await owner.execute("ROLLBACK")
        await owner.close()
