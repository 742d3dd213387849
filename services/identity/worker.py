"""Identity's second process."""

from libs.common.worker import main
from services.identity.consumer import DUTIES, HANDLERS
from services.identity.settings import Settings

if __name__ == "__main__":
    main("identity", Settings(), handlers=HANDLERS, duties=DUTIES)  # pyright: ignore[reportCallIssue]
