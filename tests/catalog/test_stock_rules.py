from itertools import permutations
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from services.catalog.domain.stock import Change, State, Stock, StockBelowReserved, decide

VARIANTS = [UUID(int=n) for n in range(3)]
ORDERS = [UUID(int=n) for n in range(100, 106)]
LINES = st.dictionaries(st.sampled_from(VARIANTS), st.integers(1, 4), min_size=1)


class Shelf(RuleBasedStateMachine):
    """Orders are placed, cancelled and fulfilled in any order and any number of times; managers count."""

    @initialize(pieces=st.lists(st.integers(0, 6), min_size=3, max_size=3))
    def fill(self, pieces: list[int]) -> None:
        self.stock = dict(zip(VARIANTS, map(Stock, pieces), strict=True))
        self.states: dict[UUID, State] = {}
        self.lines: dict[UUID, dict[UUID, int]] = {}
        self.counted = dict(zip(VARIANTS, pieces, strict=True))
        self.shipped = dict.fromkeys(VARIANTS, 0)

    def _take(self, order: UUID, change: Change, lines: dict[UUID, int]) -> None:
        decision = decide(self.states.get(order), change, lines, self.stock)
        if decision is None:
            return
        if decision.state is State.RESERVED:
            assert all(self.stock[v].available >= n for v, n in lines.items())
            self.lines[order] = lines
        if decision.state is State.REFUSED:
            assert decision.short
            assert all(self.stock[v].available < lines[v] for v in decision.short)
            assert not decision.stock
        if decision.state is State.SHIPPED:
            for variant, quantity in lines.items():
                self.shipped[variant] += quantity
        self.stock |= decision.stock
        self.states[order] = decision.state

    @rule(order=st.sampled_from(ORDERS), lines=LINES)
    def place(self, order: UUID, lines: dict[UUID, int]) -> None:
        # What ships before it is known may have been counted away by nobody; the rule below keeps to the known.
        if self.states.get(order) is not State.SHIPPED_UNSEEN:
            self._take(order, Change.PLACED, lines)

    @rule(order=st.sampled_from(ORDERS))
    def cancel(self, order: UUID) -> None:
        self._take(order, Change.CANCELLED, self.lines.get(order, {}))

    @rule(order=st.sampled_from(ORDERS))
    def fulfil(self, order: UUID) -> None:
        self._take(order, Change.FULFILLED, self.lines.get(order, {}))

    @rule(variant=st.sampled_from(VARIANTS), pieces=st.integers(0, 8))
    def count(self, variant: UUID, pieces: int) -> None:
        before = self.stock[variant]
        if pieces < before.reserved:
            with pytest.raises(StockBelowReserved):
                before.counted(pieces)
            return
        self.stock[variant] = before.counted(pieces)
        self.counted[variant] += pieces - before.on_hand

    @invariant()
    def never_promised_twice(self) -> None:
        assert all(0 <= stock.reserved <= stock.on_hand for stock in self.stock.values())

    @invariant()
    def every_piece_is_accounted_for(self) -> None:
        for variant, stock in self.stock.items():
            promised = sum(
                lines.get(variant, 0)
                for order, lines in self.lines.items()
                if self.states[order] is State.RESERVED
            )
            assert stock.reserved == promised
            assert stock.on_hand == self.counted[variant] - self.shipped[variant]


TestShelf = Shelf.TestCase


@given(
    changes=st.lists(st.sampled_from(Change), max_size=8).filter(lambda changes: Change.PLACED in changes),
    pieces=st.integers(0, 3),
)
def test_repeating_what_was_heard_changes_nothing(changes: list[Change], pieces: int) -> None:
    variant = VARIANTS[0]

    def play(heard: list[Change]) -> tuple[State | None, Stock]:
        state, stock, lines = None, Stock(pieces), {variant: 2}
        for change in heard:
            known = lines if change is Change.PLACED or state is State.RESERVED else {}
            decision = decide(state, change, known, {variant: stock})
            if decision is not None:
                state, stock = decision.state, decision.stock.get(variant, stock)
        return state, stock

    doubled = [change for change in changes for _ in range(2)]
    assert play(doubled) == play(changes)
    assert play(changes + changes) == play(changes)


@pytest.mark.parametrize("heard", list(permutations([Change.PLACED, Change.CANCELLED])))
def test_an_order_that_is_cancelled_holds_nothing_whatever_came_first(heard: tuple[Change, ...]) -> None:
    variant, state, stock = VARIANTS[0], None, Stock(5)
    for change in heard:
        decision = decide(state, change, {variant: 2}, {variant: stock})
        if decision is not None:
            state, stock = decision.state, decision.stock.get(variant, stock)
    assert (state, stock) == (State.RELEASED, Stock(5))


@pytest.mark.parametrize("heard", list(permutations([Change.PLACED, Change.FULFILLED])))
def test_an_order_that_is_shipped_leaves_the_shelf_whatever_came_first(heard: tuple[Change, ...]) -> None:
    variant, state, stock = VARIANTS[0], None, Stock(5)
    for change in heard:
        decision = decide(state, change, {variant: 2}, {variant: stock})
        if decision is not None:
            state, stock = decision.state, decision.stock.get(variant, stock)
    assert (state, stock) == (State.SHIPPED, Stock(3))


def test_what_is_sold_past_zero_is_never_short() -> None:
    variant = VARIANTS[0]
    decision = decide(None, Change.PLACED, {variant: 9}, {variant: Stock(1, backorder=True)})
    assert decision is not None
    assert decision.state is State.RESERVED
    assert decision.stock[variant].available == 0


def test_a_variant_nobody_knows_is_short() -> None:
    unknown = uuid4()
    decision = decide(None, Change.PLACED, {unknown: 1}, {})
    assert decision is not None
    assert (decision.state, decision.short) == (State.REFUSED, (unknown,))
