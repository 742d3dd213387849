"""After a restore: who had closed their account since the backup, or brought it back, is told by the privacy service.

What is heard counts, since mails have named a day; but for whoever did something since the restore, which is later.
"""

from datetime import datetime

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.events import Received
from libs.common.events.privacy import ClosingRemembered
from libs.common.outbox import publish
from services.identity import clocks
from services.identity.models import Account
from services.identity.service.closing import Closing, deactivate, owned_alone


async def on_closing_remembered(session: AsyncSession, event: Received[ClosingRemembered]) -> None:
    """Close the account until the day that its owner was told, or open it again; say so where it is otherwise."""
    heard = event.data
    account = await session.scalar(
        select(Account)
        .where(Account.store_id == event.envelope.store_id, Account.subject_id == heard.subject_id)
        .where(Account.generation == heard.generation)
        .with_for_update()
    )
    if account is None or account.ended_at is not None:
        return
    if account.ends_at == heard.ends_at:
        # What happens to it next is above all that was ever heard of it.
        account.version = max(account.version, heard.version)
    elif account.version >= heard.version or await _is_used(session, account, heard.ends_at):
        await _say(session, account, above=heard.version, now=event.envelope.time)
    elif heard.ends_at is None:
        account.closed_at = account.ends_at = account.remind_at = None
        account.version = heard.version
    else:
        await deactivate(session, account, Closing(event.envelope.time, heard.ends_at))
        account.version = heard.version


_SIGNED_IN = text("""
    SELECT EXISTS (SELECT FROM account_session
        WHERE account_id = :account_id AND started_at >= (SELECT max(restored_at) FROM restoration))
""")


async def _is_used(session: AsyncSession, account: Account, ends_at: datetime | None) -> bool:
    """Whether somebody has come back since, or a store that is open again would be left without an owner."""
    if ends_at is None:
        return False
    signed_in = await session.scalar(_SIGNED_IN, {"account_id": account.id})
    return bool(signed_in) or bool(await owned_alone(session, account))


async def _say(session: AsyncSession, account: Account, *, above: int, now: datetime) -> None:
    """How the account stands: its period runs, or does not, by this."""
    account.version = max(account.version, above) + 1
    stands = (
        clocks.closed(account, at=account.ends_at)
        if account.ends_at is not None
        else clocks.reopened(account, at=now)
    )
    await publish(session, stands, store_id=account.store_id, source="identity")
