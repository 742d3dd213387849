"""What identity's worker does about closed accounts and stores: it reminds, ends, and tells.

A letter or a box is sealed outside any transaction; then the row is locked and looked at again, so that whoever came
back meanwhile is not written to, and nobody who signs in at the last moment is ended.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common import mail
from libs.common.auth import PLATFORM_STORE
from libs.common.errors import Problem, Unavailable
from libs.common.events import Received
from libs.common.events.identity import AccountContact, AccountEnded
from libs.common.events.privacy import StoreErased, StoreKeysDestroyed
from libs.common.mail import Letter
from libs.common.outbox import publish
from libs.common.personal.data import Sealed
from libs.common.personal.errors import KeyDestroyed, SubjectErased
from libs.common.personal.restrictions import is_restricted
from libs.common.personal.tombstones import guard
from libs.common.stores import StoreState
from libs.common.worker import Work
from services.identity.domain import last_day
from services.identity.models import Account, Store
from services.identity.service import store_closing
from services.identity.service.letters import letter_to, person, profile_of
from services.identity.service.stores import store_of

logger = logging.getLogger(__name__)

_AT_ONCE = 100
_ERASED = (KeyDestroyed, SubjectErased)

# --- Accounts --------------------------------------------------------------------------------------------


async def remind_accounts(work: Work) -> int:
    """Say once more when closed accounts end. Returns 0 unless more are due. Raises KeyringUnavailable."""
    due = select(Account).where(Account.remind_at <= work.clock()).order_by(Account.remind_at)
    return await _each(work, due, _remind_account)


async def _each(work: Work, due: Any, step: Callable[[Work, Account], Awaitable[None]]) -> int:
    """Of what is due, each alone: one whose keys cannot be read holds no other back."""
    async with work.database.platform_session() as session:
        accounts: Sequence[Account] = (await session.scalars(due.limit(_AT_ONCE))).all()
    failed = 0
    for account in accounts:
        try:
            await step(work, account)
        except Unavailable:
            raise
        except Problem as error:
            failed += 1
            logger.error("a closed account cannot be read", extra={"error": error.slug})
    return 0 if failed else len(accounts) // _AT_ONCE


async def _remind_account(work: Work, account: Account) -> None:
    async with work.database.session(account.store_id) as session:
        store = await store_of(session, store_id=account.store_id)
    letter = await _letter_until(work, account, "account-ends-soon", store.name, account.ends_at)
    async with work.database.session(account.store_id) as session:
        current = await _locked(session, account)
        if current is not None and current.remind_at == account.remind_at:
            current.remind_at = None
            if letter is not None:
                mail.post(session, letter, **person(current))


async def _letter_until(
    work: Work, account: Account, template: str, store: str, ends_at: datetime | None
) -> Sealed[Letter] | None:
    """None where the person is erased: nobody is left to write to."""
    days = {"until": last_day(ends_at) if ends_at is not None else None}
    try:
        return await letter_to(work.vault, account, template, days=days, store=store)
    except _ERASED:
        return None


async def _locked(session: AsyncSession, account: Account) -> Account | None:
    return await session.scalar(
        select(Account)
        .where(Account.id == account.id, Account.store_id == account.store_id)
        .with_for_update()
    )


_DUE_TO_END = (
    Account.closed_at.is_not(None),
    Account.ended_at.is_(None),
    # Nothing of a person ends by a timer while it is on hold (GDPR, Art. 18(2)).
    text(f"NOT {is_restricted('account')}"),
)


async def end_accounts(work: Work) -> int:
    """End accounts whose time is over: their people are to be erased. Returns 0 unless more are due.

    Raises KeyringUnavailable.
    """
    due = select(Account).where(*_DUE_TO_END, Account.ends_at <= work.clock()).order_by(Account.ends_at)
    return await _each(work, due, _end_account)


async def _end_account(work: Work, account: Account) -> None:
    try:
        contact = await _contact(work, account)
        async with work.database.session(account.store_id) as session:
            await guard(session, account.store_id, account.subject_id, account.generation)
            current = await _locked(session, account)
            # Whoever signed in meanwhile was first, and the account lives.
            if current is not None and current.ends_at == account.ends_at and current.ended_at is None:
                await _publish_end(session, current, contact, work.clock())
    except _ERASED:
        # An erasure was asked for and is cleaning up here: it takes the row with it.
        logger.info("a closed account was erased already")


async def _contact(work: Work, account: Account) -> Sealed[AccountContact]:
    profile = await profile_of(work.vault, account)
    contact = AccountContact.model_validate({"email": profile.email, "language": profile.language})
    sealed = await work.vault.seal(contact, store_id=account.store_id, subject_id=account.subject_id)
    return sealed.box


async def _publish_end(
    session: AsyncSession, account: Account, contact: Sealed[AccountContact], now: datetime
) -> None:
    account.ended_at, account.remind_at = now, None
    account.version += 1
    ended = AccountEnded(
        account_id=account.id,
        subject_id=account.subject_id,
        generation=account.generation,
        contact=contact,
        version=account.version,
    )
    await publish(session, ended, store_id=account.store_id, source="identity")


# --- Stores ----------------------------------------------------------------------------------------------


async def remind_stores(work: Work) -> int:
    """Say once more when closed stores end. Returns 0 unless more are due. Raises KeyringUnavailable."""
    due = select(Store).where(Store.remind_at <= work.clock()).order_by(Store.remind_at)
    stores = await _stores(work, due)
    for store in stores:
        await _tell_owner(work, store, "store-ends-soon", last_day(store.ends_at) if store.ends_at else None)
    return len(stores) // _AT_ONCE


async def end_stores(work: Work) -> int:
    """End stores that nobody opened again. Returns 0 unless more are due."""
    now = work.clock()
    async with work.database.platform_session() as session:
        stores = (await session.scalars(store_closing.due_to_end(now, _AT_ONCE))).all()
        for store in stores:
            await store_closing.end_store(session, store, now)
    return len(stores) // _AT_ONCE


async def tell_former_owners(work: Work) -> int:
    """Say what is kept of stores that are erased, and until when. Returns 0 unless more are due.

    Raises KeyringUnavailable.
    """
    due = select(Store).where(Store.erased_at.is_not(None), Store.closed_by.is_not(None))
    stores = await _stores(work, due.order_by(Store.store_id))
    for store in stores:
        await _tell_owner(work, store, "store-erased", store.kept_until)
    return len(stores) // _AT_ONCE


async def _stores(work: Work, statement: Any) -> Sequence[Store]:
    async with work.database.platform_session() as session:
        return (await session.scalars(statement.limit(_AT_ONCE))).all()


async def _tell_owner(work: Work, store: Store, template: str, day: Any) -> None:
    """The letter, and that it was written, are one commit; whoever has no account any more gets none."""
    async with work.database.session(PLATFORM_STORE) as session:
        owner = await session.get(Account, store.closed_by)
    letter = None
    if owner is not None:
        try:
            letter = await letter_to(work.vault, owner, template, days={"until": day}, store=store.name)
        except _ERASED:
            letter = None
    async with work.database.session(store.store_id) as session:
        current = await session.get(Store, store.store_id, with_for_update=True)
        if current is None or current.version != store.version or not _is_untold(current):
            return
        _said(current)
        if owner is not None and letter is not None:
            await store_closing.tell(session, owner, letter)


def _is_untold(store: Store) -> bool:
    return store.remind_at is not None or (store.erased_at is not None and store.closed_by is not None)


def _said(store: Store) -> None:
    """Of a store that is erased nobody has to be known any more."""
    store.remind_at = None
    if store.erased_at is not None:
        store.closed_by = None


async def end_restored(session: AsyncSession, event: Received[StoreKeysDestroyed]) -> None:
    """A store that came back from before its end has ended all the same."""
    store = await session.get(Store, event.data.store_id, with_for_update=True)
    if store is not None and store.state != StoreState.ENDED:
        await store_closing.end_store(session, store, event.envelope.time)


async def on_store_erased(session: AsyncSession, event: Received[StoreErased]) -> None:
    """Everybody has removed what they held: whoever owned it is told."""
    store = await session.get(Store, event.data.store_id, with_for_update=True)
    if store is not None and store.state == StoreState.ENDED and store.erased_at is None:
        store.erased_at, store.kept_until = event.envelope.time, event.data.kept_until
