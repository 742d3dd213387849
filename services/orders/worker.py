"""Orders' second process."""

from libs.common.worker import main
from services.orders.consumer import DUTIES, HANDLERS
from services.orders.settings import Settings

if __name__ == "__main__":
    main("orders", Settings(), handlers=HANDLERS, duties=DUTIES)  # pyright: ignore[reportCallIssue]
