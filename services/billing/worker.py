"""Billing's second process."""

from libs.common.worker import main
from services.billing.consumer import DUTIES, HANDLERS
from services.billing.settings import Settings

if __name__ == "__main__":
    main("billing", Settings(), handlers=HANDLERS, duties=DUTIES)  # pyright: ignore[reportCallIssue]
