"""A mass expiry: how fast rows go whose keys are destroyed, and what a checkout takes meanwhile beside before."""

import time
from collections.abc import Mapping
from functools import partial
from uuid import UUID

import asyncpg

from bench.figures import Figure
from bench.shop import buy_while, check_out, meanwhile_of_before, some_checkouts

_PATIENCE = 1_800.0

# Their last day was yesterday, and nobody has told the keyring yet: all of the way is measured.
_EXPIRE = """
    INSERT INTO expiry (store_id, subject_id, generation, retention, bucket, clock, started_at, version, state,
        expires_on, due_at, revision)
    SELECT $1, subject_id, generation, 'order', bucket, 'order-cancelled', now() - interval '12 days', 1000, 'running',
        current_date - 1, now() - interval '1 hour', 1000
    FROM unnest($2::uuid[], $3::bigint[], $4::text[]) AS over (subject_id, generation, bucket)
    ON CONFLICT DO NOTHING
"""
_ORDERS = """
    SELECT subject_id, generation, id::text AS bucket FROM orders
    WHERE store_id = $1 AND contact IS NOT NULL AND state = 'fulfilled'
"""
_LEFT = """
    SELECT count(*) FROM expiry
    WHERE store_id = $1 AND revision = 1000
        AND (state IN ('running', 'destroying') OR state = 'cleaning' AND waiting <> '{}')
"""


async def figures(
    url: str, environment: Mapping[str, str], store_id: UUID, variants: list[str]
) -> list[Figure]:
    """Rows a second, and the latency of a checkout meanwhile as a part of what it was."""
    buying = partial(check_out, store=str(store_id), variants=variants)
    before = await some_checkouts(url, buying)
    orders = await _connect(environment, "ORDERS", store_id)
    privacy = await _connect(environment, "PRIVACY", store_id)
    rows = await orders.fetch(_ORDERS, store_id)
    columns = ([row[name] for row in rows] for name in ("subject_id", "generation", "bucket"))
    await privacy.execute(_EXPIRE, store_id, *columns)
    began = time.monotonic()

    async def goes_on() -> bool:
        return bool(await privacy.fetchval(_LEFT, store_id))

    meanwhile = await buy_while(url, buying, goes_on, patience=_PATIENCE)
    elapsed = time.monotonic() - began
    await orders.close()
    await privacy.close()
    return [
        Figure(f"rows of {len(rows):,} that expire at once", len(rows) / elapsed, "1/s"),
        *(meanwhile_of_before("a mass expiry", before, meanwhile, part) for part in (0.5, 0.95)),
    ]


async def _connect(environment: Mapping[str, str], service: str, store_id: UUID) -> asyncpg.Connection:
    connection = await asyncpg.connect(environment[f"{service}_DATABASE_URL"])
    await connection.execute("SELECT set_config('app.store', $1, false)", str(store_id))
    return connection
