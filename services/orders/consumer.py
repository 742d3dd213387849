"""What orders does when it hears of stores, products, stock and money."""

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.ending import Endings
from libs.common.events import Received
from libs.common.events.billing import PaymentReceived
from libs.common.events.catalog import ProductPublished, StockRefused, StockReserved
from libs.common.inbox import Handlers, batched
from libs.common.mail import SENDING
from libs.common.personal.participant import Participant
from libs.common.stores import STORES
from libs.common.worker import Duty, Work
from services.orders import domain
from services.orders.models import Base
from services.orders.personal import CLOCKS, HOLDINGS
from services.orders.service import carts, offers, orders
from services.orders.settings import Settings

PARTICIPANT = Participant(service="orders", holdings=HOLDINGS, settings=Settings, clocks=CLOCKS)
ENDINGS = Endings(PARTICIPANT, metadata=Base.metadata, holdings=HOLDINGS)


@batched
async def on_product_published(session: AsyncSession, events: Sequence[Received[ProductPublished]]) -> None:
    """Carts are priced by this from now on."""
    store_id = events[0].envelope.store_id
    await offers.follow_catalogue(session, store_id=store_id, products=[event.data for event in events])


@batched
async def on_stock_reserved(session: AsyncSession, events: Sequence[Received[StockReserved]]) -> None:
    """The order is confirmed."""
    steps = [(event.data.order_id, domain.reserve) for event in events]
    await orders.advance(session, store_id=events[0].envelope.store_id, steps=steps)


async def on_stock_refused(session: AsyncSession, event: Received[StockRefused]) -> None:
    """The order will not happen; its page says for which lines."""
    await orders.refuse(
        session,
        store_id=event.envelope.store_id,
        order_id=event.data.order_id,
        short_variant_ids=event.data.short_variant_ids,
    )


@batched
async def on_payment_received(session: AsyncSession, events: Sequence[Received[PaymentReceived]]) -> None:
    """The order is paid, whatever else happened to it."""
    steps = [(event.data.order_id, domain.pay) for event in events]
    await orders.advance(session, store_id=events[0].envelope.store_id, steps=steps)


HANDLERS: Handlers = {
    **STORES,
    ProductPublished: on_product_published,
    StockReserved: on_stock_reserved,
    StockRefused: on_stock_refused,
    PaymentReceived: on_payment_received,
    **PARTICIPANT.handlers,
    **ENDINGS.handlers,
}


async def _purge_carts(work: Work) -> int:
    async with work.database.platform_session() as session:
        return await carts.purge(session)


DUTIES = [SENDING, Duty("carts", _purge_carts, timedelta(hours=1)), *PARTICIPANT.duties, *ENDINGS.duties]
