"""What the privacy service and its participants say to each other.

A phase of a request is one `TaskIssued`, read by every participant's own group; each answers once per
(request, verb, round) on `privacy.answers`. A task is issued again until it is answered, so answering is
idempotent: the same task, issued again, gets the same answer again. A new round asks for the work anew.
"""

from datetime import date
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Self
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, Strict, model_validator

from libs.common.events import Event, PersonalEvent
from libs.common.personal.data import PersonalData, PersonalValue, Sealed
from libs.common.personal.vocabulary import RULES, Category, Clock, LegalBasis, Purpose, Retention, Source

ParticipantName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
SkippedWord = Annotated[str, Field(pattern=r"^[a-z]+(-[a-z]+)*$")]
"""Why a table was not read again, see `Skipped`; a participant of somebody else's may have reasons of its own."""
CHUNK_BYTES = 512 * 1024


class Verb(StrEnum):
    """What a participant can be asked to do."""

    RECOGNISE = "recognise"
    """Say whether the order of `order_number` is this person's. Opens nothing."""
    PREVIEW = "preview"
    """Count what you hold, what you would have to keep and what speaks against an erasure. Changes nothing."""
    EXPORT = "export"
    REFER = "refer"
    """Before anything else of a request that recipients outside take part in: say by which addresses, numbers, accounts
    and orders outsiders know the person, in a box of the request."""
    PREPARE = "prepare"
    """Before anything of an erasure is destroyed: collect what you need to find and to tell those who have the person's
    data from you, and tell them. Asked of whoever announced that they `prepare`; nothing goes before they are done."""
    ERASE = "erase"
    VERIFY_ERASED = "verify-erased"
    RECTIFY = "rectify"
    RESTRICT = "restrict"
    LIFT_RESTRICTION = "lift-restriction"
    OBJECT = "object"
    """Stop using the person's data for `purpose`."""


class Outcome(StrEnum):
    """The terminal states of a participant's task, but for `failed`, which is tried again."""

    DONE = "done"
    NOTHING_HELD = "nothing-held"
    RETAINED = "retained"
    FAILED = "failed"


class Skipped(StrEnum):
    """Why a re-read passes over a table."""

    NAMES_NOBODY = "names-nobody"
    """It has no column that says whose a row is: what it has of people are boxes on their way, or nothing."""
    KEPT_BY_LAW = "kept-by-law"
    KEPT = "kept"
    """It is declared to stay: it proves that, and when, something was done."""
    NAMES_THE_ERASED = "names-the-erased"
    """It remembers ids, so that nothing late brings somebody back."""
    NO_BOX = "no-box"
    """Of the erasure of a part: no key was replaced for it."""


class Life(BaseModel, frozen=True, extra="ignore"):
    """One generation of a subject."""

    subject_id: UUID
    generation: Annotated[int, Field(ge=1)]


class Retained(BaseModel):
    """What the law keeps: which kind, on what ground, until when."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    kind: str
    retention: str
    bucket: str
    count: Annotated[int, Field(ge=0)]
    ground: str
    until: date | None


class Held(BaseModel):
    """What is kept for a legal claim while its person is erased: why it was there, and until when it stays."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    retention: Retention
    until: date
    ground: str


class Correction(PersonalValue):
    """One field that is wrong or incomplete, by its category, and what it should say (GDPR, Art. 16)."""

    category: Annotated[Category, Category.CONTENT]
    value: Annotated[Any, Category.CONTENT]
    """A text, or an object for what has parts, such as an address; checked by the model of each box it goes into."""
    reason: Annotated[str, Category.CONTENT, Field(max_length=1000)] = ""


class Proposal(
    PersonalData,
    retention=Retention.REQUEST,
    purposes=[Purpose.RIGHTS_OF_THE_PERSON],
    legal_basis=LegalBasis.LEGAL_OBLIGATION,
):
    """What a person asks to have corrected."""

    corrections: Annotated[tuple[Correction, ...], Field(min_length=1, max_length=20)]


class References(
    PersonalData,
    retention=Retention.REQUEST,
    purposes=[Purpose.RIGHTS_OF_THE_PERSON],
    legal_basis=LegalBasis.LEGAL_OBLIGATION,
    source=Source.DERIVED,
):
    """By what outsiders know a person: whoever had data of them finds it by these."""

    emails: tuple[Annotated[str, Category.EMAIL], ...] = ()
    phones: tuple[Annotated[str, Category.PHONE_NUMBER], ...] = ()
    accounts: tuple[Annotated[UUID, Category.UNIQUE_ID], ...] = ()
    orders: tuple[Annotated[UUID, Category.PURCHASE_HISTORY], ...] = ()


class TaskIssued(Event, type="vitrine.privacy.task-issued.v1", topic="privacy.tasks", key="request_id"):
    """Do this for this person, up to this generation, and answer."""

    request_id: UUID
    verb: Verb
    subject_id: UUID
    generation: int
    round: Annotated[int, Field(ge=1)] = 1
    attempt: Annotated[int, Field(ge=1)] = 1
    participants: list[ParticipantName] = []
    """Who has not answered yet; empty, as at first, means everybody."""
    purpose: Purpose | None = None
    """Only what is used for this: of an objection always, of an erasure that is not of everything."""
    category: Category | None = None
    """Only what is of this category: of an erasure that is not of everything."""
    retired: list[UUID] = []
    """Of an erasure that is not of everything, and its check: the keys that nothing may be left under."""
    held: list[Held] = []
    """Of an erasure and its check: what stays until then, closed to all but legal claims."""
    portable: bool = False
    """Of an export: only what the person gave (GDPR, Art. 20)."""
    order_number: Annotated[str, Field(pattern=r"^[0-9A-Za-z-]{1,40}$")] | None = None
    """For `recognise`: the number of an order that the person says is theirs."""
    proposal: Sealed[Proposal] | None = None
    """For `rectify`, and for the preview of one."""
    also: list[Life] = []
    """Other subjects of the same person: what is asked is asked about all of them, and answered once for all."""

    @property
    def lives(self) -> list[Life]:
        """Everybody whom the task is about, the subject of the request first."""
        return [Life(subject_id=self.subject_id, generation=self.generation), *self.also]


class TaskAnswered(Event, type="vitrine.privacy.task-answered.v1", topic="privacy.answers", key="request_id"):
    """One participant's answer. `libs.common.personal.answers` says how it is signed."""

    stands_alone: ClassVar[bool] = True

    request_id: UUID
    verb: Verb
    round: Annotated[int, Field(ge=1)] = 1
    participant: ParticipantName
    outcome: Outcome
    counts: dict[str, int] = {}
    retained: list[Retained] = []
    chunks: Annotated[int, Field(ge=0)] = 0
    """For an export: how many `ExportChunk`s were sent before this answer."""
    digest: str = ""
    """For an export: SHA-256, in hex, over the SHA-256 of the bytes of each box in order; empty without chunks. For
    `refer`: SHA-256, in hex, of the bytes of `references`, which it signs in their place."""
    references: Sealed[References] | None = None
    """For `refer`: sealed for the request; None where nobody outside would know the person from here."""
    reason: str = ""
    """For a failure: a fixed word, never a message that could quote data."""
    obligations: list[Annotated[str, Field(pattern=r"^[a-z]+(-[a-z]+)*$")]] = []
    """For a preview: why somebody should look before this person is erased, in fixed words (`order-under-way`)."""
    refused: list[Category] = []
    """For a rectification and its preview: what the models of the boxes do not take."""
    beside: dict[str, int] = {}
    """For a rectification: rows, by table, of what was issued and is not rewritten; a correction lies beside each."""
    reread: list[str] = []
    """For `verify-erased`: the tables that were read again."""
    skipped: dict[str, SkippedWord] = {}
    """For `verify-erased`: the tables that were not, by the reason."""
    signature: str = ""


class ExportedRecords(
    PersonalData,
    retention=Retention.EXPORT,
    purposes=[Purpose.RIGHTS_OF_THE_PERSON],
    legal_basis=LegalBasis.LEGAL_OBLIGATION,
):
    """Some of what a participant holds about a person, on its way into an archive.

    A record is `{"table", "kind", "facts", "data", "attached"}`: the table's name, the kind of its box, the
    impersonal columns, what the box holds (null when it cannot be opened: then `unreadable` says why), and
    rows of other tables that belong to it.
    """

    records: Annotated[list[dict[str, Any]], Category.CONTENT]


class ExportChunk(Event, type="vitrine.privacy.export-chunk.v1", topic="privacy.answers", key="request_id"):
    """A piece of a person's data, sealed for the request: a box of at most CHUNK_BYTES.

    The chunks of one round are numbered from 0; the answer that follows them binds them by its digest.
    """

    stands_alone: ClassVar[bool] = True

    request_id: UUID
    participant: ParticipantName
    round: Annotated[int, Field(ge=1)] = 1
    sequence: Annotated[int, Field(ge=0)]
    box: Sealed[ExportedRecords]


class KeysDestroyed(Event, type="vitrine.privacy.keys-destroyed.v1", topic="privacy.keys", key="subject_id"):
    """Keys of a person's generation are gone: forget what is in memory."""

    subject_id: UUID
    generation: int


class KeysChanged(Event, type="vitrine.privacy.keys-changed.v1", topic="privacy.keys", key="subject_id"):
    """Keys of a person were restricted, released or closed to a purpose: ask the keyring again before the next use."""

    subject_id: UUID
    generation: int


class StoreKeysDestroyed(
    Event, type="vitrine.privacy.store-keys-destroyed.v1", topic="privacy.stores", key="store_id"
):
    """The key of a store that ended is gone: forget what is in memory, remove what is left, and say so. Published again
    until everybody has.
    """

    store_id: UUID


class KeptOfStore(BaseModel):
    """A table of which rows of a store stay after its end: on what ground, and of what has a last day, until when."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    table: Annotated[str, Field(pattern=r"^[a-z_]+$", max_length=63)]
    count: Annotated[int, Field(ge=0)]
    ground: str
    by_law: bool = False
    """Otherwise it names nobody, or ends by itself."""
    until: date | None = None


class StoreCleaned(Event, type="vitrine.privacy.store-cleaned.v1", topic="privacy.stores", key="store_id"):
    """A participant has removed what it held of a store, looked again, and found nothing but this."""

    stands_alone: ClassVar[bool] = True

    store_id: UUID
    participant: ParticipantName
    kept: list[KeptOfStore] = []
    signature: str = ""


class StoreErased(Event, type="vitrine.privacy.store-erased.v1", topic="privacy.stores", key="store_id"):
    """Everybody has: whoever owned the store can be told what is kept, and until when."""

    store_id: UUID
    kept_until: date | None = None
    """The last day of what the law keeps; None where nothing is."""


# --- Periods -----------------------------------------------------------------------------------------------


class _OfClock(PersonalEvent):
    """Of the clock of one bucket. A bucket of another form, and a clock of another retention, is refused."""

    retention: Retention
    bucket: Annotated[str, Field(max_length=36)] = ""
    clock: Clock

    @model_validator(mode="after")
    def _fits(self) -> Self:
        self.retention.period.check_bucket(self.bucket)
        if self.clock not in RULES or RULES[self.clock][0] is not self.retention:
            raise ValueError("this clock does not count for this retention")
        return self


class ClockStarted(
    _OfClock, type="vitrine.privacy.clock-started.v1", topic="privacy.retention", key="subject_id"
):
    """What lies under one bucket of a person's keys is kept for its period from now on: an order was cancelled, say.

    Of several for one bucket the one with the highest version counts, and of those the latest.
    """

    started_at: Annotated[AwareDatetime, Field(strict=True)]


class ClockStopped(
    _OfClock, type="vitrine.privacy.clock-stopped.v1", topic="privacy.retention", key="subject_id"
):
    """What started a clock is undone: somebody who closed their account has come back."""

    stopped_at: Annotated[AwareDatetime, Field(strict=True)]


class ClosingRemembered(
    PersonalEvent, type="vitrine.privacy.closing-remembered.v1", topic="privacy.accounts", key="subject_id"
):
    """What was last heard of an account that was closed, told to an identity service that was restored. Its version is
    the account's, as it was heard.
    """

    ends_at: Annotated[AwareDatetime, Strict()] | None = None
    """Until when its owner can bring it back; None where they did."""


class KeysExpired(Event, type="vitrine.privacy.keys-expired.v1", topic="privacy.keys", key="subject_id"):
    """The period of a bucket is over and its keys are destroyed: forget them, clean what lies under them, and answer.

    Sent again until everybody who holds such data has answered with `RowsCleaned`.
    """

    subject_id: UUID
    generation: int
    retention: Retention
    bucket: str = ""
    key_ids: list[UUID] = []
    """Rows that no column assigns to the bucket are found by these."""


class RowsCleaned(Event, type="vitrine.privacy.rows-cleaned.v1", topic="privacy.retention", key="subject_id"):
    """One participant has cleaned a bucket whose period was over, and found nothing left when it read again."""

    stands_alone: ClassVar[bool] = True

    subject_id: UUID
    generation: int
    retention: Retention
    bucket: str = ""
    participant: ParticipantName
    counts: dict[str, int] = {}
    """Rows that were emptied or deleted, by table."""
    signature: str = ""


class ParticipantAnnounced(
    Event, type="vitrine.privacy.participant-announced.v1", topic="privacy.participants", key="participant"
):
    """A service that holds, or may hold, personal data: its public key and its part of the data map."""

    participant: ParticipantName
    public_key: dict[str, Any]
    data_map: list[dict[str, Any]]
    prepares: bool = False
    """Whether it must tell somebody of an erasure while what names the person still opens."""


class DatabaseRestored(
    Event, type="vitrine.privacy.database-restored.v1", topic="privacy.participants", key="restoration_id"
):
    """A participant's database is as it was at `taken_at`: whatever was asked of it since is to be asked again."""

    restoration_id: UUID
    participant: ParticipantName
    taken_at: Annotated[AwareDatetime, Strict()]
