"""What evidence logs answer."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from services.privacy.domain.rights import RightName
from services.privacy.schemas import LinkToken

Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""SHA-256, in hexadecimal."""


class HeadView(BaseModel):
    """A log at one moment: how many entries it has, and the hash over all of them (RFC 9162, 4.10)."""

    size: int
    root: Hash
    signed_at: datetime | None = Field(None, description="Absent for a log without entries.")
    head: str | None = Field(
        None, description="The same as a JWS, signed by a key of `/privacy/v1/keys.json`."
    )


class HeadList(BaseModel):
    """Heads, the newest first."""

    items: list[HeadView]


class LeafList(BaseModel):
    """Hashes of entries, in their order."""

    first: int = Field(description="The index of the first.")
    items: list[Hash]


class InclusionProof(BaseModel):
    """That an entry is in the log (RFC 9162, 2.1.3)."""

    index: int
    size: int
    path: list[Hash]
    head: str


class ConsistencyProof(BaseModel):
    """That a log begins with what it was before (RFC 9162, 2.1.4)."""

    first: int
    second: int
    path: list[Hash]


class CertificateDocument(BaseModel):
    """A certificate, its signature, and the proofs of what it rests on. `vitrine verify` checks it."""

    model_config = ConfigDict(extra="allow")

    certificate: dict[str, Any] = Field(description="What is certified.")
    signature: str = Field(
        description="A detached JWS of the certificate, with its keys sorted and no blanks."
    )
    evidence: list[dict[str, Any]] = Field(description="Entries of the log, each with its way to the root.")
    before: list[dict[str, Any]] = Field(description="The certificates that this one completes.")
    keys: list[dict[str, Any]] = Field(description="For convenience: ask for keys where you trust them.")
    participants: dict[str, dict[str, Any]] = Field(description="With which keys the participants sign.")


class CertificateWanted(LinkToken):
    """The secret of a request, and the language of the page."""

    language: Literal["en", "fr"] = "en"


class RightFigures(BaseModel):
    """How requests for one right ended, and after how many days."""

    right: RightName
    completed: int = 0
    refused: int = 0
    cancelled: int = 0
    late: int = Field(0, description="Of those that were answered, after the law's last day.")
    median_days: float | None = None
    worst_days: float | None = None


class YearlyFigures(BaseModel):
    """How a store answered in one year, as its evidence log has it; without anybody's data."""

    year: int
    requests: int
    rights: list[RightFigures] = Field(description="Empty for a year in which no request ended.")
    kept_from: datetime | None = Field(
        None,
        description="Of what ended before, the log keeps hashes alone: a year before it is not complete.",
    )
