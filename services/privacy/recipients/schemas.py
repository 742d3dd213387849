"""What the routes of recipients take and give."""

import re
from datetime import date, datetime
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    model_validator,
)

from libs.common.events.privacy import Verb
from services.privacy.recipients.words import DeliveryState, Disabled, Protocol, RecipientState, Role


def _as_header(credential: SecretStr) -> SecretStr:
    if re.fullmatch(r"[\x21-\x7e]+( [\x21-\x7e]+)?", credential.get_secret_value()) is None:
        raise ValueError("a token, or a scheme and a value")
    return credential


_Line = Annotated[
    str, StringConstraints(strip_whitespace=True, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")
]
_Name = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f<>]*$"),
]
_Url = Annotated[str, Field(max_length=2000, description="Where it is reached, with https.")]
_Country = Annotated[str, Field(pattern="^[A-Z]{2}$", description="Where it is, ISO 3166-1 alpha-2.")]


Credential = Annotated[
    SecretStr,
    Field(
        min_length=8,
        max_length=2000,
        description="Of an OpenDSR processor: what it gave you to be let in with, a bearer token or `Scheme value`.",
    ),
    AfterValidator(_as_header),
]


class RecipientDetails(BaseModel):
    """Who a recipient is, in the words of the store: they name a business and nobody in it."""

    model_config = ConfigDict(extra="forbid")

    name: _Name
    url: _Url
    category: _Line = Field("", description="What it does for the store: carrier, newsletter.")
    country: _Country | None = None
    contract: _Line = Field("", description="By which name you know the contract with it.")
    contract_on: date | None = None
    safeguards: _Line = Field("", description="Of data that leaves the European Economic Area.")


class NewRecipient(RecipientDetails):
    """Somebody outside to whom the store gives data."""

    role: Role = Field(
        description="A `processor` works for the store and must say that it has done what is asked; a `controller` "
        "decides for itself, and is told."
    )
    protocol: Protocol = Protocol.WEBHOOK
    credential: Credential | None = None

    @model_validator(mode="after")
    def _of_its_protocol(self) -> Self:
        if (self.credential is not None) != (self.protocol is Protocol.OPENDSR):
            raise ValueError("a credential is what an OpenDSR processor gave you")
        if self.protocol is Protocol.OPENDSR and self.role is not Role.PROCESSOR:
            raise ValueError("OpenDSR is spoken to processors")
        if self.protocol is Protocol.OPENDSR and "?" in self.url:
            raise ValueError("paths follow this address")
        return self


class RecipientChange(BaseModel):
    """What is to be otherwise; what is left out stays. Another address has to take a test first."""

    model_config = ConfigDict(extra="forbid")

    name: _Name | None = None
    url: _Url | None = None
    category: _Line | None = None
    country: _Country | None = None
    contract: _Line | None = None
    contract_on: date | None = None
    safeguards: _Line | None = None


class RecipientView(RecipientDetails):
    """A recipient, and whether it is sent to."""

    model_config = ConfigDict(extra="ignore", from_attributes=True)

    id: UUID
    role: Role
    protocol: Protocol
    state: RecipientState
    why: Disabled | None = Field(None, description="Of a disabled one.")
    verbs: list[Verb] = Field(
        description="What it has a part in. Of everything else it is told by hand: its protocol has no words for it."
    )
    registered_at: datetime
    reached_at: datetime | None = Field(None, description="When it last took something.")


class RecipientMade(RecipientView):
    """A recipient and its secret, which is shown this once."""

    secret: str | None = Field(
        None,
        description="Of Standard Webhooks. Keep it where the recipient runs alone. Absent when the reply is "
        "given again: if it was lost, have another made.",
    )


class Rotation(BaseModel):
    """How a secret is replaced."""

    model_config = ConfigDict(extra="forbid")

    at_once: bool = Field(False, description="The ones before end now, and not in a day: somebody knows one.")
    credential: Credential | None = None


class SecretMade(BaseModel):
    """A new secret, which is shown this once."""

    secret: str | None = Field(None, description="Absent where the recipient gave you a credential.")
    before_until: datetime = Field(description="Until then the one before counts as well.")


class DeliveryView(BaseModel):
    """Something that is, or was, sent to a recipient. Of whom it speaks is sealed."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID = Field(description="The webhook-id.")
    recipient_id: UUID
    what: Verb | Literal["test", "store-ended"]
    request_id: UUID | None = None
    state: DeliveryState
    attempts: int
    next_try_at: datetime | None = None
    made_at: datetime
    taken_at: datetime | None = Field(None, description="When the recipient acknowledged it.")
    answered_at: datetime | None = Field(None, description="When it said what it had done.")


class AttemptView(BaseModel):
    """One try."""

    model_config = ConfigDict(from_attributes=True)

    number: int
    at: datetime
    status: int | None = Field(description="Of HTTP; absent where there was no reply.")
    milliseconds: int
    word: str = Field(description="What was wrong; empty where nothing was.")
