"""Orders reserve, release and ship; managers count."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.events import Event
from libs.common.events.catalog import StockRefused, StockReserved
from libs.common.http import require_match
from libs.common.outbox import publish_all
from services.catalog.domain.stock import Change, Decision, State, decide
from services.catalog.models import Reservation, ReservationLine, Variant
from services.catalog.service.products import SOURCE, among, lock_variant, lock_variants

Lines = Mapping[UUID, int]
"""Quantities by variant."""


async def count(
    session: AsyncSession, *, store_id: UUID, variant_id: UUID, if_match: str | None, on_hand: int
) -> Variant:
    """Set what an inventory found. Raises NotFound, PreconditionFailed, PreconditionRequired, StockBelowReserved."""
    variant = await lock_variant(session, store_id, variant_id)
    require_match(if_match, variant.version)
    variant.stock = variant.stock.counted(on_hand)
    variant.version += 1
    return variant


async def settle(
    session: AsyncSession, *, store_id: UUID, change: Change, orders: Mapping[UUID, Lines]
) -> None:
    """What a change of these orders means for stock, in their order; `orders` has the lines of those just placed.

    Reservations are held first, then the variants of all orders in the order of their ids, so that the workers of
    several batches do not wait for each other in a circle.
    """
    reservations = await _lock_reservations(session, store_id, list(orders))
    lines = orders if change is Change.PLACED else await _reserved_lines(session, store_id, list(orders))
    wanted = {variant_id for each in lines.values() for variant_id in each}
    variants = {variant.id: variant for variant in await lock_variants(session, store_id, wanted)}
    answers: list[Event] = []
    reserved: list[ReservationLine] = []
    for order_id in orders:
        reservation = reservations.get(order_id)
        state = State(reservation.state) if reservation is not None else None
        asked = lines.get(order_id, {})
        stock = {id_: variants[id_].stock for id_ in asked if id_ in variants}
        decision = decide(state, change, asked, stock)
        if decision is None:
            continue
        if reservation is None:
            reservation = Reservation(store_id=store_id, order_id=order_id, version=0)
            session.add(reservation)
        _apply(decision, reservation, variants)
        answers += _answer(decision, reservation)
        if decision.state is State.RESERVED:
            reserved += (_line(reservation, id_, quantity) for id_, quantity in asked.items())
    await session.flush()
    session.add_all(reserved)
    await publish_all(session, answers, store_id=store_id, source=SOURCE)


def _apply(decision: Decision, reservation: Reservation, variants: Mapping[UUID, Variant]) -> None:
    reservation.state = decision.state.value
    reservation.version += 1
    reservation.updated_at = datetime.now(UTC)
    for variant_id, stock in decision.stock.items():
        variant = variants[variant_id]
        # A manager who counts must know of what was shipped; what is only promised is not theirs to edit.
        variant.version += stock.on_hand != variant.on_hand
        variant.stock = stock


def _answer(decision: Decision, reservation: Reservation) -> Sequence[Event]:
    order_id, version = reservation.order_id, reservation.version
    match decision.state:
        case State.RESERVED:
            return [StockReserved(order_id=order_id, version=version)]
        case State.REFUSED:
            return [StockRefused(order_id=order_id, version=version, short_variant_ids=list(decision.short))]
        case _:
            return []


def _line(reservation: Reservation, variant_id: UUID, quantity: int) -> ReservationLine:
    return ReservationLine(
        store_id=reservation.store_id, order_id=reservation.order_id, variant_id=variant_id, quantity=quantity
    )


async def _lock_reservations(
    session: AsyncSession, store_id: UUID, order_ids: Sequence[UUID]
) -> Mapping[UUID, Reservation]:
    locked = await session.scalars(
        select(Reservation)
        .where(Reservation.store_id == store_id, among(Reservation.order_id, order_ids))
        .order_by(Reservation.order_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    return {reservation.order_id: reservation for reservation in locked}


async def _reserved_lines(
    session: AsyncSession, store_id: UUID, order_ids: Sequence[UUID]
) -> Mapping[UUID, Lines]:
    found = await session.scalars(
        select(ReservationLine).where(
            ReservationLine.store_id == store_id, among(ReservationLine.order_id, order_ids)
        )
    )
    lines: dict[UUID, dict[UUID, int]] = {}
    for line in found:
        lines.setdefault(line.order_id, {})[line.variant_id] = line.quantity
    return lines
