"""What staff say of their tools, and see of them."""

import re
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from services.privacy.opendsr.wire import RequestStatus, RequestType

_HOST = re.compile(
    r"^(?=.{1,253}(:\d{1,5})?$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*(:\d{1,5})?$"
)


def _host(host: str) -> str:
    if not _HOST.match(host):
        raise ValueError("a host, with its port where that is not 443")
    return host


Host = Annotated[str, Field(max_length=260), AfterValidator(_host)]


class NewController(BaseModel):
    """A tool by which the store asks for what its people asked for."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f]+$", description="Of the tool.")
    callback_hosts: list[Host] = Field(
        [], max_length=10, description="Where it may be called back: `tool.example`, `tool.example:8443`."
    )


class ControllerView(BaseModel):
    """A tool."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID = Field(description="`controller_id` of all that is answered to it.")
    name: str
    callback_hosts: list[str]
    registered_by: UUID = Field(description="An account of the staff.")
    registered_at: AwareDatetime
    revoked_at: AwareDatetime | None


class ControllerWithKey(ControllerView):
    """A tool, and the key that is told this once."""

    key: str | None = Field(
        None,
        description="`Authorization: Bearer …` of the tool. Absent when the reply is given again: if it was lost, have "
        "another made.",
    )
    base_url: str = Field(description="Where the tool speaks to.")


class NewKey(BaseModel):
    """How long the key before is still good."""

    model_config = ConfigDict(extra="forbid")

    overlap_hours: int = Field(24, ge=0, le=168, strict=True)


class CallbackView(BaseModel):
    """One call to a tool: about what, where to, and how it went."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    subject_request_id: UUID
    kind: RequestType
    url: str
    status: RequestStatus = Field(description="What is told.")
    made_at: AwareDatetime
    attempts: int
    due_at: AwareDatetime | None = Field(description="When it is tried next; null once it is over.")
    delivered_at: AwareDatetime | None
    answer: int | None = Field(description="The status that the last attempt met.")
    fault: str | None = Field(description="Why the last attempt failed where nothing answered.")
