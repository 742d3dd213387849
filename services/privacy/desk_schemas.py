"""What the privacy desk, where requests are answered, takes and gives over HTTP."""

from datetime import date, datetime
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    EmailStr,
    Field,
    StringConstraints,
    model_validator,
)

from libs.common.events.privacy import KeptOfStore, Retained
from libs.common.personal.vocabulary import RULES, Category, Clock, LegalBasis, Length, Purpose, Retention
from services.privacy.domain import holds
from services.privacy.domain.decisions import Extension, Ground, Passing
from services.privacy.domain.notes import About
from services.privacy.domain.rights import Law, Right, RightName
from services.privacy.domain.states import State, TaskState
from services.privacy.domain.verification import Proof

Language = Literal["en", "fr"]


def _storable(text: str) -> str:
    if "\0" in text:
        raise ValueError("a text has no NUL")
    return text


Text = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=4000),
    AfterValidator(_storable),
    Field(description="Kept sealed."),
]


# --- Deciding --------------------------------------------------------------------------------------------


class NewDecision(BaseModel):
    """`{"approve": true}`, or `{"refuse": ground, "explanation": text}`."""

    model_config = ConfigDict(extra="forbid")

    approve: Literal[True] | None = None
    refuse: Ground | None = None
    explanation: Text | None = Field(
        None, description="Why the ground is there, in words for the person, who is told them."
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.approve is None) == (self.refuse is None):
            raise ValueError("approve or refuse")
        if (self.refuse is None) != (self.explanation is None):
            raise ValueError("a refusal is explained, an approval is not")
        return self


class NewExtension(BaseModel):
    """More time, once."""

    model_config = ConfigDict(extra="forbid")

    reason: Extension


class NewText(BaseModel):
    """A note, or a question to the person."""

    model_config = ConfigDict(extra="forbid")

    text: Text


class NewAnswer(BaseModel):
    """The person's answer to what they were asked, with the token of their link."""

    model_config = ConfigDict(extra="forbid")

    token: Annotated[str, Field(min_length=1, max_length=100, description="What follows # in the link.")]
    text: Text


class StatusToken(BaseModel):
    """The token of the link that is in every mail."""

    model_config = ConfigDict(extra="forbid")

    token: Annotated[str, Field(min_length=1, max_length=100, description="What follows # in the link.")]


class Assignment(BaseModel):
    """Whose case it is."""

    model_config = ConfigDict(extra="forbid")

    account_id: UUID | None = Field(description="An account of the staff; null for nobody's.")


class NoteView(BaseModel):
    """Something that somebody wrote about a request."""

    id: UUID
    about: About
    author: UUID | None = Field(description="An account of the staff; absent where the person wrote it.")
    at: datetime
    text: str | None = Field(description="Null once its key was destroyed.")


class Question(BaseModel):
    """What a person was asked about their request."""

    text: str | None = Field(description="Null once its key was destroyed.")
    asked_at: datetime
    answered_at: datetime | None = Field(description="Absent while the answer is waited for.")


class NoteMade(BaseModel):
    """A note was kept."""

    id: UUID


class CorrectionView(BaseModel):
    """What a person says is wrong, and what it should say."""

    category: Category
    value: str | dict[str, str | None]
    reason: str


class ProposalView(BaseModel):
    """What a person asks to have corrected."""

    corrections: list[CorrectionView]
    refused: list[Category] = Field(description="Of these no model takes the value.")


# --- The preview -----------------------------------------------------------------------------------------


class Obligation(BaseModel):
    """Why somebody should look before this is done."""

    word: str
    explanation: str


class Held(BaseModel):
    """Rows of one table, by what their declaration says; no values."""

    table: str
    count: int
    kind: str | None = None
    description: str = ""
    categories: list[Category] = []
    purposes: list[Purpose] = []
    legal_basis: LegalBasis | None = None
    becomes: Literal["deleted", "emptied", "kept", "copied", "corrected", "on-hold", "in-use", "unused"] = (
        Field(description="What carrying the request out would make of it.")
    )
    why: str = Field("", description="Of what is kept: the law that says so.")


class PreviewPart(BaseModel):
    """What one participant holds, and says about it."""

    participant: str
    state: TaskState
    answered_at: datetime | None = None
    held: list[Held] = []
    retained: list[Retained] = Field([], description="What must stay: why, and until when.")
    obligations: list[Obligation] = []
    refused: list[Category] = Field([], description="Of a rectification: values that no model takes.")
    beside: dict[str, int] = Field(
        {}, description="Of a rectification: what was issued, and gets a correction beside it."
    )


class Preview(BaseModel):
    """What a request would do, counted without opening a box."""

    asked: bool = Field(description="False where nobody was asked: the request passes without.")
    round: int
    clear: bool = Field(description="Everybody has answered, and nothing speaks against it.")
    parts: list[PreviewPart]
    unanswered: list[str] = Field(description="Participants that have not answered yet.")
    recipients: list[str] = Field(description="Who outside received what is concerned, and will be told.")


# --- The explanation -------------------------------------------------------------------------------------


class Processing(BaseModel):
    """One kind of data about the person: what, why, on what ground, how long, shared with whom, from where."""

    service: str
    kind: str
    description: str
    count: int
    categories: list[Category]
    purposes: list[Purpose]
    legal_basis: LegalBasis
    period: str
    law: str
    recipients: list[str]
    source: str


class Explanation(BaseModel):
    """What is processed about the person who asked (GDPR, Art. 13 to 15), computed from the data map and counts."""

    request_id: UUID
    answered_at: datetime
    processing: list[Processing]
    supervisor: str = Field(description="Where one can complain.")
    supervisor_website: str


# --- Settings --------------------------------------------------------------------------------------------


def _one_line(text: str) -> str:
    if any(ord(letter) < ord(" ") for letter in text):
        raise ValueError("one line of plain text")
    return text


def _plain(text: str) -> str:
    if any(ord(letter) < ord(" ") and letter != "\n" for letter in text):
        raise ValueError("lines of plain text")
    return text


class Branding(BaseModel):
    """A store's words around its mails, as plain text that everybody may read. Name no person."""

    model_config = ConfigDict(extra="forbid")

    sender: Annotated[
        str, StringConstraints(strip_whitespace=True, max_length=80), AfterValidator(_one_line)
    ] = Field("", description="Whom mails come from; the store's name when empty.")
    opening: Annotated[
        str, StringConstraints(strip_whitespace=True, max_length=300), AfterValidator(_one_line)
    ] = Field("", description="A line after the greeting.")
    signature: Annotated[
        str, StringConstraints(strip_whitespace=True, max_length=500), AfterValidator(_plain)
    ] = Field("", description="The last lines; the store's name when empty.")


class DeskView(BaseModel):
    """Where the privacy desk reads mail."""

    model_config = ConfigDict(extra="forbid")

    email: Annotated[EmailStr, Field(max_length=254)]
    language: Language


class NewSettings(BaseModel):
    """All a store decides about requests. What is left out is as the law, or the platform, has it."""

    model_config = ConfigDict(extra="forbid")

    passing: dict[Right, Passing] = Field({}, description="Whether a verified request waits for the desk.")
    enough: dict[Right, Annotated[list[Proof], Field(min_length=1, max_length=len(Proof))]] = Field(
        {}, description="The proofs each of which is enough."
    )
    lifting_notice_days: Annotated[int, Field(strict=True, ge=1, le=28)] | None = Field(
        None, description="How long before a restriction is lifted its person is told."
    )
    desk: DeskView | None = Field(
        None, description="Kept sealed. Without it nobody is told of requests by mail."
    )
    branding: dict[Language, Branding] = {}

    @model_validator(mode="after")
    def _weighable(self) -> Self:
        if self.passing.get(Right.WITHDRAWAL, Passing.AT_ONCE) is not Passing.AT_ONCE:
            raise ValueError("nobody weighs the withdrawal of a consent")
        return self


class RightInForce(BaseModel):
    """How requests of one right are dealt with now."""

    passing: Passing
    enough: list[Proof]
    chosen: list[Literal["passing", "enough"]] = Field(
        description="What the store decided; the rest is default."
    )


class SettingsView(NewSettings):
    """What a store has decided, and what follows for every right."""

    in_force: dict[Right, RightInForce]
    lifting_notice_in_force: int


# --- Over all of a store's requests, and of all stores ---------------------------------------------------


class Figures(BaseModel):
    """How a store answers, without anybody's data. Days are from verification, or receipt under California's law."""

    open: dict[State, int]
    overdue: int
    stopped: int = Field(description="Wait for an answer of the person.")
    escalated: int = Field(description="Open, and past their escalation.")
    answered: int = Field(description="Completed or refused within a year.")
    answered_late: int
    median_days: float | None
    worst_days: float | None


class Escalated(BaseModel):
    """A request that a store did not answer in time, or cannot answer any more: the platform may."""

    store_id: UUID
    request_id: UUID
    right: RightName
    law: Law
    state: State
    due_on: date | None
    overdue: bool
    escalated_at: datetime
    """Of a closed store: since when it is open, if it was not escalated before."""


# --- The end of stores -----------------------------------------------------------------------------------


class EndingPart(BaseModel):
    """One service's part: what it keeps, once it has removed all else and looked again."""

    participant: str
    cleaned_at: datetime | None
    kept: list[KeptOfStore]


class EndingView(BaseModel):
    """How far the end of a store has come. `waits_for` says what has to be over before its key is destroyed."""

    store_id: UUID
    name: str | None
    ended_at: datetime
    waits_for: Literal["requests", "restrictions", "holds"] | None
    keys_destroyed_at: datetime | None
    erased_at: datetime | None
    parts: list[EndingPart]


# --- People ----------------------------------------------------------------------------------------------


class NamedSubject(BaseModel):
    """A subject by its id, or by an address that it is derived from, which is kept nowhere."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    subject_id: UUID | None = None
    email: Annotated[EmailStr, Field(max_length=254)] | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.subject_id is None) == (self.email is None):
            raise ValueError("give subject_id or email")
        return self


class NewMerge(BaseModel):
    """Two subjects of the store that are one person. `preview`: only say what each has."""

    model_config = ConfigDict(
        extra="forbid",
        hide_input_in_errors=True,
        json_schema_extra={
            "examples": [
                {"subjects": [{"email": "ada@example.org"}, {"email": "ada.l@example.org"}], "preview": True}
            ]
        },
    )

    subjects: Annotated[list[NamedSubject], Field(min_length=2, max_length=2)]
    preview: bool = False


class NewSeparation(BaseModel):
    """A subject that is somebody else after all."""

    model_config = ConfigDict(
        extra="forbid",
        hide_input_in_errors=True,
        json_schema_extra={"examples": [{"subject": {"email": "ada.l@example.org"}}]},
    )

    subject: NamedSubject


class MergedSubject(BaseModel):
    """What a subject has: its keys by what they are for, and its requests."""

    subject_id: UUID
    generation: int
    keys: dict[str, Annotated[int, Field(ge=1)]] = Field(
        description="How many, by why data is kept: `account`, `order`, `accounting/2026`."
    )
    requests: Annotated[int, Field(ge=0, description="All that were ever made.")]
    open: list[UUID] = Field(description="Requests that have not ended.")


class MergeView(BaseModel):
    """Two subjects, and whether they are one person now."""

    merged: bool
    subjects: list[MergedSubject]


# --- Periods ---------------------------------------------------------------------------------------------


def _is_length(written: str) -> str:
    Length.parse(written)
    return written


WrittenLength = Annotated[
    str,
    Field(
        max_length=8,
        pattern=r"^P(0|[1-9][0-9]{0,4})[DMY]$",
        description="Days, months or years: P10D, P3M, P2Y.",
    ),
    AfterValidator(_is_length),
]


def _known(clock: Clock) -> Clock:
    if clock not in RULES:
        raise ValueError("this clock leaves no choice")
    return clock


Choosable = Annotated[Clock, AfterValidator(_known)]


class NewPeriods(BaseModel):
    """How long things are kept, by what starts their clock. What is left out is as it is by itself."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"lengths": {"order-cancelled": "P10D"}}]}
    )

    lengths: dict[Choosable, WrittenLength]

    @property
    def parsed(self) -> dict[Clock, Length]:
        """The lengths themselves."""
        return {clock: Length.parse(written) for clock, written in self.lengths.items()}


class PeriodView(BaseModel):
    """From one event on: how long something is kept, and between which bounds the store may choose."""

    clock: Clock
    retention: Retention
    kinds: list[str] = Field(description="The kinds of data that are kept for this reason.")
    starts: str = Field(description="The event, in words for people.")
    length: str = Field(description="In force.")
    default: str
    least: str
    most: str
    chosen: bool = Field(description="Whether the store said so itself.")
    fixed: bool = Field(description="Whether the law leaves no choice.")
    from_end_of_year: bool = Field(description="Whether it is counted from the end of the year.")
    law: str


class RetentionView(BaseModel):
    """All periods of a store."""

    periods: list[PeriodView]
    zone: str = Field(description="Where the store's days begin.")
    left_to_move: int = Field(
        description="How many running periods are still to be computed by the present choice."
    )


class ChangeForecast(BaseModel):
    """What another choice would do to what one clock counts. A record is what has a key of its own: an order, say."""

    clock: Clock
    retention: Retention
    kinds: list[str]
    length: str
    wanted: str
    records: int
    persons: int
    earlier: int
    later: int
    at_once: int = Field(description="Of those earlier: the ones whose new last day is over already.")
    persons_earlier: int
    persons_later: int
    persons_at_once: int


class RetentionPreview(BaseModel):
    """Of every clock that runs for somebody."""

    changes: list[ChangeForecast]


class Expiring(BaseModel):
    """What expires for one reason in one month."""

    retention: Retention
    kinds: list[str]
    records: int
    persons: int
    held: int = Field(description="Of the records: those that a legal hold keeps beyond their day.")


class ExpiriesOfMonth(BaseModel):
    """A month; what is overdue stands with the present one."""

    month: str = Field(pattern=r"^[0-9]{4}-[0-9]{2}$")
    expiring: list[Expiring]


class RetentionForecast(BaseModel):
    """Month by month."""

    months: list[ExpiriesOfMonth]


# --- Holds -----------------------------------------------------------------------------------------------


def _holdable(retention: Retention) -> Retention:
    if retention not in holds.HOLDABLE:
        raise ValueError("this is never held")
    return retention


class NewHold(BaseModel):
    """`{"email": …}` for one person, `{"everybody": true}` for the whole store."""

    model_config = ConfigDict(extra="forbid")

    email: EmailStr | None = Field(None, description="Whom it is about. Not kept.")
    everybody: Literal[True] | None = None
    retentions: list[Annotated[Retention, AfterValidator(_holdable)]] = Field(
        list(holds.USUALLY), min_length=1, max_length=8, description="What is held."
    )
    ground: holds.Ground
    until: date = Field(description="The last day, where the store is: five years from now at most.")

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.email is None) == (self.everybody is None):
            raise ValueError("name a person, or everybody")
        return self


class HoldView(BaseModel):
    """A hold, and what became of it."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    subject_id: UUID | None = Field(description="Null: everybody's at the store.")
    retentions: list[Retention]
    ground: holds.Ground
    until: date
    placed_by: UUID = Field(description="An account of the staff.")
    placed_at: datetime
    lifted_by: UUID | None
    lifted_at: datetime | None
