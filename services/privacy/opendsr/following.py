"""What becomes of a tool's request: its status, its results, and who is still to be told of a change."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Row, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.db import ring_after_commit
from libs.common.personal.errors import SubjectErased
from libs.common.personal.tombstones import guard
from libs.common.personal.vocabulary import Clock
from libs.common.worker import Work
from services.privacy.domain.rights import Right
from services.privacy.domain.states import DOWNLOAD_DAYS, DOWNLOADS, OVER, UNDECIDED
from services.privacy.models import Download
from services.privacy.opendsr.models import OpenDsrCallback, OpenDsrController, OpenDsrPart, OpenDsrRequest
from services.privacy.opendsr.wire import ENDED, VERSION, RequestStatus, Status
from services.privacy.retention.clocks import start, start_of_own
from services.privacy.service.opening import hashed

CALLBACKS = "opendsr_callbacks"
"""NOTIFY channel: somebody is to be called back."""
_AT_ONCE = 100
_TOKEN_BYTES = 32


# --- A change is noted -----------------------------------------------------------------------------------

_OVER = ", ".join(f"'{state}'" for state in sorted(OVER))
_UNDECIDED = ", ".join(f"'{state}'" for state in sorted(UNDECIDED))
# As `wire.status_of` has it. Whoever follows the same request waits here, or lets it be.
_MOVED = text(f"""
    WITH moved AS (
        SELECT asked.id, CASE WHEN NOT parts.over THEN CASE WHEN parts.begun THEN 'in_progress' ELSE 'pending' END
            WHEN parts.completed THEN 'completed' ELSE 'cancelled' END AS status
        FROM opendsr_request AS asked CROSS JOIN LATERAL (
            SELECT bool_and(state IN ({_OVER})) AS over, bool_or(state NOT IN ({_UNDECIDED})) AS begun,
                bool_or(state = 'completed') AS completed
            FROM opendsr_part AS part JOIN request ON request.id = part.request_id
            WHERE part.opendsr_id = asked.id
        ) AS parts
        WHERE asked.status IN ('pending', 'in_progress')
            AND (CAST(:id AS uuid) IS NULL OR asked.id = CAST(:id AS uuid))
    )
    SELECT asked.id, asked.store_id, asked.controller_id, asked.kind, asked.status AS was, asked.callback_urls,
        moved.status, controller.revoked_at
    FROM opendsr_request AS asked JOIN moved ON moved.id = asked.id AND moved.status <> asked.status
        JOIN opendsr_controller AS controller ON controller.id = asked.controller_id
    ORDER BY asked.id LIMIT :limit FOR UPDATE OF asked SKIP LOCKED
""")  # noqa: S608 - constants of this module
_PARTS = text("""
    SELECT request.id, request.store_id, request.subject_id, request.generation, request.state, request.overdue_at
    FROM opendsr_part AS part JOIN request ON request.id = part.request_id
    WHERE part.opendsr_id = :id ORDER BY request.id
""")


async def watch(work: Work) -> int:
    """Note what has changed since somebody was last told. Returns how much it was."""
    async with work.database.platform_session() as session:
        return await follow(session, None, now=work.clock())


async def follow(session: AsyncSession, opendsr_id: UUID | None, *, now: datetime) -> int:
    """Note the changes of one request, or of all: the addresses are to be called, and results can be fetched."""
    moved = (await session.execute(_MOVED, {"id": opendsr_id, "limit": _AT_ONCE})).all()
    for row in moved:
        parts = (await session.execute(_PARTS, {"id": row.id})).all()
        status = RequestStatus(row.status)
        if status is RequestStatus.COMPLETED and row.kind != Right.ERASURE:
            await _offer(session, parts, now=now)
        values: dict[str, Any] = {"status": status}
        if dues := [part.overdue_at for part in parts if part.overdue_at is not None]:
            values["expected_at"] = max(dues)
        await session.execute(update(OpenDsrRequest).where(OpenDsrRequest.id == row.id).values(values))
        if row.revoked_at is None and row.callback_urls:
            await session.execute(insert(OpenDsrCallback), _callbacks(row, now))
            ring_after_commit(session, CALLBACKS)
    return len(moved)


def _callbacks(row: Row[Any], now: datetime) -> list[dict[str, Any]]:
    """Every change is told, also one that lasted no longer than a look: what was completed was in progress before."""
    statuses = [RequestStatus(row.status)]
    if row.was == RequestStatus.PENDING and row.status == RequestStatus.COMPLETED:
        statuses = [RequestStatus.IN_PROGRESS, *statuses]
    first = 1 if row.was == RequestStatus.PENDING else 2
    return [
        {
            "id": uuid4(),
            "store_id": row.store_id,
            "opendsr_id": row.id,
            "url": url,
            "status": status,
            "sequence": number,
            "made_at": now,
            "due_at": now,
        }
        for url in row.callback_urls
        for number, status in enumerate(statuses, first)
    ]


async def _offer(session: AsyncSession, parts: Sequence[Row[Any]], *, now: datetime) -> None:
    """The archives stay as long as one that is fetched by the link of a mail: nobody knows the token of this one."""
    for part in parts:
        try:
            await guard(session, part.store_id, part.subject_id, part.generation)
        except SubjectErased:
            continue
        token_hash = hashed(secrets.token_urlsafe(_TOKEN_BYTES))
        link = {
            "token_hash": token_hash,
            "request_id": part.id,
            "store_id": part.store_id,
            "subject_id": part.subject_id,
            "generation": part.generation,
            "expires_at": now + timedelta(days=DOWNLOAD_DAYS),
            "remaining": DOWNLOADS,
        }
        await session.execute(insert(Download).values(link))
        await session.execute(
            update(OpenDsrPart).where(OpenDsrPart.request_id == part.id).values(token_hash=token_hash)
        )
        await start(session, part.store_id, [start_of_own(part, Clock.EXPORT_READY, part.id, at=now)])


# --- It is shown -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Result:
    """An archive that can be fetched."""

    request_id: UUID
    token_hash: bytes
    expires_at: datetime


_RESULTS = text("""
    SELECT part.request_id, download.token_hash, download.expires_at
    FROM opendsr_part AS part
        JOIN download ON download.token_hash = part.token_hash AND download.expires_at > :now
        JOIN archive ON archive.request_id = part.request_id AND archive.state = 'ready'
    WHERE part.opendsr_id = :id AND part.store_id = :store_id ORDER BY part.request_id
""")
_STATES = text("""
    SELECT request.id, request.state, request.ground, request.due_on FROM opendsr_part AS part
        JOIN request ON request.id = part.request_id
    WHERE part.opendsr_id = :id AND part.store_id = :store_id ORDER BY request.id
""")


async def results_of(session: AsyncSession, found: OpenDsrRequest, *, now: datetime) -> list[Result]:
    """What can be fetched now."""
    values = {"id": found.id, "store_id": found.store_id, "now": now}
    return [Result(*row) for row in await session.execute(_RESULTS, values)]


async def status_of(
    session: AsyncSession, found: OpenDsrRequest, *, base: str, domain: str, now: datetime
) -> Status:
    """Where it is, as it was told last. `base` is the address of requests, `domain` ours."""
    results = await results_of(session, found, now=now) if found.status in ENDED else []
    address = f"{base}/{found.subject_request_id}/results" if results else None
    rows = await session.execute(_STATES, {"id": found.id, "store_id": found.store_id})
    return Status(
        controller_id=str(found.controller_id),
        subject_request_id=str(found.subject_request_id),
        expected_completion_time=found.expected_at,
        request_status=RequestStatus(found.status),
        api_version=VERSION,
        results_url=f"{address}/1" if len(results) == 1 else address,
        results_count=len(results) or None,
        extensions={domain: {"requests": [_shown(row) for row in rows]}},
    )


def _shown(row: Row[Any]) -> dict[str, str | None]:
    """What OpenDSR has no word for: a request that waits for somebody, or was refused, and why."""
    shown = {
        "id": str(row.id),
        "state": row.state,
        "ground": row.ground,
        "due_on": row.due_on and str(row.due_on),
    }
    return {name: value for name, value in shown.items() if value is not None}


# --- What staff see --------------------------------------------------------------------------------------


async def callbacks_of(
    session: AsyncSession, controller: OpenDsrController, *, limit: int
) -> list[tuple[OpenDsrCallback, OpenDsrRequest]]:
    """The last calls to a tool, the newest first."""
    statement = (
        select(OpenDsrCallback, OpenDsrRequest)
        .join(OpenDsrRequest, OpenDsrRequest.id == OpenDsrCallback.opendsr_id)
        .where(OpenDsrRequest.store_id == controller.store_id, OpenDsrRequest.controller_id == controller.id)
        .order_by(OpenDsrCallback.made_at.desc(), OpenDsrCallback.sequence.desc(), OpenDsrCallback.id)
        .limit(limit)
    )
    return [(row[0], row[1]) for row in await session.execute(statement)]
