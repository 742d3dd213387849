"""Carts: no account, no personal data; whoever holds the secret holds the cart."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, Response

from libs.common.auth import StoreId
from libs.common.http import Session, refusals, set_etag
from services.orders.schemas import CartView, LineQuantity, NewCart
from services.orders.service import carts

router = APIRouter(prefix="/stores/{store_id}/carts", tags=["carts"])

CartSecret = Annotated[
    str, Header(alias="Cart-Secret", min_length=1, max_length=100, description="The cart's secret.")
]


@router.post("", status_code=201, responses=refusals(404))
async def begin_cart(store_id: StoreId, session: Session, response: Response) -> NewCart:
    """Begin an empty cart. Sending this again begins another one, which is forgotten when nobody uses it."""
    response.headers["Cache-Control"] = "no-store"
    return await carts.begin(session, store_id=store_id)


@router.get("/{cart_id}", responses=refusals(404))
async def read_cart(
    store_id: StoreId, cart_id: UUID, secret: CartSecret, session: Session, response: Response
) -> CartView:
    """The cart at present prices."""
    cart, version = await carts.read(session, store_id=store_id, cart_id=cart_id, secret=secret)
    set_etag(response, version)
    return cart


@router.put("/{cart_id}/lines/{variant_id}", response_model=CartView, responses=refusals(404, 409))
async def put_line(
    *,
    store_id: StoreId,
    cart_id: UUID,
    variant_id: UUID,
    line: LineQuantity,
    secret: CartSecret,
    session: Session,
) -> Response:
    """Put so many of a variant into the cart, in place of what there was; 0 takes it out.

    Answers with the whole cart. Of two at once for the same line the last one counts, so no If-Match is needed.
    """
    cart, version = await carts.put_line(
        session,
        store_id=store_id,
        cart_id=cart_id,
        secret=secret,
        variant_id=variant_id,
        quantity=line.quantity,
    )
    # The view was validated when it was made; a second time would cost as much as one of the two statements.
    answer = Response(cart.model_dump_json(), media_type="application/json")
    set_etag(answer, version)
    return answer
