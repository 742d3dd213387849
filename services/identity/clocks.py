"""What starts and stops the period of an account.

It counts from the day on which the account can no longer be brought back, however long the store leaves for that. The
account is erased on that day; where somebody has to look first, its data goes at the end of the period all the same.
"""

from datetime import datetime

from libs.common.events.privacy import ClockStarted, ClockStopped
from libs.common.personal.vocabulary import Clock, Retention
from services.identity.models import Account


def closed(account: Account, *, at: datetime) -> ClockStarted:
    """To be published with the change that closes an account, whose version it raises: from when it has ended."""
    return ClockStarted(
        subject_id=account.subject_id,
        generation=account.generation,
        retention=Retention.ACCOUNT,
        clock=Clock.ACCOUNT_CLOSED,
        started_at=at,
        version=account.version,
    )


def reopened(account: Account, *, at: datetime) -> ClockStopped:
    """To be published with the change that opens it again, whose version it raises."""
    return ClockStopped(
        subject_id=account.subject_id,
        generation=account.generation,
        retention=Retention.ACCOUNT,
        clock=Clock.ACCOUNT_CLOSED,
        stopped_at=at,
        version=account.version,
    )
