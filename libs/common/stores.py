"""The stores as every service knows them: a small copy, kept by `identity.stores` events."""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from libs.common.db import Base, impersonal
from libs.common.errors import NotFound
from libs.common.events import Received
from libs.common.events.identity import StoreOpened


class KnownStore(Base):
    """What a service needs to know of a store to serve it."""

    __tablename__ = "known_store"

    store_id: Mapped[UUID] = mapped_column(primary_key=True)
    slug: Mapped[str] = mapped_column(info=impersonal("the store's public name in addresses"))
    name: Mapped[str] = mapped_column(info=impersonal("a trading name"))
    country: Mapped[str] = mapped_column(info=impersonal("ISO 3166-1"))
    currency: Mapped[str] = mapped_column(info=impersonal("ISO 4217"))
    language: Mapped[str] = mapped_column(info=impersonal("BCP 47"))
    version: Mapped[int]


async def known_store(session: AsyncSession, store_id: UUID) -> KnownStore:
    """The store. Raises NotFound, as for an object of another store."""
    store = await session.scalar(select(KnownStore).where(KnownStore.store_id == store_id))
    if store is None:
        raise NotFound
    return store


async def on_store_opened(session: AsyncSession, event: Received[StoreOpened]) -> None:
    """Keep the newest version of a store; a step back is ignored."""
    store = event.data
    values = store.model_dump(
        include={"store_id", "slug", "name", "country", "currency", "language", "version"}
    )
    statement = upsert(KnownStore).values(values)
    await session.execute(
        statement.on_conflict_do_update(
            index_elements=[KnownStore.store_id], set_=values, where=KnownStore.version < store.version
        )
    )
