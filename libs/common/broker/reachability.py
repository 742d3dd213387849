"""An outage is worth two log lines, not one for every attempt."""

import logging

logger = logging.getLogger(__name__)


class Reachability:
    """Says once that the broker is lost and once that it is back."""

    def __init__(self) -> None:
        self._lost = False

    def lost(self, error: BaseException) -> None:
        """An attempt failed."""
        if not self._lost:
            self._lost = True
            logger.warning("the broker cannot be reached", extra={"error": type(error).__name__})

    def found(self) -> None:
        """An attempt succeeded."""
        if self._lost:
            self._lost = False
            logger.warning("the broker is back")
