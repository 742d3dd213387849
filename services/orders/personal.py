"""What orders keeps about people: who ordered, and where it goes."""

from collections.abc import Sequence

from libs.common.events.orders import OrderContact
from libs.common.personal.holdings import Attached, Holding, OnErase
from services.orders.models import Order, OrderLine
from services.orders.service.orders import cancel_open_orders, orders_under_way

HOLDINGS: Sequence[Holding] = (
    Holding(
        table=Order,
        box="contact",
        kind=OrderContact,
        on_erase=OnErase.CLEAR,
        # The row stays a figure of the store: nothing in it leads to the person any more.
        clears=("subject_id", "email_index", "view_secret_hash"),
        describe=("number", "state", "total_amount", "currency", "payment_method", "placed_at", "paid_at"),
        attached=[
            Attached(OrderLine, by="order_id", describe=("sku", "title", "quantity", "unit_price")),
        ],
        order_number="number",
        indexes={"email_index": ("email", "email")},
        before_erase=cancel_open_orders,
        obligations=orders_under_way,
    ),
)
