"""Closing an account, and coming back.

open ──► closed ──► ended
  ◄────────┘

Whoever changes the state has locked the account's row, and looks at it then: of a sign-in and the end, one is first.
"""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common import mail, throttle
from libs.common.auth import Caller
from libs.common.db import ALL_STORES, switch_store
from libs.common.errors import NotFound
from libs.common.http import require_match
from libs.common.mail import Letter
from libs.common.outbox import publish
from libs.common.personal.data import Sealed
from libs.common.personal.errors import KeyDestroyed
from libs.common.personal.tombstones import guard
from services.identity import clocks
from services.identity.domain import (
    ACCOUNT_GRACE_DAYS,
    AccountIsClosed,
    OwnsAnOpenStore,
    PasswordWrong,
    end_of_grace,
    last_day,
    normal_password,
    reminder,
)
from services.identity.models import Account, AccountSession, AccountSettings
from services.identity.parts import Parts
from services.identity.service import sessions
from services.identity.service.accounts import account_of
from services.identity.service.letters import letter_to, person
from services.identity.service.stores import store_of


@dataclass(frozen=True, slots=True)
class Closing:
    """Since when, and until when it can be undone."""

    closed_at: datetime
    ends_at: datetime


async def close_account(parts: Parts, *, caller: Caller, password: str, address: str) -> Closing:
    """Deactivate the caller's account at once; a mail says until when, and how, it can be brought back.

    Raises PasswordWrong, TooManyAttempts, OwnsAnOpenStore, AccountIsClosed when it is closed already, NotFound.
    """
    account = await account_of(parts, caller=caller)
    await _prove(parts, account, password, address)
    async with parts.database.session(account.store_id) as session:
        store = await store_of(session, store_id=account.store_id)
        days = (await grace_of(session, account.store_id)).grace_days
    now = parts.clock()
    closing = Closing(now, end_of_grace(now, days))
    try:
        letter = await letter_to(
            parts.vault,
            account,
            "account-closed",
            store=store.name,
            days={"until": last_day(closing.ends_at) if days else None},
        )
    except KeyDestroyed:
        raise NotFound from None
    async with parts.database.session(account.store_id) as session:
        await _close(session, account, closing, letter)
    return closing


async def _prove(parts: Parts, account: Account, password: str, address: str) -> None:
    """A token alone closes nothing: it may lie open in somebody's browser."""
    attempts = await sessions.attempts_of(parts, account.store_id, account.email_index, address)
    await throttle.count_or_refuse(parts.database, account.store_id, attempts, parts.clock())
    credentials = await sessions.credentials_of(parts, account)
    known = credentials.password_hash if credentials else None
    if not await parts.passwords.verify(known, normal_password(password)):
        raise PasswordWrong
    async with parts.database.session(account.store_id) as session:
        person, client = attempts
        await throttle.succeeded(session, account.store_id, person=person.key, address=client.key)


async def _close(session: AsyncSession, account: Account, closing: Closing, letter: Sealed[Letter]) -> None:
    await guard(session, account.store_id, account.subject_id, account.generation)
    current = await session.scalar(select(Account).where(Account.id == account.id).with_for_update())
    if current is None:
        raise NotFound
    if current.closed_at is not None and current.ends_at is not None:
        raise AccountIsClosed(current.ends_at)
    if stores := await owned_alone(session, account):
        raise OwnsAnOpenStore(stores=stores)
    await deactivate(session, current, closing)
    current.version += 1
    mail.post(session, letter, **person(account))
    started = clocks.closed(current, at=closing.ends_at)
    await publish(session, started, store_id=account.store_id, source="identity")


async def deactivate(session: AsyncSession, account: Account, closing: Closing) -> None:
    """Let nobody in but to bring it back. The row is locked, and its version is for the caller to raise."""
    account.closed_at, account.ends_at = closing.closed_at, closing.ends_at
    account.remind_at = reminder(closing.closed_at, closing.ends_at)
    await session.execute(
        update(AccountSession)
        .where(AccountSession.account_id == account.id, AccountSession.revoked_at.is_(None))
        .values(revoked_at=closing.closed_at)
    )


_OWNED_ALONE = text("""
    SELECT store_id FROM membership AS mine JOIN store USING (store_id)
    WHERE mine.account_id = :account_id AND mine.role = 'owner' AND store.state = 'open'
        AND NOT EXISTS (SELECT FROM membership AS other JOIN account ON account.id = other.account_id
            WHERE other.store_id = mine.store_id AND other.role = 'owner' AND other.account_id <> mine.account_id
                AND account.closed_at IS NULL)
    ORDER BY store_id
""")


async def owned_alone(session: AsyncSession, account: Account) -> list[str]:
    """Open stores that would be left without an owner who can sign in."""
    await switch_store(session, ALL_STORES)
    found = (await session.scalars(_OWNED_ALONE, {"account_id": account.id})).all()
    await switch_store(session, account.store_id)
    return [str(store_id) for store_id in found]


# --- How long there is for it ----------------------------------------------------------------------------


async def grace_of(session: AsyncSession, store_id: UUID) -> AccountSettings:
    """What the store has decided; version 0 where it has decided nothing."""
    row = await session.get(AccountSettings, store_id)
    return row or AccountSettings(store_id=store_id, grace_days=ACCOUNT_GRACE_DAYS, version=0)


async def set_grace(session: AsyncSession, *, store_id: UUID, grace_days: int, if_match: str | None) -> int:
    """Decide for accounts that are closed from now on. Returns the new version. Raises a problem of If-Match."""
    initial = {"store_id": store_id, "grace_days": ACCOUNT_GRACE_DAYS, "version": 0}
    await session.execute(upsert(AccountSettings).values(initial).on_conflict_do_nothing())
    row = await session.get_one(AccountSettings, store_id, with_for_update=True)
    require_match(if_match, row.version)
    row.grace_days = grace_days
    row.version += 1
    return row.version
