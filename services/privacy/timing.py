"""When a request of a store is due: the law's rules over the calendar of the store's country."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from services.privacy.calendars import calendar_for
from services.privacy.domain.deadlines import Deadline, Stop
from services.privacy.domain.rights import Law, Right, stops_at_once

_NOWHERE = ""
"""Of a store that this service has not heard of yet: its weekends are known, and UTC."""


def deadline(
    country: str | None,
    right: Right,
    law: Law,
    purpose: str | None,
    *,
    received_at: datetime,
    verified_at: datetime | None,
    extended: bool = False,
    stops: Iterable[Mapping[str, str | None]] = (),
) -> Deadline:
    """The time a request of this store has."""
    calendar = calendar_for(law, country or _NOWHERE)
    return Deadline(
        law=law,
        zone=calendar.zone,
        is_working_day=calendar.is_working_day,
        received_at=received_at,
        verified_at=verified_at,
        extended=extended,
        stops=[Stop(_instant(one["from"]), _instant(one["until"])) for one in stops],  # type: ignore[arg-type]
        opts_out=right is Right.OBJECTION and stops_at_once(right, purpose),
    )


def columns(deadline: Deadline) -> dict[str, Any]:
    """What a request's row says of its time, with the first watch once it has begun."""
    watch = deadline.following(deadline.begun_at) if deadline.begun_at else None
    return {
        "due_on": deadline.due_on,
        "acknowledge_by": deadline.acknowledge_by,
        "watch": watch.word if watch else None,
        "watch_at": watch.at if watch else None,
    }


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
