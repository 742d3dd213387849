"""What billing keeps about people: a contact until the order is invoiced, the invoice for as long as the law asks."""

from collections.abc import Sequence

from libs.common.events.orders import OrderContact
from libs.common.personal.holdings import Beside, Holding, OnErase, OnRectify
from services.billing.kinds import CorrectedInvoice, InvoiceContact
from services.billing.models import Invoice, InvoiceCorrection, Receivable
from services.billing.service import complete_soon

HOLDINGS: Sequence[Holding] = (
    Holding(
        table=Receivable,
        box="contact",
        kind=OrderContact,
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
        describe=(
            "number", "issued_at", "total_amount", "currency", "lines", "seller_name", "seller_country",
            "kept_until",
        ),
        on_rectify=OnRectify.BESIDE,
        beside=Beside(InvoiceCorrection, by="invoice_id", kind=CorrectedInvoice),
    ),
    Holding(
        table=InvoiceCorrection,
        box="box",
        kind=CorrectedInvoice,
        bucket="year",
        on_erase=OnErase.CLEAR,
        describe=("invoice_id", "noted_at"),
        on_rectify=OnRectify.KEEP,
    ),
)  # fmt: skip
