"""What orders keeps about people: who ordered, and where it goes."""

from collections.abc import Sequence

from libs.common.events.orders import OrderContact
from libs.common.personal.holdings import Attached, Holding, OnErase, Reference
from libs.common.personal.portable import Template, amount, each, postal_address, word
from libs.common.personal.vocabulary import Clock
from services.orders.models import Order, OrderLine
from services.orders.service.orders import cancel_open_orders, orders_under_way

_STATUS = {
    "placed": "OrderProcessing",
    "awaiting_payment": "OrderPaymentDue",
    "paid": "OrderProcessing",
    "fulfilled": "OrderInTransit",
    "refused": "OrderProblem",
    "cancelled": "OrderCancelled",
}
_ORDER: Template = {
    "@type": "Order",
    "orderNumber": "/facts/number",
    "orderDate": "/facts/placed_at",
    "orderStatus": {
        "@id": word(
            "/facts/state", {ours: f"https://schema.org/{theirs}" for ours, theirs in _STATUS.items()}
        )
    },
    "paymentMethod": "/facts/payment_method",
    "customer": {
        "@type": "Person",
        "name": "/data/name",
        "email": "/data/email",
        "address": postal_address("/data/address"),
    },
    "acceptedOffer": each(
        "/attached/order_line",
        {
            "@type": "Offer",
            "itemOffered": {"@type": "Product", "name": "/item/title", "sku": "/item/sku"},
            "eligibleQuantity": {"@type": "QuantitativeValue", "value": "/item/quantity"},
            "price": amount("/item/unit_price", "/facts/currency"),
            "priceCurrency": "/facts/currency",
        },
    ),
    "partOfInvoice": {
        "@type": "Invoice",
        "totalPaymentDue": {
            "@type": "MonetaryAmount",
            "value": amount("/facts/total_amount", "/facts/currency"),
            "currency": "/facts/currency",
        },
    },
}
"""https://schema.org/Order"""

CLOCKS = frozenset(
    {
        Clock.ORDER_CONFIRMED,
        Clock.ORDER_PAID,
        Clock.ORDER_FULFILLED,
        Clock.ORDER_REFUSED,
        Clock.ORDER_CANCELLED,
        Clock.MESSAGE_SETTLED,
    }
)
"""What this service starts."""

HOLDINGS: Sequence[Holding] = (
    Holding(
        table=Order,
        box="contact",
        kind=OrderContact,
        bucket="id",
        on_erase=OnErase.CLEAR,
        # The row stays a figure of the store: nothing in it leads to the person any more.
        clears=("subject_id", "email_index", "view_secret_hash"),
        describe=("number", "state", "total_amount", "currency", "payment_method", "placed_at", "paid_at"),
        attached=[
            Attached(OrderLine, by="order_id", describe=("sku", "title", "quantity", "unit_price")),
        ],
        order_number="number",
        reference=Reference.ORDER,
        indexes={"email_index": ("email", "email")},
        portable=_ORDER,
        before_erase=cancel_open_orders,
        obligations=orders_under_way,
    ),
)
