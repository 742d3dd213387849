"""What the privacy worker does unasked: issue again, forget."""

from collections import defaultdict
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from libs.common.events.privacy import Verb
from libs.common.outbox import publish_all
from libs.common.telemetry import continuing
from libs.common.worker import Work
from services.privacy.domain.states import FIRST_PAUSE, LONGEST_PAUSE
from services.privacy.engine.tasks import COLUMNS, SOURCE, task, traces_of

_ISSUED_AGAIN_AT_ONCE = 50
"""A queue is not a loss: when many wait, most are only waiting their turn, and issuing all again would lengthen it."""


# --- Issuing again ---------------------------------------------------------------------------------------

_OVERDUE = text(f"""
    SELECT {COLUMNS} FROM request
    WHERE id IN (SELECT request_id FROM task
                 WHERE next_issue_at <= now() AND participant <> 'keyring' AND recipient_id IS NULL
                 ORDER BY next_issue_at LIMIT :limit)
    ORDER BY id FOR UPDATE SKIP LOCKED
""")  # noqa: S608 - a constant of the engine
_ISSUED = text("""
    UPDATE task SET attempts = attempts + 1,
        next_issue_at = now() + make_interval(secs => least(:longest, :first * 2 ^ least(attempts + 1, 20)))
    WHERE request_id = ANY(CAST(:ids AS uuid[])) AND participant <> 'keyring' AND recipient_id IS NULL
        AND next_issue_at <= now() AND state IN ('waiting', 'failed')
    RETURNING request_id, participant, verb, attempts
""")


async def issue_again(work: Work) -> int:
    """Ask those who have not answered once more, with pauses that double from two seconds to ten minutes."""
    async with work.database.platform_session() as session:
        requests = (await session.execute(_OVERDUE, {"limit": _ISSUED_AGAIN_AT_ONCE})).all()
        if not requests:
            return 0
        values = {
            "ids": [request.id for request in requests],
            "first": FIRST_PAUSE.total_seconds(),
            "longest": LONGEST_PAUSE.total_seconds(),
        }
        missing: dict[tuple[UUID, str], list[Row[Any]]] = defaultdict(list)
        for row in await session.execute(_ISSUED, values):
            missing[row.request_id, row.verb].append(row)
        for request in requests:
            tasks = [
                task(
                    request,
                    Verb(verb),
                    attempt=1 + max(row.attempts for row in rows),
                    participants=sorted(row.participant for row in rows),
                )
                for (request_id, verb), rows in missing.items()
                if request_id == request.id
            ]
            with continuing(traces_of([request])):
                await publish_all(session, tasks, store_id=request.store_id, source=SOURCE)
    return 0


# --- Forgetting -----------------------------------------------------------------------------------------

# What a request that ended otherwise had come to by then goes too; what is still to be made or announced stays.
_FORGET = text("""
    WITH expired AS (
        DELETE FROM download WHERE expires_at <= now() RETURNING request_id
    ), over AS (
        SELECT request_id FROM expired
        UNION SELECT id FROM request WHERE state IN ('refused', 'cancelled')
    ), archives AS (
        DELETE FROM archive USING over WHERE archive.request_id = over.request_id
    ), pieces AS (
        DELETE FROM archive_piece USING over WHERE archive_piece.request_id = over.request_id
    ), grants AS (
        DELETE FROM download_grant USING over WHERE download_grant.request_id = over.request_id
    ), grants_of_their_own_time AS (
        DELETE FROM download_grant WHERE expires_at <= now()
            AND request_id NOT IN (SELECT request_id FROM over)
    )
    DELETE FROM export_chunk USING over WHERE export_chunk.request_id = over.request_id
""")


async def forget_exports(work: Work) -> int:
    """An archive is gone when its link has expired, with all that leads to it."""
    async with work.database.platform_session() as session:
        await session.execute(_FORGET)
    return 0
