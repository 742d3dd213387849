"""Bringing a closed account back, which a sign-in does."""

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from libs.common import mail
from libs.common.mail import Letter
from libs.common.outbox import publish
from libs.common.personal.data import Sealed
from services.identity import clocks
from services.identity.models import Account
from services.identity.parts import Parts
from services.identity.service.letters import letter_to, person
from services.identity.service.stores import store_of


async def welcome_back(parts: Parts, account: Account) -> Sealed[Letter] | None:
    """What is said to whoever brings their account back, sealed before the row is locked; None while it is open."""
    if account.closed_at is None or account.ended_at is not None:
        return None
    async with parts.database.session(account.store_id) as session:
        store = await store_of(session, store_id=account.store_id)
    return await letter_to(parts.vault, account, "account-reopened", store=store.name)


async def reopen(session: AsyncSession, account: Account, letter: Sealed[Letter], now: datetime) -> None:
    """Everything is as it was; but for the sessions, which ended for good."""
    account.closed_at = account.ends_at = account.remind_at = None
    account.version += 1
    mail.post(session, letter, **person(account))
    await publish(session, clocks.reopened(account, at=now), store_id=account.store_id, source="identity")
