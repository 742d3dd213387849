"""Who answers requests, who left, and what is said in somebody's place."""

from datetime import datetime
from typing import Any, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

from libs.common.events.privacy import ParticipantName
from services.privacy.desk_schemas import Text
from services.privacy.domain.parts import Leaving, Settled, Settlement

# --- Answering for a participant -------------------------------------------------------------------------


class NewSettlement(BaseModel):
    """Somebody answers for a participant."""

    model_config = ConfigDict(extra="forbid")

    outcome: Settled
    ground: Settlement
    reason: Text = Field(
        description="For whoever looks at it later. Kept sealed, and never part of a certificate."
    )


class SettlementView(BaseModel):
    """What was said in place of a participant's answer."""

    said: Settled | None = Field(
        None,
        description="Absent where it left, since its successor answers, and where its person was erased meanwhile.",
    )
    ground: Settlement | Literal["departed", "person-erased"]
    successor: str | None = Field(None, description="Of a participant that left: who has its data.")


# --- Leaving ---------------------------------------------------------------------------------------------


class NewDeparture(BaseModel):
    """A participant leaves: `{"successor": name}`, or `{"ground": "never-held" | "erased"}`."""

    model_config = ConfigDict(extra="forbid")

    successor: ParticipantName | None = Field(None, description="Who has taken over all that it held.")
    ground: Literal["never-held", "erased"] | None = Field(None, description="Why nobody has.")

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.successor is None) == (self.ground is None):
            raise ValueError("a successor or a ground")
        return self

    @property
    def why(self) -> Leaving:
        """The ground, which a successor is too."""
        return Leaving(self.ground) if self.ground else Leaving.TAKEN_OVER


class Departed(BaseModel):
    """A participant that left."""

    model_config = ConfigDict(from_attributes=True)

    name: str
    departed_at: datetime
    ground: Leaving
    successor: str | None = None


class DepartureView(Departed):
    """A participant that left, and how far that is."""

    departed_by: UUID = Field(description="An account of the platform's staff.")
    handed_over_at: datetime | None = Field(None, description="Since then nothing waits for it.")
    open: int = Field(description="Its parts of requests that are still to be handed over.")


class ParticipantView(BaseModel):
    """Who answers requests."""

    name: str
    announced_at: datetime | None = Field(None, description="Absent: expected, and never heard of.")
    public_key: dict[str, Any] | None = Field(None, description="The JWK its answers are checked with.")
    waiting: int = Field(description="Tasks of this participant that have no answer yet.")
    required: bool = Field(description="One of the platform's own, which cannot leave.")


class ParticipantList(BaseModel):
    """Everybody who answers requests, and who did."""

    items: list[ParticipantView]
    departed: list[Departed] = []
