"""The rules alone: states, what may be booked, what balances."""

from collections.abc import Sequence
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.errors import Problem
from libs.common.money import Money
from services.billing.domain import (
    Account,
    AlreadyPaid,
    Due,
    ImpossibleDay,
    Method,
    NotDueYet,
    NothingDue,
    NotTheAmountDue,
    Posting,
    State,
    after,
    check_payment,
    invoice_number,
    is_balanced,
    payment,
    sale,
)

PLACED_ON = date(2026, 3, 10)
TODAY = date(2026, 3, 20)
TEN = Money(amount=1000, currency="EUR")
DUE = Due(State.OPEN, TEN, Method.BANK_TRANSFER, PLACED_ON)
amounts = st.builds(
    Money, amount=st.integers(min_value=0, max_value=10**12), currency=st.sampled_from(["EUR", "USD", "JPY"])
)
heard = st.lists(st.sampled_from([State.OPEN, State.VOID]), max_size=6)


def fold(state: State, said: Sequence[State]) -> State:
    for one in said:
        state = after(state, one)
    return state


@given(heard, st.randoms())
def test_what_is_heard_in_any_order_and_often_ends_in_the_same_state(
    said: list[State], random: object
) -> None:
    shuffled = said + said
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert fold(State.EXPECTED, shuffled) == fold(State.EXPECTED, said)


@given(heard)
def test_void_and_paid_are_never_left(said: list[State]) -> None:
    assert fold(State.VOID, said) is State.VOID
    assert fold(State.PAID, said) is State.PAID


def test_a_confirmed_order_is_due_and_a_cancelled_one_is_not() -> None:
    assert after(State.EXPECTED, State.OPEN) is State.OPEN
    assert after(State.OPEN, State.VOID) is State.VOID


def test_the_exact_amount_may_be_booked() -> None:
    check_payment(DUE, TEN, received_on=TODAY, today=TODAY)


@given(amounts.filter(lambda amount: amount != TEN))
def test_any_other_amount_is_refused_and_the_due_one_named(amount: Money) -> None:
    with pytest.raises(NotTheAmountDue) as refused:
        check_payment(DUE, amount, received_on=TODAY, today=TODAY)
    assert refused.value.document()["due"] == {"amount": 1000, "currency": "EUR"}


@pytest.mark.parametrize(
    ("state", "method", "problem"),
    [
        (State.EXPECTED, Method.BANK_TRANSFER, NotDueYet),
        (State.EXPECTED, Method.PAYMENT_ON_DELIVERY, None),
        (State.PAID, Method.BANK_TRANSFER, AlreadyPaid),
        (State.PAID, Method.PAYMENT_ON_DELIVERY, AlreadyPaid),
        (State.VOID, Method.BANK_TRANSFER, NothingDue),
        (State.VOID, Method.PAYMENT_ON_DELIVERY, NothingDue),
    ],
)
def test_only_what_is_due_may_be_paid(state: State, method: Method, problem: type[Problem] | None) -> None:
    due = Due(state, TEN, method, PLACED_ON)
    if problem is None:
        check_payment(due, TEN, received_on=TODAY, today=TODAY)
    else:
        with pytest.raises(problem):
            check_payment(due, TEN, received_on=TODAY, today=TODAY)


@given(st.dates(min_value=date(2020, 1, 1), max_value=date(2030, 1, 1)))
def test_money_comes_between_the_order_and_today(received_on: date) -> None:
    a_day = timedelta(days=1)
    if PLACED_ON - a_day <= received_on <= TODAY + a_day:
        check_payment(DUE, TEN, received_on=received_on, today=TODAY)
    else:
        with pytest.raises(ImpossibleDay):
            check_payment(DUE, TEN, received_on=received_on, today=TODAY)


@given(st.lists(st.tuples(amounts, st.sampled_from(Method))))
def test_any_sequence_of_payments_keeps_the_ledger_balanced(paid: list[tuple[Money, Method]]) -> None:
    ledger: list[Posting] = []
    for amount, method in paid:
        for entry in (sale(amount), payment(amount, method)):
            assert is_balanced(entry)
            ledger += entry
    assert is_balanced(ledger)
    assert is_balanced([posting for posting in ledger if posting.account is Account.CUSTOMERS])


def test_an_unbalanced_entry_is_noticed() -> None:
    assert not is_balanced(
        [Posting(Account.BANK, "EUR", debit=10), Posting(Account.CUSTOMERS, "USD", credit=10)]
    )


@given(st.integers(min_value=1, max_value=10**7), st.integers(min_value=1, max_value=10**7))
def test_invoice_numbers_differ(one: int, other: int) -> None:
    assert (invoice_number(2026, one) == invoice_number(2026, other)) == (one == other)
    assert invoice_number(2026, 1) == "2026-000001"
