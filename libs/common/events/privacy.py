"""What the privacy service and its participants say to each other.

A phase of a request is one `TaskIssued`, read by every participant's own group; each answers once per
(request, verb, round) on `privacy.answers`. A task is issued again until it is answered, so answering is
idempotent: the same task, issued again, gets the same answer again. A new round asks for the work anew.
"""

from datetime import date
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from libs.common.events import Event
from libs.common.personal.data import PersonalData, Sealed
from libs.common.personal.vocabulary import Category, LegalBasis, Purpose, Retention

ParticipantName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
CHUNK_BYTES = 512 * 1024


class Verb(StrEnum):
    """What a participant can be asked to do."""

    EXPORT = "export"
    ERASE = "erase"
    VERIFY_ERASED = "verify-erased"


class Outcome(StrEnum):
    """The terminal states of a participant's task, but for `failed`, which is tried again."""

    DONE = "done"
    NOTHING_HELD = "nothing-held"
    RETAINED = "retained"
    FAILED = "failed"


class Retained(BaseModel):
    """What the law keeps: which kind, on what ground, until when."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    kind: str
    retention: str
    bucket: str
    count: Annotated[int, Field(ge=0)]
    ground: str
    until: date | None


class TaskIssued(Event, type="vitrine.privacy.task-issued.v1", topic="privacy.tasks", key="request_id"):
    """Do this for this person, up to this generation, and answer."""

    request_id: UUID
    verb: Verb
    subject_id: UUID
    generation: int
    round: Annotated[int, Field(ge=1)] = 1
    attempt: Annotated[int, Field(ge=1)] = 1
    participants: list[ParticipantName] = []
    """Who has not answered yet; empty, as at first, means everybody."""


class TaskAnswered(Event, type="vitrine.privacy.task-answered.v1", topic="privacy.answers", key="request_id"):
    """One participant's answer. `libs.common.personal.answers` says how it is signed."""

    request_id: UUID
    verb: Verb
    round: Annotated[int, Field(ge=1)] = 1
    participant: ParticipantName
    outcome: Outcome
    counts: dict[str, int] = {}
    retained: list[Retained] = []
    chunks: Annotated[int, Field(ge=0)] = 0
    """For an export: how many `ExportChunk`s were sent before this answer."""
    digest: str = ""
    """For an export: SHA-256, in hex, over the SHA-256 of the bytes of each box in order; empty without chunks."""
    reason: str = ""
    """For a failure: a fixed word, never a message that could quote data."""
    signature: str = ""


class ExportedRecords(
    PersonalData,
    retention=Retention.EXPORT,
    purposes=[Purpose.RIGHTS_OF_THE_PERSON],
    legal_basis=LegalBasis.LEGAL_OBLIGATION,
):
    """Some of what a participant holds about a person, on its way into an archive.

    A record is `{"table", "kind", "facts", "data", "attached"}`: the table's name, the kind of its box, the
    impersonal columns, what the box holds (null when it cannot be opened: then `unreadable` says why), and
    rows of other tables that belong to it.
    """

    records: Annotated[list[dict[str, Any]], Category.CONTENT]


class ExportChunk(Event, type="vitrine.privacy.export-chunk.v1", topic="privacy.answers", key="request_id"):
    """A piece of a person's data, sealed for the request: a box of at most CHUNK_BYTES.

    The chunks of one round are numbered from 0; the answer that follows them binds them by its digest.
    """

    request_id: UUID
    participant: ParticipantName
    round: Annotated[int, Field(ge=1)] = 1
    sequence: Annotated[int, Field(ge=0)]
    box: Sealed[ExportedRecords]


class KeysDestroyed(Event, type="vitrine.privacy.keys-destroyed.v1", topic="privacy.keys", key="subject_id"):
    """Keys of a person's generation are gone: forget what is in memory."""

    subject_id: UUID
    generation: int


class ParticipantAnnounced(
    Event, type="vitrine.privacy.participant-announced.v1", topic="privacy.participants", key="participant"
):
    """A service that holds, or may hold, personal data: its public key and its part of the data map."""

    participant: ParticipantName
    public_key: dict[str, Any]
    data_map: list[dict[str, Any]]
