"""Tools of merchants that speak OpenDSR to us, and what they asked. None of it names a person."""

from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy import ARRAY, CheckConstraint, Index, String, UniqueConstraint, Uuid, func, text
from sqlalchemy.orm import Mapped, mapped_column

from libs.common.db import impersonal
from services.privacy.models import Base
from services.privacy.opendsr.wire import Regulation, RequestStatus, RequestType

_WORD = impersonal("a fixed word")
_ADDRESS = impersonal("addresses of a merchant's own tool, which name nobody that is asked about")


def _words(words: type[RequestStatus] | type[RequestType] | type[Regulation]) -> str:
    return ", ".join(f"'{word}'" for word in words)


class OpenDsrController(Base):
    """A tool by which a store asks us to do what its people asked the store for: the store is the controller."""

    __tablename__ = "opendsr_controller"
    __table_args__ = (Index("ix_opendsr_controller_listing", "store_id", "registered_at", "id"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    store_id: Mapped[UUID]
    name: Mapped[str] = mapped_column(info=impersonal("name of a merchant's own tool"))
    callback_hosts: Mapped[list[str]] = mapped_column(ARRAY(String), info=_ADDRESS)
    """Where it may be called back."""
    registered_by: Mapped[UUID]
    """An account of staff."""
    registered_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
    version: Mapped[int] = mapped_column(server_default="1")


class OpenDsrKey(Base):
    """What a tool shows to be let in, known by its hash alone: two at most, while one takes over from the other."""

    __tablename__ = "opendsr_key"
    __table_args__ = (Index("ix_opendsr_key_controller_id", "controller_id"),)

    hash: Mapped[bytes] = mapped_column(primary_key=True, info=impersonal("SHA-256 of a random key"))
    store_id: Mapped[UUID]
    controller_id: Mapped[UUID]
    issued_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    """None until another takes over."""


class OpenDsrRequest(Base):
    """What a tool asked, under the id that it gave."""

    __tablename__ = "opendsr_request"
    __table_args__ = (
        CheckConstraint(f"kind IN ({_words(RequestType)})", name="kind"),
        CheckConstraint(f"regulation IN ({_words(Regulation)})", name="regulation"),
        CheckConstraint(f"status IN ({_words(RequestStatus)})", name="status"),
        UniqueConstraint("controller_id", "subject_request_id"),
        Index(
            "ix_opendsr_request_open", "id", postgresql_where=text("status IN ('pending', 'in_progress')")
        ),
    )  # fmt: skip

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    store_id: Mapped[UUID]
    controller_id: Mapped[UUID]
    subject_request_id: Mapped[UUID]
    kind: Mapped[str] = mapped_column(info=_WORD)
    regulation: Mapped[str] = mapped_column(info=_WORD)
    named: Mapped[list[UUID]] = mapped_column(ARRAY(Uuid), info=impersonal("ids of subjects"))
    """Whom its identities name: the same id again with others is another request."""
    callback_urls: Mapped[list[str]] = mapped_column(ARRAY(String), info=_ADDRESS)
    received_at: Mapped[datetime]
    expected_at: Mapped[datetime]
    status: Mapped[str] = mapped_column(info=_WORD, server_default="pending")
    """As it was told last."""


class OpenDsrPart(Base):
    """A request of ours that does it: one for each person that was named."""

    __tablename__ = "opendsr_part"
    __table_args__ = (Index("ix_opendsr_part_opendsr_id", "opendsr_id"),)

    request_id: Mapped[UUID] = mapped_column(primary_key=True)
    store_id: Mapped[UUID]
    opendsr_id: Mapped[UUID]
    token_hash: Mapped[bytes | None] = mapped_column(info=impersonal("SHA-256 of a random token"))
    """Of the download that holds its results, which nobody but the tool's key opens."""


class OpenDsrCallback(Base):
    """A change of a request's status that one address is still to be told, or was."""

    __tablename__ = "opendsr_callback"
    __table_args__ = (
        CheckConstraint(f"status IN ({_words(RequestStatus)})", name="status"),
        Index("ix_opendsr_callback_due_at", "due_at", postgresql_where=text("due_at IS NOT NULL")),
        Index("ix_opendsr_callback_opendsr_id", "opendsr_id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.gen_random_uuid())
    store_id: Mapped[UUID]
    opendsr_id: Mapped[UUID]
    url: Mapped[str] = mapped_column(info=_ADDRESS)
    status: Mapped[str] = mapped_column(info=_WORD)
    sequence: Mapped[int]
    """What comes later waits for what comes before."""
    made_at: Mapped[datetime]
    due_at: Mapped[datetime | None]
    """None once it is over: delivered, or given up."""
    attempts: Mapped[int] = mapped_column(server_default="0")
    delivered_at: Mapped[datetime | None]
    answer: Mapped[int | None]
    """The status that the last attempt met."""
    fault: Mapped[str | None] = mapped_column(info=_WORD)
    """Why the last attempt failed where nothing answered."""
