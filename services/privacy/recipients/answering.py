"""What a recipient says later of what it was asked: signed with its secret, taken once."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.db import Database
from libs.common.errors import NotFound
from libs.common.events.privacy import Outcome
from libs.common.settings import key_bytes
from services.privacy.domain.problems import AlreadyAnswered
from services.privacy.domain.states import TERMINAL, TaskState
from services.privacy.recipients import outcomes, signatures, signing_secrets
from services.privacy.recipients.protocols import Said
from services.privacy.recipients.words import DeliveryState
from services.privacy.settings import Settings

_STORE = text("SELECT store_id FROM delivery WHERE id = :id AND request_id IS NOT NULL")


async def _store_of(database: Database, delivery_id: UUID) -> UUID:
    """At which store a delivery about somebody is. Raises NotFound."""
    async with database.platform_session() as session:
        store_id = await session.scalar(_STORE, {"id": delivery_id})
    if store_id is None:
        raise NotFound
    return store_id


_DELIVERY = text("""
    SELECT delivery.*, recipient.role, recipient.protocol FROM delivery
    JOIN recipient ON recipient.id = recipient_id
    WHERE delivery.id = :id AND delivery.store_id = :store_id
""")


async def answer(
    database: Database,
    delivery_id: UUID,
    *,
    said: Said,
    headers: Mapping[str, str],
    content: bytes,
    settings: Settings,
    now: datetime,
) -> None:
    """Take what a recipient says, if these bytes are its own. Raises NotFound, NotSigned, AlreadyAnswered."""
    store_id = await _store_of(database, delivery_id)
    async with database.session(store_id) as session:
        row = (await session.execute(_DELIVERY, {"id": delivery_id, "store_id": store_id})).one_or_none()
        if row is None:
            raise NotFound
        secrets = await signing_secrets.in_force(
            session, row.recipient_id, key_bytes(settings.master_key), now=now
        )
        signatures.check(headers, str(delivery_id), content, secrets, now=now)
        await take(session, row, said, now=now)


_LOCK_REQUEST = text("SELECT FROM request WHERE id = :id AND store_id = :store_id FOR UPDATE")
_LOCK = text("""
    SELECT delivery.state, answer_hash, task.state AS part
    FROM delivery LEFT JOIN task ON task.request_id = delivery.request_id
        AND task.recipient_id = delivery.recipient_id AND task.verb = delivery.what
    WHERE delivery.id = :id AND delivery.store_id = :store_id FOR UPDATE OF delivery
""")
_OVER = text("""
    UPDATE delivery SET state = :state, next_try_at = NULL, taken_at = coalesce(taken_at, :now) WHERE id = :id
""")
_FAILED = text("""
    UPDATE delivery SET state = 'stuck', next_try_at = NULL, taken_at = coalesce(taken_at, :now) WHERE id = :id
""")


async def take(session: AsyncSession, row: Any, said: Said, *, now: datetime) -> None:
    """What the recipient of a delivery has said, whoever it was said to. Raises AlreadyAnswered."""
    of_row = {"id": row.id, "store_id": row.store_id}
    await session.execute(_LOCK_REQUEST, {"id": row.request_id, "store_id": row.store_id})
    last = (await session.execute(_LOCK, of_row)).one()
    if last.state in {DeliveryState.DONE, DeliveryState.VOID, DeliveryState.COLLECTING}:
        if last.answer_hash == outcomes.hash_of(said):
            return
        raise AlreadyAnswered
    if last.part is not None and TaskState(last.part) in TERMINAL:
        # Somebody has answered for it.
        raise AlreadyAnswered
    if said.outcome is Outcome.FAILED:
        await session.execute(_FAILED, {"id": row.id, "now": now})
        await outcomes.failed(session, row, said.reason or "failed", next_try_at=None)
        return
    state = await outcomes.said(session, row, said, now=now)
    await session.execute(_OVER, {"id": row.id, "state": state, "now": now})
