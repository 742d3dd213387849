"""Closed accounts become erasures. Nobody decides: it was said when the account was closed, and there was time to come
back. An identity service that has forgotten who closed theirs is told.

Identity's event brings a box with the address. What it brought is saved, the keyring is asked outside any transaction,
and the request is opened like any other.
"""

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.db import Query, ring_after_commit
from libs.common.errors import Problem, Unavailable
from libs.common.events import Received
from libs.common.events.identity import AccountContact, AccountEnded
from libs.common.events.privacy import ClosingRemembered
from libs.common.outbox import publish_all
from libs.common.personal.data import Sealed
from libs.common.personal.errors import KeyDestroyed, SubjectErased
from libs.common.personal.vocabulary import Purpose
from libs.common.worker import Work
from services.privacy.asked import Asked
from services.privacy.domain.rights import Right
from services.privacy.domain.verification import Way
from services.privacy.engine.tasks import SOURCE
from services.privacy.models import ClosedAccount
from services.privacy.service import opening
from services.privacy.settings import present

logger = logging.getLogger(__name__)

CHANNEL = "closed_accounts"
"""NOTIFY channel: an erasure is to be opened."""
_LEASE = timedelta(seconds=30)
_AT_ONCE = 50
_TOLD_AT_ONCE = 500


async def on_account_ended(session: AsyncSession, event: Received[AccountEnded]) -> None:
    """An erasure is to be opened for this person."""
    ended = event.data
    await session.execute(
        upsert(ClosedAccount)
        .values(
            account_id=ended.account_id,
            store_id=event.envelope.store_id,
            subject_id=ended.subject_id,
            generation=ended.generation,
            contact=ended.contact,
            next_try_at=event.envelope.time,
        )
        .on_conflict_do_nothing()
    )
    ring_after_commit(session, CHANNEL)


_CLAIM = text("""
    UPDATE closed_account SET next_try_at = :until
    WHERE account_id IN (
        SELECT account_id FROM closed_account WHERE next_try_at <= :now
        ORDER BY next_try_at LIMIT :limit FOR UPDATE SKIP LOCKED)
    RETURNING account_id, store_id, subject_id, generation, contact
""")
_OPENED = text("DELETE FROM closed_account WHERE account_id = :account_id RETURNING account_id")


async def open_erasures(work: Work) -> int:
    """Open the erasures of accounts that have ended. Returns 0 unless more are waiting. Raises KeyringUnavailable."""
    now = work.clock()
    async with work.database.platform_session() as session:
        claim = {"now": now, "until": now + _LEASE, "limit": _AT_ONCE}
        rows: Sequence[Row[Any]] = (await session.execute(_CLAIM, claim)).all()
    for row in rows:
        await _open(work, row, now)
    return len(rows) // _AT_ONCE


async def _open(work: Work, row: Row[Any], now: datetime) -> None:
    try:
        asking = await _asking(work, row)
        async with work.database.session(row.store_id) as session:
            if (await session.execute(_OPENED, {"account_id": row.account_id})).first() is not None:
                expected = sorted(present().participants)
                await opening.open_request(session, asking, expected=expected, now=now)
    except (KeyDestroyed, SubjectErased):
        # Another request, or the end of the store, was first.
        await _forget(work, row.store_id, row.account_id)
    except Unavailable:
        raise
    except (Problem, ValueError) as error:
        # Tried again when its lease ends; until somebody has looked, it must not hold the others back.
        logger.error(
            "the erasure of a closed account cannot be opened",
            extra={"store_id": str(row.store_id), "reason": type(error).__name__},
        )


async def _asking(work: Work, row: Row[Any]) -> opening.Asking:
    contact = await work.vault.open(
        Sealed(AccountContact, row.contact),
        store_id=row.store_id,
        subject_id=row.subject_id,
        purpose=Purpose.RIGHTS_OF_THE_PERSON,
    )
    asking = await opening.sealed(
        work.vault,
        store_id=row.store_id,
        subject_id=row.subject_id,
        asked=Asked(Right.ERASURE),
        email=contact.email,
        language=contact.language,
        way=Way.CLOSING,
    )
    if asking.generation != row.generation:
        raise SubjectErased
    return asking


async def _forget(work: Work, store_id: UUID, account_id: UUID) -> None:
    logger.info("an account that ended was erased already")
    async with work.database.session(store_id) as session:
        await session.execute(_OPENED, {"account_id": account_id})


# --- After a restore of identity -------------------------------------------------------------------------

_KNOWN = Query("""
    SELECT store_id, subject_id, generation, version, CASE state WHEN 'running' THEN started_at END AS ends_at
    FROM expiry
    WHERE retention = 'account' AND clock = 'account-closed' AND state IN ('running', 'stopped')
        AND (store_id, subject_id, generation) > (CAST(:store_id AS uuid), CAST(:subject_id AS uuid), :generation)
    ORDER BY store_id, subject_id, generation LIMIT :limit
""")
_FIRST = {"store_id": UUID(int=0), "subject_id": UUID(int=0), "generation": 0}


async def remember(work: Work) -> None:
    """Tell identity all that was heard of closed accounts: its periods run on here, whatever a backup says there."""
    after: dict[str, Any] = _FIRST
    while True:
        async with work.database.platform_session() as session:
            rows = await _KNOWN.rows(session, **after, limit=_TOLD_AT_ONCE)
            for store_id, of_store in groupby(rows, key=lambda row: row.store_id):
                told = [_remembered(row) for row in of_store]
                await publish_all(session, told, store_id=store_id, source=SOURCE)
        if not rows:
            return
        after = {name: getattr(rows[-1], name) for name in _FIRST}


def _remembered(row: Any) -> ClosingRemembered:
    return ClosingRemembered(
        subject_id=row.subject_id, generation=row.generation, ends_at=row.ends_at, version=row.version
    )
