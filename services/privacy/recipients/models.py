"""Recipients outside, their secrets, and what is sent to them. A recipient is a business: its name names nobody."""

from collections.abc import Iterable
from datetime import date, datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import ARRAY, CheckConstraint, Index, PrimaryKeyConstraint, String, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from libs.common.db import impersonal
from libs.common.events.privacy import References
from libs.common.personal.data import Sealed, SealedColumn
from services.privacy.models import Base
from services.privacy.recipients.kinds import DeliveryBody
from services.privacy.recipients.words import STORE_ENDED, DeliveryState, Protocol, RecipientState, Role

_WORD = impersonal("a fixed word")
_BUSINESS = impersonal("a merchant's words about a business")


def _words(words: Iterable[str]) -> str:
    return ", ".join(f"'{word}'" for word in words)


class Recipient(Base):
    """Somebody outside to whom a store gives data (GDPR, Art. 4(9)): told of what is asked of it, or asked to do it."""

    __tablename__ = "recipient"
    __table_args__ = (
        CheckConstraint(f"role IN ({_words(Role)})", name="role"),
        CheckConstraint(f"protocol IN ({_words(Protocol)})", name="protocol"),
        CheckConstraint(f"state IN ({_words(RecipientState)})", name="state"),
        Index("ix_recipient_listing", "store_id", "registered_at", "id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    store_id: Mapped[UUID]
    name: Mapped[str] = mapped_column(info=_BUSINESS)
    role: Mapped[str] = mapped_column(info=_WORD)
    protocol: Mapped[str] = mapped_column(info=_WORD)
    state: Mapped[str] = mapped_column(info=_WORD, server_default="testing")
    why: Mapped[str | None] = mapped_column(info=_WORD)
    """Of a disabled one: by its merchant, or because it said that it is gone."""
    url: Mapped[str] = mapped_column(info=impersonal("address of a business's server"))
    verbs: Mapped[list[str]] = mapped_column(ARRAY(String), info=_WORD)
    """What it has a part in, by its role and its protocol."""
    options: Mapped[dict[str, Any]] = mapped_column(
        JSONB, info=impersonal("settings of a protocol"), server_default=text("'{}'::jsonb")
    )
    category: Mapped[str] = mapped_column(info=_BUSINESS, server_default="")
    """What it does for the store, or is: parcel carrier, newsletter."""
    country: Mapped[str | None] = mapped_column(info=_WORD)
    """Where it is, ISO 3166-1 alpha-2."""
    contract: Mapped[str] = mapped_column(info=_BUSINESS, server_default="")
    """By which name the store knows the contract (GDPR, Art. 28(3))."""
    contract_on: Mapped[date | None]
    safeguards: Mapped[str] = mapped_column(info=_BUSINESS, server_default="")
    """Of data that leaves the EEA (GDPR, Art. 46)."""
    registered_at: Mapped[datetime]
    reached_at: Mapped[datetime | None]
    """When it last took something."""
    version: Mapped[int] = mapped_column(server_default="1")


class RecipientSecret(Base):
    """What signs deliveries to a recipient and its answers: the newest, and while it changes the one before."""

    __tablename__ = "recipient_secret"
    __table_args__ = (Index("ix_recipient_secret_recipient_id", "recipient_id", "made_at"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    recipient_id: Mapped[UUID]
    store_id: Mapped[UUID]
    wrapped: Mapped[bytes] = mapped_column(info=impersonal("a random secret, encrypted"))
    made_at: Mapped[datetime]
    ends_at: Mapped[datetime | None]
    """Of one that was replaced: until then it counts as well."""


class Delivery(Base):
    """Something that is sent to a recipient until it has taken it. `id` is its webhook-id, `body` the same at every
    try: sealed with the request that it is about. A test, and the end of a store, are about nobody and have none.
    """

    __tablename__ = "delivery"
    __table_args__ = (
        CheckConstraint(f"state IN ({_words(DeliveryState)})", name="state"),
        CheckConstraint("(request_id IS NULL) = (subject_id IS NULL)", name="person"),
        Index(
            "uq_delivery_part", "request_id", "recipient_id", "what", "round", unique=True,
            postgresql_where=text("request_id IS NOT NULL"),
        ),
        Index(
            "uq_delivery_store_ended", "recipient_id", unique=True,
            postgresql_where=text(f"what = '{STORE_ENDED}'"),
        ),
        Index("ix_delivery_due", "next_try_at", postgresql_where=text("next_try_at IS NOT NULL")),
        Index(
            "ix_delivery_on_its_way", "recipient_id",
            postgresql_where=text("state IN ('collecting', 'sending', 'received', 'stuck')"),
        ),
        Index("ix_delivery_listing", "store_id", "recipient_id", "made_at", "id"),
        Index("ix_delivery_subject", "store_id", "subject_id"),
    )  # fmt: skip

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    store_id: Mapped[UUID]
    recipient_id: Mapped[UUID]
    what: Mapped[str] = mapped_column(info=_WORD)
    """The verb of a task, or what else is sent."""
    request_id: Mapped[UUID | None]
    subject_id: Mapped[UUID | None]
    generation: Mapped[int | None]
    round: Mapped[int] = mapped_column(server_default="1")
    """Of its request: what is sent for a later one replaces it."""
    state: Mapped[str] = mapped_column(info=_WORD)
    body: Mapped[Sealed[DeliveryBody] | None] = mapped_column(SealedColumn(DeliveryBody))
    memo: Mapped[dict[str, Any] | None] = mapped_column(JSONB, info=impersonal("ids and times of a protocol"))
    """What a protocol has to remember between two calls."""
    attempts: Mapped[int] = mapped_column(server_default="0")
    failures: Mapped[int] = mapped_column(server_default="0")
    """Tries in a row that came to nothing: by these the pauses grow."""
    next_try_at: Mapped[datetime | None]
    """None while it waits for something else than time."""
    made_at: Mapped[datetime]
    taken_at: Mapped[datetime | None]
    """When the recipient acknowledged it."""
    answered_at: Mapped[datetime | None]
    answer_hash: Mapped[bytes | None] = mapped_column(info=impersonal("SHA-256 of an outcome"))


class DeliveryAttempt(Base):
    """One try: when, how it was answered, how long that took, and in a fixed word what was wrong."""

    __tablename__ = "delivery_attempt"
    __table_args__ = (PrimaryKeyConstraint("delivery_id", "number"),)

    delivery_id: Mapped[UUID]
    number: Mapped[int]
    store_id: Mapped[UUID]
    at: Mapped[datetime]
    status: Mapped[int | None]
    """Of HTTP; none where there was no reply."""
    milliseconds: Mapped[int]
    word: Mapped[str] = mapped_column(info=_WORD)
    """Empty where all went well."""


class RequestReference(Base):
    """By what outsiders know the person of a request, as one participant has said before anything was done."""

    __tablename__ = "request_reference"
    __table_args__ = (
        PrimaryKeyConstraint("request_id", "participant", "round"),
        Index("ix_request_reference_subject", "store_id", "subject_id"),
    )

    request_id: Mapped[UUID]
    participant: Mapped[str] = mapped_column(info=impersonal("name of a service"))
    round: Mapped[int]
    store_id: Mapped[UUID]
    subject_id: Mapped[UUID]
    generation: Mapped[int]
    box: Mapped[Sealed[References]] = mapped_column(SealedColumn(References))
    kept_at: Mapped[datetime] = mapped_column(server_default=func.now())
