from itertools import pairwise, permutations
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from libs.common.money import MAXIMUM, Money
from services.orders import domain
from services.orders.domain import Line, PaymentMethod, Standing, State

METHODS: tuple[PaymentMethod, ...] = ("bank_transfer", "payment_on_delivery")
OVER = {State.FULFILLED, State.REFUSED, State.CANCELLED}


class LifeOfAnOrder(RuleBasedStateMachine):
    """Anything may happen at any time; what the world knows is kept beside what the order says."""

    order: Standing

    @initialize(method=st.sampled_from(METHODS))
    def place(self, method: PaymentMethod) -> None:
        self.order = Standing(State.PLACED, method)
        self.history = [self.order]
        self.money = self.stock = False

    def _take(self, after: Standing) -> None:
        self.order = after
        self.history.append(after)

    @rule()
    def stock_reserved(self) -> None:
        self.stock = self.stock or self.order.state is State.PLACED
        self._take(domain.reserve(self.order))

    @rule()
    def stock_refused(self) -> None:
        self._take(domain.refuse(self.order))

    @rule()
    def payment_received(self) -> None:
        self.money = True
        self._take(domain.pay(self.order))

    @rule()
    def cancel(self) -> None:
        if self.order.state in domain.OPEN | {State.CANCELLED}:
            self._take(domain.cancel(self.order))
        else:
            with pytest.raises(domain.CannotBeCancelled):
                domain.cancel(self.order)

    @rule()
    def fulfil(self) -> None:
        on_delivery = self.order.payment_method == "payment_on_delivery"
        if self.order.state is State.PAID or (self.order.state is State.AWAITING_PAYMENT and on_delivery):
            self._take(domain.fulfil(self.order))
        else:
            with pytest.raises(domain.CannotBeFulfilled):
                domain.fulfil(self.order)

    @precondition(lambda self: self.order.state in OVER)
    @rule()
    def what_is_over_stays_over(self) -> None:
        assert domain.reserve(self.order) == domain.refuse(self.order) == self.order
        assert domain.pay(self.order).state is self.order.state

    @invariant()
    def money_is_never_forgotten(self) -> None:
        if hasattr(self, "order"):
            assert self.order.paid == self.money
            assert self.order.refund_due == (
                self.money and self.order.state in {State.REFUSED, State.CANCELLED}
            )

    @invariant()
    def no_order_waits_for_money_it_has(self) -> None:
        if hasattr(self, "order"):
            assert not (self.order.state is State.AWAITING_PAYMENT and self.money)

    @invariant()
    def nothing_leaves_without_stock_and_money_or_a_promise(self) -> None:
        if hasattr(self, "order") and self.order.state in {State.PAID, State.FULFILLED}:
            assert self.stock
            assert self.money or self.order.payment_method == "payment_on_delivery"

    @invariant()
    def what_is_over_was_over_before(self) -> None:
        if hasattr(self, "history"):
            states = [standing.state for standing in self.history]
            for before, after in pairwise(states):
                assert before is after or before not in OVER


TestLifeOfAnOrder = LifeOfAnOrder.TestCase


@pytest.mark.parametrize("method", METHODS)
def test_money_and_stock_in_any_order_and_number_end_alike(method: PaymentMethod) -> None:
    steps = [domain.reserve, domain.reserve, domain.pay, domain.pay]
    ends: set[Standing] = set()
    for sequence in permutations(steps):
        order = Standing(State.PLACED, method)
        for step in sequence:
            order = step(order)
        ends.add(order)
    assert ends == {Standing(State.PAID, method, paid=True)}


def test_money_for_refused_stock_is_due_back() -> None:
    order = domain.refuse(domain.pay(Standing(State.PLACED, "bank_transfer")))
    assert order.state is State.REFUSED
    assert order.refund_due
    assert domain.pay(domain.refuse(Standing(State.PLACED, "bank_transfer"))).refund_due


# --- Money -----------------------------------------------------------------------------------------------


def line(price: int = 100, quantity: int = 1, *, for_sale: bool = True, id_: UUID | None = None) -> Line:
    return Line(id_ or uuid4(), "sku", "title", quantity, price, for_sale)


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 999), st.booleans()), max_size=100))
def test_a_total_is_the_sum_of_what_is_for_sale(parts: list[tuple[int, int, bool]]) -> None:
    lines = [line(price, quantity, for_sale=for_sale) for price, quantity, for_sale in parts]
    expected = sum(price * quantity for price, quantity, for_sale in parts if for_sale)
    assert domain.total(lines, "EUR") == Money(amount=expected, currency="EUR")


def test_what_cannot_be_agreed_on() -> None:
    gone = line(for_sale=False)
    with pytest.raises(domain.CartEmpty):
        domain.agree([], "EUR", None)
    with pytest.raises(domain.NotForSale) as problem:
        domain.agree([line(), gone], "EUR", None)
    assert problem.value.extensions == {"variant_ids": [str(gone.variant_id)]}
    with pytest.raises(domain.TooMuch):
        domain.agree([line(MAXIMUM), line()], "EUR", None)
    with pytest.raises(domain.PriceChanged):
        domain.agree([line(100)], "EUR", Money(amount=99, currency="EUR"))
    with pytest.raises(domain.PriceChanged):
        domain.agree([line(100)], "EUR", Money(amount=100, currency="CHF"))
    assert domain.agree([line(100)], "EUR", Money(amount=100, currency="EUR")).amount == 100


# --- Secrets ---------------------------------------------------------------------------------------------


def test_an_order_has_one_secret_per_cart() -> None:
    cart, order_id = domain.new_secret(), uuid4()
    secret = domain.order_secret(cart, order_id)
    assert secret == domain.order_secret(cart, order_id)
    assert secret not in {
        domain.order_secret(cart, uuid4()),
        domain.order_secret(domain.new_secret(), order_id),
    }
    assert domain.opens(secret, domain.hashed(secret))
    assert not domain.opens(secret, domain.hashed(cart))
    assert not domain.opens(secret, None)
