"""What billing keeps about people: a contact until the order is invoiced, the invoice for as long as the law asks."""

from collections.abc import Sequence

from libs.common.events.orders import OrderContact
from libs.common.personal.holdings import Holding, OnErase
from services.billing.kinds import InvoiceContact
from services.billing.models import Invoice, Receivable

HOLDINGS: Sequence[Holding] = (
    Holding(
        table=Receivable,
        box="contact",
        kind=OrderContact,
        on_erase=OnErase.CLEAR,
        # What is owed stays owed; to whom it was sold is then no longer known here.
        clears=("subject_id",),
        describe=("number", "placed_at", "state", "amount", "currency", "payment_method", "lines"),
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
    ),
)  # fmt: skip
