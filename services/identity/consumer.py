"""What identity hears, and what its worker does again and again."""

from datetime import timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.ending import Endings
from libs.common.events import Received
from libs.common.events.privacy import ClosingRemembered, StoreErased, StoreKeysDestroyed
from libs.common.inbox import Handlers
from libs.common.mail import SENDING
from libs.common.personal.participant import Participant
from libs.common.personal.restrictions import is_restricted
from libs.common.throttle import FORGET
from libs.common.worker import Duty, Work
from services.identity import endings
from services.identity.keys import forget_retired
from services.identity.models import Base
from services.identity.parts import now
from services.identity.personal import CLOCKS, HERE, HOLDINGS, KEPT
from services.identity.service import remembering
from services.identity.settings import Settings

PARTICIPANT = Participant(
    service="identity", holdings=HOLDINGS, settings=Settings, copies=HERE, clocks=CLOCKS
)
ENDINGS = Endings(PARTICIPANT, metadata=Base.metadata, holdings=HOLDINGS, kept=KEPT)

_EXPIRED = (
    FORGET,
    # Nothing of a person is deleted by a timer while it is on hold (GDPR, Art. 18(2)).
    text(f"DELETE FROM sign_up WHERE expires_at < :now AND NOT {is_restricted('sign_up')}"),  # noqa: S608
    text(
        "DELETE FROM account_email WHERE expires_at < :now AND confirmed_at IS NULL"  # noqa: S608
        f" AND NOT {is_restricted('account_email')}"
    ),
    text(f"DELETE FROM account_session WHERE expires_at < :now AND NOT {is_restricted('account_session')}"),  # noqa: S608
)


async def forget_expired(work: Work) -> int:
    """Counters whose window is over, links nobody followed, sessions past their day, keys long retired."""
    moment = now()
    async with work.database.platform_session() as session:
        for statement in _EXPIRED:
            await session.execute(statement, {"now": moment})
    await forget_retired(work.database, moment)
    return 0


async def on_store_keys_destroyed(session: AsyncSession, event: Received[StoreKeysDestroyed]) -> None:
    """The store has ended, whatever a restored database says, and what is left of it goes."""
    await endings.end_restored(session, event)
    await ENDINGS.on_keys_destroyed(session, event)


HANDLERS: Handlers = {
    StoreErased: endings.on_store_erased,
    ClosingRemembered: remembering.on_closing_remembered,
    **PARTICIPANT.handlers,
    **ENDINGS.handlers,
    StoreKeysDestroyed: on_store_keys_destroyed,
}

DUTIES = [
    SENDING,
    *PARTICIPANT.duties,
    *ENDINGS.duties,
    Duty("remind of closed accounts", endings.remind_accounts, timedelta(minutes=10)),
    Duty("end closed accounts", endings.end_accounts, timedelta(minutes=1)),
    Duty("remind of closed stores", endings.remind_stores, timedelta(minutes=10)),
    Duty("end closed stores", endings.end_stores, timedelta(minutes=1)),
    Duty("tell former owners", endings.tell_former_owners, timedelta(minutes=1)),
    Duty("forget what expired", forget_expired, timedelta(minutes=10)),
]
