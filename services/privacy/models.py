"""Requests, everybody's part in them, and what goes to the person."""

from collections.abc import Iterable
from datetime import date, datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import (
    ARRAY,
    CheckConstraint,
    Index,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from libs.common import db
from libs.common.db import impersonal
from libs.common.events.identity import AccountContact
from libs.common.events.privacy import ExportedRecords, Proposal
from libs.common.personal.data import Sealed, SealedColumn
from libs.common.throttle import Counting
from services.privacy.domain.decisions import Decision
from services.privacy.domain.holds import Ground
from services.privacy.domain.notes import About
from services.privacy.domain.parts import Leaving
from services.privacy.domain.rights import Law, Right
from services.privacy.domain.states import OVER, State, TaskState
from services.privacy.domain.verification import MediaType, Outcome, Way
from services.privacy.kinds import (
    AgentContact,
    ArchivePiece,
    DeskAddress,
    DocumentContent,
    NoteText,
    RequestContact,
)

_WORD = impersonal("a fixed word")
_NAME = impersonal("name of a service")


def _words(words: Iterable[str]) -> str:
    return ", ".join(f"'{word}'" for word in words)


_IS_OPEN = f"state NOT IN ({_words(sorted(OVER))})"


class Base(db.Base):
    """The privacy service's own tables."""

    __abstract__ = True
    metadata = MetaData(naming_convention=db.Base.metadata.naming_convention)


class Participant(Base):
    """A service that answers, as it announced itself: the platform's, not a store's."""

    __tablename__ = "participant"

    name: Mapped[str] = mapped_column(primary_key=True, info=_NAME)
    public_key: Mapped[dict[str, Any]] = mapped_column(JSONB, info=impersonal("a public key"))
    data_map: Mapped[list[dict[str, Any]]] = mapped_column(JSONB, info=impersonal("declarations"))
    announced_at: Mapped[datetime]
    prepares: Mapped[bool] = mapped_column(server_default="false")
    """Whether it is asked before anything of an erasure is destroyed."""
    joining_until: Mapped[datetime | None]
    """Until nothing that is open can lack it any more: it gets its part of what was opened before."""


class Departure(Base):
    """A participant that left, and who has its data now: the platform's, not a store's."""

    __tablename__ = "departure"
    __table_args__ = (
        PrimaryKeyConstraint("name", "departed_at"),
        CheckConstraint(f"ground IN ({_words(Leaving)})", name="ground"),
    )

    name: Mapped[str] = mapped_column(info=_NAME)
    departed_at: Mapped[datetime]
    departed_by: Mapped[UUID]
    """An account of the platform's staff."""
    ground: Mapped[str] = mapped_column(info=_WORD)
    successor: Mapped[str | None] = mapped_column(info=_NAME)
    public_key: Mapped[dict[str, Any]] = mapped_column(JSONB, info=impersonal("a public key"))
    """What it signed until then can still be checked."""
    data_map: Mapped[list[dict[str, Any]]] = mapped_column(JSONB, info=impersonal("declarations"))
    handed_over_at: Mapped[datetime | None]
    """Since then nothing that is open waits for it."""
    readmitted_at: Mapped[datetime | None]
    """From then on the name can be announced again."""
    readmitted_by: Mapped[UUID | None]


class Request(Base):
    """One person's use of one right at one store."""

    __tablename__ = "request"
    __table_args__ = (
        CheckConstraint(f"claim IN ({_words(Right)})", name="claim"),
        CheckConstraint(f"state IN ({_words(State)})", name="state"),
        CheckConstraint(f"law IN ({_words(Law)})", name="law"),
        CheckConstraint(f"way IN ({_words(Way)})", name="way"),
        CheckConstraint(f"decision IN ({_words(Decision)})", name="decision"),
        # A second request of the same kind joins the first. Two corrections are never the same request, and what a
        # store's own tool asks is answered to the tool.
        Index(
            "uq_request_open", "store_id", "subject_id", "generation", "claim",
            text("coalesce(purpose, '')"), text("coalesce(category, '')"), unique=True,
            postgresql_where=text(f"{_IS_OPEN} AND claim <> 'rectification' AND way <> 'opendsr'"),
        ),
        Index("ix_request_listing", "store_id", "opened_at", "id"),
        Index("ix_request_subject", "store_id", "subject_id", "opened_at", "id"),
        Index("ix_request_state", "state", postgresql_where=text(_IS_OPEN)),
        Index("ix_request_watch", "watch_at", postgresql_where=text("watch_at IS NOT NULL")),
        Index("uq_request_status_hash", "status_hash", unique=True),
        Index("ix_request_several", "store_id", postgresql_where=text("several")),
    )  # fmt: skip

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    store_id: Mapped[UUID]
    subject_id: Mapped[UUID]
    generation: Mapped[int]

    # --- What is asked -----------------------------------------------------------------------------------

    claim: Mapped[str] = mapped_column(info=_WORD)
    """The right that is used."""
    law: Mapped[str] = mapped_column(info=_WORD, server_default="gdpr")
    purpose: Mapped[str | None] = mapped_column(info=_WORD)
    """Of an objection or a withdrawal: the use that is to end; of an erasure: of what is used for this alone."""
    category: Mapped[str | None] = mapped_column(info=_WORD)
    """Of an erasure that is not of everything."""
    proposal: Mapped[Sealed[Proposal] | None] = mapped_column(SealedColumn(Proposal))
    """Of a rectification."""

    # --- By whom -----------------------------------------------------------------------------------------

    way: Mapped[str] = mapped_column(info=_WORD, server_default="session")
    proofs: Mapped[list[dict[str, str]]] = mapped_column(
        JSONB, info=impersonal("kinds of proof and times"), server_default=text("'[]'::jsonb")
    )
    order_number: Mapped[str | None] = mapped_column(info=impersonal("a counter of the store"))
    """What the requester said they know, until it is recognised or not."""
    contact: Mapped[Sealed[RequestContact] | None] = mapped_column(SealedColumn(RequestContact))
    agent: Mapped[Sealed[AgentContact] | None] = mapped_column(SealedColumn(AgentContact))
    """Who asks on the person's behalf, and is told how it goes."""
    status_hash: Mapped[bytes | None] = mapped_column(info=impersonal("SHA-256 of a random token"))
    """Of the link under which the state can be seen without an account."""

    # --- Where it is -------------------------------------------------------------------------------------

    state: Mapped[str] = mapped_column(info=_WORD)
    steps: Mapped[list[dict[str, str]]] = mapped_column(JSONB, info=impersonal("states and times"))
    round: Mapped[int] = mapped_column(server_default="1")
    """Raised when everybody is asked anew: a check found something, or an export was incomplete."""
    opened_at: Mapped[datetime]
    received_at: Mapped[datetime | None]
    """When it reached the store, where it was entered here later than that: a letter."""
    verified_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]
    traceparent: Mapped[str | None] = mapped_column(info=impersonal("W3C trace context"))
    """Of the call that opened it: whatever is asked and answered later continues its trace."""
    version: Mapped[int] = mapped_column(server_default="1")

    # --- Who decides, and when ---------------------------------------------------------------------------

    decision: Mapped[str | None] = mapped_column(info=_WORD)
    decided_at: Mapped[datetime | None]
    decided_by: Mapped[UUID | None]
    """An account of staff; none when it passed by itself."""
    ground: Mapped[str | None] = mapped_column(info=_WORD)
    """Of a refusal."""
    assignee: Mapped[UUID | None]
    """An account of staff."""
    due_on: Mapped[date | None]
    """None until the law's period begins, and while its clock is stopped."""
    overdue_at: Mapped[datetime | None]
    """The instant at which that day is over where the store is."""
    acknowledge_by: Mapped[date | None]
    acknowledged_at: Mapped[datetime | None]
    extended_at: Mapped[datetime | None]
    extension: Mapped[str | None] = mapped_column(info=_WORD)
    """Why it was extended."""
    stops: Mapped[list[dict[str, str | None]]] = mapped_column(
        JSONB, info=impersonal("times"), server_default=text("'[]'::jsonb")
    )
    """When the clock stood still for an answer of the requester: `from`, and `until` once it came."""
    watch: Mapped[str | None] = mapped_column(info=_WORD)
    """What is looked at next: a reminder, the escalation, the alarm."""
    watch_at: Mapped[datetime | None]
    escalated_at: Mapped[datetime | None]
    """From then on the platform may answer for the store."""
    retired: Mapped[list[str] | None] = mapped_column(JSONB, info=impersonal("ids of keys"))
    """Of an erasure that is not of everything: the keys that go once nothing lies under them any more."""
    held: Mapped[list[dict[str, str]] | None] = mapped_column(
        JSONB, info=impersonal("words of the vocabulary, and dates")
    )
    """Of an erasure: what a legal hold kept from it, and until when."""
    begins_at: Mapped[datetime | None]
    """A restriction is lifted no sooner: the person is told before."""
    also: Mapped[list[dict[str, Any]] | None] = mapped_column(
        JSONB(none_as_null=True), info=impersonal("ids of subjects")
    )
    """The other subjects of the person, whom it is about as well."""
    several: Mapped[bool] = mapped_column(server_default="false")
    """Of an erasure that has ended: that there were others. Which, nobody knows any more."""


class PersonSubject(Base):
    """A subject of somebody who has several at one store. Whoever has one only has no row."""

    __tablename__ = "person_subject"
    __table_args__ = (
        PrimaryKeyConstraint("store_id", "subject_id", "generation"),
        Index("ix_person_subject_person", "store_id", "person_id"),
    )

    store_id: Mapped[UUID]
    subject_id: Mapped[UUID]
    generation: Mapped[int]
    person_id: Mapped[UUID]
    joined_at: Mapped[datetime]


class RemovedEmail(Base):
    """An address that an account has no more, by a random id: word of its confirmation that comes later is old."""

    __tablename__ = "removed_email"
    __table_args__ = (Index("ix_removed_email_removed_at", "removed_at"),)

    email_id: Mapped[UUID] = mapped_column(primary_key=True)
    store_id: Mapped[UUID]
    removed_at: Mapped[datetime]


class Notice(Base):
    """A mail that is to be written about a request."""

    __tablename__ = "notice"
    __table_args__ = (
        CheckConstraint("reader IN ('person', 'officer', 'agent', 'platform')", name="reader"),
        Index("ix_notice_due_at", "due_at"),
        Index("ix_notice_request_id", "request_id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.gen_random_uuid())
    store_id: Mapped[UUID]
    request_id: Mapped[UUID]
    template: Mapped[str] = mapped_column(info=_WORD)
    reader: Mapped[str] = mapped_column(info=_WORD, server_default="person")
    note_id: Mapped[UUID | None]
    """Of what somebody wrote and the mail repeats: a question, the reasons of a refusal."""
    due_at: Mapped[datetime]


class RequestNote(Base):
    """Something that somebody wrote about a request."""

    __tablename__ = "request_note"
    __table_args__ = (
        CheckConstraint(f"about IN ({_words(About)})", name="about"),
        Index("ix_request_note_request_id", "request_id", "at", "id"),
        Index("ix_request_note_subject", "store_id", "subject_id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    request_id: Mapped[UUID]
    store_id: Mapped[UUID]
    subject_id: Mapped[UUID]
    generation: Mapped[int]
    about: Mapped[str] = mapped_column(info=_WORD)
    author: Mapped[UUID | None]
    """An account of staff; none where the person wrote it."""
    at: Mapped[datetime]
    box: Mapped[Sealed[NoteText]] = mapped_column(SealedColumn(NoteText))


class VerificationDocument(Base):
    """A document that shows whose a request is, until somebody has looked at it."""

    __tablename__ = "verification_document"
    __table_args__ = (
        CheckConstraint(f"media_type IN ({_words(MediaType)})", name="media_type"),
        Index("ix_verification_document_request_id", "request_id"),
        Index("ix_verification_document_subject", "store_id", "subject_id"),
        Index("ix_verification_document_uploaded_at", "uploaded_at"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    request_id: Mapped[UUID]
    store_id: Mapped[UUID]
    subject_id: Mapped[UUID]
    generation: Mapped[int]
    media_type: Mapped[str] = mapped_column(info=_WORD)
    size: Mapped[int]
    openings: Mapped[int] = mapped_column(server_default="0")
    """How often somebody of the store had it shown."""
    uploaded_at: Mapped[datetime]
    box: Mapped[Sealed[DocumentContent]] = mapped_column(SealedColumn(DocumentContent))


class DocumentCheck(Base):
    """What became of a document, who looked at it, and when its key was destroyed. Of its content it says nothing."""

    __tablename__ = "document_check"
    __table_args__ = (
        CheckConstraint(f"outcome IN ({_words(Outcome)})", name="outcome"),
        Index("ix_document_check_request_id", "request_id", "at"),
    )

    document_id: Mapped[UUID] = mapped_column(primary_key=True)
    request_id: Mapped[UUID]
    store_id: Mapped[UUID]
    outcome: Mapped[str] = mapped_column(info=_WORD)
    checked_by: Mapped[UUID | None]
    """An account of staff; none where nobody looked at it."""
    at: Mapped[datetime]
    openings: Mapped[int]
    destroyed_at: Mapped[datetime | None]
    """None until the keyring has said so."""


class DoomedKey(Base):
    """A key that is to be destroyed alone, by the bucket it has: a document's id, or a request's."""

    __tablename__ = "doomed_key"
    __table_args__ = (
        PrimaryKeyConstraint("store_id", "bucket"),
        Index("ix_doomed_key_next_try_at", "next_try_at"),
        Index("ix_doomed_key_subject", "store_id", "subject_id"),
    )

    store_id: Mapped[UUID]
    bucket: Mapped[UUID]
    retention: Mapped[str] = mapped_column(info=_WORD)
    subject_id: Mapped[UUID]
    generation: Mapped[int]
    next_try_at: Mapped[datetime]


class Attempts(Counting, Base):
    """Anonymous forms, by the keyed hash of an e-mail or of a client's address."""


class PrivacySettings(Base):
    """What a store has decided about requests; what it says nothing about is as `domain` has it."""

    __tablename__ = "privacy_settings"

    store_id: Mapped[UUID] = mapped_column(primary_key=True)
    passing: Mapped[dict[str, str]] = mapped_column(
        JSONB, info=impersonal("rights and how they pass"), server_default=text("'{}'::jsonb")
    )
    enough: Mapped[dict[str, list[str]]] = mapped_column(
        JSONB, info=impersonal("rights and proofs"), server_default=text("'{}'::jsonb")
    )
    lifting_notice_days: Mapped[int | None]
    """How long before a restriction is lifted its person is told."""
    branding: Mapped[dict[str, dict[str, str]]] = mapped_column(
        JSONB, info=impersonal("a store's public words around its mails"), server_default=text("'{}'::jsonb")
    )
    """By language: `sender`, `opening`, `signature`."""
    version: Mapped[int] = mapped_column(server_default="1")


class PrivacyDesk(Base):
    """Where whoever answers for a store reads mail. The address is a subject of its own, which may be erased."""

    __tablename__ = "privacy_desk"
    __table_args__ = (Index("ix_privacy_desk_subject", "store_id", "subject_id"),)

    store_id: Mapped[UUID] = mapped_column(primary_key=True)
    subject_id: Mapped[UUID]
    generation: Mapped[int]
    box: Mapped[Sealed[DeskAddress]] = mapped_column(SealedColumn(DeskAddress))


class Task(Base):
    """What one participant was asked for a request, and its answer: the row is there before the answer is."""

    __tablename__ = "task"
    __table_args__ = (
        PrimaryKeyConstraint("request_id", "participant", "verb"),
        CheckConstraint(f"state IN ({_words(TaskState)})", name="state"),
        Index(
            "ix_task_due", "next_issue_at",
            postgresql_where=text(
                "next_issue_at IS NOT NULL AND participant <> 'keyring' AND recipient_id IS NULL"
            ),
        ),
        Index(
            "ix_task_keyring", "next_issue_at",
            postgresql_where=text("next_issue_at IS NOT NULL AND participant = 'keyring'"),
        ),
        Index(
            "ix_task_recipient", "recipient_id", "next_issue_at",
            postgresql_where=text("next_issue_at IS NOT NULL AND recipient_id IS NOT NULL"),
        ),
    )  # fmt: skip

    request_id: Mapped[UUID]
    participant: Mapped[str] = mapped_column(info=_NAME)
    verb: Mapped[str] = mapped_column(info=_WORD)
    store_id: Mapped[UUID]
    recipient_id: Mapped[UUID | None]
    """Of somebody outside, who is reached by a delivery and never asked on the broker."""
    asked_at: Mapped[datetime | None]
    """Since when it is waited for; None: its phase has not come."""
    state: Mapped[str] = mapped_column(info=_WORD, server_default="waiting")
    attempts: Mapped[int] = mapped_column(server_default="0")
    next_issue_at: Mapped[datetime | None]
    """None: its phase has not come, or it is answered."""
    answer: Mapped[dict[str, Any] | None] = mapped_column(JSONB, info=impersonal("a signed outcome"))
    answered_at: Mapped[datetime | None]


class ExportChunk(Base):
    """A sealed piece of what a participant holds about the person."""

    __tablename__ = "export_chunk"
    __table_args__ = (
        PrimaryKeyConstraint("request_id", "participant", "sequence"),
        Index("ix_export_chunk_subject", "store_id", "subject_id"),
    )

    request_id: Mapped[UUID]
    participant: Mapped[str] = mapped_column(info=_NAME)
    sequence: Mapped[int]
    store_id: Mapped[UUID]
    subject_id: Mapped[UUID]
    generation: Mapped[int]
    round: Mapped[int]
    box: Mapped[Sealed[ExportedRecords]] = mapped_column(SealedColumn(ExportedRecords))
    hash: Mapped[bytes] = mapped_column(info=impersonal("SHA-256 of the box"))


class Download(Base):
    """A link to an archive, known by the hash of its token alone."""

    __tablename__ = "download"
    __table_args__ = (
        Index("ix_download_expires_at", "expires_at"),
        Index("ix_download_subject", "store_id", "subject_id"),
    )

    token_hash: Mapped[bytes] = mapped_column(primary_key=True, info=impersonal("SHA-256 of a random token"))
    request_id: Mapped[UUID]
    store_id: Mapped[UUID]
    subject_id: Mapped[UUID]
    generation: Mapped[int]
    expires_at: Mapped[datetime]
    remaining: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Archive(Base):
    """What a person will download: being made from the chunks of its request, or ready and the same for ever."""

    __tablename__ = "archive"
    __table_args__ = (
        CheckConstraint("state IN ('making', 'ready')", name="state"),
        Index("ix_archive_due", "due_at", postgresql_where=text("state = 'making'")),
        Index("ix_archive_subject", "store_id", "subject_id"),
    )

    request_id: Mapped[UUID] = mapped_column(primary_key=True)
    store_id: Mapped[UUID]
    subject_id: Mapped[UUID]
    generation: Mapped[int]
    round: Mapped[int]
    """Of the request whose chunks it is made from."""
    state: Mapped[str] = mapped_column(info=_WORD, server_default="making")
    attempts: Mapped[int] = mapped_column(server_default="0")
    """Names who makes it: a worker that was given up adds nothing to what another has begun anew."""
    due_at: Mapped[datetime] = mapped_column(server_default=func.now())
    pieces: Mapped[int | None]
    size: Mapped[int | None]
    sha256: Mapped[bytes | None] = mapped_column(info=impersonal("SHA-256 of a sealed archive's content"))
    ready_at: Mapped[datetime | None]


class ArchivePieceRow(Base):
    """A sealed piece of an archive."""

    __tablename__ = "archive_piece"
    __table_args__ = (
        PrimaryKeyConstraint("request_id", "sequence"),
        Index("ix_archive_piece_subject", "store_id", "subject_id"),
    )

    request_id: Mapped[UUID]
    sequence: Mapped[int]
    store_id: Mapped[UUID]
    subject_id: Mapped[UUID]
    generation: Mapped[int]
    size: Mapped[int]
    box: Mapped[Sealed[ArchivePiece]] = mapped_column(SealedColumn(ArchivePiece))


class DownloadGrant(Base):
    """An address that one browser may fetch an archive from: it holds the secret, the row its hash."""

    __tablename__ = "download_grant"
    __table_args__ = (
        Index("ix_download_grant_expires_at", "expires_at"),
        Index("ix_download_grant_subject", "store_id", "subject_id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    secret_hash: Mapped[bytes] = mapped_column(info=impersonal("SHA-256 of a random secret"))
    token_hash: Mapped[bytes] = mapped_column(info=impersonal("SHA-256 of the link's random token"))
    request_id: Mapped[UUID]
    store_id: Mapped[UUID]
    subject_id: Mapped[UUID]
    generation: Mapped[int]
    expires_at: Mapped[datetime]
    begun: Mapped[bool] = mapped_column(server_default="false")
    """Whether a download was counted: what goes on with it is not counted again."""


# --- After a restore -------------------------------------------------------------------------------------


class Returned(Base):
    """A participant whose database is as it was: the platform's, not a store's."""

    __tablename__ = "returned"

    restoration_id: Mapped[UUID] = mapped_column(primary_key=True)
    participant: Mapped[str] = mapped_column(info=_NAME)
    taken_at: Mapped[datetime]
    heard_at: Mapped[datetime] = mapped_column(server_default=func.now())
    compared_at: Mapped[datetime | None]
    """When it was found out what it is to do again."""


class Redo(Base):
    """Something a participant had done after its backup was taken: it is asked for it again, and answers again."""

    __tablename__ = "redo"
    __table_args__ = (
        PrimaryKeyConstraint("restoration_id", "request_id", "verb"),
        Index("ix_redo_due", "next_issue_at", postgresql_where=text("done_at IS NULL")),
        Index("ix_redo_request_id", "request_id", postgresql_where=text("done_at IS NULL")),
    )

    restoration_id: Mapped[UUID]
    request_id: Mapped[UUID]
    verb: Mapped[str] = mapped_column(info=_WORD)
    participant: Mapped[str] = mapped_column(info=_NAME)
    store_id: Mapped[UUID]
    round: Mapped[int]
    """Of its own, above all that was asked before: whatever was done meanwhile is done again, in order."""
    answered_at: Mapped[datetime]
    """When it was done the first time: in this order it is done again."""
    attempts: Mapped[int] = mapped_column(server_default="0")
    next_issue_at: Mapped[datetime] = mapped_column(server_default=func.now())
    failed: Mapped[bool] = mapped_column(server_default="false")
    """It cannot be done as things are, and is tried again without anything waiting behind it."""
    done_at: Mapped[datetime | None]


# --- Closing ---------------------------------------------------------------------------------------------


class ClosedAccount(Base):
    """An account that has ended, until the request to erase its person is open."""

    __tablename__ = "closed_account"
    __table_args__ = (
        Index("ix_closed_account_next_try_at", "next_try_at"),
        Index("ix_closed_account_subject", "store_id", "subject_id"),
    )

    account_id: Mapped[UUID] = mapped_column(primary_key=True)
    store_id: Mapped[UUID]
    subject_id: Mapped[UUID]
    generation: Mapped[int]
    contact: Mapped[Sealed[AccountContact]] = mapped_column(SealedColumn(AccountContact))
    next_try_at: Mapped[datetime]


class StoreEnding(Base):
    """A store that has ended: its key is destroyed, then everybody removes what they hold of it."""

    __tablename__ = "store_ending"
    __table_args__ = (
        CheckConstraint("waits_for IN ('requests', 'restrictions', 'holds')", name="waits_for"),
        Index("ix_store_ending_next_step_at", "next_step_at"),
        Index("ix_store_ending_listing", "ended_at", "store_id"),
    )

    store_id: Mapped[UUID] = mapped_column(primary_key=True)
    ended_at: Mapped[datetime]
    waits_for: Mapped[str | None] = mapped_column(info=_WORD)
    """What has to be over before the key is destroyed."""
    keys_destroyed_at: Mapped[datetime | None]
    erased_at: Mapped[datetime | None]
    """When the last of everybody had found nothing left but what is kept."""
    next_step_at: Mapped[datetime | None]


class StoreEndingPart(Base):
    """What one participant has said about a store that ended; it is expected before it is said."""

    __tablename__ = "store_ending_part"
    __table_args__ = (PrimaryKeyConstraint("store_id", "participant"),)

    store_id: Mapped[UUID]
    participant: Mapped[str] = mapped_column(info=_NAME)
    kept: Mapped[list[dict[str, Any]]] = mapped_column(
        JSONB, info=impersonal("tables, counts, grounds and days"), server_default=text("'[]'::jsonb")
    )
    cleaned_at: Mapped[datetime | None]


# --- Periods ---------------------------------------------------------------------------------------------


class Expiry(Base):
    """Until when what lies under one bucket of a person's keys is kept, and what became of it then.

        running ──► destroying ──► cleaning ──► over
           ↕
        stopped

    Only a bucket that belongs to nothing that ends comes back from `over`, when something new is sealed in it.
    """

    __tablename__ = "expiry"
    __table_args__ = (
        PrimaryKeyConstraint("store_id", "subject_id", "generation", "retention", "bucket"),
        CheckConstraint("state IN ('running', 'stopped', 'destroying', 'cleaning', 'over')", name="state"),
        Index("ix_expiry_due", "due_at", postgresql_where=text("state = 'running'")),
        Index(
            "ix_expiry_untold", "store_id", "subject_id",
            postgresql_where=text("told_on IS DISTINCT FROM expires_on AND state IN ('running', 'stopped')"),
        ),
        Index(
            "ix_expiry_under_way", "state", "next_try_at",
            postgresql_where=text("state IN ('destroying', 'cleaning')"),
        ),
        Index(
            "ix_expiry_clean", "destroyed_at", postgresql_where=text("state = 'cleaning' AND waiting = '{}'")
        ),
        Index(
            "ix_expiry_revision", "store_id", "revision",
            postgresql_where=text("state IN ('running', 'stopped')"),
        ),
        Index("ix_expiry_forecast", "store_id", "expires_on", postgresql_where=text("state = 'running'")),
        Index("ix_expiry_over_at", "over_at", postgresql_where=text("state = 'over'")),
        Index("ix_expiry_past", "over_at", postgresql_where=text("past_key_ids <> '{}'")),
    )  # fmt: skip

    store_id: Mapped[UUID]
    subject_id: Mapped[UUID]
    generation: Mapped[int]
    retention: Mapped[str] = mapped_column(info=_WORD)
    bucket: Mapped[str] = mapped_column(info=impersonal("a year, or an id"))
    clock: Mapped[str] = mapped_column(info=_WORD)
    started_at: Mapped[datetime]
    version: Mapped[int] = mapped_column(server_default="0")
    """Of whatever the clock belongs to: an older one changes nothing."""
    state: Mapped[str] = mapped_column(info=_WORD)
    expires_on: Mapped[date | None]
    """The last day on which it is kept, where the store is."""
    due_at: Mapped[datetime | None]
    """The instant at which that day is over."""
    revision: Mapped[int] = mapped_column(server_default="0")
    """Of the store's choice that the day was computed by."""
    told_on: Mapped[date | None]
    """The last day as the keyring knows it."""
    next_try_at: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(server_default="0")
    key_ids: Mapped[list[UUID]] = mapped_column(
        ARRAY(Uuid), info=impersonal("ids of keys"), server_default="{}"
    )
    past_key_ids: Mapped[list[UUID]] = mapped_column(
        ARRAY(Uuid), info=impersonal("ids of keys"), server_default="{}"
    )
    """Of a bucket that goes on: the keys of the periods that are over, while a database that is restored could be from
    before."""
    waiting: Mapped[list[str]] = mapped_column(ARRAY(String), info=_NAME, server_default="{}")
    """Participants that have not said yet that nothing is left."""
    destroyed_at: Mapped[datetime | None]
    over_at: Mapped[datetime | None]
    next_clock: Mapped[str | None] = mapped_column(info=_WORD)
    """What started again while the keys were being destroyed: it counts for what was sealed since."""
    next_started_at: Mapped[datetime | None]
    others: Mapped[list[UUID]] = mapped_column(
        ARRAY(Uuid), info=impersonal("ids of subjects"), server_default="{}"
    )
    """Of what a hold kept from an erasure: the other subjects of its person, whose holds are about this too."""
    left_by: Mapped[list[UUID]] = mapped_column(
        ARRAY(Uuid), info=impersonal("ids of requests"), server_default="{}"
    )
    """The erasures that a hold kept it from, of somebody with several subjects."""


class RetentionSettings(Base):
    """How long a store keeps things where the law leaves it the choice, and in which zone its days begin."""

    __tablename__ = "retention_settings"

    store_id: Mapped[UUID] = mapped_column(primary_key=True)
    lengths: Mapped[dict[str, str]] = mapped_column(
        JSONB, info=impersonal("clocks and lengths"), server_default=text("'{}'::jsonb")
    )
    zone: Mapped[str] = mapped_column(info=impersonal("name of a time zone"), server_default="UTC")
    revision: Mapped[int] = mapped_column(server_default="0")
    """Raised whenever days are to be computed anew."""
    version: Mapped[int] = mapped_column(server_default="1")


class LegalHold(Base):
    """Something is kept, whatever its period says, because of a claim (GDPR, Art. 17(3)(e))."""

    __tablename__ = "legal_hold"
    __table_args__ = (
        CheckConstraint(f"ground IN ({_words(Ground)})", name="ground"),
        Index("ix_legal_hold_listing", "store_id", "placed_at", "id"),
        Index("ix_legal_hold_in_force", "store_id", "subject_id", postgresql_where=text("lifted_at IS NULL")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    store_id: Mapped[UUID]
    subject_id: Mapped[UUID | None]
    """None: everybody's at the store."""
    retentions: Mapped[list[str]] = mapped_column(ARRAY(String), info=_WORD)
    """What is held."""
    ground: Mapped[str] = mapped_column(info=_WORD)
    until: Mapped[date]
    """The last day, where the store is."""
    ends_at: Mapped[datetime]
    """The instant at which that day is over."""
    placed_by: Mapped[UUID]
    """An account of staff."""
    placed_at: Mapped[datetime]
    lifted_by: Mapped[UUID | None]
    lifted_at: Mapped[datetime | None]
