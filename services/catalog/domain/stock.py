"""What can be promised: an order gets all of its lines or none, and nothing is promised twice.

    (nothing) ──placed──▶ RESERVED ──cancelled──▶ RELEASED
        │    ╲                └──────fulfilled──▶ SHIPPED
        │     ╲─placed──▶ REFUSED                    ▲
        ├──cancelled──▶ RELEASED                     │
        └──fulfilled──▶ SHIPPED_UNSEEN ────placed────┘

Events may come twice or out of order. An order whose cancellation came first is released for good, so a late
placing reserves nothing; one whose shipping came first is taken from stock when its lines are known.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Self
from uuid import UUID

from libs.common.errors import Conflict


class State(StrEnum):
    """What became of the stock asked for an order."""

    RESERVED = "reserved"
    REFUSED = "refused"
    RELEASED = "released"
    SHIPPED = "shipped"
    SHIPPED_UNSEEN = "shipped-unseen"


class Change(StrEnum):
    """What happened to an order, as far as stock is concerned."""

    PLACED = "placed"
    CANCELLED = "cancelled"
    FULFILLED = "fulfilled"


class StockBelowReserved(Conflict):
    """Less would be on hand than is promised to orders."""

    slug = "stock-below-reserved"
    title = "Orders are waiting for more than this"
    detail = "Fulfil or cancel orders first, or let the variant be sold past zero."


@dataclass(frozen=True, slots=True)
class Stock:
    """Pieces of one variant. With `backorder` it is sold past zero."""

    on_hand: int
    reserved: int = 0
    backorder: bool = False

    @property
    def available(self) -> int:
        """Pieces that are there and promised to nobody."""
        return max(0, self.on_hand - self.reserved)

    def covers(self, quantity: int) -> bool:
        """Whether so many can be promised."""
        return self.backorder or quantity <= self.available

    def counted(self, on_hand: int) -> Self:
        """After an inventory. Raises StockBelowReserved."""
        if on_hand < self.reserved and not self.backorder:
            raise StockBelowReserved(reserved=self.reserved)
        return replace(self, on_hand=on_hand)

    def reserve(self, quantity: int) -> Self:
        """Promise so many."""
        return replace(self, reserved=self.reserved + quantity)

    def release(self, quantity: int) -> Self:
        """Take a promise back."""
        return replace(self, reserved=self.reserved - quantity)

    def ship(self, quantity: int) -> Self:
        """Keep a promise: the pieces leave."""
        return replace(self, on_hand=self.on_hand - quantity, reserved=self.reserved - quantity)


@dataclass(frozen=True, slots=True)
class Decision:
    """What an event means: the order's new state and the stock that changes, or for a refusal what is short."""

    state: State
    stock: Mapping[UUID, Stock] = field(default_factory=dict[UUID, Stock])
    short: tuple[UUID, ...] = ()


def decide(
    state: State | None, change: Change, lines: Mapping[UUID, int], stock: Mapping[UUID, Stock]
) -> Decision | None:
    """The consequence of a change, or None when it has none: it came twice, or too late.

    `lines` are quantities by variant; a variant that `stock` does not know is short.
    """
    match state, change:
        case None, Change.PLACED:
            return _reserve_all_or_none(lines, stock)
        case None, _:
            return Decision(State.RELEASED if change is Change.CANCELLED else State.SHIPPED_UNSEEN)
        case State.RESERVED, Change.CANCELLED:
            return Decision(State.RELEASED, {v: stock[v].release(n) for v, n in lines.items()})
        case State.RESERVED, Change.FULFILLED:
            return Decision(State.SHIPPED, {v: stock[v].ship(n) for v, n in lines.items()})
        case State.SHIPPED_UNSEEN, Change.PLACED:
            gone = {v: stock[v].reserve(n).ship(n) for v, n in lines.items() if v in stock}
            return Decision(State.SHIPPED, gone)
        case _:
            return None


def _reserve_all_or_none(lines: Mapping[UUID, int], stock: Mapping[UUID, Stock]) -> Decision:
    short = tuple(v for v, n in lines.items() if v not in stock or not stock[v].covers(n))
    if short:
        return Decision(State.REFUSED, short=short)
    return Decision(State.RESERVED, {v: stock[v].reserve(n) for v, n in lines.items()})
