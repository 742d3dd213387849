"""Requests and answers. Every call is a batch of at most 1000; every answer has one item for each, in order."""

from datetime import date, datetime
from typing import Annotated, Generic, Literal, Self, TypeVar
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from libs.common.personal.blind_indexes import LARGEST_EPOCH
from libs.common.personal.vocabulary import Purpose, Retention
from services.privacy.keyring.domain import NEVER_RESTRICTED, OPENS_DESPITE_RESTRICTION

T = TypeVar("T")
Batch = Annotated[list[T], Field(min_length=1, max_length=1000)]


class _Asked(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Answer(BaseModel, Generic[T]):
    """One item for each that was asked, in the same order."""

    items: list[T]


class StoresAsked(_Asked):
    """Stores whose secrets are wanted, or whose end has come."""

    stores: Batch[UUID]


class IndexSecret(BaseModel):
    """32 bytes in base64: new rows are indexed by it in so many seconds, and looked up by it at once."""

    epoch: int
    secret: str
    writes_in: float


class StoreSecret(BaseModel):
    """32 bytes in base64, for subject ids; and for blind indexes the secret of each epoch, the newest first."""

    store_id: UUID
    secret: str
    indexes: list[IndexSecret]


class RotationAsked(_Asked):
    """A store whose rows at the caller's are indexed by the secret of this epoch, and by no earlier one."""

    store_id: UUID
    epoch: Annotated[int, Field(ge=0, le=LARGEST_EPOCH)]


class RotationsAsked(_Asked):
    """Stores that are done."""

    items: Batch[RotationAsked]


class Rotation(BaseModel):
    """A store, and the epoch by which its rows are to be indexed."""

    store_id: UUID
    epoch: int


class NothingAsked(_Asked):
    """A question without more words."""


class Restoration(BaseModel):
    """The keyring's database is as it was at `taken_at`."""

    restoration_id: UUID
    taken_at: datetime


class Place(_Asked):
    """One generation of a person."""

    store_id: UUID
    subject_id: UUID
    generation: int


class FatesAsked(_Asked):
    """Those that come after this one, in the order of its columns."""

    after: Place | None = None


class Fate(BaseModel):
    """What became of a generation: `erased` counts for those before it as well."""

    store_id: UUID
    subject_id: UUID
    generation: int
    erased: bool
    restricted: bool


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
    error: Literal["subject-erased", "period-over", "destroyed"] | None = None


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
    error: Literal["destroyed", "restricted", "objected", "unknown", "forbidden"] | None = None


class HeldAsked(_Asked):
    """What a legal hold keeps, until when, and on which ground."""

    retention: Retention
    until: date
    ground: Annotated[str, Field(max_length=100)]


class ErasureAsked(_Asked):
    """All generations of a person up to this one, to be erased for a request."""

    store_id: UUID
    subject_id: UUID
    generation: Annotated[int, Field(ge=1, lt=2**62)]
    request_id: UUID
    held: Annotated[list[HeldAsked], Field(max_length=20)] = []

    def hold_on(self, retention: Retention) -> HeldAsked | None:
        """What keeps data of this kind, if anything does."""
        return next((one for one in self.held if one.retention is retention), None)


class ErasuresAsked(_Asked):
    """Erasures."""

    items: Batch[ErasureAsked]


class KeptKey(BaseModel):
    """What erasure left in place, and on what ground."""

    retention: Retention
    bucket: str
    expires_on: date | None
    law: str
    generation: int


class Erased(BaseModel):
    """The ids of the keys this call destroyed, and what is kept."""

    store_id: UUID
    subject_id: UUID
    generation: int
    destroyed: list[UUID]
    kept: list[KeptKey]


class LifeAsked(_Asked):
    """One generation of a person."""

    store_id: UUID
    subject_id: UUID
    generation: Annotated[int, Field(ge=1, lt=2**62)]


class LivesAsked(_Asked):
    """Generations whose keys are to be restricted, or released."""

    items: Batch[LifeAsked]


class RestrictionsAsked(LivesAsked):
    """Generations whose keys are to be restricted."""

    made_before: AwareDatetime | None = None
    """Of a restriction that is repeated: keys that were made later are of what came while it was in force."""


class ObjectionAsked(LifeAsked):
    """Whether data of this person may be used for the purpose any more."""

    purpose: Purpose
    objected: bool

    @model_validator(mode="after")
    def _can_be_objected_to(self) -> Self:
        if self.purpose in OPENS_DESPITE_RESTRICTION:
            raise ValueError("nobody can object to what serves their rights")
        return self


class ObjectionsAsked(_Asked):
    """Objections, made and taken back."""

    items: Batch[ObjectionAsked]


class RetirementAsked(LifeAsked):
    """Of this person, the keys for what is kept for these reasons."""

    retentions: Annotated[frozenset[Retention], Field(min_length=1)]

    @model_validator(mode="after")
    def _may_retire(self) -> Self:
        if any(one in NEVER_RESTRICTED or one.period.kept_by_law for one in self.retentions):
            raise ValueError("what the law keeps, or a request needs, is erased with its person only")
        return self


class RetirementsAsked(_Asked):
    """Keys to be replaced."""

    items: Batch[RetirementAsked]


class Retired(BaseModel):
    """The keys of a person that are retired: they still open, and nothing is sealed with them any more."""

    store_id: UUID
    subject_id: UUID
    generation: int
    key_ids: list[UUID]


class RetiredKeysAsked(_Asked):
    """Retired keys that nothing is left under."""

    key_ids: Batch[UUID]


class DestroyedKey(BaseModel):
    """Whether the key is destroyed now; one that is not retired stays."""

    key_id: UUID
    destroyed: bool


class BucketAsked(LifeAsked):
    """Of this person, what lies under one bucket of a retention."""

    retention: Retention
    bucket: Annotated[str, Field(max_length=36)]

    @model_validator(mode="after")
    def _ends_alone(self) -> Self:
        self.retention.period.check_bucket(self.bucket)
        if not self.retention.period.divided_by.ends_alone or not self.bucket:
            raise ValueError("what is not a request, a document or an order does not end alone")
        return self


class BucketsAsked(_Asked):
    """Buckets to be destroyed."""

    items: Batch[BucketAsked]


class ExpiryAsked(LifeAsked):
    """The last day on which a bucket is kept; none while nothing counts."""

    retention: Retention
    bucket: Annotated[str, Field(max_length=36)]
    expires_on: date | None

    @property
    def place(self) -> tuple[UUID, UUID, int, Retention, str]:
        """Whose, and what."""
        return self.store_id, self.subject_id, self.generation, self.retention, self.bucket

    @model_validator(mode="after")
    def _is_lawful(self) -> Self:
        least = self.retention.period.expires_on(self.bucket)
        if least is not None and (self.expires_on is None or self.expires_on < least):
            raise ValueError("the law keeps this for longer")
        return self


class ExpiriesAsked(_Asked):
    """Last days."""

    items: Batch[ExpiryAsked]


class ExpiredBucket(BaseModel):
    """The ids of the keys this call destroyed, or why it destroyed none: on hold, or not over yet."""

    outcome: Literal["destroyed", "restricted", "early"]
    destroyed: list[UUID] = []


class DestroyedBucket(BaseModel):
    """The ids of the keys this call destroyed; a repetition destroys nothing."""

    destroyed: list[UUID]


class Changed(BaseModel):
    """How many keys of a person's generation are now as was asked, whoever made them so."""

    store_id: UUID
    subject_id: UUID
    generation: int
    keys: int


class DestroyedTenant(BaseModel):
    """The id of the store's ordinary key, which is destroyed, and how much under it is left to be forgotten."""

    store_id: UUID
    key_id: UUID
    left: int


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
    retired: bool
    expires_on: date | None


class LiveObjection(BaseModel):
    """A purpose that a person's data is not used for."""

    generation: int
    purpose: Purpose


class SubjectStatus(BaseModel):
    """What is left of a person's keys. Generation 0: the keyring has never met this person."""

    store_id: UUID
    subject_id: UUID
    generation: int
    erased: bool
    keys: list[LiveKey]
    objections: list[LiveObjection]
