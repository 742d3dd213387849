"""The states of a request and of everybody's part in it, and what moves them on.

received ──► verifying ──► deciding ──► running ──► checking ──► completed
                 │             │           └──────────────────►
                 └─────────────┴──► refused, cancelled
"""

from collections.abc import Collection, Mapping
from datetime import timedelta
from enum import StrEnum
from types import MappingProxyType

from services.privacy.domain.rights import Right


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
UNDECIDED = frozenset({State.RECEIVED, State.VERIFYING, State.DECIDING})
"""A person may take their request back, and a store refuse it, for as long as nothing was done."""

TURNS: Mapping[State, frozenset[State]] = MappingProxyType(
    {
        State.RECEIVED: frozenset({State.VERIFYING, State.REFUSED, State.CANCELLED}),
        State.VERIFYING: frozenset({State.DECIDING, State.REFUSED, State.CANCELLED}),
        State.DECIDING: frozenset({State.RUNNING, State.REFUSED, State.CANCELLED}),
        # An erasure of the same person ends an export that runs; one that another does for all, too.
        State.RUNNING: frozenset({State.CHECKING, State.COMPLETED, State.CANCELLED}),
        State.CHECKING: frozenset({State.RUNNING, State.COMPLETED}),
        State.COMPLETED: frozenset(),
        State.REFUSED: frozenset(),
        State.CANCELLED: frozenset(),
    }
)


class TaskState(StrEnum):
    """One participant's part."""

    WAITING = "waiting"
    DONE = "done"
    NOTHING_HELD = "nothing-held"
    RETAINED = "retained"
    FAILED = "failed"
    RECEIVED = "received"
    """A recipient has the task, and must still say that it is done."""
    TOLD = "told"
    """A recipient that answers for itself (GDPR, Art. 19) has word of it, and nothing more is expected."""
    SETTLED = "settled"
    """Somebody answered for it, with a reason on record."""


TERMINAL = frozenset(
    {TaskState.DONE, TaskState.NOTHING_HELD, TaskState.RETAINED, TaskState.TOLD, TaskState.SETTLED}
)

KEYRING = "keyring"
"""The keyring's part of a request is a row like any participant's; nobody can announce this name."""
RECIPIENT = "recipient-"
"""Names of recipients outside begin so, which nobody can announce either."""
KEYRING_LEADS = frozenset(
    {Right.ERASURE, Right.RESTRICTION, Right.LIFTING, Right.OBJECTION, Right.WITHDRAWAL}
)
"""Rights that the keyring enforces before anybody else is asked."""


def after(right: Right, state: State, tasks: Collection[TaskState]) -> State:
    """The state that follows when the parts of the present phase stand so; the same when nothing follows yet.

    A failure of a check sends an erasure back at once; any other failure is simply tried again. What follows
    verification and the preview is a decision, not a matter of states.
    """
    if state is State.CHECKING and TaskState.FAILED in tasks:
        return State.RUNNING
    if state not in {State.RUNNING, State.CHECKING} or not tasks or not TERMINAL.issuperset(tasks):
        return state
    if right is Right.ERASURE and state is State.RUNNING:
        return State.CHECKING
    return State.COMPLETED


PART_PAUSE = timedelta(minutes=3)
"""Between the erasure of a part and its check: opened keys are forgotten by then, and what was sent has arrived."""

FIRST_PAUSE = timedelta(seconds=2)
LONGEST_PAUSE = timedelta(minutes=10)
"""Between two issues of a task that is not answered: the pause doubles from the one to the other."""

DOWNLOAD_DAYS = 7
DOWNLOADS = 5
"""How long and how often an export can be fetched."""
VERIFICATION_DAYS = 14
"""How long a request waits for its requester to show that it is theirs."""
