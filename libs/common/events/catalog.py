"""What catalog publishes: products on sale, and what became of stock asked for an order."""

from typing import Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from libs.common.events import Event
from libs.common.money import Money


class OfferedVariant(BaseModel):
    """What can be put in a cart."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    variant_id: UUID
    sku: str
    title: str
    price: Money


class ProductPublished(
    Event, type="vitrine.catalog.product-published.v1", topic="catalog.products", key="product_id"
):
    """A product as it is now on sale. A variant that is missing is no longer sold."""

    product_id: UUID
    handle: str
    title: str
    status: Literal["active", "draft", "archived"] = "active"
    variants: list[OfferedVariant]


class StockReserved(Event, type="vitrine.catalog.stock-reserved.v1", topic="catalog.stock", key="order_id"):
    """Every line of the order is set aside for it."""

    order_id: UUID


class StockRefused(Event, type="vitrine.catalog.stock-refused.v1", topic="catalog.stock", key="order_id"):
    """Nothing is set aside: these variants do not suffice."""

    order_id: UUID
    short_variant_ids: list[UUID]
