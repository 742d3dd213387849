"""The rules of money owed: when it may be paid, what is booked, how invoices are numbered.

EXPECTED ──confirmed──▶ OPEN ──paid──▶ PAID
    └──────┬─────────────┘
     refused, cancelled ──▶ VOID
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum

from libs.common.errors import Conflict, Unprocessable
from libs.common.money import Money


class State(StrEnum):
    """What became of the money of one order."""

    EXPECTED = "expected"
    OPEN = "open"
    PAID = "paid"
    VOID = "void"


class Method(StrEnum):
    """How money reaches a merchant without a payment provider."""

    BANK_TRANSFER = "bank_transfer"
    PAYMENT_ON_DELIVERY = "payment_on_delivery"


class Account(StrEnum):
    """The accounts of the ledger, by their codes in the French chart of accounts."""

    CUSTOMERS = "411"
    BANK = "512"
    CASH = "530"
    SALES = "707"


class EntryKind(StrEnum):
    """Why an entry was made."""

    SALE = "sale"
    PAYMENT = "payment"


# --- What can be refused ---------------------------------------------------------------------------------


class NotDueYet(Conflict):
    """The order is not confirmed: its stock may still be refused."""

    slug = "payment-not-due-yet"
    title = "This order is not confirmed yet"
    detail = "Record the payment once the order is confirmed."


class AlreadyPaid(Conflict):
    """An order is paid once."""

    slug = "already-paid"
    title = "This order is paid already"


class NothingDue(Conflict):
    """The order was refused or cancelled."""

    slug = "nothing-due"
    title = "Nothing is due for this order"
    detail = "The order was refused or cancelled; send the money back."


class NotTheAmountDue(Unprocessable):
    """An order is paid in full, in its own currency, in one payment. `due` says how much."""

    slug = "not-the-amount-due"
    title = "This is not the amount that is due"

    def __init__(self, due: Money) -> None:
        super().__init__("See due for the exact amount.", due=due.model_dump())


class ImpossibleDay(Unprocessable):
    """Money for an order comes between the day of the order and today."""

    slug = "impossible-day"
    title = "The payment cannot have been received on this day"
    detail = "Give a day from the day of the order to today."


# --- Receivables -----------------------------------------------------------------------------------------

_RANK = {State.EXPECTED: 0, State.OPEN: 1, State.VOID: 2, State.PAID: 3}


def after(state: State, heard: State) -> State:
    """The state once orders has said that an order is open (confirmed) or void (refused, cancelled).

    The same whatever the order in which it is heard: a void order is never due again, and what is paid
    stays paid until it is paid back.
    """
    return max(state, heard, key=_RANK.__getitem__)


@dataclass(frozen=True, slots=True)
class Due:
    """What is owed for an order, how the customer chose to pay it, and the day of the order."""

    state: State
    amount: Money
    method: Method
    placed_on: date


def check_payment(due: Due, amount: Money, *, received_on: date, today: date) -> None:
    """Raises NotDueYet, AlreadyPaid, NothingDue, NotTheAmountDue, ImpossibleDay."""
    if due.state is State.PAID:
        raise AlreadyPaid
    if due.state is State.VOID:
        raise NothingDue
    # Who is paid on delivery has delivered: the confirmation is only late.
    if due.state is State.EXPECTED and due.method is not Method.PAYMENT_ON_DELIVERY:
        raise NotDueYet
    if amount != due.amount:
        raise NotTheAmountDue(due.amount)
    # The dates are UTC's; at the merchant's it can be a day earlier or later.
    if not due.placed_on - timedelta(days=1) <= received_on <= today + timedelta(days=1):
        raise ImpossibleDay


# --- The ledger ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Posting:
    """One side of an entry: minor units on the debit or on the credit of an account."""

    account: Account
    currency: str
    debit: int = 0
    credit: int = 0


def sale(total: Money) -> tuple[Posting, Posting]:
    """An invoice: the customer owes what the store has sold."""
    return _transfer(total, debit=Account.CUSTOMERS, credit=Account.SALES)


def payment(amount: Money, method: Method) -> tuple[Posting, Posting]:
    """Money received: the customer owes it no longer."""
    received = Account.BANK if method is Method.BANK_TRANSFER else Account.CASH
    return _transfer(amount, debit=received, credit=Account.CUSTOMERS)


def _transfer(amount: Money, *, debit: Account, credit: Account) -> tuple[Posting, Posting]:
    return (
        Posting(debit, amount.currency, debit=amount.amount),
        Posting(credit, amount.currency, credit=amount.amount),
    )


def is_balanced(postings: Sequence[Posting]) -> bool:
    """Whether debits equal credits in every currency."""
    balance: dict[str, int] = {}
    for posting in postings:
        balance[posting.currency] = balance.get(posting.currency, 0) + posting.debit - posting.credit
    return not any(balance.values())


# --- Invoices --------------------------------------------------------------------------------------------


def invoice_number(year: int, sequence: int) -> str:
    """`2026-000001`: without gaps for one store and year."""
    return f"{year}-{sequence:06d}"
