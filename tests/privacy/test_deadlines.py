"""The day a request must be answered by: the law's examples, and any date, zone and calendar against a walk of days."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.privacy.calendars import Calendar, calendar_for, calendar_of
from services.privacy.domain.deadlines import (
    Deadline,
    DeadlinePassed,
    ExtendedAlready,
    IsWorkingDay,
    NotExtendable,
    Stop,
    Watch,
    Word,
    day_of,
    days_waited,
    months_after,
    start_of,
)
from services.privacy.domain.rights import Law

DAY = timedelta(days=1)
PARIS, LOS_ANGELES = ZoneInfo("Europe/Paris"), ZoneInfo("America/Los_Angeles")
ZONES = [
    "UTC", "Europe/Paris", "Europe/London", "America/Los_Angeles", "America/St_Johns", "America/Santiago",
    "Africa/Cairo", "Asia/Kathmandu", "Asia/Beirut", "Atlantic/Azores", "Australia/Lord_Howe",
    "Pacific/Kiritimati", "Pacific/Pago_Pago",
]  # fmt: skip
"""East and west of the date line, of half and quarter hours, and some that move their clocks at midnight."""
FRENCH, CALIFORNIAN = calendar_of("FR"), calendar_of("US")

zones = st.sampled_from(ZONES).map(ZoneInfo)
days = st.dates(date(2015, 1, 1), date(2060, 1, 1))
countries = st.sampled_from(["FR", "DE", "PL", "GB", "US", "JP", "XX"])


@st.composite
def instants(draw: st.DrawFn) -> datetime:
    """Any, and often the minutes around a midnight or around a change of clocks."""
    zone = draw(zones)
    midnight = start_of(draw(days), zone)
    return midnight + draw(
        st.sampled_from([timedelta(0), -timedelta(microseconds=1), timedelta(hours=2), timedelta(hours=23)])
        | st.timedeltas(timedelta(0), DAY)
    )


@st.composite
def calendars(draw: st.DrawFn) -> IsWorkingDay:
    """A country's, or one whose holidays come on any days of a year."""
    if draw(st.booleans()):
        return calendar_of(draw(countries)).is_working_day
    off = frozenset(draw(st.sets(st.integers(1, 366), max_size=60)))
    return lambda day: day.weekday() < 5 and day.timetuple().tm_yday not in off


def gdpr(verified_at: datetime, *, zone: ZoneInfo = PARIS, works: IsWorkingDay | None = None) -> Deadline:
    return Deadline(
        law=Law.GDPR,
        zone=zone,
        is_working_day=works or FRENCH.is_working_day,
        received_at=verified_at - timedelta(hours=1),
        verified_at=verified_at,
    )


def ccpa(received_at: datetime, *, opts_out: bool = False, works: IsWorkingDay | None = None) -> Deadline:
    return Deadline(
        law=Law.CCPA,
        zone=LOS_ANGELES,
        is_working_day=works or CALIFORNIAN.is_working_day,
        received_at=received_at,
        opts_out=opts_out,
    )


def noon(year: int, month: int, day: int, zone: ZoneInfo = PARIS) -> datetime:
    return datetime(year, month, day, 12, tzinfo=zone)


def due(deadline: Deadline) -> date:
    assert deadline.due_on is not None
    return deadline.due_on


# --- By hand ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verified", "last", "extended"),
    [
        # Months that end earlier end the period: 31 January, 30 November, the leap day.
        ((2025, 1, 31), date(2025, 2, 28), date(2025, 4, 30)),
        ((2024, 1, 31), date(2024, 2, 29), date(2024, 4, 30)),
        ((2026, 11, 30), date(2026, 12, 30), date(2027, 3, 1)),  # 28 February 2027 is a Sunday
        ((2028, 2, 29), date(2028, 3, 29), date(2028, 5, 29)),
        # 28 February 2026 is a Saturday.
        ((2026, 1, 31), date(2026, 3, 2), date(2026, 4, 30)),
        # Easter Monday, 6 April 2026, after a Sunday; the extended one is 5 June.
        ((2026, 3, 5), date(2026, 4, 7), date(2026, 6, 5)),
        # Saturday 14 February; 14 April.
        ((2026, 1, 14), date(2026, 2, 16), date(2026, 4, 14)),
        # 14 July; then Monday 14 September.
        ((2026, 6, 14), date(2026, 7, 15), date(2026, 9, 14)),
        # The year turns: 1 January is a holiday and 2 January a Friday.
        ((2025, 12, 1), date(2026, 1, 2), date(2026, 3, 2)),
    ],
)
def test_one_month_and_three_in_france(verified: tuple[int, int, int], last: date, extended: date) -> None:
    deadline = gdpr(noon(*verified))
    assert (deadline.due_on, deadline.latest) == (last, extended)
    assert deadline.extend(noon(*verified)).due_on == extended


def test_easter_monday_is_worked_in_california_and_the_fourth_of_july_in_france() -> None:
    assert not FRENCH.is_working_day(date(2026, 4, 6)) and CALIFORNIAN.is_working_day(date(2026, 4, 6))
    assert FRENCH.is_working_day(date(2025, 7, 4)) and not CALIFORNIAN.is_working_day(date(2025, 7, 4))


def test_california_counts_from_receipt_and_leaves_out_its_holidays_where_working_days_count() -> None:
    # Friday, 20 June 2025: ten business days leave out the fourth of July, a Friday; 45 days end on a Monday.
    deadline = ccpa(noon(2025, 6, 20, LOS_ANGELES))
    assert deadline.acknowledge_by == date(2025, 7, 7)
    assert deadline.due_on == date(2025, 8, 4)
    assert deadline.latest == deadline.extend(noon(2025, 8, 4, LOS_ANGELES)).due_on == date(2025, 9, 18)
    opted_out = ccpa(noon(2025, 6, 20, LOS_ANGELES), opts_out=True)
    assert opted_out.due_on == opted_out.latest == date(2025, 7, 14)
    assert opted_out.acknowledge_by is None


def test_45_days_stay_where_they_fall() -> None:
    # From Tuesday, 20 May 2025 to the fourth of July.
    assert ccpa(noon(2025, 5, 20, LOS_ANGELES)).due_on == date(2025, 7, 4)


def test_a_period_has_two_working_days_however_many_holidays_there_are() -> None:
    works = {date(2026, 5, 29), date(2026, 6, 10)}.__contains__
    assert gdpr(noon(2026, 4, 28), works=works).due_on == date(2026, 6, 10)


def test_the_instant_of_verification_is_a_date_where_the_store_is() -> None:
    before_midnight = datetime(2026, 3, 31, 21, 59, 59, tzinfo=UTC)
    assert gdpr(before_midnight).due_on == date(2026, 4, 30)
    assert gdpr(before_midnight + timedelta(seconds=1)).due_on == date(2026, 5, 4)  # 1 May, a Friday
    assert gdpr(before_midnight, zone=ZoneInfo("Pacific/Kiritimati")).due_on == date(2026, 5, 4)


def test_the_time_does_not_run_before_verification_except_in_california() -> None:
    received = noon(2026, 3, 2)
    asked = Deadline(law=Law.GDPR, zone=PARIS, is_working_day=FRENCH.is_working_day, received_at=received)
    assert (asked.due_on, asked.latest, asked.schedule(), asked.following(received)) == (None, None, [], None)
    assert asked.acknowledge_by is None
    assert ccpa(received).due_on == date(2026, 4, 16)
    assert (asked.begun_at, ccpa(received).begun_at) == (None, received)


# --- Any date --------------------------------------------------------------------------------------------


def walked(day: date, months: int) -> date:
    """Walk to the first of the month in question, then on to the same date while the month lasts."""
    reached = day
    for _ in range(months):
        reached += DAY
        while reached.day != 1:
            reached += DAY
    month = reached.month
    while reached.day < day.day and (reached + DAY).month == month:
        reached += DAY
    return reached


@given(days, st.integers(1, 14))
def test_months_are_what_a_walk_through_the_calendar_finds(day: date, months: int) -> None:
    assert months_after(day, months) == walked(day, months)


@given(instants(), zones, calendars(), st.booleans())
def test_a_month_ends_on_the_first_working_day_from_its_last_date_on(
    at: datetime, zone: ZoneInfo, works: IsWorkingDay, extended: bool
) -> None:
    deadline = gdpr(at, zone=zone, works=works)
    last = due(deadline.extend(at) if extended else deadline)
    reached = walked(day_of(at, zone), 3 if extended else 1)
    while not works(reached):
        reached += DAY
    worked = [day for day in _between(day_of(at, zone), last) if works(day)]
    assert len(worked) >= 2 and last == worked[-1]
    assert last == max(reached, worked[1])


@given(instants(), zones, countries, st.booleans())
def test_no_real_calendar_moves_a_month_by_more_than_two_weeks(
    at: datetime, zone: ZoneInfo, country: str, extended: bool
) -> None:
    deadline = gdpr(at, zone=zone, works=calendar_of(country).is_working_day)
    last = due(deadline.extend(at) if extended else deadline)
    fewest, most = (89, 92) if extended else (28, 31)
    assert timedelta(fewest) <= last - day_of(at, zone) <= timedelta(most + 14)


@given(instants(), st.timedeltas(timedelta(0), timedelta(days=400)), zones, calendars())
def test_whoever_is_verified_later_is_not_due_earlier(
    at: datetime, later: timedelta, zone: ZoneInfo, works: IsWorkingDay
) -> None:
    one, other = gdpr(at, zone=zone, works=works), gdpr(at + later, zone=zone, works=works)
    assert due(one) <= due(other)
    assert due(one.extend(at)) <= due(other.extend(at + later))


@given(instants(), calendars(), st.booleans())
def test_california_by_a_walk_of_days(at: datetime, works: IsWorkingDay, opts_out: bool) -> None:
    deadline = ccpa(at, opts_out=opts_out, works=works)
    received_on = day_of(at, LOS_ANGELES)
    if opts_out:
        assert sum(works(day) for day in _between(received_on, due(deadline))) == 15 and works(due(deadline))
        assert deadline.acknowledge_by is None
    else:
        assert len(_between(received_on, due(deadline))) == 45
        assert len(_between(received_on, due(deadline.extend(at)))) == 90
        assert deadline.acknowledge_by is not None and works(deadline.acknowledge_by)
        assert sum(works(day) for day in _between(received_on, deadline.acknowledge_by)) == 10


@given(instants(), zones, calendars(), st.sampled_from(Law))
def test_extending_never_shortens_and_reaches_the_latest(
    at: datetime, zone: ZoneInfo, works: IsWorkingDay, law: Law
) -> None:
    deadline = gdpr(at, zone=zone, works=works) if law is Law.GDPR else ccpa(at, works=works)
    extended = deadline.extend(at)
    assert due(extended) >= due(deadline)
    assert deadline.latest == extended.latest == extended.due_on


def _between(day: date, last: date) -> list[date]:
    """The days after the one, up to the other."""
    return [day + number * DAY for number in range(1, (last - day).days + 1)]


# --- Instants and zones ----------------------------------------------------------------------------------


@given(instants(), zones)
def test_a_day_begins_when_the_one_before_is_over(at: datetime, zone: ZoneInfo) -> None:
    day = day_of(at, zone)
    begins, ends = start_of(day, zone), start_of(day + DAY, zone)
    assert begins <= at < ends and begins.tzinfo is UTC
    assert day_of(begins, zone) == day and day_of(ends - timedelta(microseconds=1), zone) == day
    assert timedelta(hours=22) <= ends - begins <= timedelta(hours=26)


@pytest.mark.parametrize(
    ("zone", "day", "hour"),
    [
        ("America/Santiago", date(2025, 9, 7), 1),  # clocks go from midnight to one
        ("Asia/Beirut", date(2025, 3, 30), 1),
        ("Atlantic/Azores", date(2025, 10, 26), 0),  # and from one to midnight, which comes twice
    ],
)
def test_a_day_whose_midnight_is_moved_begins_with_its_first_instant(zone: str, day: date, hour: int) -> None:
    begins = start_of(day, ZoneInfo(zone))
    shown = begins.astimezone(ZoneInfo(zone))
    assert (shown.date(), shown.hour, shown.fold) == (day, hour, 0)
    assert day_of(begins - timedelta(microseconds=1), ZoneInfo(zone)) == day - DAY


def test_an_instant_without_a_zone_is_refused() -> None:
    naive = datetime(2026, 3, 2, 12)
    for wrong in (
        lambda: gdpr(naive),
        lambda: ccpa(naive),
        lambda: gdpr(noon(2026, 3, 2)).stop(naive),
        lambda: gdpr(noon(2026, 3, 2)).extend(naive),
    ):
        with pytest.raises(ValueError, match="time zone"):
            wrong()


# --- Stopped ---------------------------------------------------------------------------------------------


@given(
    instants(),
    zones,
    calendars(),
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 20)), max_size=4),  # at most 24 days of running
    st.booleans(),
)
def test_each_whole_day_waited_is_a_day_more_before_the_calendar_is_looked_at(
    at: datetime, zone: ZoneInfo, works: IsWorkingDay, waits: list[tuple[int, int]], extended: bool
) -> None:
    clock = day_of(at, zone)
    stops: list[Stop] = []
    for run, waited in waits:
        since, clock = clock + run * DAY, clock + (run + waited) * DAY
        stops.append(Stop(_at_noon(since, zone), _at_noon(clock, zone)))
    verified_at = start_of(day_of(at, zone), zone)
    deadline = Deadline(
        law=Law.GDPR, zone=zone, is_working_day=works, received_at=verified_at, verified_at=verified_at,
        extended=extended, stops=stops,
    )  # fmt: skip
    reached = walked(day_of(at, zone), 3 if extended else 1) + sum(waited for _, waited in waits) * DAY
    while not works(reached):
        reached += DAY
    assert due(deadline) == reached or sum(map(works, _between(day_of(at, zone), due(deadline)))) == 2


def _at_noon(day: date, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, time(12), zone).astimezone(UTC)


@given(
    instants(), zones, calendars(), st.floats(0, 1, exclude_max=True), st.timedeltas(timedelta(0), 60 * DAY)
)
def test_what_was_left_when_the_clock_stopped_is_left_when_it_goes_on(
    at: datetime, zone: ZoneInfo, works: IsWorkingDay, part: float, waited: timedelta
) -> None:
    deadline = gdpr(at, zone=zone, works=works)
    over = start_of(due(deadline) + DAY, zone)
    asked_at = min(at + part * (over - at), over - timedelta(microseconds=1))
    answered_at = asked_at + waited
    running = deadline.stop(asked_at).resume(answered_at)
    assert due(running) >= max(day_of(answered_at, zone), due(deadline))
    assert running.following(asked_at) is not None, "nobody would be told"
    everyday = gdpr(at, zone=zone, works=lambda _: True)
    if day_of(asked_at, zone) <= due(everyday):
        left = due(everyday) - day_of(asked_at, zone)
        went_on = everyday.stop(asked_at).resume(answered_at)
        assert due(went_on) - day_of(answered_at, zone) == left


def test_a_wait_is_counted_in_dates_whatever_the_clocks_do() -> None:
    evening = datetime(2026, 3, 28, 18, tzinfo=PARIS)
    for answered, waited in (
        (datetime(2026, 3, 28, 23, 59, tzinfo=PARIS), 0),
        (datetime(2026, 3, 29, 0, 0, tzinfo=PARIS), 1),
        (datetime(2026, 3, 29, 22, 1, tzinfo=UTC), 2),  # the clocks went forward
    ):
        assert days_waited([Stop(evening, answered)], PARIS, begun_on=date(2026, 3, 2)) == waited


def test_a_clock_stopped_on_the_monday_after_the_month_ended_leaves_the_day_of_the_answer() -> None:
    deadline = gdpr(noon(2026, 3, 5))  # 5 April is Easter
    running = deadline.stop(noon(2026, 4, 7)).resume(noon(2026, 4, 8))
    assert (deadline.due_on, running.due_on) == (date(2026, 4, 7), date(2026, 4, 8))
    # Escalated while nobody counted: whoever asks from the stop on hears of it.
    assert [watch.word for watch in (running.following(noon(2026, 4, 7)),) if watch] == [Word.ESCALATION]


def test_a_stopped_clock_has_no_last_day_and_says_since_when() -> None:
    deadline = gdpr(noon(2026, 3, 2))
    asked, answered = noon(2026, 3, 10), noon(2026, 3, 20)
    stopped = deadline.stop(asked)
    assert stopped.stopped_since == asked
    assert (stopped.due_on, stopped.latest, stopped.schedule(), stopped.following(asked)) == (
        None,
        None,
        [],
        None,
    )
    assert stopped.stop(answered) == stopped
    running = stopped.resume(answered)
    assert running.stops == (Stop(asked, answered),) and running.stopped_since is None
    assert running.due_on == date(2026, 4, 13) and deadline.due_on == date(2026, 4, 2)  # 12 April, a Sunday
    assert running.resume(noon(2026, 3, 30)) == running


def test_what_was_waited_before_verification_is_not_waited_twice() -> None:
    verified_on = date(2026, 3, 2)
    assert days_waited([Stop(noon(2026, 2, 1), noon(2026, 2, 20))], PARIS, begun_on=verified_on) == 0
    assert days_waited([Stop(noon(2026, 2, 1), noon(2026, 3, 4))], PARIS, begun_on=verified_on) == 2
    waited = replace(gdpr(noon(2026, 3, 2)), stops=[Stop(noon(2026, 2, 1), noon(2026, 2, 20))])
    assert waited.due_on == date(2026, 4, 2)


def test_waiting_for_the_requester_does_not_move_california() -> None:
    deadline = ccpa(noon(2025, 6, 20, LOS_ANGELES))
    asked, answered = noon(2025, 6, 23, LOS_ANGELES), noon(2025, 7, 10, LOS_ANGELES)
    stopped = deadline.stop(asked)
    assert stopped.stopped_since == asked
    assert stopped.due_on == stopped.resume(answered).due_on == deadline.due_on
    assert stopped.schedule() == deadline.schedule()


@pytest.mark.parametrize(
    "stops",
    [
        [Stop(noon(2026, 3, 5), noon(2026, 3, 4))],
        [Stop(noon(2026, 3, 5)), Stop(noon(2026, 3, 6))],
        [Stop(noon(2026, 3, 5), noon(2026, 3, 9)), Stop(noon(2026, 3, 8), noon(2026, 3, 10))],
    ],
)
def test_a_clock_is_stopped_once_at_a_time(stops: Sequence[Stop]) -> None:
    with pytest.raises(ValueError, match="once at a time"):
        Deadline(
            law=Law.GDPR, zone=PARIS, is_working_day=FRENCH.is_working_day,
            received_at=noon(2026, 3, 1), verified_at=noon(2026, 3, 2), stops=stops,
        )  # fmt: skip


# --- Extended --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("deadline", [gdpr(noon(2026, 3, 2)), ccpa(noon(2026, 3, 2))], ids=["gdpr", "ccpa"])
def test_the_last_instant_of_the_last_day_still_extends_and_stops_and_the_next_does_not(
    deadline: Deadline,
) -> None:
    over = start_of(due(deadline) + DAY, deadline.zone)
    just = over - timedelta(microseconds=1)
    assert deadline.extend(just).extended and deadline.stop(just).stopped_since == just
    with pytest.raises(DeadlinePassed):
        deadline.extend(over)
    with pytest.raises(DeadlinePassed):
        deadline.stop(over)


@pytest.mark.parametrize("deadline", [gdpr(noon(2026, 3, 2)), ccpa(noon(2026, 3, 2))], ids=["gdpr", "ccpa"])
def test_nothing_is_extended_twice(deadline: Deadline) -> None:
    with pytest.raises(ExtendedAlready):
        deadline.extend(deadline.received_at).extend(deadline.received_at)


def test_an_opt_out_has_no_extension() -> None:
    with pytest.raises(NotExtendable):
        ccpa(noon(2026, 3, 2), opts_out=True).extend(noon(2026, 3, 2))


def test_a_clock_can_be_stopped_between_the_first_day_and_the_extended_one() -> None:
    extended = gdpr(noon(2026, 3, 2)).extend(noon(2026, 3, 30))
    waited = extended.stop(noon(2026, 5, 4)).resume(noon(2026, 5, 11))
    assert due(waited) - due(extended) == 7 * DAY


# --- Watched ---------------------------------------------------------------------------------------------


def test_the_watches_of_a_month_in_france() -> None:
    assert gdpr(noon(2026, 3, 5)).schedule() == [
        Watch(Word.REMINDER, datetime(2026, 3, 23, 23, tzinfo=UTC)),
        # The clocks have gone forward in between.
        Watch(Word.REMINDER, datetime(2026, 3, 30, 22, tzinfo=UTC)),
        Watch(Word.REMINDER, datetime(2026, 4, 4, 22, tzinfo=UTC)),
        Watch(Word.ESCALATION, datetime(2026, 4, 6, 22, tzinfo=UTC)),
        Watch(Word.ALARM, datetime(2026, 4, 7, 22, tzinfo=UTC)),
    ]


def test_california_is_escalated_on_the_last_working_day_and_reminded_before_that_only() -> None:
    # 45 days end on Saturday, 4 July 2026; the Friday is the day observed, so Thursday is the last to work.
    deadline = ccpa(noon(2026, 5, 20, LOS_ANGELES))
    assert deadline.due_on == date(2026, 7, 4) and deadline.acknowledge_by == date(2026, 6, 4)
    said = [(watch.word, day_of(watch.at, LOS_ANGELES)) for watch in deadline.schedule()]
    assert said == [
        (Word.ACKNOWLEDGEMENT_REMINDER, date(2026, 5, 30)),
        (Word.ACKNOWLEDGEMENT_REMINDER, date(2026, 6, 2)),
        (Word.ACKNOWLEDGEMENT_ESCALATION, date(2026, 6, 4)),
        (Word.ACKNOWLEDGEMENT_ALARM, date(2026, 6, 5)),
        (Word.REMINDER, date(2026, 6, 20)),
        (Word.REMINDER, date(2026, 6, 27)),
        (Word.ESCALATION, date(2026, 7, 2)),
        (Word.ALARM, date(2026, 7, 5)),
    ]


def test_once_acknowledged_nobody_is_reminded_to() -> None:
    received_at = noon(2026, 5, 20, LOS_ANGELES)
    deadline = Deadline(
        law=Law.CCPA, zone=LOS_ANGELES, is_working_day=CALIFORNIAN.is_working_day, received_at=received_at,
        acknowledged_at=received_at,
    )  # fmt: skip
    assert {watch.word for watch in deadline.schedule()} == {Word.REMINDER, Word.ESCALATION, Word.ALARM}


@given(instants(), zones, countries, st.sampled_from(Law), st.booleans(), st.booleans())
def test_the_schedule_is_in_order_complete_and_on_local_midnights(
    at: datetime, zone: ZoneInfo, country: str, law: Law, extended: bool, opts_out: bool
) -> None:
    works = calendar_for(law, country).is_working_day
    deadline = Deadline(
        law=law, zone=zone, is_working_day=works, received_at=at, verified_at=at, extended=extended, opts_out=opts_out
    )  # fmt: skip
    watches = deadline.schedule()
    instants_watched = [watch.at for watch in watches]
    assert instants_watched == sorted(set(instants_watched)) and instants_watched[0] > at
    assert all(start_of(day_of(each, zone), zone) == each for each in instants_watched)
    words = [watch.word for watch in watches]
    assert words[-2:] == [Word.ESCALATION, Word.ALARM]
    assert words.count(Word.REMINDER) in ((3,) if works(due(deadline)) else (2, 3))
    assert (Word.ACKNOWLEDGEMENT_ALARM in words) == (deadline.acknowledge_by is not None)
    assert watches[-1].at == start_of(due(deadline) + DAY, zone)
    escalated_on = day_of(watches[-2].at, zone)
    assert works(escalated_on) and not any(map(works, _between(escalated_on, due(deadline))))


def test_a_letter_entered_late_is_reminded_of_what_is_to_come_and_escalated_even_if_it_is_over() -> None:
    received_at = noon(2026, 5, 20, LOS_ANGELES)
    on_time = ccpa(received_at)
    late = replace(on_time, opened_at=noon(2026, 6, 22, LOS_ANGELES))
    left_out = [watch for watch in on_time.schedule() if watch not in late.schedule()]
    assert [(watch.word, day_of(watch.at, LOS_ANGELES)) for watch in left_out] == [
        (Word.ACKNOWLEDGEMENT_REMINDER, date(2026, 5, 30)),
        (Word.ACKNOWLEDGEMENT_REMINDER, date(2026, 6, 2)),
        (Word.REMINDER, date(2026, 6, 20)),
    ]
    over = replace(on_time, opened_at=noon(2026, 7, 20, LOS_ANGELES), acknowledged_at=received_at)
    assert [watch.word for watch in over.schedule()] == [Word.ESCALATION, Word.ALARM]
    assert over.following(received_at) == over.schedule()[0]


@given(instants(), zones, countries, st.sampled_from(Law))
def test_a_clock_that_moves_from_watch_to_watch_meets_each_once(
    at: datetime, zone: ZoneInfo, country: str, law: Law
) -> None:
    deadline = Deadline(
        law=law, zone=zone, is_working_day=calendar_for(law, country).is_working_day, received_at=at, verified_at=at
    )  # fmt: skip
    met: list[Watch] = []
    clock = at
    while (watch := deadline.following(clock)) is not None:
        assert watch.at > clock
        met.append(watch)
        clock = watch.at
    assert met == deadline.schedule()


# --- Calendars -------------------------------------------------------------------------------------------


def test_a_store_has_the_calendar_of_its_country_and_california_its_own() -> None:
    assert calendar_for(Law.GDPR, "FR") is FRENCH and FRENCH.zone == PARIS
    assert calendar_for(Law.CCPA, "FR") is CALIFORNIAN and CALIFORNIAN.zone == LOS_ANGELES
    assert not FRENCH.is_working_day(date(2026, 5, 14)), "Ascension Day"
    assert not CALIFORNIAN.is_working_day(date(2026, 3, 31)), "Cesar Chavez Day, a holiday of the state"
    assert not CALIFORNIAN.is_working_day(date(2026, 7, 3)), "observed, as the fourth is a Saturday"


def test_of_an_unknown_country_only_the_weekends_are_known_and_it_says_so() -> None:
    unknown = calendar_of("XX")
    assert not unknown.knows_holidays and FRENCH.knows_holidays and CALIFORNIAN.knows_holidays
    assert unknown.zone == ZoneInfo("UTC")
    assert unknown.is_working_day(date(2026, 12, 25)) and not unknown.is_working_day(date(2026, 12, 26))


@pytest.mark.parametrize("country", ["AU", "DE", "ES", "PT", "RU", "XK", "BR", "UA", "IE", "PL", "RE"])
def test_the_zone_of_a_country_is_its_capitals(country: str) -> None:
    expected = {
        "AU": "Australia/Sydney", "DE": "Europe/Berlin", "ES": "Europe/Madrid", "PT": "Europe/Lisbon",
        "RU": "Europe/Moscow", "XK": "Europe/Belgrade", "BR": "America/Sao_Paulo", "UA": "Europe/Kyiv",
        "IE": "Europe/Dublin", "PL": "Europe/Warsaw", "RE": "Indian/Reunion",
    }  # fmt: skip
    assert calendar_of(country).zone == ZoneInfo(expected[country])


def test_every_country_of_the_world_has_a_zone() -> None:
    from babel.core import get_global  # noqa: PLC0415

    world = {code for code in get_global("territory_zones") if code.isalpha() and code != "ZZ"} | {"XK"}
    found: dict[str, Calendar] = {country: calendar_of(country) for country in world}
    assert [country for country, calendar in found.items() if calendar.zone.key == "UTC"] == []


@given(days, countries)
def test_no_weekend_is_worked_anywhere(day: date, country: str) -> None:
    assert day.weekday() < 5 or not calendar_of(country).is_working_day(day)
