"""What the privacy service and its participants say to each other.

A phase of a request is one `TaskIssued`, read by every participant's own group; each answers once per
(request, verb) on `privacy.answers`. A task is issued again until it is answered, so answering is idempotent.
"""

from datetime import date
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from libs.common.events import Event

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
    """Every participant: do this for this person, and answer."""

    request_id: UUID
    verb: Verb
    subject_id: UUID
    generation: int
    attempt: int = 1


class TaskAnswered(Event, type="vitrine.privacy.task-answered.v1", topic="privacy.answers", key="request_id"):
    """One participant's answer. `signature` is a detached JWS (ES256) over the answer's canonical JSON."""

    request_id: UUID
    verb: Verb
    participant: ParticipantName
    outcome: Outcome
    counts: dict[str, int] = {}
    retained: list[Retained] = []
    chunks: int = 0
    """For an export: how many `ExportChunk`s were sent before this answer."""
    reason: str = ""
    """For a failure: a fixed word, never a message that could quote data."""
    signature: str = ""


class ExportChunk(Event, type="vitrine.privacy.export-chunk.v1", topic="privacy.answers", key="request_id"):
    """A piece of a person's data, sealed for the request: at most CHUNK_BYTES."""

    request_id: UUID
    participant: ParticipantName
    sequence: Annotated[int, Field(ge=0)]
    subject_id: UUID
    box: str
    """Base64 of a sealed `ExportedRecords`."""


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
