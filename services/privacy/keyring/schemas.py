"""Requests and answers. Every call is a batch of at most 1000; every answer has one item for each, in order."""

from datetime import date
from typing import Annotated, Generic, Literal, Self, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

from libs.common.personal.vocabulary import Purpose, Retention

T = TypeVar("T")
Batch = Annotated[list[T], Field(min_length=1, max_length=1000)]


class _Asked(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Answer(BaseModel, Generic[T]):
    """One item for each that was asked, in the same order."""

    items: list[T]


class StoresAsked(_Asked):
    """Whose secrets are wanted."""

    stores: Batch[UUID]


class StoreSecret(BaseModel):
    """32 bytes in base64."""

    store_id: UUID
    secret: str


class KeyAsked(_Asked):
    """A key to seal with. `begin`: a live command, which starts the next generation after an erasure."""

    store_id: UUID
    subject_id: UUID
    retention: Retention
    bucket: Annotated[str, Field(max_length=36)] = ""
    begin: bool = False

    @model_validator(mode="after")
    def _bucket_fits(self) -> Self:
        self.retention.period.check_bucket(self.bucket)
        return self


class KeysAsked(_Asked):
    """Keys to seal with."""

    items: Batch[KeyAsked]


class MintedKey(BaseModel):
    """A key (base64), or the error that stands for it."""

    key_id: UUID | None = None
    key: str | None = None
    generation: int | None = None
    expires_on: date | None = None
    error: Literal["subject-erased"] | None = None


class OpeningAsked(_Asked):
    """Keys to open boxes with, for one purpose."""

    purpose: Purpose
    key_ids: Batch[UUID]


class OpenedKey(BaseModel):
    """A key (base64) and whose it is, or the error that stands for it."""

    key_id: UUID
    key: str | None = None
    store_id: UUID | None = None
    subject_id: UUID | None = None
    generation: int | None = None
    error: Literal["destroyed", "restricted", "unknown", "forbidden"] | None = None


class ErasureAsked(_Asked):
    """All generations of a person up to this one, to be erased for a request."""

    store_id: UUID
    subject_id: UUID
    generation: Annotated[int, Field(ge=1, lt=2**62)]
    request_id: UUID


class ErasuresAsked(_Asked):
    """Erasures."""

    items: Batch[ErasureAsked]


class KeptKey(BaseModel):
    """What erasure left in place, and on what ground."""

    retention: Retention
    bucket: str
    expires_on: date | None
    law: str


class Erased(BaseModel):
    """The ids of the keys this call destroyed, and what is kept."""

    store_id: UUID
    subject_id: UUID
    generation: int
    destroyed: list[UUID]
    kept: list[KeptKey]


class SubjectAsked(_Asked):
    """A person."""

    store_id: UUID
    subject_id: UUID


class SubjectsAsked(_Asked):
    """People."""

    items: Batch[SubjectAsked]


class LiveKey(BaseModel):
    """A key that still opens, without its material."""

    key_id: UUID
    retention: Retention
    bucket: str
    generation: int
    state: Literal["active", "restricted"]
    expires_on: date | None


class SubjectStatus(BaseModel):
    """What is left of a person's keys. Generation 0: the keyring has never met this person."""

    store_id: UUID
    subject_id: UUID
    generation: int
    erased: bool
    keys: list[LiveKey]
