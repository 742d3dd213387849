"""Whom an open request waits for, and what would end that."""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from services.privacy.domain.states import KEYRING, OVER, TERMINAL, UNDECIDED, State, TaskState


class For(StrEnum):
    """Whom a request waits for."""

    PERSON = "person"
    """To show that it is theirs, or to answer what they were asked."""
    DECISION = "decision"
    """Of whoever answers for the store."""
    PARTICIPANTS = "participants"
    DAY = "day"
    """Of which the person was told: a restriction is lifted no sooner."""
    WORKER = "worker"
    """Everybody has answered: the archive is being made, or the next step taken."""
    NOBODY = "nobody"
    """It is over."""


class Waits(StrEnum):
    """What a part that has not ended waits for."""

    ANSWER = "answer"
    """It was asked."""
    COMPLETION = "completion"
    """A recipient has it, and must still say that it is done."""
    TURN = "turn"
    """Others come first."""
    TIME = "time"
    """It is asked at an instant that has not come."""


class EndedBy(StrEnum):
    """What would end that a part is waited for."""

    ANSWER = "answer"
    DRIVE = "drive"
    """It can be asked again at once."""
    SETTLEMENT = "settlement"
    """Somebody can answer for it, with a reason that goes on record."""
    DEPARTURE = "departure"
    """Its participant can leave, when another has its data or nobody has."""


FIRST = frozenset({"prepare", "refer"})
"""What is asked before a key of an erasure is destroyed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One participant's part of the present phase, as its row has it."""

    participant: str
    verb: str
    state: TaskState
    attempts: int = 0
    tries: int = 0
    asked_at: datetime | None = None
    next_issue_at: datetime | None = None
    answered_at: datetime | None = None
    reason: str = ""
    is_outside: bool = False
    """A recipient to whom a store gave data."""

    @property
    def has_ended(self) -> bool:
        """Whether nothing of it is waited for any more."""
        return self.state in TERMINAL


def waits(part: Part, *, now: datetime) -> Waits:
    """What a part that has not ended waits for."""
    if part.state is TaskState.RECEIVED:
        return Waits.COMPLETION
    if part.asked_at is None:
        return Waits.TURN
    return Waits.TIME if part.asked_at > now else Waits.ANSWER


def ended_by(part: Part, *, services: Collection[str], as_platform: bool) -> list[EndedBy]:
    """What whoever looks can do about a part, besides waiting. `services` are the platform's own, which only it answers
    for and which cannot leave; nobody answers for the keyring.
    """
    ways = [EndedBy.ANSWER]
    if part.asked_at is not None:
        ways.append(EndedBy.DRIVE)
        if part.participant != KEYRING and (as_platform or part.participant not in services):
            ways.append(EndedBy.SETTLEMENT)
    if as_platform and not part.is_outside and part.participant not in {KEYRING, *services}:
        ways.append(EndedBy.DEPARTURE)
    return ways


def before(part: Part, parts: Iterable[Part]) -> list[Part]:
    """Those that a part whose turn has not come waits for. The keyring comes after what is asked before anything is
    done, and after all others when it looks again; whom it leads come after it, and who is told outside comes last.
    """
    open_still = [one for one in parts if not one.has_ended and one is not part]
    first = [one for one in open_still if one.verb in FIRST]
    same = [one for one in open_still if one.verb == part.verb]
    if part.participant == KEYRING:
        return first or [one for one in same if not one.is_outside]
    leading = [one for one in same if one.participant == KEYRING] or first
    return leading or ([one for one in same if not one.is_outside] if part.is_outside else [])


def waits_for(
    state: State, parts: Sequence[Part], *, is_stopped: bool, begins_at: datetime | None, now: datetime
) -> For:
    """Whom a request waits for. `is_stopped` says that its person was asked something and has not answered."""
    if state in OVER:
        return For.NOBODY
    if is_stopped:
        return For.PERSON
    if any(not part.has_ended for part in parts):
        return For.DAY if begins_at is not None and begins_at > now else For.PARTICIPANTS
    if state is State.DECIDING:
        return For.DECISION
    return For.PERSON if state in UNDECIDED else For.WORKER


_WORD = re.compile(r"[a-z]+(?:-(?:[a-z]+|[0-9]{1,3}))*")
_LONGEST_WORD = 40
OTHER_WORDS = "in-its-own-words"


def error_word(reason: str) -> str:
    """Why a participant failed, as it may be shown to anybody: what is no fixed word could quote data."""
    if not reason or (len(reason) <= _LONGEST_WORD and _WORD.fullmatch(reason)):
        return reason
    return OTHER_WORDS
