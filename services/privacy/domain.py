"""The rules of a request: its states, what moves it on, and when it must be answered."""

from calendar import monthrange
from collections.abc import Collection, Mapping
from datetime import date, timedelta
from enum import StrEnum
from types import MappingProxyType

from libs.common.errors import Conflict, NotFound, Unprocessable


class Right(StrEnum):
    """What a person may ask for (GDPR, Art. 15 and 17)."""

    ACCESS = "access"
    ERASURE = "erasure"


class State(StrEnum):
    """Where a request is."""

    RECEIVED = "received"
    VERIFYING = "verifying"
    DECIDING = "deciding"
    RUNNING = "running"
    CHECKING = "checking"
    COMPLETED = "completed"
    REFUSED = "refused"
    CANCELLED = "cancelled"


OVER = frozenset({State.COMPLETED, State.REFUSED, State.CANCELLED})
OPEN = frozenset(State) - OVER

TURNS: Mapping[State, frozenset[State]] = MappingProxyType(
    {
        State.RECEIVED: frozenset({State.VERIFYING, State.REFUSED, State.CANCELLED}),
        State.VERIFYING: frozenset({State.DECIDING, State.REFUSED, State.CANCELLED}),
        State.DECIDING: frozenset({State.RUNNING, State.REFUSED, State.CANCELLED}),
        # Only an access can be cancelled once it runs: an erasure of the same person ends it.
        State.RUNNING: frozenset({State.CHECKING, State.COMPLETED, State.CANCELLED}),
        State.CHECKING: frozenset({State.RUNNING, State.COMPLETED}),
        State.COMPLETED: frozenset(),
        State.REFUSED: frozenset(),
        State.CANCELLED: frozenset(),
    }
)

SIGNED_IN = (State.RECEIVED, State.VERIFYING, State.DECIDING, State.RUNNING)
"""The way of a request by somebody signed in, who is verified by the session; stores decide nothing yet."""


class TaskState(StrEnum):
    """One participant's part."""

    WAITING = "waiting"
    DONE = "done"
    NOTHING_HELD = "nothing-held"
    RETAINED = "retained"
    FAILED = "failed"


TERMINAL = frozenset({TaskState.DONE, TaskState.NOTHING_HELD, TaskState.RETAINED})

KEYRING = "keyring"
"""The keyring's part of a request is a row like any participant's; nobody can announce this name."""


def after(right: Right, state: State, tasks: Collection[TaskState]) -> State:
    """The state that follows when the parts of the present phase stand so; the same when nothing follows yet.

    A failure of a check sends an erasure back at once; any other failure is simply tried again.
    """
    if state is State.CHECKING and TaskState.FAILED in tasks:
        return State.RUNNING
    if state not in {State.RUNNING, State.CHECKING} or not tasks or not TERMINAL.issuperset(tasks):
        return state
    if right is Right.ERASURE and state is State.RUNNING:
        return State.CHECKING
    return State.COMPLETED


def due_on(verified_on: date) -> date:
    """The last day to answer: one month from verification (GDPR, Art. 12(3)), the same date of the next month or,
    where that month has none, its last day (Regulation 1182/71, Art. 3(2)(c)).
    """
    year, month = divmod(verified_on.year * 12 + verified_on.month, 12)
    month += 1
    return date(year, month, min(verified_on.day, monthrange(year, month)[1]))


FIRST_PAUSE = timedelta(seconds=2)
LONGEST_PAUSE = timedelta(minutes=10)
"""Between two issues of a task that is not answered: the pause doubles from the one to the other."""

DOWNLOAD_DAYS = 7
DOWNLOADS = 5
"""How long and how often an export can be fetched."""


class AddressNotOfAccount(Unprocessable):
    """422: the answer would go to somebody else."""

    slug = "address-not-of-account"
    title = "This is not the e-mail address of your account"
    detail = "Give the address you signed up with; the answer is sent there."


class ErasureUnderWay(Conflict):
    """409: there is nothing left to export."""

    slug = "erasure-under-way"
    title = "Your data is being erased"
    detail = "An erasure you asked for has not ended yet."


class DownloadGone(NotFound):
    """404, the same for a link that never was, has expired, was used up, or whose person was erased."""
