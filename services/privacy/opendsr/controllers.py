"""Tools of a store that may ask us over OpenDSR, and the keys by which they are let in."""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import delete, select, text, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.db import Database
from libs.common.errors import NotFound, Unauthenticated
from libs.common.http import cursor_at, position_in
from services.privacy.opendsr.models import OpenDsrController, OpenDsrKey
from services.privacy.opendsr.schemas import NewController

PREFIX = "vitrine_dsr_"
"""Says what it is, to whoever finds one where it should not be."""
_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class Controller:
    """A tool that showed its key."""

    id: UUID
    store_id: UUID
    callback_hosts: frozenset[str]


# --- Registering -----------------------------------------------------------------------------------------


async def register(
    session: AsyncSession, wanted: NewController, *, store_id: UUID, by: UUID, now: datetime
) -> tuple[OpenDsrController, str]:
    """A tool, and its key, which is told this once."""
    controller = OpenDsrController(
        store_id=store_id,
        name=wanted.name,
        callback_hosts=wanted.callback_hosts,
        registered_by=by,
        registered_at=now,
    )
    session.add(controller)
    await session.flush()
    return controller, _issue(session, controller, now=now)


def _issue(session: AsyncSession, controller: OpenDsrController, *, now: datetime) -> str:
    key = PREFIX + secrets.token_urlsafe(_KEY_BYTES)
    session.add(
        OpenDsrKey(
            hash=_hashed(key), store_id=controller.store_id, controller_id=controller.id, issued_at=now
        )
    )
    return key


def _hashed(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


async def of_store(
    session: AsyncSession, *, store_id: UUID, cursor: str | None, limit: int
) -> tuple[list[OpenDsrController], str | None]:
    """The tools of a store, the newest first. Raises InvalidCursor."""
    statement = select(OpenDsrController).where(OpenDsrController.store_id == store_id)
    place = tuple_(OpenDsrController.registered_at, OpenDsrController.id)
    if cursor is not None:
        statement = statement.where(place < position_in(cursor))
    ordered = statement.order_by(OpenDsrController.registered_at.desc(), OpenDsrController.id.desc())
    found = list((await session.scalars(ordered.limit(limit + 1))).all())
    last = found[limit - 1] if len(found) > limit else None
    return found[:limit], cursor_at(last.registered_at, last.id) if last is not None else None


async def one(
    session: AsyncSession, *, store_id: UUID, controller_id: UUID, lock: bool = False
) -> OpenDsrController:
    """A tool. Raises NotFound."""
    statement = select(OpenDsrController).where(
        OpenDsrController.store_id == store_id, OpenDsrController.id == controller_id
    )
    controller = await session.scalar(statement.with_for_update() if lock else statement)
    if controller is None:
        raise NotFound
    return controller


async def change(session: AsyncSession, controller: OpenDsrController, wanted: NewController) -> None:
    """Another name, other addresses. What was asked before is told where it was to be told."""
    controller.name, controller.callback_hosts = wanted.name, wanted.callback_hosts
    controller.version += 1
    await session.flush()


async def rotate(
    session: AsyncSession, controller: OpenDsrController, *, overlap: timedelta, now: datetime
) -> str:
    """Another key, told this once; the one before is good for a while, and none before that. Raises NotFound."""
    if controller.revoked_at is not None:
        raise NotFound
    keys = (OpenDsrKey.store_id == controller.store_id, OpenDsrKey.controller_id == controller.id)
    await session.execute(delete(OpenDsrKey).where(*keys, OpenDsrKey.expires_at.is_not(None)))
    await session.execute(update(OpenDsrKey).where(*keys).values(expires_at=now + overlap))
    return _issue(session, controller, now=now)


_SILENCED = text("""
    UPDATE opendsr_callback SET due_at = NULL FROM opendsr_request
    WHERE opendsr_request.id = opendsr_callback.opendsr_id AND opendsr_request.controller_id = :id
        AND opendsr_callback.store_id = :store_id AND due_at IS NOT NULL
""")


async def revoke(session: AsyncSession, controller: OpenDsrController, *, now: datetime) -> None:
    """Nobody is let in by its keys any more, or called back for it. What it asked is done: people asked for it."""
    if controller.revoked_at is None:
        controller.revoked_at = now
        controller.version += 1
        await session.execute(
            delete(OpenDsrKey).where(
                OpenDsrKey.store_id == controller.store_id, OpenDsrKey.controller_id == controller.id
            )
        )
        await session.execute(_SILENCED, {"id": controller.id, "store_id": controller.store_id})


# --- Letting in ------------------------------------------------------------------------------------------

_OF_KEY = text("""
    SELECT controller.id, controller.store_id, controller.callback_hosts
    FROM opendsr_key AS key JOIN opendsr_controller AS controller ON controller.id = key.controller_id
    WHERE key.hash = :hash AND (key.expires_at IS NULL OR key.expires_at > :now) AND controller.revoked_at IS NULL
""")


async def of_key(database: Database, key: str, *, store_id: UUID, now: datetime) -> Controller:
    """Whose key it is. Raises Unauthenticated, and NotFound for a key of another store."""
    async with database.platform_session() as session:
        row = (await session.execute(_OF_KEY, {"hash": _hashed(key), "now": now})).one_or_none()
    if row is None:
        raise Unauthenticated("The key is not valid any more, or never was.")
    if row.store_id != store_id:
        raise NotFound
    return Controller(row.id, row.store_id, frozenset(row.callback_hosts))
