"""How many keys there are in each state, measured once a minute by every keyring; they all see the same."""

import asyncio
import logging
from datetime import timedelta

from libs.common import telemetry
from libs.common.db import ALL_STORES, Database, Query

logger = logging.getLogger(__name__)

EVERY = timedelta(minutes=1)
_COUNTED = 100_000
"""So many are counted; of more the planner's estimate is told, or counting a million keys would be felt."""

_keys = telemetry.meter.create_gauge("keyring.keys", description="Keys of people, by their state.")
_PRESENT = Query("""
    SELECT (SELECT count(*) FROM (SELECT FROM data_key LIMIT CAST(:counted AS bigint)) AS these) AS counted,
        (SELECT reltuples::bigint FROM pg_class WHERE oid = 'data_key'::regclass) AS estimated,
        (SELECT count(*) FROM data_key WHERE state = 'restricted' AND retired_at IS NULL) AS restricted,
        (SELECT count(*) FROM data_key WHERE retired_at IS NOT NULL) AS retired
""")
_GONE = Query("""
    SELECT (SELECT count(*) FROM (SELECT FROM destroyed_key LIMIT CAST(:counted AS bigint)) AS these) AS counted,
        (SELECT reltuples::bigint FROM pg_class WHERE oid = 'destroyed_key'::regclass) AS estimated
""")


async def measure(keyring: Database, log: Database) -> None:
    """How many are active, restricted, retired (what lies under them is being sealed anew, or goes), and destroyed."""
    async with keyring.transaction(ALL_STORES) as transaction:
        [present] = await _PRESENT.rows(transaction, counted=_COUNTED + 1)
    async with log.transaction(ALL_STORES) as transaction:
        [gone] = await _GONE.rows(transaction, counted=_COUNTED + 1)
    others = present.restricted + present.retired
    _keys.set(max(0, _number(present.counted, present.estimated) - others), {"state": "active"})
    _keys.set(present.restricted, {"state": "restricted"})
    _keys.set(present.retired, {"state": "retired"})
    _keys.set(_number(gone.counted, gone.estimated), {"state": "destroyed"})


def _number(counted: int, estimated: int) -> int:
    return max(counted, estimated) if counted > _COUNTED else counted


async def keep_measuring(keyring: Database, log: Database) -> None:
    """Measure until cancelled. A database that is away is asked again a minute later."""
    while telemetry.is_kept():
        try:
            await measure(keyring, log)
        except Exception as error:
            logger.warning("keys are not measured", extra={"error": type(error).__name__})
        await asyncio.sleep(EVERY.total_seconds())
