"""What participants are asked, and what came in for it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row

from libs.common.events.privacy import Held, Life, Proposal, TaskIssued, Verb
from libs.common.personal.data import Sealed
from libs.common.personal.vocabulary import Category, Purpose
from services.privacy.domain.parts import RECEIVED_FOR, STUCK_AFTER, STUCK_ATTEMPTS
from services.privacy.domain.rights import Right
from services.privacy.domain.states import KEYRING_LEADS, RECIPIENT, TERMINAL, State, TaskState
from services.privacy.models import Request

SOURCE = "privacy"
COLUMNS = (
    "id, store_id, subject_id, generation, claim, law, purpose, category, proposal, order_number, proofs, state, round,"
    " way, opened_at, traceparent, received_at, verified_at, acknowledged_at, extended_at, stops, watch, watch_at,"
    " escalated_at, due_on, overdue_at, extension, begins_at, version, retired, also, held"
)
"""Of a request, as the engine reads it."""


def _words(words: Iterable[str]) -> str:
    return ", ".join(f"'{word}'" for word in sorted(words))


IS_TERMINAL = f"state IN ({_words(TERMINAL)})"
IS_UNANSWERED = f"state IN ({_words(set(TaskState) - TERMINAL)})"
IS_ASKED = "coalesce(task.asked_at, task.next_issue_at) IS NOT NULL"
"""Of a task, in SQL. Whoever waits for the keyring, or the keyring for others, is not asked yet."""

_PATIENCE = f"""CASE task.state WHEN 'received' THEN {RECEIVED_FOR.total_seconds()}
        ELSE {STUCK_AFTER.total_seconds()} END"""
IS_STUCK = f"""(task.state = 'failed' AND task.attempts >= {STUCK_ATTEMPTS}
    OR task.asked_at <= CAST(:now AS timestamptz) - make_interval(secs => {_PATIENCE}))"""
"""Of a task that is not answered: as `is_stuck` has it."""

RUNS: Mapping[Right, Verb] = {
    Right.ACCESS: Verb.EXPORT,
    Right.PORTABILITY: Verb.EXPORT,
    Right.RECTIFICATION: Verb.RECTIFY,
    Right.ERASURE: Verb.ERASE,
    Right.RESTRICTION: Verb.RESTRICT,
    Right.LIFTING: Verb.LIFT_RESTRICTION,
    Right.OBJECTION: Verb.OBJECT,
    Right.WITHDRAWAL: Verb.OBJECT,
    Right.EXPLANATION: Verb.PREVIEW,
}
"""What carries a right out."""

_RUNS = " ".join(f"WHEN '{right}' THEN '{verb}'" for right, verb in RUNS.items())
PHASE = f"""CASE request.state WHEN 'verifying' THEN 'recognise' WHEN 'deciding' THEN 'preview'
        WHEN 'running' THEN CASE request.claim {_RUNS} END WHEN 'checking' THEN 'verify-erased' END"""
"""In SQL, what everybody is asked in the phase of a request: as `verb_of`."""


def verb_of(right: Right, state: State) -> Verb | None:
    """What everybody is asked in a phase."""
    match state:
        case State.VERIFYING:
            return Verb.RECOGNISE
        case State.DECIDING:
            return Verb.PREVIEW
        case State.RUNNING:
            return RUNS[right]
        case State.CHECKING:
            return Verb.VERIFY_ERASED
        case _:
            return None


def verbs_of(right: Right, state: State) -> frozenset[Verb]:
    """What an answer may be to in a phase: what runs is prepared first, by whoever takes part in that."""
    verb = verb_of(right, state)
    before = {Verb.REFER} if state is State.RUNNING else set[Verb]()
    before |= {Verb.PREPARE} if verb is Verb.ERASE else set[Verb]()
    return frozenset({verb, *before} if verb else ())


def is_led(right: Right, state: State) -> bool:
    """Whether the keyring comes first, and until it is done it is nobody else's turn."""
    return state is State.RUNNING and right in KEYRING_LEADS


def is_part(request: Any) -> bool:
    """Whether an erasure is of one purpose or category only."""
    return request.claim == Right.ERASURE and (request.purpose or request.category) is not None


Taken = tuple[UUID, str, Verb]
"""Request, participant and verb of a task."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came in for one task. `content` is as this version understands it, `received` as it was signed."""

    request_id: UUID
    participant: str
    verb: Verb
    round: int
    state: TaskState
    content: Mapping[str, Any]
    received: Mapping[str, Any] | None = None
    """None for what the keyring did, which was no answer to an event."""

    @property
    def place(self) -> Taken:
        """The task it is an answer to."""
        return self.request_id, self.participant, self.verb

    @property
    def noted(self) -> Mapping[str, Any]:
        """What the evidence log has of it: of a signed answer all that was signed, and nothing else."""
        if self.received is not None:
            return self.received
        return {**self.content, "participant": self.participant, "verb": self.verb, "round": self.round}


def task(
    request: Row[Any] | Request, verb: Verb, *, attempt: int = 1, participants: Sequence[str] = ()
) -> TaskIssued:
    """What everybody, or who has not answered yet, is asked."""
    return TaskIssued(
        request_id=request.id,
        verb=verb,
        subject_id=request.subject_id,
        generation=request.generation,
        round=request.round,
        attempt=attempt,
        participants=list(participants),
        purpose=Purpose(request.purpose) if request.purpose else None,
        category=Category(request.category) if request.category else None,
        retired=[UUID(key_id) for key_id in request.retired or ()],
        held=[Held.model_validate(one) for one in request.held or ()],
        portable=request.claim == Right.PORTABILITY,
        order_number=request.order_number if verb is Verb.RECOGNISE else None,
        proposal=Sealed(Proposal, request.proposal)
        if isinstance(request.proposal, bytes)
        else request.proposal,
        also=also_of(request),
    )


def also_of(request: Any) -> list[Life]:
    """The other subjects of the request's person."""
    return [Life.model_validate(one) for one in request.also or ()]


def lives_of(request: Any) -> list[Life]:
    """All subjects that a request is about, its own first."""
    return [Life(subject_id=request.subject_id, generation=request.generation), *also_of(request)]


def ids_of(requests: Iterable[Row[Any] | Request]) -> list[UUID]:
    """In the order in which rows are locked."""
    return sorted(request.id for request in requests)


def _subjects_of(request: Any) -> list[UUID]:
    return [life.subject_id for life in lives_of(request)]


def traces_of(requests: Iterable[Row[Any]]) -> dict[str, str | None]:
    """The trace that each request was opened in, by what events about it are ordered by."""
    return {str(id_): one.traceparent for one in requests for id_ in (one.id, *_subjects_of(one))}


RECIPIENTS = "recipient"
"""What measurements call all to whom stores gave data: there would be no end of names."""


def measured_as(participant: str) -> str:
    """What measurements call a participant."""
    return RECIPIENTS if participant.startswith(RECIPIENT) else participant
