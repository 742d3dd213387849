"""A participant that joins gets its part of requests that are open: whatever its phase asks, as if it had been there.

It is asked nothing where nobody is waited for any more: to recognise an order, and for an export that is put together.
Requests that are opened from its announcement on know it by themselves.
"""

import logging
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.worker import Work
from services.privacy.domain.states import KEYRING_LEADS, PART_PAUSE
from services.privacy.engine.phases import NOTE_ISSUED
from services.privacy.engine.tasks import IS_UNANSWERED, PHASE

logger = logging.getLogger(__name__)

CHANNEL = "participants"
"""NOTIFY channel: somebody joins, or leaves."""
WHILE = timedelta(minutes=1)
"""A request that is being opened when somebody announces themselves may not know them: so long it is looked for."""
_AT_ONCE = 200

_JOINING = text(
    "SELECT name, prepares, joining_until <= :now AS last FROM participant WHERE joining_until IS NOT NULL"
)
# Keys that a part retired are let go when everybody has looked: whoever comes after that has nothing to look for.
_LACKS = f"""
    request.state IN ('deciding', 'running', 'checking')
    AND NOT EXISTS (SELECT FROM task WHERE task.request_id = request.id AND participant = :name AND verb = {{phase}})
    AND EXISTS (SELECT FROM task WHERE task.request_id = request.id AND verb = {{phase}}
        AND ({IS_UNANSWERED} OR request.state = 'deciding'))
    AND NOT (request.state = 'checking' AND coalesce(request.purpose, request.category) IS NOT NULL AND EXISTS (
        SELECT FROM task WHERE task.request_id = request.id AND participant = 'keyring'
            AND verb = 'verify-erased' AND asked_at IS NOT NULL))
""".format(phase=f"({PHASE})")  # noqa: S608 - constants of the engine
_REFERS = f"""EXISTS (
    SELECT FROM task WHERE task.request_id = request.id AND verb = 'refer' AND {IS_UNANSWERED})"""
_LOCK = text(f"""
    SELECT id FROM request WHERE {_LACKS} ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED
""")  # noqa: S608 - constants of the engine
# The locks are older than this snapshot, so what the keyring has done for a request by now is seen.
_JOIN = text(f"""
    WITH missing AS (
        SELECT request.id, request.store_id, {PHASE} AS verb,
            request.state = 'checking' AND coalesce(request.purpose, request.category) IS NOT NULL AS later,
            request.state = 'running' AND request.claim = ANY(CAST(:led AS text[])) AND EXISTS (
                SELECT FROM task WHERE task.request_id = request.id AND participant = 'keyring'
                    AND verb = ({PHASE}) AND {IS_UNANSWERED})
            OR request.claim = 'rectification' AND {_REFERS} AS waits
        FROM request WHERE id = ANY(CAST(:ids AS uuid[])) AND {_LACKS}
    ), asked AS (
        INSERT INTO task (request_id, participant, verb, store_id, next_issue_at, asked_at)
        SELECT id, :name, verb, store_id, due, due FROM missing, LATERAL (SELECT CASE WHEN NOT waits
            THEN now() + CASE WHEN later THEN make_interval(secs => :part) ELSE interval '0' END END) AS time (due)
        RETURNING request_id, store_id, participant, verb
    ){NOTE_ISSUED}
""")  # noqa: S608 - constants of the engine
# Where the keyring waits for others who tell somebody first, it waits for this one too.
_PREPARE = text(f"""
    WITH asked AS (
        INSERT INTO task (request_id, participant, verb, store_id, next_issue_at, asked_at)
        SELECT task.request_id, :name, 'prepare', task.store_id, now(), now() FROM task
        WHERE task.request_id = ANY(CAST(:ids AS uuid[])) AND task.participant = 'keyring' AND task.verb = 'erase'
            AND task.state = 'waiting' AND task.asked_at IS NULL
        ON CONFLICT DO NOTHING
        RETURNING request_id, store_id, participant, verb
    ){NOTE_ISSUED}
""")  # noqa: S608 - constants of the engine
# Where others are still asked by which names outsiders know the person, this one is too.
_REFER = text(f"""
    WITH asked AS (
        INSERT INTO task (request_id, participant, verb, store_id, next_issue_at, asked_at)
        SELECT id, :name, 'refer', store_id, now(), now() FROM request
        WHERE id = ANY(CAST(:ids AS uuid[])) AND state = 'running' AND {_REFERS}
        ON CONFLICT DO NOTHING
        RETURNING request_id, store_id, participant, verb
    ){NOTE_ISSUED}
""")  # noqa: S608 - constants of the engine
_JOINED = text("UPDATE participant SET joining_until = NULL WHERE name = :name AND joining_until <= :now")


async def join(work: Work) -> int:
    """Give those who joined their part of what is open. Returns 0 unless more may be."""
    now = work.clock()
    async with work.database.platform_session() as session:
        joining = (await session.execute(_JOINING, {"now": now})).all()
    joined = 0
    for one in joining:
        async with work.database.platform_session() as session:
            ids = await _join(session, one)
            if one.last and not ids:
                await session.execute(_JOINED, {"name": one.name, "now": now})
        joined += len(ids)
    return int(joined > 0)


async def _join(session: AsyncSession, one: Row[Any]) -> list[UUID]:
    ids = [*(await session.scalars(_LOCK, {"name": one.name, "limit": _AT_ONCE}))]
    if ids:
        logger.info("a participant joins open requests", extra={"participant": one.name, "count": len(ids)})
        values = {"ids": ids, "name": one.name}
        led = {"led": sorted(KEYRING_LEADS), "part": PART_PAUSE.total_seconds()}
        await session.execute(_JOIN, values | led)
        await session.execute(_REFER, values)
        if one.prepares:
            await session.execute(_PREPARE, values)
    return ids
