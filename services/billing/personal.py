"""What billing keeps about people: a contact until the order is invoiced, the invoice for as long as the law asks."""

from collections.abc import Mapping, Sequence

from libs.common.events.orders import OrderContact
from libs.common.personal.holdings import Beside, Holding, OnErase, OnRectify
from libs.common.personal.portable import Template, amount, each, postal_address
from libs.common.personal.vocabulary import Clock
from services.billing.kinds import CorrectedInvoice, InvoiceContact
from services.billing.models import Invoice, InvoiceCorrection, Receivable
from services.billing.service import complete_soon

_INVOICE: Template = {
    "@type": "Invoice",
    "identifier": "/facts/number",
    "customer": {"@type": "Person", "name": "/data/name", "address": postal_address("/data/address")},
    "provider": {"@type": "Organization", "name": "/facts/seller_name"},
    "totalPaymentDue": {
        "@type": "MonetaryAmount",
        "value": amount("/facts/total_amount", "/facts/currency"),
        "currency": "/facts/currency",
    },
    "referencesOrder": {
        "@type": "Order",
        "acceptedOffer": each(
            "/facts/lines",
            {
                "@type": "Offer",
                "itemOffered": {"@type": "Product", "name": "/item/title", "sku": "/item/sku"},
                "eligibleQuantity": {"@type": "QuantitativeValue", "value": "/item/quantity"},
                "price": amount("/item/unit_price/amount", "/item/unit_price/currency"),
                "priceCurrency": "/item/unit_price/currency",
            },
        ),
    },
}
"""https://schema.org/Invoice"""

CLOCKS = frozenset({Clock.INVOICE_ISSUED})
"""What this service starts."""

HOLDINGS: Sequence[Holding] = (
    Holding(
        table=Receivable,
        box="contact",
        kind=OrderContact,
        bucket="order_id",
        on_erase=OnErase.CLEAR,
        # What is owed stays owed; to whom it was sold is then no longer known here.
        clears=("subject_id",),
        describe=("number", "placed_at", "state", "amount", "currency", "payment_method", "lines"),
        on_lift=complete_soon,
    ),
    Holding(
        table=Invoice,
        box="contact",
        kind=InvoiceContact,
        bucket="year",
        on_erase=OnErase.CLEAR,
        # Once its ten years are over an invoice is a figure.
        clears=("subject_id",),
        describe=(
            "number", "issued_at", "total_amount", "currency", "lines", "seller_name", "seller_country",
            "kept_until",
        ),
        portable=_INVOICE,
        on_rectify=OnRectify.BESIDE,
        beside=Beside(InvoiceCorrection, by="invoice_id", kind=CorrectedInvoice),
    ),
    Holding(
        table=InvoiceCorrection,
        box="box",
        kind=CorrectedInvoice,
        bucket="year",
        on_erase=OnErase.DELETE,
        describe=("invoice_id", "noted_at"),
        on_rectify=OnRectify.KEEP,
    ),
)  # fmt: skip

_BOOKS = "Code de commerce, art. L123-22: the books, which name nobody"
KEPT: Mapping[str, str] = dict.fromkeys(
    ("receivable", "payment", "number_series", "journal_entry", "posting"), _BOOKS
)
"""What stays of a store that has ended, beside its invoices."""
