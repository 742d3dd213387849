"""Checkout, orders and sales figures."""

import re
from collections.abc import Sequence
from datetime import date
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Query, Request, Response

from libs.common.auth import Caller, Manager, Role, Staff, StoreId, Visitor, of_store
from libs.common.db import Database
from libs.common.errors import Unauthenticated
from libs.common.http import Cursor, IfMatch, Limit, OpenVault, Page, Session, refusals, require_match
from libs.common.idempotency import IdempotencyKey, once
from libs.common.money import Money
from libs.common.personal.vault import SubjectErased, Vault
from libs.common.stores import known_store
from services.orders import domain
from services.orders.api.carts import CartSecret
from services.orders.domain import State
from services.orders.models import Order, OrderLine
from services.orders.schemas import (
    Checkout,
    OrderLineView,
    OrderReceipt,
    OrderSummary,
    OrderView,
    PlacedOrder,
    Refusal,
    Sales,
    SalesReport,
    Search,
)
from services.orders.service import carts, checkout, orders

router = APIRouter(prefix="/stores/{store_id}", tags=["orders"])

OrderSecret = Annotated[
    str | None,
    Header(alias="Order-Secret", max_length=100, description="`view_secret` of the checkout, for a guest."),
]
IfNoneMatch = Annotated[
    str | None, Header(alias="If-None-Match", max_length=400, description="The ETag of the last answer.")
]
ANYBODY: dict[str, Any] = {"security": [{}]}
"""Documents that the access token may be left out."""
Member = Annotated[Caller, Depends(of_store())]


async def _database(request: Request) -> Database:
    return request.app.state.database


OpenDatabase = Annotated[Database, Depends(_database)]


# --- Checkout --------------------------------------------------------------------------------------------


@router.post(
    "/orders",
    status_code=201,
    response_model=OrderReceipt,
    responses=refusals(401, 404, 409),
    openapi_extra=ANYBODY,
)
async def place_order(
    *,
    request: Request,
    store_id: StoreId,
    wanted: Checkout,
    cart_secret: CartSecret,
    caller: Visitor,
    database: OpenDatabase,
    vault: OpenVault,
    key: IdempotencyKey = None,
) -> Response:
    """Order what is in the cart, as a guest or signed in. A cart becomes one order, however often this is sent.

    The answer says `placed`: read the order until it says `awaiting_payment` or `refused`.
    """

    async def attempt() -> Response:
        buyer = await _buyer(
            database=database,
            vault=vault,
            store_id=store_id,
            wanted=wanted,
            cart_secret=cart_secret,
            caller=caller,
        )

        async def make() -> tuple[PlacedOrder, str]:
            order = await checkout.place(
                session, store_id=store_id, cart_secret=cart_secret, wanted=wanted, buyer=buyer
            )
            return order, f"/orders/v1/stores/{store_id}/orders/{order.id}"

        async with database.session(store_id) as session:
            return await once(session, request, key, store_id=store_id, caller=cart_secret, make=make)

    try:
        reply = await attempt()
    except SubjectErased:
        # Erased between the keyring's answer and ours: a guest who orders now begins anew.
        reply = await attempt()
    return _with_secret(reply, cart_secret)


async def _buyer(
    *,
    database: Database,
    vault: Vault,
    store_id: UUID,
    wanted: Checkout,
    cart_secret: str,
    caller: Caller | None,
) -> checkout.Buyer | None:
    """Who orders; nobody is named, and no key is made, for a cart that is not there or has become an order."""
    if not await carts.is_open(database, store_id=store_id, cart_id=wanted.cart_id, secret=cart_secret):
        return None
    return await checkout.identify(
        vault, store_id=store_id, cart_id=wanted.cart_id, email=wanted.contact.email, caller=caller
    )


def _with_secret(reply: Response, cart_secret: str) -> Response:
    """The saved reply has no secret in it: whoever holds the cart's can derive the order's again."""
    order = PlacedOrder.model_validate_json(bytes(reply.body))
    secret = domain.order_secret(cart_secret, order.id)
    receipt = OrderReceipt(**order.model_dump(), view_secret=secret)
    headers = {name: value for name, value in reply.headers.items() if name != "content-length"}
    return Response(
        receipt.model_dump_json(),
        status_code=reply.status_code,
        headers=headers | {"Cache-Control": "no-store"},
    )


# --- Lists and figures -----------------------------------------------------------------------------------


@router.get("/orders", responses=refusals(401, 404))
async def list_orders(
    *,
    store_id: StoreId,
    caller: Member,
    session: Session,
    state: State | None = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[OrderSummary]:
    """Newest first: all of the store's for staff, a customer's own for a customer."""
    await known_store(session, store_id)
    found, following = await orders.newest_first(
        session,
        store_id=store_id,
        limit=limit,
        cursor=cursor,
        state=state,
        customer=caller if caller.role is Role.CUSTOMER else None,
    )
    return Page(items=[_summary(order) for order in found], next=following)


@router.post("/order-searches", responses=refusals(401, 403, 404))
async def search_orders(
    *,
    store_id: StoreId,
    wanted: Search,
    _caller: Staff,
    session: Session,
    vault: OpenVault,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[OrderSummary]:
    """Orders of one e-mail address, newest first. The address is in the body, since addresses end up in logs."""
    await known_store(session, store_id)
    await session.commit()
    indexes = await checkout.email_indexes(vault, store_id=store_id, email=wanted.email)
    found, following = await orders.newest_first(
        session, store_id=store_id, limit=limit, cursor=cursor, email_indexes=indexes
    )
    return Page(items=[_summary(order) for order in found], next=following)


@router.get("/reports/sales", responses=refusals(401, 403, 404))
async def report_sales(
    *,
    store_id: StoreId,
    _caller: Staff,
    session: Session,
    first_day: Annotated[date, Query(alias="from", description="First day, UTC.")],
    last_day: Annotated[date, Query(alias="to", description="Last day, UTC.")],
) -> SalesReport:
    """What was sold: paid and fulfilled orders by the day they were placed. An erasure changes none of it."""
    await known_store(session, store_id)
    rows = await orders.sales(session, store_id=store_id, first_day=first_day, last_day=last_day)
    return SalesReport(
        first_day=first_day,
        last_day=last_day,
        sales=[
            Sales(orders=count, pieces=pieces, total=Money(amount=amount, currency=currency))
            for currency, count, pieces, amount in rows
        ],
    )


# --- One order -------------------------------------------------------------------------------------------


@router.get(
    "/orders/{order_id}",
    response_model=OrderView,
    responses=refusals(401, 404) | {304: {"description": "Nothing changed since the ETag sent"}},
    openapi_extra=ANYBODY,
)
async def read_order(
    *,
    store_id: StoreId,
    order_id: UUID,
    caller: Visitor,
    session: Session,
    vault: OpenVault,
    secret: OrderSecret = None,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """The order, for staff, for its customer, and for the guest who holds its secret."""
    _need_either(caller, secret)
    order = await orders.seen_by(session, store_id=store_id, order_id=order_id, caller=caller, secret=secret)
    lines = await orders.lines_of(session, store_id=store_id, order_id=order_id)
    await session.commit()
    contact, on_hold = await orders.contact_of(vault, order)
    headers = {
        "ETag": _etag(order.version, "" if contact else "-on-hold" if on_hold else "-erased"),
        "Cache-Control": "private, no-cache",
    }
    if if_none_match is not None and headers["ETag"] in if_none_match:
        return Response(status_code=304, headers=headers)
    view = OrderView(
        **_summary(order).model_dump(),
        lines=[_line(line, order.currency) for line in lines],
        refusal=_refusal(order, lines),
        contact=contact,
        on_hold=on_hold,
    )
    return Response(view.model_dump_json(), media_type="application/json", headers=headers)


@router.post("/orders/{order_id}/cancel", responses=refusals(401, 403, 404, 409, 412), openapi_extra=ANYBODY)
async def cancel_order(
    *,
    store_id: StoreId,
    order_id: UUID,
    caller: Visitor,
    session: Session,
    response: Response,
    secret: OrderSecret = None,
    if_match: IfMatch = None,
) -> OrderSummary:
    """Cancel an order that is not paid: its guest, its customer or a manager. A second time changes nothing."""
    _need_either(caller, secret)
    order = await orders.cancelled_by(
        session, store_id=store_id, order_id=order_id, caller=caller, secret=secret
    )
    if if_match is not None:
        _require_match(if_match, order.version)
    await orders.change(session, order, domain.cancel)
    response.headers["ETag"] = _etag(order.version)
    return _summary(order)


@router.post(
    "/orders/{order_id}/fulfilments",
    status_code=201,
    response_model=OrderSummary,
    responses=refusals(401, 403, 404, 409, 412, 428),
)
async def fulfil_order(
    *,
    request: Request,
    store_id: StoreId,
    order_id: UUID,
    caller: Manager,
    session: Session,
    if_match: IfMatch = None,
    key: IdempotencyKey = None,
) -> Response:
    """The goods leave: the order is paid, or confirmed and to be paid on delivery."""

    async def make() -> tuple[OrderSummary, str]:
        order = await orders.seen_by(
            session, store_id=store_id, order_id=order_id, caller=caller, secret=None, lock=True
        )
        _require_match(if_match, order.version)
        await orders.change(session, order, domain.fulfil)
        return _summary(order), f"/orders/v1/stores/{store_id}/orders/{order_id}"

    return await once(session, request, key, store_id=store_id, caller=str(caller.account_id), make=make)


# --- Views -----------------------------------------------------------------------------------------------


def _need_either(caller: Caller | None, secret: str | None) -> None:
    if caller is None and secret is None:
        raise Unauthenticated("An access token or the secret of the order is needed.")


def _etag(version: int, contact: str = "") -> str:
    """The contact can go or be held without a new version of the order."""
    return f'"{version}{contact}"'


def _require_match(if_match: str | None, version: int) -> None:
    require_match(if_match and re.sub(r'-(erased|on-hold)"$', '"', if_match.strip()), version)


def _summary(order: Order) -> OrderSummary:
    return OrderSummary(
        id=order.id,
        number=order.number,
        state=order.state,
        total=Money(amount=order.total_amount, currency=order.currency),
        payment_method=order.payment_method,
        refund_due=order.standing.refund_due,
        placed_at=order.placed_at,
        paid_at=order.paid_at,
        fulfilled_at=order.fulfilled_at,
        cancelled_at=order.cancelled_at,
        version=order.version,
    )


def _line(line: OrderLine, currency: str) -> OrderLineView:
    price = Money(amount=line.unit_price, currency=currency)
    return OrderLineView(
        variant_id=line.variant_id,
        sku=line.sku,
        title=line.title,
        quantity=line.quantity,
        unit_price=price,
        total=price * line.quantity,
    )


def _refusal(order: Order, lines: Sequence[OrderLine]) -> Refusal | None:
    if order.state is not State.REFUSED:
        return None
    return Refusal(short_variant_ids=[line.variant_id for line in lines if line.short])
