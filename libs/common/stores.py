"""The stores as every service knows them: a small copy, kept by `identity.stores` events.

open ──► closed ──► ended
  ◄────────┘

A closed store sells nothing and takes nobody new; `libs.common.closed` refuses it. One that ended is being cleaned up,
or is: `libs.common.ending`.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from libs.common.db import Base, impersonal, ring_after_commit
from libs.common.errors import NotFound
from libs.common.events import Received
from libs.common.events.identity import StoreClosed, StoreEnded, StoreOpened, StoreReopened

CHANNEL = "store_states"
"""NOTIFY channel: a store is closed, open again, or has ended."""


class StoreState(StrEnum):
    """Where a store is."""

    OPEN = "open"
    CLOSED = "closed"
    """Its owner can bring it back."""
    ENDED = "ended"
    """For good."""


class KnownStore(Base):
    """What a service needs to know of a store to serve it."""

    __tablename__ = "known_store"
    __table_args__ = (
        CheckConstraint("state IN ('open', 'closed', 'ended')", name="state"),
        Index("ix_known_store_not_open", "store_id", postgresql_where=text("state <> 'open'")),
        Index("ix_known_store_clean_at", "clean_at", postgresql_where=text("clean_at IS NOT NULL")),
    )

    store_id: Mapped[UUID] = mapped_column(primary_key=True)
    slug: Mapped[str] = mapped_column(info=impersonal("the store's public name in addresses"))
    name: Mapped[str] = mapped_column(info=impersonal("a trading name"))
    country: Mapped[str] = mapped_column(info=impersonal("ISO 3166-1"))
    currency: Mapped[str] = mapped_column(info=impersonal("ISO 4217"))
    language: Mapped[str] = mapped_column(info=impersonal("BCP 47"))
    version: Mapped[int]
    state: Mapped[str] = mapped_column(info=impersonal("a fixed word"), server_default="open")
    clean_at: Mapped[datetime | None]
    """When its rows are removed here, or looked for again; None where there is nothing to do."""
    cleaned_at: Mapped[datetime | None]
    """Since when this service has found nothing left but what it may keep."""


async def known_store(session: AsyncSession, store_id: UUID) -> KnownStore:
    """The store. Raises NotFound, as for an object of another store."""
    store = await session.scalar(select(KnownStore).where(KnownStore.store_id == store_id))
    if store is None:
        raise NotFound
    return store


async def keep(session: AsyncSession, store: StoreOpened) -> None:
    """Keep the newest version of a store; a step back is ignored."""
    values = store.model_dump(
        include={"store_id", "slug", "name", "country", "currency", "language", "version"}
    )
    statement = upsert(KnownStore).values(values)
    await session.execute(
        statement.on_conflict_do_update(
            index_elements=[KnownStore.store_id], set_=values, where=KnownStore.version < store.version
        )
    )


async def turn(session: AsyncSession, store_id: UUID, state: StoreState, version: int) -> None:
    """A store is in another state since this version. What has ended stays so."""
    await session.execute(
        update(KnownStore)
        .where(
            KnownStore.store_id == store_id,
            KnownStore.version < version,
            KnownStore.state != StoreState.ENDED,
        )
        .values(state=state, version=version)
    )
    ring_after_commit(session, CHANNEL)


async def on_store_opened(session: AsyncSession, event: Received[StoreOpened]) -> None:
    """A store is there, or is another than before."""
    await keep(session, event.data)


async def on_store_closed(session: AsyncSession, event: Received[StoreClosed]) -> None:
    """It sells nothing from now on."""
    await turn(session, event.data.store_id, StoreState.CLOSED, event.data.version)


async def on_store_reopened(session: AsyncSession, event: Received[StoreReopened]) -> None:
    """Everything is as it was."""
    await turn(session, event.data.store_id, StoreState.OPEN, event.data.version)


async def on_store_ended(session: AsyncSession, event: Received[StoreEnded]) -> None:
    """Nothing is served any more; what is here goes once the store's key is destroyed."""
    await turn(session, event.data.store_id, StoreState.ENDED, event.data.version)


STORES: Mapping[type[Any], Any] = {
    StoreOpened: on_store_opened,
    StoreClosed: on_store_closed,
    StoreReopened: on_store_reopened,
    StoreEnded: on_store_ended,
}
"""To be merged into a service's HANDLERS."""
