"""Stores and who works at them."""

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import and_, or_, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.auth import PLATFORM_STORE, Caller, Role
from libs.common.db import switch_store
from libs.common.errors import Forbidden, NotFound, Unauthenticated
from libs.common.events.identity import StoreOpened
from libs.common.http import require_match
from libs.common.outbox import publish
from libs.common.stores import keep
from services.identity.domain import AccountIsClosed, SlugTaken
from services.identity.models import Account, Membership, Store


async def store_of(session: AsyncSession, *, store_id: UUID) -> Store:
    """A store. Raises NotFound."""
    store = await session.scalar(select(Store).where(Store.store_id == store_id))
    if store is None:
        raise NotFound
    return store


async def store_called(session: AsyncSession, *, slug: str) -> Store:
    """The store with this address name, in a session over all stores. Raises NotFound."""
    store = await session.scalar(select(Store).where(Store.slug == slug))
    if store is None:
        raise NotFound
    return store


async def open_store(session: AsyncSession, *, caller: Caller, facts: dict[str, str]) -> Store:
    """A new store that belongs to the caller, in a session of the platform's store.

    Raises Forbidden for accounts of other stores, Unauthenticated for an erased one, AccountIsClosed, SlugTaken.
    """
    if caller.store_id != PLATFORM_STORE or caller.role is not Role.CUSTOMER:
        raise Forbidden("Only an account of the platform itself can open a store.")
    merchant = await session.scalar(
        select(Account).where(Account.id == caller.account_id).with_for_update(key_share=True)
    )
    if merchant is None:
        raise Unauthenticated
    if merchant.ends_at is not None:
        raise AccountIsClosed(merchant.ends_at)
    store_id = uuid4()
    await switch_store(session, store_id)
    store = await session.scalar(
        upsert(Store)
        .values(store_id=store_id, version=1, **facts)
        .on_conflict_do_nothing(index_elements=[Store.slug])
        .returning(Store)
    )
    if store is None:
        raise SlugTaken
    session.add(Membership(store_id=store_id, account_id=caller.account_id, role=Role.OWNER))
    await _publish(session, store)
    await switch_store(session, PLATFORM_STORE)
    return store


async def change_store(
    session: AsyncSession, *, store_id: UUID, changes: dict[str, Any], if_match: str | None
) -> Store:
    """The store with the changes. Raises SlugTaken, and a problem of If-Match."""
    store = await session.scalar(select(Store).where(Store.store_id == store_id).with_for_update())
    if store is None:
        raise NotFound
    require_match(if_match, store.version)
    for name, value in changes.items():
        setattr(store, name, value)
    store.version += 1
    try:
        await _publish(session, store)
    except IntegrityError as error:
        raise SlugTaken from error
    return store


async def _publish(session: AsyncSession, store: Store) -> None:
    opened = StoreOpened(
        store_id=store.store_id,
        slug=store.slug,
        name=store.name,
        country=store.country,
        currency=store.currency,
        language=store.language,
        version=store.version,
    )
    await publish(session, opened, store_id=store.store_id, source="identity")
    await keep(session, opened)


async def stores_of(
    session: AsyncSession, *, account_id: UUID, after: tuple[datetime, UUID] | None, limit: int
) -> list[tuple[Store, Role]]:
    """The stores an account is a member of, oldest first, in a session over all stores.

    `after` is the opening time and the id of the last one seen.
    """
    statement = (
        select(Store, Membership.role)
        .join(Membership, Membership.store_id == Store.store_id)
        .where(Membership.account_id == account_id)
        .order_by(Store.opened_at, Store.store_id)
        .limit(limit)
    )
    if after is not None:
        opened_at, store_id = after
        statement = statement.where(
            or_(Store.opened_at > opened_at, and_(Store.opened_at == opened_at, Store.store_id > store_id))
        )
    return [(store, Role(role)) for store, role in (await session.execute(statement)).all()]
