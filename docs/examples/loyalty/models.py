"""One table: a person's card. The name on it is personal and lies in a box; the points are a figure."""

from typing import Annotated
from uuid import UUID, uuid4

from pydantic import Field
from sqlalchemy import MetaData
from sqlalchemy.orm import Mapped, mapped_column

from libs.common import db
from libs.common.personal.data import PersonalData, Sealed, SealedColumn
from libs.common.personal.vocabulary import Category, LegalBasis, Purpose, Retention


class CardHolder(
    PersonalData,
    retention=Retention.ACCOUNT,
    purposes=[Purpose.PROVIDE_ACCOUNT],
    legal_basis=LegalBasis.CONTRACT,
):
    """What is printed on the card."""

    name: Annotated[str, Category("user.name"), Field(min_length=1, max_length=100)]


class Base(db.Base):
    """This service's own tables."""

    __abstract__ = True
    metadata = MetaData(naming_convention=db.Base.metadata.naming_convention)


class Card(Base):
    """A card at a store."""

    __tablename__ = "card"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    store_id: Mapped[UUID]
    subject_id: Mapped[UUID]
    generation: Mapped[int]
    holder: Mapped[Sealed[CardHolder]] = mapped_column(SealedColumn(CardHolder))
    points: Mapped[int] = mapped_column(default=0)
