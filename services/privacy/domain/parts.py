"""Parts of requests that somebody looks after: when one is stuck, and on which grounds it is answered for."""

from datetime import datetime, timedelta
from enum import StrEnum

from services.privacy.domain.states import TERMINAL, TaskState

STUCK_ATTEMPTS = 8
"""With pauses that double from two seconds, a part that failed so often has done so for some ten minutes."""
STUCK_AFTER = timedelta(hours=1)
RECEIVED_FOR = timedelta(days=3)
"""So long whoever has a task may take to do it."""


def is_stuck(state: TaskState, attempts: int, asked_at: datetime | None, now: datetime) -> bool:
    """Whether somebody should look at a part: it fails again and again, or nothing has come for long.

    `asked_at` is None for a part whose phase has not come. It is asked again all the same.
    """
    if state in TERMINAL or asked_at is None:
        return False
    if state is TaskState.FAILED and attempts >= STUCK_ATTEMPTS:
        return True
    return now - asked_at >= (RECEIVED_FOR if state is TaskState.RECEIVED else STUCK_AFTER)


class Settled(StrEnum):
    """What somebody who answers for a participant says of its part."""

    DONE = "done"
    """It was done by other means."""
    NOTHING_HELD = "nothing-held"
    RETAINED = "retained"
    """It keeps what the law asks for; what and why is in the reason."""


class Settlement(StrEnum):
    """Why a participant is answered for."""

    DONE_BY_HAND = "done-by-hand"
    HOLDS_NOTHING = "holds-nothing"
    RETIRED = "retired"
    """Its data was destroyed with its systems."""
    KEPT_BY_LAW = "kept-by-law"
    UNREACHABLE = "unreachable"
    """It will not answer, and its own duty goes on without us."""
    DEPARTED = "departed"
    """It left: whoever has its data answers. Nobody chooses this; the command to leave does."""


FITTING = {
    Settled.DONE: frozenset({Settlement.DONE_BY_HAND, Settlement.RETIRED}),
    Settled.NOTHING_HELD: frozenset({Settlement.HOLDS_NOTHING, Settlement.RETIRED, Settlement.UNREACHABLE}),
    Settled.RETAINED: frozenset({Settlement.KEPT_BY_LAW}),
}
"""By what is said of a part, the grounds on which it can be."""


class Leaving(StrEnum):
    """Why nobody waits for a participant that leaves."""

    TAKEN_OVER = "taken-over"
    """Another participant has its data."""
    NEVER_HELD = "never-held"
    ERASED = "erased"
    """Whatever it held is destroyed."""
