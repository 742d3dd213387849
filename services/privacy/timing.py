"""When a request of a store is due: the law's rules over the calendar of the store's country."""

from datetime import UTC, datetime
from typing import Any

from services.privacy.domain.deadlines import due_on
from services.privacy.domain.rights import Law


def timing(
    country: str | None, law: Law, *, received_at: datetime, verified_at: datetime | None
) -> dict[str, Any]:
    """The columns of a request that time rules: `due_on`, `acknowledge_by`, `watch` and `watch_at`."""
    due = due_on(verified_at.astimezone(UTC).date()) if verified_at else None
    return {"due_on": due, "acknowledge_by": None, "watch": None, "watch_at": None}
