"""When a request of a store is due, as columns: the law's rules over the calendar of the store's country."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from services.privacy.calendars import NOWHERE, calendar_for
from services.privacy.domain.deadlines import Deadline, Stop, start_of
from services.privacy.domain.rights import Law, Right

_AN_INSTANT = timedelta(microseconds=1)


def deadline_for(
    country: str | None,
    law: Law,
    right: Right,
    *,
    received_at: datetime,
    opened_at: datetime,
    verified_at: datetime | None = None,
    acknowledged_at: datetime | None = None,
    extended: bool = False,
    stops: Sequence[Stop] = (),
) -> Deadline:
    """The deadline of a request at a store in `country`."""
    calendar = calendar_for(law, country or NOWHERE)
    return Deadline(
        law=law,
        zone=calendar.zone,
        is_working_day=calendar.is_working_day,
        received_at=received_at,
        opened_at=opened_at,
        verified_at=verified_at,
        acknowledged_at=acknowledged_at,
        extended=extended,
        stops=stops,
        # Of the rights that California names, an objection is its opt-out or its limit.
        opts_out=law is Law.CCPA and right is Right.OBJECTION,
    )


def deadline_of(request: Any, country: str | None) -> Deadline:
    """The deadline of a request as its row has it."""
    return deadline_for(
        country,
        Law(request.law),
        Right(request.claim),
        received_at=request.received_at or request.opened_at,
        opened_at=request.opened_at,
        verified_at=request.verified_at,
        acknowledged_at=request.acknowledged_at,
        extended=request.extended_at is not None,
        stops=[_stop(one) for one in request.stops],
    )


def _stop(stop: Mapping[str, str | None]) -> Stop:
    since, until = stop["from"], stop["until"]
    if since is None:
        raise ValueError("a stop has a beginning")
    return Stop(datetime.fromisoformat(since), datetime.fromisoformat(until) if until else None)


def timed(deadline: Deadline, *, after: datetime | None = None) -> dict[str, Any]:
    """The columns that time rules. `after` is the instant up to which everything was said, if anything was."""
    begun = after or deadline.begun_at
    watch = deadline.following(begun) if begun is not None else None
    due_on = deadline.due_on
    return {
        "due_on": due_on,
        "overdue_at": start_of(due_on + timedelta(days=1), deadline.zone) if due_on else None,
        "acknowledge_by": deadline.acknowledge_by,
        "watch": watch.word if watch else None,
        "watch_at": watch.at if watch else None,
    }


def unsaid(request: Any, now: datetime) -> datetime:
    """The instant up to which everything was said about a request whose deadline is being moved: what waits to be
    said waits still, however late it is looked at.
    """
    return request.watch_at - _AN_INSTANT if request.watch_at is not None else now


def stops_of(deadline: Deadline) -> list[dict[str, str | None]]:
    """As the column has them."""
    return [
        {"from": stop.since.isoformat(), "until": stop.until.isoformat() if stop.until else None}
        for stop in deadline.stops
    ]
