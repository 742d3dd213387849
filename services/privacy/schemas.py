"""What the privacy service takes and gives over HTTP."""

from datetime import date, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, EmailStr, Field

from libs.common.events.privacy import Retained
from services.privacy.domain import Right, State, TaskState


class NewRequest(BaseModel):
    """Use a right. The answer goes to `email`, which must be the account's own."""

    model_config = ConfigDict(extra="forbid")

    right: Right
    email: Annotated[EmailStr, Field(max_length=254)]
    language: Literal["en", "fr"] | None = Field(None, description="Of the mails; the store's when absent.")


class Step(BaseModel):
    """When the request entered a state."""

    state: State
    at: datetime


class RequestSummary(BaseModel):
    """A request and where it is."""

    id: UUID
    right: Right
    state: State
    opened_at: datetime
    due_on: date
    completed_at: datetime | None = None


class Part(BaseModel):
    """One participant's part of a request."""

    participant: str
    task: Literal["export", "erase", "verify-erased"]
    state: TaskState
    counts: dict[str, int] = Field({}, description="Rows, or keys, by what they are.")
    retained: list[Retained] = Field([], description="What the law keeps: why, and until when.")
    reason: str = ""
    answered_at: datetime | None = None
    attempts: int = Field(0, description="How often it was issued again.")


class RequestDetail(RequestSummary):
    """A request, its way so far, and everybody's part in it."""

    steps: list[Step]
    parts: list[Part]


class ParticipantView(BaseModel):
    """Who answers requests."""

    name: str
    announced_at: datetime | None = Field(None, description="Absent: expected, and never heard of.")
    public_key: dict[str, Any] | None = Field(None, description="The JWK its answers are checked with.")
    waiting: int = Field(description="Tasks of this participant that have no answer yet.")


class ParticipantList(BaseModel):
    """Everybody who answers requests."""

    items: list[ParticipantView]


class DataMap(BaseModel):
    """What each service keeps about people, computed from its code: see `libs/common/personal/datamap.py`."""

    items: list[dict[str, Any]]
