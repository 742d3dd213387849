"""The destruction log: which keys are gone. It lives apart from the keyring and outlives the keyring's backups."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, MetaData, func
from sqlalchemy.orm import Mapped, mapped_column

from libs.common.db import Base


class DestructionsBase(Base):
    """The tables of this database only."""

    __abstract__ = True
    metadata = MetaData(naming_convention=Base.metadata.naming_convention)


class DestroyedKey(DestructionsBase):
    """A random id and a time. It says nothing of whose key it was, so it can be kept for ever."""

    __tablename__ = "destroyed_key"

    key_id: Mapped[UUID] = mapped_column(primary_key=True)
    destroyed_at: Mapped[datetime] = mapped_column(server_default=func.now())


class LogIdentity(DestructionsBase):
    """Which log this is: one row. A log that begins anew has another id, and a restored one gets its own back."""

    __tablename__ = "log_identity"
    __table_args__ = (CheckConstraint("only_row", name="only_row"),)

    only_row: Mapped[bool] = mapped_column(primary_key=True, server_default="true")
    id: Mapped[UUID] = mapped_column(server_default=func.gen_random_uuid())
