"""What catalog does when it hears of stores and orders."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.ending import Endings
from libs.common.events import Received
from libs.common.events.orders import OrderCancelled, OrderFulfilled, OrderPlaced, OrderRefused
from libs.common.inbox import Handlers, batched
from libs.common.personal.participant import Participant
from libs.common.stores import STORES
from services.catalog.domain.stock import Change
from services.catalog.models import Base
from services.catalog.personal import HOLDINGS
from services.catalog.service import stock
from services.catalog.settings import Settings

PARTICIPANT = Participant(service="catalog", holdings=HOLDINGS, settings=Settings)
ENDINGS = Endings(PARTICIPANT, metadata=Base.metadata, holdings=HOLDINGS)


@batched
async def on_order_placed(session: AsyncSession, events: Sequence[Received[OrderPlaced]]) -> None:
    """Stock for every line, or for none. Who ordered stays in its box."""
    orders = {event.data.order_id: _quantities(event.data) for event in events}
    await stock.settle(session, store_id=events[0].envelope.store_id, change=Change.PLACED, orders=orders)


def _quantities(order: OrderPlaced) -> stock.Lines:
    quantities: dict[Any, int] = {}
    for line in order.lines:
        quantities[line.variant_id] = quantities.get(line.variant_id, 0) + line.quantity
    return quantities


@batched
async def on_order_over(
    session: AsyncSession, events: Sequence[Received[OrderCancelled] | Received[OrderRefused]]
) -> None:
    """What was set aside is free again."""
    await _settle(session, events, Change.CANCELLED)


@batched
async def on_order_fulfilled(session: AsyncSession, events: Sequence[Received[OrderFulfilled]]) -> None:
    """What was set aside has left."""
    await _settle(session, events, Change.FULFILLED)


async def _settle(session: AsyncSession, events: Sequence[Received[Any]], change: Change) -> None:
    orders: dict[Any, stock.Lines] = {event.data.order_id: {} for event in events}
    await stock.settle(session, store_id=events[0].envelope.store_id, change=change, orders=orders)


HANDLERS: Handlers = {
    **STORES,
    OrderPlaced: on_order_placed,
    OrderCancelled: on_order_over,
    OrderRefused: on_order_over,
    OrderFulfilled: on_order_fulfilled,
    **PARTICIPANT.handlers,
    **ENDINGS.handlers,
}

DUTIES = [*PARTICIPANT.duties, *ENDINGS.duties]
