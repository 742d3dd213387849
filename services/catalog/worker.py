"""Catalog's second process."""

from libs.common.worker import main
from services.catalog.consumer import DUTIES, HANDLERS
from services.catalog.settings import Settings

if __name__ == "__main__":
    main("catalog", Settings(), handlers=HANDLERS, duties=DUTIES)  # pyright: ignore[reportCallIssue]
