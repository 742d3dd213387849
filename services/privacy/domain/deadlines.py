"""When a request must be answered, and who is told what before and after that day.

Time and place are passed in: instants by whoever calls, the zone whose midnights count, and which days are worked
there. A period is counted in the dates of that zone, and ends when its last day does.
"""

from calendar import monthrange
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from itertools import count, islice, pairwise
from typing import NamedTuple
from zoneinfo import ZoneInfo

from libs.common.errors import Conflict
from services.privacy.domain.rights import Law

IsWorkingDay = Callable[[date], bool]


GDPR_MONTHS, GDPR_EXTENDED_MONTHS = 1, 3
CCPA_DAYS, CCPA_EXTENDED_DAYS = 45, 90
CCPA_OPT_OUT_WORKING_DAYS = 15
CCPA_ACKNOWLEDGEMENT_WORKING_DAYS = 10

REMINDER_DAYS = (14, 7, 2)
ACKNOWLEDGEMENT_REMINDER_DAYS = (5, 2)
"""How many days before the last one somebody is reminded."""


class DeadlinePassed(Conflict):
    """409: the last day to answer is over, so it can be neither moved nor stopped."""

    slug = "deadline-passed"
    title = "The day to answer has passed"
    detail = "It can be neither extended nor stopped any more. Answer now, and say why it is late."


class ExtendedAlready(Conflict):
    """409: the law lets a deadline be extended once."""

    slug = "extended-already"
    title = "This deadline was extended already"
    detail = "The law allows it once. Answer by the day the request shows."


class NotExtendable(Conflict):
    """409: California gives no more time for an opt-out or a limit (11 CCR 7026(f), 7027(g))."""

    slug = "not-extendable"
    title = "This right has no extension"
    detail = "An opt-out and a limit are carried out within fifteen business days. Carry it out."


# --- Counting days ---------------------------------------------------------------------------------------


def day_of(instant: datetime, zone: ZoneInfo) -> date:
    """The date that clocks of the zone show. Raises ValueError for an instant without a zone of its own."""
    if instant.tzinfo is None:
        raise ValueError("an instant needs a time zone")
    return instant.astimezone(zone).date()


def start_of(day: date, zone: ZoneInfo) -> datetime:
    """The first instant of the day there, in UTC, also where clocks are moved at midnight."""
    return datetime.combine(day, time.min, zone).astimezone(UTC)


def months_after(day: date, months: int) -> date:
    """The same date so many months later or, where that month has none, its last day (Regulation 1182/71,
    Art. 3(2)(c)).
    """
    year, month = divmod(day.year * 12 + day.month - 1 + months, 12)
    month += 1
    return date(year, month, min(day.day, monthrange(year, month)[1]))


def working_day_from(day: date, is_working_day: IsWorkingDay) -> date:
    """The day, or the first working day after it (Regulation 1182/71, Art. 3(4))."""
    return next(filter(is_working_day, _days(day)))


def working_day_until(day: date, is_working_day: IsWorkingDay) -> date:
    """The day, or the last working day before it."""
    return next(filter(is_working_day, _days(day, step=-1)))


def working_days_after(day: date, number: int, is_working_day: IsWorkingDay) -> date:
    """The working day of that number, counted from 1, after the day, which is not counted itself."""
    return next(islice(filter(is_working_day, _days(day + timedelta(days=1))), number - 1, None))


def _days(first: date, *, step: int = 1) -> Iterator[date]:
    return (first + timedelta(days=number) for number in count(0, step))


class Stop(NamedTuple):
    """The requester was asked for something; the answer came at `until`, or has not come yet."""

    since: datetime
    until: datetime | None = None


def days_waited(stops: Iterable[Stop], zone: ZoneInfo, *, begun_on: date) -> int:
    """Days from the date of each stop, which is not counted, to that of its end, once the time ran. What was left on
    the day of the question is left on the day of the answer. What is still stopped does not count yet.
    """
    waits = (
        (max(day_of(stop.since, zone), begun_on), day_of(stop.until, zone))
        for stop in stops
        if stop.until is not None
    )
    return sum(max(0, (until - since).days) for since, until in waits)


# --- A deadline ------------------------------------------------------------------------------------------


class Word(StrEnum):
    """What a watch says: a reminder before the last day, an escalation on it, an alarm once it is over."""

    REMINDER = "reminder"
    ESCALATION = "escalation"
    ALARM = "alarm"
    ACKNOWLEDGEMENT_REMINDER = "acknowledgement-reminder"
    ACKNOWLEDGEMENT_ESCALATION = "acknowledgement-escalation"
    ACKNOWLEDGEMENT_ALARM = "acknowledgement-alarm"


class Watch(NamedTuple):
    """What is to be said, and when, in UTC."""

    word: Word
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadline:
    """One request's time to be answered. `opts_out` is California's opt-out of sale or sharing, and its limit;
    `opened_at` is when it was entered here, where that is later than its receipt, as of a letter.

    `zone` and `is_working_day` are those of the store's country; under California's law they are California's.
    Raises ValueError for instants without a zone, and for stops that overlap or are out of order.
    """

    law: Law
    zone: ZoneInfo
    is_working_day: IsWorkingDay
    received_at: datetime
    opened_at: datetime | None = None
    verified_at: datetime | None = None
    acknowledged_at: datetime | None = None
    extended: bool = False
    stops: Sequence[Stop] = ()
    opts_out: bool = False

    def __post_init__(self) -> None:
        instants = [instant for stop in self.stops for instant in stop if instant is not None]
        known = (self.received_at, self.opened_at, self.verified_at, self.acknowledged_at)
        for instant in filter(None, (*known, *instants)):
            day_of(instant, self.zone)
        in_order = all(one <= following for one, following in pairwise(instants))
        if not in_order or any(stop.until is None for stop in self.stops[:-1]):
            raise ValueError("a clock is stopped once at a time")

    @property
    def begun_at(self) -> datetime | None:
        """When the time began to run: California counts from receipt, however long verifying takes (11 CCR 7021(b))."""
        return self.received_at if self.law is Law.CCPA else self.verified_at

    @property
    def stopped_since(self) -> datetime | None:
        """Since when an answer of the requester is waited for."""
        return self.stops[-1].since if self.stops and self.stops[-1].until is None else None

    @property
    def due_on(self) -> date | None:
        """The last day to answer, by the end of which it must be done; None while the time does not run."""
        return self._ends_on(extended=self.extended)

    @property
    def latest(self) -> date | None:
        """The furthest that the law lets `due_on` be."""
        return self._ends_on(extended=True)

    @property
    def acknowledge_by(self) -> date | None:
        """The last day to confirm receipt; None where that is not asked: the GDPR, an opt-out (11 CCR 7021(a))."""
        if self.law is not Law.CCPA or self.opts_out:
            return None
        return working_days_after(self._received_on, CCPA_ACKNOWLEDGEMENT_WORKING_DAYS, self.is_working_day)

    @property
    def _received_on(self) -> date:
        return day_of(self.received_at, self.zone)

    def _ends_on(self, *, extended: bool) -> date | None:
        if self.law is Law.CCPA:
            return self._ends_in_california(extended=extended)
        if self.verified_at is None or self.stopped_since is not None:
            return None
        return self._ends_in_europe(self.verified_at, extended=extended)

    def _ends_in_europe(self, verified_at: datetime, *, extended: bool) -> date:
        """Months from verification, whose day is not counted, and the days waited; on a working day, and never with
        fewer than two of them to work on (Regulation 1182/71, Art. 3(1), (2)(c), (4), (5); for the days waited
        EDPB Guidelines 01/2022, section 5.3).
        """
        verified_on = day_of(verified_at, self.zone)
        last = months_after(verified_on, GDPR_EXTENDED_MONTHS if extended else GDPR_MONTHS)
        last += timedelta(days=days_waited(self.stops, self.zone, begun_on=verified_on))
        # Whoever asks on the Monday after a month that ended on a Sunday still has the day of the answer.
        answered_on = [day_of(stop.until, self.zone) for stop in self.stops if stop.until is not None]
        return max(
            working_day_from(max([last, *answered_on]), self.is_working_day),
            working_days_after(verified_on, 2, self.is_working_day),
        )

    def _ends_in_california(self, *, extended: bool) -> date:
        """Calendar days from receipt, whose day is not counted (Civil Code 10), or working days for an opt-out.

        Waiting for the requester does not move them, and neither does a weekend: only an earlier day is always right.
        """
        if self.opts_out:
            return working_days_after(self._received_on, CCPA_OPT_OUT_WORKING_DAYS, self.is_working_day)
        return self._received_on + timedelta(days=CCPA_EXTENDED_DAYS if extended else CCPA_DAYS)

    # --- What moves it ---------------------------------------------------------------------------------------

    def extend(self, at: datetime) -> "Deadline":
        """Two further months, or 45 further days. Raises NotExtendable, ExtendedAlready or DeadlinePassed."""
        if self.law is Law.CCPA and self.opts_out:
            raise NotExtendable
        if self.extended:
            raise ExtendedAlready
        self._refuse_once_over(at)
        return replace(self, extended=True)

    def stop(self, at: datetime) -> "Deadline":
        """The requester is asked for something; a stopped clock goes on being stopped. Raises DeadlinePassed."""
        if self.stopped_since is not None:
            return self
        self._refuse_once_over(at)
        return replace(self, stops=(*self.stops, Stop(at)))

    def resume(self, at: datetime) -> "Deadline":
        """The requester has answered; a clock that runs goes on running."""
        if self.stopped_since is None:
            return self
        return replace(self, stops=(*self.stops[:-1], Stop(self.stopped_since, at)))

    def _refuse_once_over(self, at: datetime) -> None:
        if self.due_on is not None and day_of(at, self.zone) > self.due_on:
            raise DeadlinePassed

    # --- What is watched -------------------------------------------------------------------------------------

    def schedule(self) -> list[Watch]:
        """Every watch in order; none while the time does not run.

        A reminder comes when its day begins, and is left out if that was before the request was opened. The escalation
        comes when the last working day begins, so that whoever takes over has all of it; the alarm when the last day
        is over. Both are there for a letter that was entered too late as well.
        """
        return sorted([*self._acknowledgement(), *self._answer()], key=lambda watch: watch.at)

    def following(self, after: datetime) -> Watch | None:
        """The next watch strictly after an instant. Begin with `begun_at` and go on with each watch's own instant;
        when a clock goes on, with that at which it was stopped. So nothing is passed over, however late one asks.
        """
        return next((watch for watch in self.schedule() if watch.at > after), None)

    def _answer(self) -> Iterator[Watch]:
        if self.due_on is not None:
            yield from self._watches(self.due_on, REMINDER_DAYS, Word.REMINDER, Word.ESCALATION, Word.ALARM)

    def _acknowledgement(self) -> Iterator[Watch]:
        if self.acknowledge_by is not None and self.acknowledged_at is None:
            yield from self._watches(
                self.acknowledge_by,
                ACKNOWLEDGEMENT_REMINDER_DAYS,
                Word.ACKNOWLEDGEMENT_REMINDER,
                Word.ACKNOWLEDGEMENT_ESCALATION,
                Word.ACKNOWLEDGEMENT_ALARM,
            )

    def _watches(
        self, last: date, days_before: Sequence[int], reminder: Word, escalation: Word, alarm: Word
    ) -> Iterator[Watch]:
        escalated_at = start_of(working_day_until(last, self.is_working_day), self.zone)
        opened_at = self.opened_at or self.received_at
        for days in days_before:
            # Before a long weekend the escalation comes first, and there is nothing left to be reminded of.
            watch = Watch(reminder, start_of(last - timedelta(days=days), self.zone))
            if opened_at < watch.at < escalated_at:
                yield watch
        yield Watch(escalation, escalated_at)
        yield Watch(alarm, start_of(last + timedelta(days=1), self.zone))
