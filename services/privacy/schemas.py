"""What the privacy service takes and gives over HTTP."""

from datetime import date, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, EmailStr, Field, SecretStr

from libs.common.events.privacy import Correction, Proposal, Retained, Verb
from libs.common.personal.vocabulary import Category, Purpose
from libs.common.text import Text
from services.privacy.asked import Asked
from services.privacy.authorities import Supervisor
from services.privacy.desk_schemas import Question
from services.privacy.domain.deadlines import Word
from services.privacy.domain.decisions import Decision, Extension, Ground
from services.privacy.domain.problems import RightIncomplete
from services.privacy.domain.rights import Law, Misused, RightName, check, named
from services.privacy.domain.states import State, TaskState
from services.privacy.domain.verification import Channel, MediaType, Proof, Way
from services.privacy.domain.verification import Outcome as DocumentOutcome
from services.privacy.participant_schemas import Departed, SettlementView


class CorrectionAsked(BaseModel):
    """What is wrong, by its category, and what it should say."""

    model_config = ConfigDict(extra="forbid")

    category: Category
    value: str | dict[str, str | None] = Field(
        description="A text, or an object for what has parts, such as an address."
    )
    reason: Annotated[str, Field(max_length=1000)] = ""


class NewRequest(BaseModel):
    """Use a right, under its own name or California's. The answer goes to `email`, the account's own."""

    model_config = ConfigDict(extra="forbid")

    right: RightName
    email: Annotated[EmailStr, Field(max_length=254)]
    language: Literal["en", "fr"] | None = Field(None, description="Of the mails; the store's when absent.")
    purpose: Purpose | None = Field(
        None,
        description="Of an objection or a withdrawal: the use that is to end. Of an erasure: only what is used so.",
    )
    category: Category | None = Field(None, description="Of an erasure: only what is of this category.")
    corrections: Annotated[list[CorrectionAsked], Field(max_length=20)] = Field(
        [], description="Of a rectification."
    )

    def asked(self) -> Asked:
        """What is asked, whatever it is called. Raises RightIncomplete."""
        meant = named(self.right)
        purpose = meant.purpose or self.purpose
        try:
            check(meant.right, purpose=purpose, category=self.category, corrects=bool(self.corrections))
        except Misused as error:
            raise RightIncomplete(reason=error.fault) from None
        corrections = tuple(Correction(**one.model_dump()) for one in self.corrections)
        return Asked(
            right=meant.right,
            law=meant.law,
            purpose=purpose,
            category=self.category,
            proposal=Proposal(corrections=corrections) if corrections else None,
        )


OrderNumber = Annotated[
    str, Field(pattern=r"^[0-9A-Za-z-]{1,40}$", description="Of an order placed with this address.")
]
Token = Annotated[SecretStr, Field(min_length=43, max_length=43, description="What follows # in the link.")]


class AgentAsked(BaseModel):
    """Who asks on somebody's behalf, and is told how it goes."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f<>/]*$")]
    email: Annotated[EmailStr, Field(max_length=254)]


class RequestForm(NewRequest):
    """Use a right without an account. What there is to say is said by mail to `email`."""

    order_number: OrderNumber | None = None
    agent: AgentAsked | None = Field(
        None, description="When somebody asks for another person, whose `email` is given."
    )


class FormAccepted(BaseModel):
    """The same for everybody, whoever they are and whatever they have asked for before."""

    detail: str = "A mail is on its way to this address. Follow it to go on."


FIRST_DAY = date(2018, 5, 25)
"""On which these rights began to apply (GDPR, Art. 99(2))."""


class RequestOnBehalf(NewRequest):
    """A request that reached somebody of the store, for the person with this `email`."""

    channel: Channel
    seen: Annotated[Text, Field(min_length=1, max_length=3000)] = Field(
        description="What shows that the person asks: kept sealed, with the request."
    )
    received_on: Annotated[date, Field(ge=FIRST_DAY)] | None = Field(
        None,
        description="The day it reached the store, where that was before today: the law's period counts from it.",
    )


class LinkToken(BaseModel):
    """The secret of a request, from the link in every mail about it."""

    model_config = ConfigDict(extra="forbid")

    token: Token


class Step(BaseModel):
    """When the request entered a state."""

    state: State
    at: datetime


class RequestSummary(BaseModel):
    """A request and where it is."""

    id: UUID
    right: RightName
    law: Law
    purpose: Purpose | None = None
    category: Category | None = None
    state: State
    opened_at: datetime
    received_at: datetime | None = Field(
        None, description="When it reached the store; absent where it was opened at once."
    )
    verified_at: datetime | None = Field(
        None, description="The law's period counts from here, California's from its receipt."
    )
    due_on: date | None = Field(
        None, description="The last day to answer; absent until the period has begun."
    )
    completed_at: datetime | None = None


class Part(BaseModel):
    """One participant's part of a request."""

    participant: str
    recipient: str | None = Field(None, description="The name of somebody outside, as the store gave it.")
    task: Verb
    state: TaskState
    counts: dict[str, int] = Field({}, description="Rows, or keys, by what they are.")
    retained: list[Retained] = Field([], description="What the law keeps: why, and until when.")
    reason: str = ""
    asked_at: datetime | None = Field(None, description="Absent while others come first.")
    answered_at: datetime | None = None
    attempts: int = Field(0, description="How often it was issued again.")
    settlement: SettlementView | None = Field(None, description="Where somebody answered for it.")


class Stop(BaseModel):
    """When the clock stood still for an answer of the person; without an end while it does."""

    since: datetime
    until: datetime | None = None


class Desk(BaseModel):
    """What whoever answers for the store sees besides."""

    way: Way
    proofs: list[Proof]
    assignee: UUID | None = Field(None, description="An account of the staff.")
    decided_by: UUID | None = Field(None, description="An account; absent where it passed by itself.")
    escalated_at: datetime | None = None
    notes: int = Field(description="How many there are.")
    subjects: Annotated[int, Field(ge=1, description="How many addresses of the person it is about.")] = 1
    may_decide: list[Literal["store", "platform"]]
    watch: Word | None = Field(None, description="What is said next about the deadline.")
    watch_at: datetime | None = None


class CertificateStanding(BaseModel):
    """Whether there is a certificate of a request."""

    issued_at: datetime | None = None
    """Of the newest; absent while there is none."""
    due_at: datetime | None = None
    """Of the next; after an erasure, once no opened key can be in any memory."""


class RequestDetail(RequestSummary):
    """A request, its way so far, and everybody's part in it."""

    steps: list[Step]
    parts: list[Part]
    decision: Decision | None = None
    decided_at: datetime | None = None
    ground: Ground | None = Field(None, description="Of a refusal.")
    authority: str | None = Field(None, description="The article the ground rests on.")
    supervisor: Supervisor = Field(description="Where one can complain.")
    overdue: bool = False
    acknowledge_by: date | None = Field(None, description="California's day to confirm receipt by.")
    acknowledged_at: datetime | None = None
    extension: Extension | None = Field(None, description="Why more time was taken.")
    extended_at: datetime | None = None
    stopped_since: datetime | None = Field(
        None, description="Since when an answer of the person is waited for."
    )
    stops: list[Stop] = []
    begins_at: datetime | None = Field(None, description="Of a lifting of which the person was told before.")
    certificate: CertificateStanding = CertificateStanding()
    desk: Desk | None = None
    alike: int | None = Field(
        None,
        description="For the store: this person's requests for this right in twelve months, with this one. Of many, "
        "one may be refused as excessive.",
    )


# --- Followed by its link --------------------------------------------------------------------------------


class Refusal(BaseModel):
    """Why a request was refused. Against it a person can complain to an authority, or go to court."""

    ground: Ground
    article: str | None = Field(description="What the ground rests on.")


class Awaited(BaseModel):
    """What the person can do now."""

    confirm: bool = Field(description="Say that the request is theirs.")
    document: bool = Field(description="Send a document.")
    answer: bool = Field(description="Answer the store.")
    withdraw: bool = Field(description="Take the request back.")


class LogStanding(BaseModel):
    """A head of a store's evidence log. Whoever keeps it can show later that nothing before it was changed."""

    size: int
    root: str
    head: str = Field(description="The same, signed.")


class RequestStatus(RequestSummary):
    """A request as its person sees it, with or without an account. The secret of the link is all that is needed."""

    store: str | None = Field(None, description="The store's name.")
    steps: list[Step]
    awaited: Awaited
    proofs: list[Proof] = Field([], description="What showed that the request is the person's.")
    enough: list[Proof] = Field(
        [], description="While it is being verified: each of these alone would be enough."
    )
    documents: int = Field(0, description="How many documents wait to be looked at.")
    checks: list[DocumentOutcome] = Field([], description="What became of the others.")
    stopped_since: datetime | None = Field(
        None, description="Since when an answer of the person is waited for."
    )
    extended_at: datetime | None = None
    extension: str | None = Field(None, description="Why the answer takes longer.")
    refusal: Refusal | None = None
    supervisor: Supervisor = Field(description="Where one can complain.")
    kept: list[Retained] = Field([], description="What the law keeps: why, and until when.")
    questions: list[Question] = Field([], description="What the store asked, oldest first.")
    certificate: CertificateStanding = CertificateStanding()
    log: LogStanding | None = Field(None, description="The store's evidence log, as it is now.")


# --- Documents -------------------------------------------------------------------------------------------


class DocumentView(BaseModel):
    """A document that waits for somebody to look at it."""

    id: UUID
    media_type: MediaType
    size: int = Field(description="Bytes.")
    openings: int = Field(description="How often somebody of the store had it shown.")
    uploaded_at: datetime


class DocumentCheckView(BaseModel):
    """What became of a document. It is gone."""

    document_id: UUID
    outcome: DocumentOutcome
    checked_by: UUID | None = Field(description="An account of staff; absent where nobody looked at it.")
    at: datetime
    openings: int
    destroyed_at: datetime | None = Field(
        description="When its key was destroyed; absent while that is under way."
    )


class DocumentList(BaseModel):
    """The documents of a request."""

    waiting: list[DocumentView]
    checks: list[DocumentCheckView]


class NewCheck(BaseModel):
    """What somebody says of a document after looking at it. In that moment it is destroyed."""

    model_config = ConfigDict(extra="forbid")

    accepted: bool
    seen: Annotated[Text, Field(min_length=1, max_length=3000)] = Field(
        description="What was seen, kept sealed with the request. Not the document's number."
    )


# --- Who answers -----------------------------------------------------------------------------------------


class KeySet(BaseModel):
    """RFC 7517."""

    keys: list[dict[str, Any]]


class DownloadAddress(BaseModel):
    """Where the archive is fetched from, with the cookie that came along."""

    location: str = Field(description="Takes Range requests, so that an interrupted download goes on.")
    size: int = Field(description="Of the archive, in bytes.")
    sha256: str = Field(description="Of the archive, in hexadecimal.")
    expires_at: datetime = Field(description="When the address is gone; the link may make another.")
    remaining: int = Field(description="How often the archive can still be fetched.")


class DataMap(BaseModel):
    """What each service keeps about people, computed from its code: see `libs/common/personal/datamap.py`."""

    items: list[dict[str, Any]]
    departed: list[Departed] = Field([], description="Who left, and who has their data now.")
