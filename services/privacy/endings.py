"""What ends by itself: requests that nobody verified, documents that nobody looked at, and the keys of both.

A key is destroyed in three steps: what is to go is saved with the change that makes it superfluous, the keyring is
asked outside any transaction, and what it did is saved. Each may be repeated; a crash between two only delays.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common import inbox
from libs.common.db import Database, ring_after_commit
from libs.common.personal.keys import Bucketful, KeyringClient
from libs.common.personal.vault import announce
from libs.common.personal.vocabulary import Retention
from libs.common.settings import ServiceSettings
from libs.common.throttle import FORGET
from libs.common.worker import Work
from services.privacy.domain.states import VERIFICATION_DAYS
from services.privacy.domain.verification import DOCUMENT_DAYS
from services.privacy.engine import decisions
from services.privacy.engine.tasks import COLUMNS

DOOMED = "doomed_keys"
"""NOTIFY channel: keys are to be destroyed."""
_LEASE_SECONDS = 30.0
_AT_ONCE = 200


# --- Keys ------------------------------------------------------------------------------------------------

_DOOM = text("""
    INSERT INTO doomed_key (store_id, bucket, retention, subject_id, generation, next_try_at)
    VALUES (:store_id, :bucket, :retention, :subject_id, :generation, :at) ON CONFLICT DO NOTHING
""")


async def doom(
    session: AsyncSession, person: Any, retention: Retention, bucket: UUID, *, at: datetime
) -> None:
    """The key of this bucket is to be destroyed, once the session has committed and `at` has come."""
    values = {
        "store_id": person.store_id,
        "subject_id": person.subject_id,
        "generation": person.generation,
        "retention": retention,
        "bucket": bucket,
        "at": at,
    }
    await session.execute(_DOOM, values)
    ring_after_commit(session, DOOMED)


_CLAIM = text("""
    UPDATE doomed_key SET next_try_at = :until
    WHERE (store_id, bucket) IN (
        SELECT store_id, bucket FROM doomed_key
        WHERE next_try_at <= :now AND bucket = coalesce(CAST(:only AS uuid), bucket)
        ORDER BY next_try_at LIMIT :limit FOR UPDATE SKIP LOCKED)
    RETURNING store_id, bucket, retention, subject_id, generation
""")
_DESTROYED = text("""
    WITH gone AS (
        DELETE FROM doomed_key WHERE bucket = ANY(CAST(:buckets AS uuid[])) RETURNING store_id, bucket, retention
    ), evidence AS (
        INSERT INTO evidence_pending (store_id, request_id, kind, at, facts)
        SELECT gone.store_id, coalesce(request_id, bucket), 'key-destroyed', CAST(:now AS timestamptz),
            jsonb_strip_nulls(jsonb_build_object('retention', retention, 'document', document_id))
        FROM gone LEFT JOIN document_check ON document_id = bucket
        WHERE request_id IS NOT NULL OR retention = 'request'
    )
    UPDATE document_check SET destroyed_at = :now FROM gone
    WHERE document_id = gone.bucket AND destroyed_at IS NULL
""")


async def destroy_doomed(
    database: Database, keyring: KeyringClient, *, now: datetime, only: UUID | None = None
) -> int:
    """Destroy the keys that are to go; `only` names one by its bucket. Raises KeyringUnavailable."""
    claim = {
        "now": now,
        "until": now + timedelta(seconds=_LEASE_SECONDS),
        "limit": _AT_ONCE,
        "only": only,
    }
    async with database.platform_session() as session:
        rows = (await session.execute(_CLAIM, claim)).all()
    if not rows:
        return 0
    await keyring.destroy_buckets([_bucketful(row) for row in rows])
    async with database.platform_session() as session:
        await session.execute(_DESTROYED, {"buckets": [row.bucket for row in rows], "now": now})
        await announce(session, {(row.store_id, row.subject_id) for row in rows})
    return len(rows)


def _bucketful(row: Row[Any]) -> Bucketful:
    return Bucketful(row.store_id, row.subject_id, row.generation, Retention(row.retention), str(row.bucket))


async def destroy_keys(work: Work) -> int:
    """Whatever was left to be destroyed, by a crash or by a keyring that was away."""
    keyring = keyring_of(work.settings, work.http)
    return await destroy_doomed(work.database, keyring, now=work.clock()) // _AT_ONCE


def keyring_of(settings: ServiceSettings, http: httpx.AsyncClient) -> KeyringClient:
    """The keyring, for what governs keys."""
    return KeyringClient(
        url=settings.keyring_url,
        service="privacy",
        private_key=settings.service_key.get_secret_value(),
        http=http,
    )


# --- Requests and documents ------------------------------------------------------------------------------

# Whoever sent a document has done their part: the request waits for the store to look at it.
_UNVERIFIED = text(f"""
    SELECT {COLUMNS} FROM request
    WHERE state = 'verifying' AND opened_at <= :before
        AND NOT EXISTS (SELECT FROM verification_document WHERE request_id = request.id)
    ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED
""")  # noqa: S608 - a constant of the engine
_EMPTIED = text("""
    WITH emptied AS (
        UPDATE request SET contact = NULL, proposal = NULL, agent = NULL, status_hash = NULL, order_number = NULL
        WHERE id = :id AND store_id = :store_id
    ), unwritten AS (
        DELETE FROM notice WHERE request_id = :id
    )
    DELETE FROM request_note WHERE request_id = :id AND store_id = :store_id
""")


async def expire_requests(work: Work) -> int:
    """A request that nobody has shown to be theirs is cancelled; its boxes go, and their key with them."""
    now = work.clock()
    values = {"before": now - timedelta(days=VERIFICATION_DAYS), "limit": _AT_ONCE}
    async with work.database.platform_session() as session:
        rows: Sequence[Row[Any]] = (await session.execute(_UNVERIFIED, values)).all()
        for row in rows:
            await decisions.cancel(session, row, now=now)
            await session.execute(_EMPTIED, {"id": row.id, "store_id": row.store_id})
            await doom(session, row, Retention.REQUEST, row.id, at=now)
    return len(rows) // _AT_ONCE


_UNSEEN = text("""
    WITH old AS (
        SELECT document.id FROM verification_document AS document
        WHERE uploaded_at <= :before OR NOT EXISTS (
            SELECT FROM request WHERE request.id = document.request_id
                AND state NOT IN ('completed', 'refused', 'cancelled'))
        ORDER BY uploaded_at LIMIT :limit FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM verification_document AS document USING old WHERE document.id = old.id
        RETURNING document.*
    ), noted AS (
        INSERT INTO document_check (document_id, request_id, store_id, outcome, at, openings)
        SELECT id, request_id, store_id, 'unseen', :now, openings FROM gone
    ), evidence AS (
        INSERT INTO evidence_pending (store_id, request_id, kind, at, facts)
        SELECT store_id, request_id, 'document-checked', :now,
            jsonb_build_object('document', id, 'outcome', 'unseen', 'openings', openings) FROM gone
    )
    SELECT * FROM gone
""")


async def expire_documents(work: Work) -> int:
    """A document whose request has ended, or that waited for 30 days, is destroyed unseen, and that is on record."""
    now = work.clock()
    values = {"before": now - timedelta(days=DOCUMENT_DAYS), "limit": _AT_ONCE, "now": now}
    async with work.database.platform_session() as session:
        rows = (await session.execute(_UNSEEN, values)).all()
        for row in rows:
            await doom(session, row, Retention.VERIFICATION, row.id, at=now)
    return len(rows) // _AT_ONCE


_FORGET_REMOVED = text("DELETE FROM removed_email WHERE removed_at < :before")


async def forget_attempts(work: Work) -> int:
    """Counters whose window is over, and removed addresses that no topic, retry or replay can speak of any more."""
    now = work.clock()
    async with work.database.platform_session() as session:
        await session.execute(FORGET, {"now": now})
        await session.execute(_FORGET_REMOVED, {"before": now - inbox.KEPT_FOR})
    return 0
