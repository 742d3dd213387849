"""Orders' application."""

from fastapi import FastAPI

from libs.common.http import build_app
from services.orders.api import carts, orders
from services.orders.settings import Settings


def create_app(settings: Settings) -> FastAPI:
    """Carts, checkout, orders and sales figures."""
    return build_app(
        service="orders",
        settings=settings,
        title="Vitrine orders",
        description="Carts without an account, checkout, the life of an order, and sales figures without people.",
        routers=[carts.router, orders.router],
        # What was ordered before is delivered or cancelled, and seen by whoever ordered it.
        while_closed=["list_orders", "search_orders", "read_order", "cancel_order", "fulfil_order"],
    )
