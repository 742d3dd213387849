"""Parts of requests: when one is stuck, on which grounds it is answered for, and what becomes of answers that do not
count.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType

from services.privacy.domain.states import TERMINAL, TaskState

# --- Being stuck -----------------------------------------------------------------------------------------

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


# --- Answers that change nothing -------------------------------------------------------------------------


class Unwanted(StrEnum):
    """Why an answer changes nothing. Each is counted under its word."""

    FORGED = "forged"
    """Whoever it names has not signed it, or is no participant."""
    MALFORMED = "malformed"
    """Signed, and not what an answer can say."""
    UNKNOWN_REQUEST = "unknown-request"
    NOT_ASKED = "not-asked"
    """That participant was not asked this, or not yet."""
    LATE = "late"
    """The round or the phase is over, or somebody has answered for the participant."""
    DOUBLED = "doubled"
    """The same was said before."""
    CONTRADICTORY = "contradictory"
    """Something else was said before, and that counts."""
    DEPARTED = "departed"
    """Of an announcement: the participant left, and nobody has let it in again."""


def unwanted(
    state: TaskState | None, *, is_asked: bool, rounds_ahead: int, is_known: bool, is_same: bool
) -> Unwanted:
    """Why an answer that was not taken was not.

    `state` is that of its task, None without one; `rounds_ahead` of the request's; `is_same` as what was said before.
    """
    if not is_known:
        return Unwanted.UNKNOWN_REQUEST
    if rounds_ahead < 0:
        return Unwanted.LATE
    if state is None or rounds_ahead > 0:
        return Unwanted.NOT_ASKED
    if state in SAID:
        return Unwanted.DOUBLED if is_same else Unwanted.CONTRADICTORY
    return Unwanted.LATE if is_asked or state in TERMINAL else Unwanted.NOT_ASKED


SAID = frozenset({TaskState.DONE, TaskState.NOTHING_HELD, TaskState.RETAINED})
"""States that an answer of the participant itself has led to."""


# --- Answering for a participant -------------------------------------------------------------------------


class Settled(StrEnum):
    """What somebody who answers for a participant says of its part."""

    DONE = "done"
    """It was done by other means."""
    NOTHING_HELD = "nothing-held"
    RETAINED = "retained"
    """It keeps what the law asks for; what, and until when, is in the reason."""


class Settlement(StrEnum):
    """Why a participant is answered for."""

    DONE_BY_HAND = "done-by-hand"
    HOLDS_NOTHING = "holds-nothing"
    DESTROYED = "destroyed"
    """What it held went with its systems."""
    KEPT_BY_LAW = "kept-by-law"
    UNREACHABLE = "unreachable"
    """It will not answer; whatever it holds is its own to answer for."""


DEPARTED = "departed"
"""The ground of parts whose participant left: nobody chooses it, the command to leave does."""
ERASED = "person-erased"
"""The ground of parts of recipients outside whose person was erased before they were told of something else: of the
erasure they are told. Nobody chooses it either."""


FITTING: Mapping[Settled, frozenset[Settlement]] = MappingProxyType(
    {
        Settled.DONE: frozenset({Settlement.DONE_BY_HAND, Settlement.DESTROYED, Settlement.UNREACHABLE}),
        Settled.NOTHING_HELD: frozenset({Settlement.HOLDS_NOTHING, Settlement.DESTROYED}),
        Settled.RETAINED: frozenset({Settlement.KEPT_BY_LAW}),
    }
)
"""By what is said of a part, the grounds on which it can be."""


# --- Leaving ---------------------------------------------------------------------------------------------


class Leaving(StrEnum):
    """Why nobody waits for a participant that leaves."""

    TAKEN_OVER = "taken-over"
    """Another participant has its data."""
    NEVER_HELD = "never-held"
    ERASED = "erased"
    """Whatever it held is destroyed."""
