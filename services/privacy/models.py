"""Requests, everybody's part in them, and what goes to the person."""

from datetime import date, datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import CheckConstraint, Index, MetaData, PrimaryKeyConstraint, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from libs.common import db
from libs.common.db import impersonal
from libs.common.events.privacy import ExportedRecords
from libs.common.personal.data import Sealed, SealedColumn
from services.privacy.kinds import RequestContact

_WORD = impersonal("a fixed word")
_NAME = impersonal("name of a service")


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


class Request(Base):
    """One person's use of one right at one store."""

    __tablename__ = "request"
    __table_args__ = (
        CheckConstraint("claim IN ('access', 'erasure')", name="claim"),
        CheckConstraint(
            "state IN ('received', 'verifying', 'deciding', 'running', 'checking', 'completed', 'refused',"
            " 'cancelled')",
            name="state",
        ),
        Index(
            "uq_request_open", "store_id", "subject_id", "generation", "claim", unique=True,
            postgresql_where=text("state NOT IN ('completed', 'refused', 'cancelled')"),
        ),
        Index("ix_request_listing", "store_id", "opened_at", "id"),
        Index("ix_request_subject", "store_id", "subject_id", "opened_at", "id"),
        Index("ix_request_notice", "notice_at", postgresql_where=text("notice IS NOT NULL")),
        Index(
            "ix_request_state", "state",
            postgresql_where=text("state NOT IN ('completed', 'refused', 'cancelled')"),
        ),
    )  # fmt: skip

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    store_id: Mapped[UUID]
    subject_id: Mapped[UUID]
    generation: Mapped[int]
    claim: Mapped[str] = mapped_column(info=_WORD)
    """The right that is used."""
    state: Mapped[str] = mapped_column(info=_WORD)
    steps: Mapped[list[dict[str, str]]] = mapped_column(JSONB, info=impersonal("states and times"))
    round: Mapped[int] = mapped_column(server_default="1")
    """Raised when everybody is asked anew: a check found something, or an export was incomplete."""
    opened_at: Mapped[datetime]
    due_on: Mapped[date]
    completed_at: Mapped[datetime | None]
    contact: Mapped[Sealed[RequestContact] | None] = mapped_column(SealedColumn(RequestContact))
    notice: Mapped[str | None] = mapped_column(info=impersonal("the mail that is to be written next"))
    notice_at: Mapped[datetime | None]
    traceparent: Mapped[str | None] = mapped_column(info=impersonal("W3C trace context"))
    """Of the call that opened it: whatever is asked and answered later continues its trace."""
    version: Mapped[int] = mapped_column(server_default="1")


class Task(Base):
    """What one participant was asked for a request, and its answer: the row is there before the answer is."""

    __tablename__ = "task"
    __table_args__ = (
        PrimaryKeyConstraint("request_id", "participant", "verb"),
        CheckConstraint(
            "state IN ('waiting', 'done', 'nothing-held', 'retained', 'failed')", name="state"
        ),
        Index(
            "ix_task_due", "next_issue_at",
            postgresql_where=text("next_issue_at IS NOT NULL AND participant <> 'keyring'"),
        ),
        Index(
            "ix_task_keyring", "next_issue_at",
            postgresql_where=text("next_issue_at IS NOT NULL AND participant = 'keyring'"),
        ),
    )  # fmt: skip

    request_id: Mapped[UUID]
    participant: Mapped[str] = mapped_column(info=_NAME)
    verb: Mapped[str] = mapped_column(info=_WORD)
    store_id: Mapped[UUID]
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
