"""Calling tools back: every change, to every address, in order, until it is heard or three days have passed."""

import asyncio
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, text

from libs.common.db import ALL_STORES, Query
from libs.common.outgoing import NotSent, Outgoing
from libs.common.worker import Work
from services.privacy.opendsr import following
from services.privacy.opendsr.models import OpenDsrRequest
from services.privacy.opendsr.places import requests_of
from services.privacy.opendsr.signatures import Signer, signer_of
from services.privacy.opendsr.wire import Callback, RequestStatus, written
from services.privacy.recipients.deliveries import outgoing_of
from services.privacy.settings import present

FIRST_PAUSE = timedelta(seconds=5)
LONGEST_PAUSE = timedelta(hours=6)
TRIED_FOR = timedelta(days=3)
_LEASE = timedelta(minutes=2)
_AT_ONCE = 20

# What comes later waits, at one address, for what comes before.
_CLAIM = Query("""
    UPDATE opendsr_callback SET due_at = :leased, attempts = attempts + 1
    WHERE id IN (
        SELECT id FROM opendsr_callback AS callback
        WHERE due_at <= :now AND NOT EXISTS (
            SELECT FROM opendsr_callback AS earlier
            WHERE earlier.opendsr_id = callback.opendsr_id AND earlier.url = callback.url
                AND earlier.sequence < callback.sequence AND earlier.due_at IS NOT NULL)
        ORDER BY due_at LIMIT :limit FOR UPDATE SKIP LOCKED)
    RETURNING id, store_id, opendsr_id, url, status, attempts, made_at
""")
# Whoever was silenced meanwhile stays so.
_ATTEMPTED = text("""
    UPDATE opendsr_callback SET due_at = :due_at, delivered_at = :delivered_at, answer = :answer, fault = :fault
    WHERE id = :id AND due_at IS NOT NULL
""")


async def call(work: Work) -> int:
    """Make the calls that are due. Returns 0 unless more are waiting."""
    now = work.clock()
    async with work.database.transaction(ALL_STORES) as transaction:
        rows = await _CLAIM.rows(transaction, now=now, leased=now + _LEASE, limit=_AT_ONCE)
    if rows:
        signer, outgoing = signer_of(present()), outgoing_of(present())
        await asyncio.gather(*(_call(work, row, signer, outgoing, now) for row in rows))
    return len(rows)


async def _call(work: Work, row: Row[Any], signer: Signer, outgoing: Outgoing, now: datetime) -> None:
    body = await _body(work, row, signer, now)
    headers = {"Content-Type": "application/json", **signer.headers(body)}
    try:
        answer = (await outgoing.send("POST", row.url, headers=headers, content=body)).status
        fault = None
    except NotSent as error:
        answer, fault = None, error.word
    heard = answer is not None and 200 <= answer < 300
    over = heard or now - row.made_at > TRIED_FOR
    pause = min(FIRST_PAUSE * 2 ** min(row.attempts - 1, 20), LONGEST_PAUSE)
    async with work.database.session(row.store_id) as session:
        values = {
            "id": row.id,
            "due_at": None if over else now + pause,
            "delivered_at": now if heard else None,
            "answer": answer,
            "fault": fault,
        }
        await session.execute(_ATTEMPTED, values)


async def _body(work: Work, row: Row[Any], signer: Signer, now: datetime) -> bytes:
    """What has changed, with the results as they are now: a link that expired meanwhile is not given."""
    async with work.database.session(row.store_id) as session:
        found = await session.get_one(OpenDsrRequest, row.opendsr_id)
        base = requests_of(work.settings.public_url, row.store_id)
        status = await following.status_of(session, found, base=base, domain=signer.domain, now=now)
    told = status.model_dump(exclude={"api_version"}) | {
        "status_callback_url": row.url,
        "request_status": RequestStatus(row.status),
    }
    if row.status != status.request_status:
        told |= {"results_url": None, "results_count": None}
    return written(Callback.model_validate(told))
