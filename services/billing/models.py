"""Billing's tables. The ledger's are append-only: triggers refuse any change, whoever makes it."""

from datetime import date, datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from libs.common import db
from libs.common.db import impersonal
from libs.common.events.orders import OrderContact
from libs.common.money import Money
from libs.common.personal.data import Sealed, SealedColumn
from services.billing.kinds import CorrectedInvoice, InvoiceContact

_WORD = impersonal("a fixed word")
_CURRENCY = impersonal("ISO 4217")
_LINES = impersonal("titles, quantities and prices of what was bought")


class Base(db.Base):
    """Billing's own tables."""

    __abstract__ = True
    metadata = MetaData(naming_convention=db.Base.metadata.naming_convention)


class Receivable(Base):
    """What is owed for one order. The contact is here until the order is invoiced or void, and beyond its payment
    while it is on hold: the invoice gets it afterwards."""

    __tablename__ = "receivable"
    __table_args__ = (
        CheckConstraint("state IN ('expected', 'open', 'paid', 'void')", name="state"),
        CheckConstraint("amount >= 0", name="amount"),
        Index("ix_receivable_listing", "store_id", "placed_at", "order_id"),
        Index("ix_receivable_by_state", "store_id", "state", "placed_at", "order_id"),
        Index("ix_receivable_subject", "store_id", "subject_id"),
        Index(
            "ix_receivable_on_hold",
            "order_id",
            postgresql_where=text("state = 'paid' AND contact IS NOT NULL"),
        ),
    )

    order_id: Mapped[UUID] = mapped_column(primary_key=True)
    store_id: Mapped[UUID]
    subject_id: Mapped[UUID | None]
    generation: Mapped[int]
    number: Mapped[str] = mapped_column(info=impersonal("the order's number"))
    state: Mapped[str] = mapped_column(info=_WORD)
    amount: Mapped[int]
    currency: Mapped[str] = mapped_column(info=_CURRENCY)
    payment_method: Mapped[str] = mapped_column(info=_WORD)
    lines: Mapped[list[dict[str, Any]]] = mapped_column(JSONB, info=_LINES)
    contact: Mapped[Sealed[OrderContact] | None] = mapped_column(SealedColumn(OrderContact))
    placed_at: Mapped[datetime]
    version: Mapped[int] = mapped_column(default=1)

    @property
    def due(self) -> Money:
        """The amount in its currency."""
        return Money(amount=self.amount, currency=self.currency)


class EarlyOrder(Base):
    """What was heard of an order before the order itself: `open` or `void`."""

    __tablename__ = "early_order"
    __table_args__ = (CheckConstraint("state IN ('open', 'void')", name="state"),)

    order_id: Mapped[UUID] = mapped_column(primary_key=True)
    store_id: Mapped[UUID]
    state: Mapped[str] = mapped_column(info=_WORD)
    heard_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Payment(Base):
    """Money that a merchant says has arrived. Never changed."""

    __tablename__ = "payment"
    __table_args__ = (
        CheckConstraint("amount >= 0", name="amount"),
        Index("ix_payment_order", "store_id", "order_id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    store_id: Mapped[UUID]
    order_id: Mapped[UUID] = mapped_column(ForeignKey("receivable.order_id"))
    amount: Mapped[int]
    currency: Mapped[str] = mapped_column(info=_CURRENCY)
    method: Mapped[str] = mapped_column(info=_WORD)
    received_on: Mapped[date]
    external_id: Mapped[str | None] = mapped_column(
        info=impersonal("a bank's id of a transaction: letters, digits and hyphens, no text")
    )
    recorded_by: Mapped[UUID]
    """The account of the member of staff."""
    booked_at: Mapped[datetime]


class Invoice(Base):
    """What was sold, for how much, by whom and to whom; kept for as long as the law asks."""

    __tablename__ = "invoice"
    __table_args__ = (
        UniqueConstraint("order_id"),
        UniqueConstraint("store_id", "year", "sequence"),
        Index("ix_invoice_subject", "store_id", "subject_id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    store_id: Mapped[UUID]
    order_id: Mapped[UUID] = mapped_column(ForeignKey("receivable.order_id"))
    year: Mapped[int]
    sequence: Mapped[int]
    number: Mapped[str] = mapped_column(info=impersonal("year and sequence"))
    subject_id: Mapped[UUID | None]
    generation: Mapped[int]
    contact: Mapped[Sealed[InvoiceContact] | None] = mapped_column(SealedColumn(InvoiceContact))
    seller_name: Mapped[str] = mapped_column(info=impersonal("a trading name"))
    seller_country: Mapped[str] = mapped_column(info=impersonal("ISO 3166-1"))
    lines: Mapped[list[dict[str, Any]]] = mapped_column(JSONB, info=_LINES)
    total_amount: Mapped[int]
    currency: Mapped[str] = mapped_column(info=_CURRENCY)
    issued_at: Mapped[datetime]
    kept_until: Mapped[date]
    version: Mapped[int] = mapped_column(default=1)

    @property
    def total(self) -> Money:
        """The total in its currency."""
        return Money(amount=self.total_amount, currency=self.currency)


class InvoiceCorrection(Base):
    """What an invoice should say, as its person asked and the store agreed. The invoice itself is not rewritten."""

    __tablename__ = "invoice_correction"
    __table_args__ = (
        PrimaryKeyConstraint("request_id", "invoice_id"),
        Index("ix_invoice_correction_invoice", "store_id", "invoice_id"),
        Index("ix_invoice_correction_subject", "store_id", "subject_id"),
    )

    request_id: Mapped[UUID]
    invoice_id: Mapped[UUID] = mapped_column(ForeignKey("invoice.id"))
    store_id: Mapped[UUID]
    subject_id: Mapped[UUID]
    generation: Mapped[int]
    year: Mapped[int]
    """Of the invoice: both are kept equally long."""
    box: Mapped[Sealed[CorrectedInvoice]] = mapped_column(SealedColumn(CorrectedInvoice))
    noted_at: Mapped[datetime] = mapped_column(server_default=func.now())


class NumberSeries(Base):
    """The last number given in a series of a store (`invoice/2026`); its row is locked until the number is used."""

    __tablename__ = "number_series"
    __table_args__ = (PrimaryKeyConstraint("store_id", "name"),)

    store_id: Mapped[UUID]
    name: Mapped[str] = mapped_column(info=impersonal("name of a series"))
    last: Mapped[int]


class JournalEntry(Base):
    """One booking: its postings balance. Numbered without gaps for each store and year."""

    __tablename__ = "journal_entry"
    __table_args__ = (
        UniqueConstraint("store_id", "id"),
        UniqueConstraint("store_id", "year", "number"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    store_id: Mapped[UUID]
    year: Mapped[int]
    number: Mapped[int]
    occurred_on: Mapped[date]
    kind: Mapped[str] = mapped_column(info=_WORD)
    order_id: Mapped[UUID] = mapped_column(ForeignKey("receivable.order_id"))
    payment_id: Mapped[UUID | None] = mapped_column(ForeignKey("payment.id"))
    invoice_id: Mapped[UUID | None] = mapped_column(ForeignKey("invoice.id"))
    booked_at: Mapped[datetime]


class PostingRow(Base):
    """One side of an entry, in minor units."""

    __tablename__ = "posting"
    __table_args__ = (
        PrimaryKeyConstraint("entry_id", "position"),
        ForeignKeyConstraint(["store_id", "entry_id"], ["journal_entry.store_id", "journal_entry.id"]),
        CheckConstraint("debit >= 0 AND credit >= 0 AND (debit = 0 OR credit = 0)", name="one_side"),
        Index("ix_posting_account", "store_id", "account", "currency"),
    )

    entry_id: Mapped[UUID]
    position: Mapped[int] = mapped_column(SmallInteger)
    store_id: Mapped[UUID]
    account: Mapped[str] = mapped_column(info=impersonal("code of an account"))
    debit: Mapped[int]
    credit: Mapped[int]
    currency: Mapped[str] = mapped_column(info=_CURRENCY)
