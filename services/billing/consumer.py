"""What billing does when it hears of stores and orders."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.ending import Endings
from libs.common.events import Received
from libs.common.events.orders import OrderCancelled, OrderConfirmed, OrderPlaced, OrderRefused
from libs.common.inbox import Handlers, batched
from libs.common.personal.participant import Participant
from libs.common.stores import STORES
from libs.common.worker import Duty, Work
from services.billing import service
from services.billing.domain import State
from services.billing.models import Base
from services.billing.personal import CLOCKS, HOLDINGS, KEPT
from services.billing.settings import Settings

PARTICIPANT = Participant(service="billing", holdings=HOLDINGS, settings=Settings, clocks=CLOCKS)
ENDINGS = Endings(PARTICIPANT, metadata=Base.metadata, holdings=HOLDINGS, kept=KEPT)


@batched
async def on_order_placed(session: AsyncSession, events: Sequence[Received[OrderPlaced]]) -> None:
    """Money is expected."""
    await service.expect(session, events)


@batched
async def on_order_confirmed(session: AsyncSession, events: Sequence[Received[OrderConfirmed]]) -> None:
    """Money is due."""
    await _hear(session, events, State.OPEN)


@batched
async def on_order_over(
    session: AsyncSession, events: Sequence[Received[OrderRefused] | Received[OrderCancelled]]
) -> None:
    """Nothing is due after all."""
    await _hear(session, events, State.VOID)


async def _hear(session: AsyncSession, events: Sequence[Received[Any]], state: State) -> None:
    order_ids = [event.data.order_id for event in events]
    await service.hear(session, events[0].envelope.store_id, order_ids, state)


async def _forget_early_orders(work: Work) -> int:
    await service.forget_early_orders(work.database)
    return 0


HANDLERS: Handlers = {
    **STORES,
    OrderPlaced: on_order_placed,
    OrderConfirmed: on_order_confirmed,
    OrderRefused: on_order_over,
    OrderCancelled: on_order_over,
    **PARTICIPANT.handlers,
    **ENDINGS.handlers,
}

DUTIES = [
    Duty("early orders", _forget_early_orders, timedelta(hours=1)),
    Duty("invoices on hold", service.complete_invoices, timedelta(minutes=1), channel=service.CHANNEL),
    *PARTICIPANT.duties,
    *ENDINGS.duties,
]
