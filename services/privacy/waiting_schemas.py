"""What whoever runs the platform, or answers for a store, sees of requests that wait. No personal data."""

from datetime import date, datetime
from uuid import UUID

from pydantic import BaseModel, Field

from libs.common.events.privacy import Verb
from services.privacy.domain.rights import Law, RightName
from services.privacy.domain.states import State, TaskState
from services.privacy.domain.waiting import EndedBy, For, Waits


class WaitingSummary(BaseModel):
    """A request and whom it waits for."""

    store_id: UUID
    store: str | None = Field(description="The store's name.")
    request_id: UUID
    right: RightName
    law: Law
    state: State
    opened_at: datetime
    due_on: date | None = Field(description="The last day to answer; absent while the period does not run.")
    overdue: bool
    escalated_at: datetime | None
    waits_for: For
    participants: list[str] = Field(description="Whose part has not ended, and whose turn it is.")
    since: datetime | None = Field(description="The longest that one of these is waited for.")
    failing: list[str] = Field(description="Those of them whose last answer was that they failed.")
    stuck: list[str] = Field(description="Those of them that somebody should look at.")


class WaitingPart(BaseModel):
    """A participant's part that has not ended."""

    participant: str
    task: Verb
    state: TaskState
    waits: Waits
    after: list[str] = Field(description="Of one whose turn has not come: whose parts come first.")
    since: datetime | None = Field(description="Since when its answer is waited for.")
    tries: int = Field(description="How often it was asked, this time included.")
    next_try_at: datetime | None = Field(description="When it is asked again by itself.")
    error: str | None = Field(description="A fixed word, of the last answer if that was a failure.")
    error_at: datetime | None
    stuck: bool = Field(description="Whether somebody should look at it.")
    ended_by: list[EndedBy]
    words: str


class WaitingDeadline(BaseModel):
    """The law's last day, and how far it is."""

    due_on: date | None
    over_at: datetime | None = Field(description="When that day is over where the store is.")
    seconds_left: int | None = Field(description="Until then; negative once it is over.")
    stopped_since: datetime | None = Field(
        description="Since when the clock stands still, for an answer of the person."
    )
    words: str


class Waiting(WaitingSummary):
    """Why a request has not ended, and what would end it."""

    version: int = Field(description="Of the request, as its ETag has it.")
    zone: str = Field(description="Where the store is; times in `words` are of there.")
    parts: list[WaitingPart] = Field(description="What has not ended of the present phase.")
    ended: int = Field(description="Parts of the present phase that have ended.")
    deadline: WaitingDeadline
    words: str = Field(description="Whom it waits for, in a sentence.")
