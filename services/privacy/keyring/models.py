"""What the keyring keeps. People's keys are wrapped by keys of their store, and these by a master key that is not in
the database.
"""

from datetime import date, datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, MetaData, SmallInteger, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from libs.common.db import Base, impersonal


class KeyringBase(Base):
    """The tables of this database only."""

    __abstract__ = True
    metadata = MetaData(naming_convention=Base.metadata.naming_convention)


_BY_ONE = "num_nonnulls(master_key_id, tenant_key_id) = 1"


class TenantKey(KeyringBase):
    """A store's own key: without the ordinary one, no key of its people opens, wherever its bytes survive."""

    __tablename__ = "tenant_key"
    __table_args__ = (
        UniqueConstraint("store_id", "kind"),
        CheckConstraint("kind IN ('ordinary', 'kept-by-law')", name="kind"),
        CheckConstraint("(wrapped IS NULL) = (master_key_id IS NULL)", name="wrapped"),
    )

    key_id: Mapped[UUID] = mapped_column(primary_key=True)
    store_id: Mapped[UUID]
    kind: Mapped[str] = mapped_column(info=impersonal("ordinary or kept-by-law"))
    wrapped: Mapped[bytes | None] = mapped_column(info=impersonal("a wrapped random key"))
    """None once it is destroyed. The row stays, so that no other takes its place."""
    master_key_id: Mapped[str | None] = mapped_column(info=impersonal("fingerprint of a master key"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    retired_at: Mapped[datetime | None]
    """Since when no key is made under it any more: it is being destroyed."""


class StoreSecret(KeyringBase):
    """From which a store's services derive subject ids, which never change."""

    __tablename__ = "store_secret"
    __table_args__ = (CheckConstraint(_BY_ONE, name="wrapped_by_one"),)

    store_id: Mapped[UUID] = mapped_column(primary_key=True)
    wrapped: Mapped[bytes] = mapped_column(info=impersonal("a wrapped random secret"))
    master_key_id: Mapped[str | None] = mapped_column(info=impersonal("fingerprint of a master key"))
    tenant_key_id: Mapped[UUID | None]
    """Which wraps it; None for one that a master key wraps, from before stores had keys of their own."""


class IndexSecret(KeyringBase):
    """From which a store's services derive blind indexes: one an epoch, the newest whose time has come for what is new.

    A store without a row derives them from its `StoreSecret`, as all did once: that is epoch 0.
    """

    __tablename__ = "index_secret"

    store_id: Mapped[UUID] = mapped_column(primary_key=True)
    epoch: Mapped[int] = mapped_column(primary_key=True)
    wrapped: Mapped[bytes] = mapped_column(info=impersonal("a wrapped random secret"))
    master_key_id: Mapped[str] = mapped_column(info=impersonal("fingerprint of a master key"))
    writes_from: Mapped[datetime] = mapped_column(server_default=func.now())
    """When every process knows it: until then it only looks up."""


class IndexReport(KeyringBase):
    """A service has no row left that is indexed by an epoch before this one."""

    __tablename__ = "index_report"

    store_id: Mapped[UUID] = mapped_column(primary_key=True)
    epoch: Mapped[int] = mapped_column(primary_key=True)
    service: Mapped[str] = mapped_column(primary_key=True, info=impersonal("name of a service"))
    reported_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Subject(KeyringBase):
    """One person at one store, and the generation that lives now unless `erased_at` says otherwise."""

    __tablename__ = "subject"

    store_id: Mapped[UUID] = mapped_column(primary_key=True)
    subject_id: Mapped[UUID] = mapped_column(primary_key=True)
    generation: Mapped[int]
    generation_id: Mapped[UUID] = mapped_column(unique=True)
    """A random id that enters the destruction log with the generation's keys: a restored keyring learns from
    it that the generation is over, though the log names no person."""
    begun_at: Mapped[datetime | None]
    """When a live command began the generation; None when an event did."""
    erased_at: Mapped[datetime | None]


class DataKey(KeyringBase):
    """One key of one person for one retention: the newest epoch that is active and not retired seals."""

    __tablename__ = "data_key"
    __table_args__ = (
        UniqueConstraint(
            "store_id", "subject_id", "generation", "retention", "bucket", "epoch", name="uq_data_key_place"
        ),
        CheckConstraint("state IN ('active', 'restricted')", name="state"),
        CheckConstraint(_BY_ONE, name="wrapped_by_one"),
        Index("ix_data_key_restricted", "key_id", postgresql_where=text("state = 'restricted'")),
        Index("ix_data_key_retired", "key_id", postgresql_where=text("retired_at IS NOT NULL")),
    )

    key_id: Mapped[UUID] = mapped_column(primary_key=True)
    store_id: Mapped[UUID]
    subject_id: Mapped[UUID]
    generation: Mapped[int]
    retention: Mapped[str] = mapped_column(info=impersonal("a word of the vocabulary"))
    bucket: Mapped[str] = mapped_column(info=impersonal("a year or the id of a request"))
    wrapped: Mapped[bytes] = mapped_column(info=impersonal("a wrapped random key"))
    master_key_id: Mapped[str | None] = mapped_column(info=impersonal("fingerprint of a master key"))
    tenant_key_id: Mapped[UUID | None]
    """As of a StoreSecret."""
    state: Mapped[str] = mapped_column(info=impersonal("active or restricted"), server_default="active")
    expires_on: Mapped[date | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    epoch: Mapped[int] = mapped_column(server_default="1")
    """Counts the keys of a place: one that is restricted or retired seals no more, and the next takes over."""
    retired_at: Mapped[datetime | None]
    """Since when it opens and seals no more: what lies under it is being sealed anew or deleted."""


class EndedBucket(KeyringBase):
    """What it was for is over, and so is the time for which it was kept: nothing is sealed in it again."""

    __tablename__ = "ended_bucket"
    __table_args__ = (Index("ix_ended_bucket_ended_at", "ended_at"),)

    store_id: Mapped[UUID] = mapped_column(primary_key=True)
    subject_id: Mapped[UUID] = mapped_column(primary_key=True)
    generation: Mapped[int] = mapped_column(primary_key=True)
    retention: Mapped[str] = mapped_column(primary_key=True, info=impersonal("a word of the vocabulary"))
    bucket: Mapped[str] = mapped_column(primary_key=True, info=impersonal("a year, or an id"))
    ended_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Objection(KeyringBase):
    """A person does not want their data used for a purpose (GDPR, Art. 21), by whichever key."""

    __tablename__ = "objection"

    store_id: Mapped[UUID] = mapped_column(primary_key=True)
    subject_id: Mapped[UUID] = mapped_column(primary_key=True)
    generation: Mapped[int] = mapped_column(primary_key=True)
    purpose: Mapped[str] = mapped_column(primary_key=True, info=impersonal("a word of the vocabulary"))
    objected_at: Mapped[datetime] = mapped_column(server_default=func.now())


class OpeningCount(KeyringBase):
    """How many keys a service was given for a purpose on a day (UTC): the sum over the slots."""

    __tablename__ = "opening_count"

    day: Mapped[date] = mapped_column(primary_key=True)
    service: Mapped[str] = mapped_column(primary_key=True, info=impersonal("name of a service"))
    purpose: Mapped[str] = mapped_column(primary_key=True, info=impersonal("a word of the vocabulary"))
    slot: Mapped[int] = mapped_column(SmallInteger, primary_key=True)
    """Whoever counts holds its row until the commit is on the disk, so connections have rows of their own."""
    count: Mapped[int]


# --- Backups ---------------------------------------------------------------------------------------------


class LogSeen(KeyringBase):
    """Which destruction log this keyring wrote to, and one of the keys it wrote last: a log without either is not the
    one that says what is gone. One row.
    """

    __tablename__ = "log_seen"
    __table_args__ = (CheckConstraint("only_row", name="only_row"),)

    only_row: Mapped[bool] = mapped_column(primary_key=True, server_default="true")
    log_id: Mapped[UUID | None]
    key_id: Mapped[UUID | None]


class Restoration(KeyringBase):
    """One return to an earlier state, as `libs.common.personal.restorations` has it of a service."""

    __tablename__ = "restoration"

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.gen_random_uuid())
    taken_at: Mapped[datetime]
    restored_at: Mapped[datetime] = mapped_column(server_default=func.now())
    announced_at: Mapped[datetime | None]
    indexed_at: Mapped[datetime | None]
