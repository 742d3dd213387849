"""Identity's tables. Whatever names or describes a person is in a box; e-mails are found by blind index only."""

from datetime import date, datetime
from uuid import UUID, uuid4

from sqlalchemy import CheckConstraint, ForeignKey, Index, MetaData, UniqueConstraint, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from libs.common import db
from libs.common.db import impersonal
from libs.common.personal.data import Sealed, SealedColumn
from libs.common.throttle import Counting
from services.identity.kinds import Credentials, FurtherEmail, Profile


class Base(db.Base):
    """Tables of this service alone; the common ones stay where they are declared."""

    __abstract__ = True
    metadata = MetaData(naming_convention=db.Base.metadata.naming_convention)


class Account(Base):
    """A person who showed that their e-mail is theirs. Without a row, or without its keys, nobody signs in."""

    __tablename__ = "account"
    __table_args__ = (
        UniqueConstraint("store_id", "email_index"),
        Index("ix_account_subject", "store_id", "subject_id"),
        Index(
            "ix_account_ends_at", "ends_at",
            postgresql_where=text("closed_at IS NOT NULL AND ended_at IS NULL"),
        ),
        Index("ix_account_remind_at", "remind_at", postgresql_where=text("remind_at IS NOT NULL")),
    )  # fmt: skip

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    store_id: Mapped[UUID]
    subject_id: Mapped[UUID]
    generation: Mapped[int]
    email_index: Mapped[bytes] = mapped_column(info=impersonal("blind index of the e-mail, keyed per store"))
    profile: Mapped[Sealed[Profile]] = mapped_column(SealedColumn(Profile))
    credentials: Mapped[Sealed[Credentials]] = mapped_column(SealedColumn(Credentials))
    version: Mapped[int] = mapped_column(default=1)
    confirmed_at: Mapped[datetime] = mapped_column(server_default=func.now())
    closed_at: Mapped[datetime | None]
    """Since when nobody signs in but to bring it back."""
    ends_at: Mapped[datetime | None]
    """From then on nobody does at all."""
    remind_at: Mapped[datetime | None]
    """When the mail that says so once more is due; None once it is written, or where there is not the time."""
    ended_at: Mapped[datetime | None]
    """When it was said that the person is to be erased."""


class AccountSettings(Base):
    """What a store has decided about the accounts of its customers; else as `domain` has it."""

    __tablename__ = "account_settings"
    __table_args__ = (CheckConstraint("grace_days BETWEEN 0 AND 365", name="grace_days"),)

    store_id: Mapped[UUID] = mapped_column(primary_key=True)
    grace_days: Mapped[int]
    version: Mapped[int]


class SignUp(Base):
    """An account that waits for its confirmation: the newest of an e-mail, with the password of that sign-up."""

    __tablename__ = "sign_up"
    __table_args__ = (
        UniqueConstraint("store_id", "email_index"),
        UniqueConstraint("store_id", "token_hash"),
        Index("ix_sign_up_subject", "store_id", "subject_id"),
        Index("ix_sign_up_expires_at", "expires_at"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    store_id: Mapped[UUID]
    subject_id: Mapped[UUID]
    generation: Mapped[int]
    email_index: Mapped[bytes] = mapped_column(info=impersonal("blind index of the e-mail, keyed per store"))
    token_hash: Mapped[bytes] = mapped_column(info=impersonal("hash of a random token"))
    profile: Mapped[Sealed[Profile] | None] = mapped_column(SealedColumn(Profile))
    credentials: Mapped[Sealed[Credentials] | None] = mapped_column(SealedColumn(Credentials))
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]


class AccountEmail(Base):
    """Another address of an account, or one that waits for its confirmation."""

    __tablename__ = "account_email"
    __table_args__ = (
        UniqueConstraint("account_id", "email_subject_id"),
        UniqueConstraint("store_id", "token_hash"),
        Index("ix_account_email_subject", "store_id", "subject_id"),
        Index("ix_account_email_expires_at", "expires_at"),
        Index(
            "uq_account_email_confirmed", "store_id", "email_subject_id", unique=True,
            postgresql_where=text("confirmed_at IS NOT NULL"),
        ),
    )  # fmt: skip

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    store_id: Mapped[UUID]
    account_id: Mapped[UUID] = mapped_column(ForeignKey("account.id", ondelete="CASCADE"))
    subject_id: Mapped[UUID]
    """Of the account's owner, whose row it is."""
    generation: Mapped[int]
    email_subject_id: Mapped[UUID]
    """Whoever is known by this address: it is found by this, as an account is by its index."""
    email_generation: Mapped[int]
    token_hash: Mapped[bytes] = mapped_column(info=impersonal("hash of a random token"))
    box: Mapped[Sealed[FurtherEmail]] = mapped_column(SealedColumn(FurtherEmail))
    asked_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    """Of the link; an address that is confirmed stays."""
    confirmed_at: Mapped[datetime | None]


class AccountSession(Base):
    """A family of refresh tokens that began with one sign-in. No device or browser is recorded."""

    __tablename__ = "account_session"
    __table_args__ = (
        UniqueConstraint("family"),
        Index("ix_account_session_account_id", "account_id"),
        Index("ix_account_session_subject", "store_id", "subject_id"),
        Index("ix_account_session_expires_at", "expires_at"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    store_id: Mapped[UUID]
    account_id: Mapped[UUID] = mapped_column(ForeignKey("account.id", ondelete="CASCADE"))
    subject_id: Mapped[UUID]
    generation: Mapped[int]
    family: Mapped[UUID]
    """Names the session in its refresh tokens and nowhere else: only who held one can name it."""
    current_hash: Mapped[bytes] = mapped_column(info=impersonal("hash of a random token"))
    previous_hash: Mapped[bytes | None] = mapped_column(info=impersonal("hash of a random token"))
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    rotated_at: Mapped[datetime | None]
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]


class Store(Base):
    """A shop, or the platform itself. Nothing here is about a person: the name is a trading name."""

    __tablename__ = "store"
    __table_args__ = (
        UniqueConstraint("slug"),
        CheckConstraint("state IN ('open', 'closed', 'ended')", name="state"),
        Index("ix_store_ends_at", "ends_at", postgresql_where=text("state = 'closed'")),
        Index("ix_store_remind_at", "remind_at", postgresql_where=text("remind_at IS NOT NULL")),
        Index(
            "ix_store_untold", "store_id",
            postgresql_where=text("erased_at IS NOT NULL AND closed_by IS NOT NULL"),
        ),
    )  # fmt: skip

    store_id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    slug: Mapped[str] = mapped_column(info=impersonal("the store's public name in addresses"))
    name: Mapped[str] = mapped_column(info=impersonal("a trading name"))
    country: Mapped[str] = mapped_column(info=impersonal("ISO 3166-1"))
    currency: Mapped[str] = mapped_column(info=impersonal("ISO 4217"))
    language: Mapped[str] = mapped_column(info=impersonal("BCP 47"))
    version: Mapped[int] = mapped_column(default=1)
    opened_at: Mapped[datetime] = mapped_column(server_default=func.now())
    state: Mapped[str] = mapped_column(info=impersonal("a fixed word"), server_default="open")
    closed_at: Mapped[datetime | None]
    ends_at: Mapped[datetime | None]
    remind_at: Mapped[datetime | None]
    """As of an account."""
    closed_by: Mapped[UUID | None]
    """The owner, who is told how it goes on; None once all is said."""
    ended_at: Mapped[datetime | None]
    erased_at: Mapped[datetime | None]
    """When the last service had removed what it held."""
    kept_until: Mapped[date | None]
    """The last day of what the law keeps."""


class Membership(Base):
    """What an account of the platform's store may do at a shop."""

    __tablename__ = "membership"
    __table_args__ = (Index("ix_membership_account_id", "account_id"),)

    store_id: Mapped[UUID] = mapped_column(ForeignKey("store.store_id", ondelete="CASCADE"), primary_key=True)
    account_id: Mapped[UUID] = mapped_column(ForeignKey("account.id", ondelete="CASCADE"), primary_key=True)
    role: Mapped[str] = mapped_column(info=impersonal("a role of staff"))


class Attempts(Counting, Base):
    """Sign-ups and sign-ins, by the keyed hash of an e-mail or of a client's address."""


class SigningKey(Base):
    """A key pair for access tokens. The platform's, not a store's."""

    __tablename__ = "signing_key"

    key_id: Mapped[str] = mapped_column(primary_key=True, info=impersonal("thumbprint of a key"))
    public: Mapped[dict[str, str]] = mapped_column(JSONB, info=impersonal("a public JWK"))
    wrapped: Mapped[bytes] = mapped_column(info=impersonal("a private JWK under the master key"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    active_from: Mapped[datetime]
    retired_at: Mapped[datetime | None]
    """From then on it is neither used nor published."""
