"""Billing's application."""

from fastapi import FastAPI

from libs.common.http import build_app
from services.billing import api
from services.billing.settings import Settings


def create_app(settings: Settings) -> FastAPI:
    """Receivables, payments, invoices and the ledger."""
    return build_app(
        service="billing",
        settings=settings,
        title="Vitrine billing",
        description="What is owed and paid, the invoices, and a double-entry ledger of every amount.",
        routers=[api.router],
        # What was owed before is paid.
        while_closed=["record_payment", "list_invoices", "get_invoice"],
    )
