"""What billing publishes: money received, invoices issued."""

from uuid import UUID

from libs.common.events import Event
from libs.common.money import Money


class PaymentReceived(
    Event, type="vitrine.billing.payment-received.v1", topic="billing.payments", key="order_id"
):
    """An order is paid in full and booked in the ledger."""

    order_id: UUID
    payment_id: UUID
    amount: Money


class InvoiceIssued(
    Event, type="vitrine.billing.invoice-issued.v1", topic="billing.payments", key="order_id"
):
    """An invoice exists; its number is the store's next."""

    order_id: UUID
    invoice_id: UUID
    number: str
    total: Money
