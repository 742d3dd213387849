"""What identity takes and gives over HTTP."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, EmailStr, Field, SecretStr

from libs.common.auth import Role
from libs.common.events.orders import Address
from libs.common.money import Currency
from libs.common.text import Text


def _without_default(schema: dict[str, Any]) -> None:
    """What is absent from a change stays as it is, which no default value can say."""
    schema.pop("default", None)


_MAY_BE_ABSENT = Field(json_schema_extra=_without_default)


class _Input(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


Email = Annotated[EmailStr, Field(max_length=254)]
Password = Annotated[
    SecretStr, Field(min_length=1, max_length=1000, description="8 to 200 characters once normalised.")
]
Language = Annotated[Literal["en", "fr"], Field(description="Of mails and pages.")]
Name = Annotated[Text, Field(min_length=1, max_length=200)]
Token = Annotated[SecretStr, Field(min_length=43, max_length=43, description="From the link in the mail.")]

# --- Accounts --------------------------------------------------------------------------------------------


class SignUpRequest(_Input):
    """A new account. Without a language mails are in the store's."""

    email: Email
    password: Password
    name: Name | None = None
    language: Language | None = None


class SignUpAccepted(BaseModel):
    """The same for known and unknown addresses."""

    detail: str = "A mail is on its way to this address. Follow it to go on."


class ConfirmationRequest(_Input):
    """The token that arrived by mail."""

    token: Token


class Confirmed(BaseModel):
    """The account exists and its owner may sign in."""

    status: Literal["active"] = "active"


class Me(BaseModel):
    """A person's own account. While processing is restricted, `on_hold` is true and what is personal is absent."""

    account_id: UUID
    subject_id: UUID
    confirmed_at: datetime
    on_hold: bool = False
    email: str | None = None
    name: str | None = None
    language: str | None = None
    addresses: list[Address] | None = None


class MeChanges(_Input):
    """What is absent stays as it is; a null name is removed."""

    name: Annotated[Name | None, _MAY_BE_ABSENT] = None
    language: Annotated[Language, _MAY_BE_ABSENT] = "en"
    addresses: Annotated[list[Address], Field(max_length=20), _MAY_BE_ABSENT] = []


class AccountClosing(_Input):
    """The password, typed again: a token alone closes nothing."""

    password: Password


class AccountClosed(BaseModel):
    """Deactivated; a sign-in before `ends_at` brings it back."""

    closed_at: datetime
    ends_at: datetime


class SettingsChange(_Input):
    """All that a store decides about its customers' accounts."""

    grace_days: Annotated[
        int, Field(strict=True, ge=0, le=365, description="How long a closed account can be brought back.")
    ]


class SettingsOut(BaseModel):
    """What is in force. Accounts that are closed already keep the time they were promised."""

    grace_days: int


# --- Further addresses -----------------------------------------------------------------------------------


class FurtherEmailRequest(_Input):
    """Another address. Without a language the mail is in the store's."""

    email: Email
    language: Language | None = None


class EmailAdded(BaseModel):
    """The same whatever the address is known for."""

    detail: str = "A mail is on its way to this address. Follow it to go on."


class EmailConfirmation(_Input):
    """The token that arrived by mail, and the password of the account that asked for it."""

    token: Token
    password: Password


class EmailView(BaseModel):
    """An address; absent while processing is restricted."""

    id: UUID
    email: str | None
    confirmed_at: datetime | None


class EmailList(BaseModel):
    """All there are: at most five."""

    items: list[EmailView]


# --- Tokens ----------------------------------------------------------------------------------------------


class PasswordGrant(_Input):
    """Sign in."""

    grant_type: Literal["password"]
    email: Email
    password: Password


class RefreshGrant(_Input):
    """Exchange a refresh token. `act_at` names a store that a merchant works at."""

    grant_type: Literal["refresh_token"]
    refresh_token: Annotated[
        SecretStr,
        Field(min_length=64, max_length=64, json_schema_extra={"pattern": "^[A-Za-z0-9_-]{64}$"}),
    ]
    act_at: UUID | None = None


TokenRequest = Annotated[PasswordGrant | RefreshGrant, Field(discriminator="grant_type")]


class TokenAnswer(BaseModel):
    """RFC 6749, 5.1. The refresh token can be used once."""

    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105
    expires_in: int = Field(description="Seconds.")
    refresh_token: str


class SessionOut(BaseModel):
    """One sign-in. `current` is the one whose token was sent."""

    id: UUID
    started_at: datetime
    refreshed_at: datetime | None
    expires_at: datetime
    current: bool


class KeySet(BaseModel):
    """RFC 7517."""

    keys: list[dict[str, str]]


# --- Stores ----------------------------------------------------------------------------------------------

Slug = Annotated[
    str, Field(pattern=r"^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$", description="The store's name in addresses.")
]
Country = Annotated[str, Field(pattern=r"^[A-Z]{2}$", description="ISO 3166-1 alpha-2.")]
StoreName = Annotated[Text, Field(min_length=1, max_length=100)]


class StoreRequest(_Input):
    """A new store; its currency is for good."""

    name: StoreName
    slug: Slug
    country: Country
    currency: Currency
    language: Language = "en"


class StoreChanges(_Input):
    """What is absent stays as it is."""

    name: Annotated[StoreName, _MAY_BE_ABSENT] = ""
    slug: Annotated[Slug, _MAY_BE_ABSENT] = ""
    country: Annotated[Country, _MAY_BE_ABSENT] = ""
    language: Annotated[Language, _MAY_BE_ABSENT] = "en"


class StoreOut(BaseModel):
    """What anybody may know of a store."""

    id: UUID
    name: str
    slug: str
    country: str
    currency: str
    language: str
    version: int
    state: Literal["open", "closed", "ended"] = "open"
    """Closed: it sells nothing for now."""


class StoreClosingRequest(_Input):
    """The name of the store, typed to confirm that it is this one."""

    name: StoreName


class StoreClosingOut(BaseModel):
    """Whether a store is closed, and until when its owner can open it again."""

    state: Literal["open", "closed", "ended"]
    closed_at: datetime | None
    ends_at: datetime | None


class MyStore(StoreOut):
    """A store and what the caller is there."""

    role: Role
