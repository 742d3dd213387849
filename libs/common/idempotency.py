"""A POST that can be sent again: `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header).

The key is claimed in the command's own transaction, so a crash between effect and saved reply cannot happen:
both are there or neither is. A second request with the key waits for the first and gets its reply.
The replies kept here belong to creations, which answer with ids and states and never with personal data.
"""

import hashlib
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

from fastapi import Header, Request, Response
from pydantic import BaseModel
from sqlalchemy import PrimaryKeyConstraint, SmallInteger, func, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from libs.common.db import Base, Database, impersonal
from libs.common.errors import Conflict, Unprocessable

KEPT_FOR = timedelta(days=2)
_LOCK_TIMEOUT = "10s"


class KeyReused(Unprocessable):
    """The same key came with another request."""

    slug = "idempotency-key-reused"
    title = "This Idempotency-Key was used for a different request"
    detail = "Use a new key for a new request."


class KeyInUse(Conflict):
    """The first request with this key has not finished yet."""

    slug = "idempotency-key-in-use"
    title = "A request with this Idempotency-Key is still running"
    detail = "Send the same request again in a moment to get its reply."


class IdempotencyRecord(Base):
    """The reply to a request, by the hash of who sent it, where to, and its key."""

    __tablename__ = "idempotency_record"
    __table_args__ = (PrimaryKeyConstraint("store_id", "key_hash"),)

    store_id: Mapped[UUID]
    key_hash: Mapped[bytes] = mapped_column(info=impersonal("hash of a random key and a route"))
    request_hash: Mapped[bytes] = mapped_column(
        info=impersonal("keyed hash of a request, cleared with the record")
    )
    status: Mapped[int | None] = mapped_column(SmallInteger)
    reply: Mapped[bytes | None] = mapped_column(info=impersonal("ids and states; see the module"))
    location: Mapped[str | None] = mapped_column(info=impersonal("path of the created object"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=8,
        max_length=200,
        pattern=r"^[\x21-\x7e]+$",
        description="A random key of yours; sending the request again with it has no second effect.",
    ),
]


async def once(
    session: AsyncSession,
    request: Request,
    key: str | None,
    *,
    store_id: UUID,
    caller: str,
    make: Callable[[], Awaitable[tuple[BaseModel, str | None]]],
    status: int | Callable[[], int] = 201,
    body: bytes | None = None,
) -> Response:
    """The reply of `make` (a model and the path of what was created), or the one given before for this key.

    `body` is what tells two requests apart; it is given where the bytes sent are not it, since an upload has
    another multipart boundary each time. A `status` that depends on what `make` did is asked for after it.
    Raises KeyReused, KeyInUse. Without a key the command simply runs.
    """
    if key is None:
        reply, location = await _made(make)
        return _reply(reply, location, status=status if isinstance(status, int) else status())
    key_hash, request_hash = await _hashes(request, key, caller, body)
    if not await _claim(session, store_id, key_hash, request_hash):
        return await _replay(session, store_id, key_hash, request_hash)
    reply, location = await _made(make)
    given = status if isinstance(status, int) else status()
    await session.execute(
        update(IdempotencyRecord)
        .where(IdempotencyRecord.store_id == store_id, IdempotencyRecord.key_hash == key_hash)
        .values(status=given, reply=reply, location=location)
    )
    return _reply(reply, location, status=given)


async def replayed(
    session: AsyncSession,
    request: Request,
    key: str | None,
    *,
    store_id: UUID,
    caller: str,
    body: bytes | None = None,
) -> Response | None:
    """The reply that `once` gave before for this key, if it did: for a command that prepares much before it is made.

    Raises KeyReused.
    """
    if key is None:
        return None
    key_hash, request_hash = await _hashes(request, key, caller, body)
    if await session.get(IdempotencyRecord, (store_id, key_hash)) is None:
        return None
    return await _replay(session, store_id, key_hash, request_hash)


async def _hashes(request: Request, key: str, caller: str, body: bytes | None) -> tuple[bytes, bytes]:
    """Of the key, as this caller's for this route, and of what was sent with it."""
    key_hash = hashlib.sha256(f"{request.method} {request.url.path}\0{caller}\0{key}".encode()).digest()
    sent = await request.body() if body is None else body
    return key_hash, hashlib.sha256(key.encode() + b"\0" + sent).digest()


async def _made(make: Callable[[], Awaitable[tuple[BaseModel, str | None]]]) -> tuple[bytes, str | None]:
    model, location = await make()
    return model.model_dump_json().encode(), location


async def _claim(session: AsyncSession, store_id: UUID, key_hash: bytes, request_hash: bytes) -> bool:
    """Whether this request is the first: a concurrent one waits here for the first one's commit."""
    await session.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'"))
    try:
        claimed = await session.scalar(
            upsert(IdempotencyRecord)
            .values(store_id=store_id, key_hash=key_hash, request_hash=request_hash)
            .on_conflict_do_nothing()
            .returning(IdempotencyRecord.key_hash)
        )
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) == "55P03":  # lock_not_available
            raise KeyInUse from error
        raise
    return claimed is not None


async def _replay(session: AsyncSession, store_id: UUID, key_hash: bytes, request_hash: bytes) -> Response:
    record = await session.scalar(
        select(IdempotencyRecord).where(
            IdempotencyRecord.store_id == store_id, IdempotencyRecord.key_hash == key_hash
        )
    )
    if record is None or record.status is None or record.reply is None:
        raise KeyInUse
    if record.request_hash != request_hash:
        raise KeyReused
    return _reply(record.reply, record.location, status=record.status, replayed=True)


def _reply(body: bytes, location: str | None, *, status: int, replayed: bool = False) -> Response:
    headers = {"Location": location} if location else {}
    if replayed:
        headers["Idempotency-Replayed"] = "true"
    return Response(body, status_code=status, headers=headers, media_type="application/json")


async def purge(database: Database) -> int:
    """Forget replies older than any sensible retry."""
    async with database.platform_session() as session:
        result: Any = await session.execute(
            text("DELETE FROM idempotency_record WHERE created_at < now() - make_interval(secs => :seconds)"),
            {"seconds": KEPT_FOR.total_seconds()},
        )
        return int(result.rowcount)
