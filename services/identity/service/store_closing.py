"""Closing a store, and opening it again.

Whoever changes the state has locked the store's row. Every service hears of it by an event; identity's own copy of what
is closed is written in the same transaction.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common import mail
from libs.common.auth import PLATFORM_STORE, Caller
from libs.common.db import switch_store
from libs.common.errors import NotFound, Unauthenticated
from libs.common.events.identity import StoreClosed, StoreEnded, StoreReopened
from libs.common.mail import Letter
from libs.common.outbox import publish
from libs.common.personal.data import Sealed
from libs.common.stores import StoreState, turn
from services.identity.domain import (
    AccountIsClosed,
    AlreadyClosed,
    CannotBeClosed,
    NameDoesNotMatch,
    NotClosed,
    end_of_grace,
    last_day,
    reminder,
)
from services.identity.models import Account, Store
from services.identity.parts import Parts
from services.identity.service.letters import letter_to, person
from services.identity.service.stores import store_of


async def close_store(parts: Parts, *, caller: Caller, name: str) -> Store:
    """Close the caller's store at once; a mail says until when it can be opened again.

    Raises CannotBeClosed, NameDoesNotMatch, AlreadyClosed, Unauthenticated for an account that is gone.
    """
    if caller.store_id == PLATFORM_STORE:
        raise CannotBeClosed
    owner = await _account(parts, caller)
    async with parts.database.session(caller.store_id) as session:
        store = await store_of(session, store_id=caller.store_id)
    if name.strip() != store.name:
        raise NameDoesNotMatch
    now = parts.clock()
    ends_at = end_of_grace(now, parts.settings.store_grace_days)
    days = {"until": last_day(ends_at) if ends_at > now else None}
    letter = await letter_to(parts.vault, owner, "store-closed", days=days, store=store.name)
    async with parts.database.session(caller.store_id) as session:
        current = await _locked(session, caller.store_id)
        if current.state != StoreState.OPEN:
            raise AlreadyClosed
        if current.name != store.name:
            raise NameDoesNotMatch
        current.state, current.closed_by = StoreState.CLOSED, owner.id
        current.closed_at, current.ends_at, current.remind_at = now, ends_at, reminder(now, ends_at)
        current.version += 1
        await _publish(session, StoreClosed(store_id=store.store_id, version=current.version))
        await tell(session, owner, letter)
    return current


async def reopen_store(parts: Parts, *, caller: Caller) -> Store:
    """Open the caller's store again, as it was; a mail says so.

    Raises NotClosed, AccountIsClosed for an owner who closed their own account, Unauthenticated.
    """
    async with parts.database.session(caller.store_id) as session:
        store = await store_of(session, store_id=caller.store_id)
    if store.state != StoreState.CLOSED:
        raise NotClosed
    owner = await _account(parts, caller)
    letter = await letter_to(parts.vault, owner, "store-reopened", store=store.name)
    async with parts.database.session(PLATFORM_STORE) as session:
        await _is_open(session, owner)
        await switch_store(session, caller.store_id)
        current = await _locked(session, caller.store_id)
        if current.state != StoreState.CLOSED or current.ends_at is None or parts.clock() >= current.ends_at:
            raise NotClosed
        current.state = StoreState.OPEN
        current.closed_at = current.ends_at = current.remind_at = current.closed_by = None
        current.version += 1
        await _publish(session, StoreReopened(store_id=store.store_id, version=current.version))
        await tell(session, owner, letter)
    return current


async def _account(parts: Parts, caller: Caller) -> Account:
    async with parts.database.session(PLATFORM_STORE) as session:
        account = await session.scalar(select(Account).where(Account.id == caller.account_id))
    if account is None:
        raise Unauthenticated
    return account


async def _is_open(session: AsyncSession, owner: Account) -> None:
    """Whoever closes their account waits: an open store has an owner who can sign in."""
    current = await session.scalar(
        select(Account).where(Account.id == owner.id).with_for_update(key_share=True)
    )
    if current is None:
        raise Unauthenticated
    if current.ends_at is not None:
        raise AccountIsClosed(current.ends_at)


async def _locked(session: AsyncSession, store_id: UUID) -> Store:
    store = await session.scalar(
        select(Store)
        .where(Store.store_id == store_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    if store is None:
        raise NotFound
    return store


_STATES = {
    StoreClosed: StoreState.CLOSED,
    StoreReopened: StoreState.OPEN,
    StoreEnded: StoreState.ENDED,
}


async def _publish(session: AsyncSession, event: StoreClosed | StoreReopened | StoreEnded) -> None:
    await publish(session, event, store_id=event.store_id, source="identity")
    await turn(session, event.store_id, _STATES[type(event)], event.version)


async def tell(session: AsyncSession, owner: Account, letter: Sealed[Letter]) -> None:
    """Write to an owner, whose account is one of the platform's own store."""
    bound = session.info["store"]
    await switch_store(session, owner.store_id)
    mail.post(session, letter, **person(owner))
    await switch_store(session, bound)


# --- The end ---------------------------------------------------------------------------------------------


async def end_store(session: AsyncSession, store: Store, now: datetime) -> None:
    """Nobody opened it again: it is gone for good. The row is locked."""
    store.state, store.ended_at, store.remind_at = StoreState.ENDED, now, None
    store.version += 1
    await _publish(session, StoreEnded(store_id=store.store_id, version=store.version))


def due_to_end(now: datetime, limit: int) -> Any:
    """Stores whose time is over, each locked."""
    return (
        select(Store)
        .where(Store.state == StoreState.CLOSED, Store.ends_at <= now)
        .order_by(Store.ends_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
