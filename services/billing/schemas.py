"""What billing's routes take and give. Amounts are minor units of an ISO 4217 currency."""

from datetime import date, datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from libs.common.events.orders import Address, OrderLine, PaymentMethod
from libs.common.money import Currency, Money
from services.billing.domain import Account, EntryKind, Method, State

ExternalId = Annotated[
    str,
    Field(
        min_length=1,
        max_length=40,
        pattern=r"^[A-Za-z0-9-]+$",
        description="The bank's id of the transaction. Not its text, which may name a person.",
    ),
]
InvoiceNumber = Annotated[
    str, Field(examples=["2026-000001"], description="Without gaps in a store and year.")
]


class NewPayment(BaseModel):
    """Money received for an order, in full."""

    model_config = ConfigDict(extra="forbid")

    amount: Money
    method: Method
    received_on: date
    external_id: ExternalId | None = None


class BookedPayment(BaseModel):
    """The payment as booked, and the invoice it led to."""

    id: UUID
    order_id: UUID
    amount: Money
    method: Method
    received_on: date
    external_id: str | None
    invoice_id: UUID
    invoice_number: InvoiceNumber


class ReceivableView(BaseModel):
    """What is owed for an order. `expected`: not confirmed yet; `void`: nothing is owed after all."""

    order_id: UUID
    number: str = Field(description="The order's number.")
    state: State
    amount: Money
    payment_method: PaymentMethod
    lines: list[OrderLine]
    placed_at: datetime


class Seller(BaseModel):
    """The store as it was when it issued the invoice."""

    name: str
    country: str = Field(description="ISO 3166-1 alpha-2.")


class InvoiceSummary(BaseModel):
    """An invoice in a list."""

    id: UUID
    number: InvoiceNumber
    order_id: UUID
    total: Money
    issued_at: datetime
    kept_until: date = Field(description="The law asks for it until this day.")


class Buyer(BaseModel):
    """Who is invoiced."""

    name: str
    address: Address


class BuyerCorrection(BaseModel):
    """What an invoice should say of who is invoiced. Null where it is right as it is."""

    noted_at: datetime
    name: str | None
    address: Address | None


class InvoiceView(InvoiceSummary):
    """A whole invoice."""

    seller: Seller
    buyer: Buyer | None = Field(description="Null when this person's data was erased or is on hold.")
    corrections: list[BuyerCorrection] = Field(
        description="Kept beside the invoice, which is issued and stays as it is; the newest last."
    )
    on_hold: bool = Field(False, description="The person has had the processing of their data restricted.")
    lines: list[OrderLine]


class Balance(BaseModel):
    """The sums of one account in one currency, and debit less credit."""

    account: Account
    name: str
    currency: Currency
    debit: int
    credit: int
    balance: int


class Balances(BaseModel):
    """Every account that has postings. The balances of a currency add up to zero."""

    items: list[Balance]


class PostingView(BaseModel):
    """One side of an entry."""

    account: Account
    currency: Currency
    debit: int
    credit: int


class EntryView(BaseModel):
    """One booking."""

    number: str = Field(examples=["2026-1"], description="Year and number, without gaps in a store and year.")
    kind: EntryKind
    occurred_on: date
    booked_at: datetime
    order_id: UUID
    payment_id: UUID | None
    invoice_id: UUID | None
    postings: list[PostingView]
