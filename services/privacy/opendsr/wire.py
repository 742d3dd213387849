"""OpenDSR 2.0 on the wire, in both directions (opengdpr/OpenDSR, specification.md).

What is asked of us is read strictly: a member that we do not know may be one that was misspelt. What processors answer
may have more than we know, and nothing less.
"""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from services.privacy.domain.problems import NotOpenDsr
from services.privacy.domain.states import OVER, UNDECIDED, State

VERSION = "2.0"
BODY_BYTES = 128 * 1024
"""Of one message: twenty identities and ten addresses take a quarter of it."""

M = TypeVar("M", bound=BaseModel)


class Regulation(StrEnum):
    """Under which law a person asked."""

    GDPR = "gdpr"
    CCPA = "ccpa"


class RequestType(StrEnum):
    """What is asked (6.2)."""

    ACCESS = "access"
    PORTABILITY = "portability"
    ERASURE = "erasure"


class IdentityType(StrEnum):
    """What a person is known by (5.1)."""

    CUSTOMER_ID = "controller_customer_id"
    EMAIL = "email"
    ANDROID_ADVERTISING_ID = "android_advertising_id"
    ANDROID_ID = "android_id"
    FIRE_ADVERTISING_ID = "fire_advertising_id"
    IOS_ADVERTISING_ID = "ios_advertising_id"
    IOS_VENDOR_ID = "ios_vendor_id"
    MICROSOFT_ADVERTISING_ID = "microsoft_advertising_id"
    MICROSOFT_PUBLISHER_ID = "microsoft_publisher_id"
    ROKU_PUBLISHER_ID = "roku_publisher_id"
    ROKU_ADVERTISING_ID = "roku_advertising_id"


class IdentityFormat(StrEnum):
    """How it is written (5.2)."""

    RAW = "raw"
    SHA1 = "sha1"
    MD5 = "md5"
    SHA256 = "sha256"


class RequestStatus(StrEnum):
    """Where a request is (8). There is none for a failure: what failed stays in progress until it is settled."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    CANCELLED = "cancelled"


ENDED = frozenset({RequestStatus.COMPLETED, RequestStatus.CANCELLED})


def status_of(states: Iterable[State]) -> RequestStatus:
    """The one status of whatever requests were opened for one of OpenDSR: it never goes back."""
    found = set(states)
    if found <= OVER:
        return RequestStatus.COMPLETED if State.COMPLETED in found else RequestStatus.CANCELLED
    return RequestStatus.PENDING if found <= UNDECIDED else RequestStatus.IN_PROGRESS


# --- Members ---------------------------------------------------------------------------------------------


def _address(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("not an address")
    if parts.username or parts.password or parts.fragment:
        raise ValueError("an address without a user and a fragment")
    return url


SubjectRequestId = Annotated[
    str,
    Field(
        pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$",
        description="UUID v4 in lower case, made by the controller.",
    ),
]
Address = Annotated[
    str, StringConstraints(min_length=8, max_length=2000, pattern=r"^[\x21-\x7e]+$"), AfterValidator(_address)
]
Version = Annotated[str, StringConstraints(max_length=20, pattern=r"^\d+(\.\d+){0,2}$")]
Domain = Annotated[str, StringConstraints(max_length=253, pattern=r"^[A-Za-z0-9.:_-]+$")]
Extensions = Annotated[
    dict[Domain, dict[str, Any]],
    Field(max_length=20, description="By the domain of the processor that knows them."),
]


class Kind(BaseModel):
    """A type of identity in one format."""

    model_config = ConfigDict(extra="forbid")

    identity_type: IdentityType
    identity_format: IdentityFormat


class Identity(Kind):
    """What the person is known by."""

    identity_value: str = Field(min_length=1, max_length=320, repr=False)


# --- Asked of a processor --------------------------------------------------------------------------------


class NewRequest(BaseModel):
    """The body of a request (7.1)."""

    model_config = ConfigDict(extra="forbid")

    regulation: Regulation
    subject_request_id: SubjectRequestId
    subject_request_type: RequestType
    submitted_time: AwareDatetime = Field(description="When the person asked (RFC 3339).")
    subject_identities: list[Identity] = Field(min_length=1, max_length=20)
    api_version: Version | None = None
    status_callback_urls: list[Address] = Field([], max_length=10)
    extensions: Extensions = {}

    @property
    def id(self) -> UUID:
        """The controller's id of it."""
        return UUID(self.subject_request_id)


class NewRequestV1(NewRequest):
    """The same by its former name, when there was one regulation."""

    regulation: Regulation = Regulation.GDPR


# --- Answered by a processor -----------------------------------------------------------------------------


class _Answer(BaseModel):
    model_config = ConfigDict(extra="ignore")

    controller_id: str = Field(min_length=1, max_length=200)
    subject_request_id: SubjectRequestId


class Discovery(BaseModel):
    """What a processor supports (6.3)."""

    model_config = ConfigDict(extra="ignore")

    api_version: Version
    supported_identities: list[Kind] = Field(max_length=100)
    supported_subject_request_types: list[RequestType] = Field(max_length=20)
    processor_certificate: Address

    @model_validator(mode="before")
    @classmethod
    def _known(cls, document: Any) -> Any:
        """What we have never heard of is nothing that we could ask for."""
        if not isinstance(document, dict):
            return document
        return {
            **document,
            "supported_identities": _only(document.get("supported_identities"), _is_known_identity),
            "supported_subject_request_types": _only(
                document.get("supported_subject_request_types"), _is_known_type
            ),
        }


def _only(found: Any, is_known: Any) -> Any:
    return [one for one in found if is_known(one)] if isinstance(found, list) else found


def _is_known_type(one: Any) -> bool:
    return one in list(RequestType)


def _is_known_identity(one: Any) -> bool:
    return not (isinstance(one, Mapping) and isinstance(one.get("identity_type"), str)) or (
        one["identity_type"] in list(IdentityType)
    )


class Accepted(_Answer):
    """201 (7.3). `encoded_request` is the whole body in base64: it is neither logged nor kept."""

    expected_completion_time: AwareDatetime
    received_time: AwareDatetime
    encoded_request: str = Field(max_length=2 * BODY_BYTES, repr=False)


class Status(_Answer):
    """Where a request is (8.3)."""

    expected_completion_time: AwareDatetime
    request_status: RequestStatus
    api_version: Version | None = None
    results_url: Address | None = None
    results_count: int | None = Field(None, ge=0, le=2**53)
    extensions: Extensions = {}


class Callback(_Answer):
    """What a processor says at every change (8.6)."""

    status_callback_url: Address
    request_status: RequestStatus
    expected_completion_time: AwareDatetime
    results_url: Address | None = None
    results_count: int | None = Field(None, ge=0, le=2**53)
    extensions: Extensions = {}


class Cancelled(_Answer):
    """202 (9.2)."""

    received_time: AwareDatetime
    api_version: Version | None = None


class Results(BaseModel):
    """Where the results are, one for each person that the identities named here."""

    results: list[str]
    results_count: int
    expires_at: AwareDatetime


# --- Reading and writing ---------------------------------------------------------------------------------


class Fault(BaseModel):
    """Why a message was refused (7.6): a fixed word, and a sentence that repeats nothing of it."""

    domain: Literal["Validation", "Support", "State"]
    reason: str
    message: str


def read(model: type[M], body: bytes) -> M:
    """The message in these bytes. Raises NotOpenDsr, which says what is wrong and repeats nothing."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise refused(
            [_fault(one) for one in error.errors(include_input=False, include_context=False)]
        ) from None


def refused(faults: Sequence[Fault]) -> NotOpenDsr:
    """400 in the form of the specification (7.5), which is a problem as any other too."""
    listed = [one.model_dump() for one in faults[:20]]
    return NotOpenDsr(
        error={"code": 400, "message": listed[0]["message"], "errors": listed},
    )


def _fault(error: Any) -> Fault:
    place = _place(error["loc"])
    match error["type"]:
        case "missing":
            return Fault(domain="Validation", reason="missing", message=f"{place} is required.")
        case "extra_forbidden":
            return Fault(
                domain="Validation", reason="unknown", message=f"{place} has a member that is not known."
            )
        case "json_invalid":
            return Fault(domain="Validation", reason="invalid", message="The body is not valid JSON.")
        case _:
            return Fault(domain="Validation", reason="invalid", message=f"{place} is not valid.")


_MEMBERS = frozenset(NewRequest.model_fields) | frozenset(Identity.model_fields)


def _place(location: Sequence[int | str]) -> str:
    """Where it is; a name that the caller invented is not repeated."""
    named = [str(part) for part in location if isinstance(part, int) or part in _MEMBERS]
    return ".".join(named) or "The body"


def written(message: BaseModel) -> bytes:
    """The bytes that are signed and sent."""
    return message.model_dump_json(exclude_none=True).encode()
