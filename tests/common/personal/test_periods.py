"""How long data is kept: lengths, clocks, and the bounds between which a store may choose."""

from calendar import isleap
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.personal.data import KINDS
from libs.common.personal.vocabulary import AFTER_A_HOLD, RULES, Bucket, Clock, Length, Retention

DAYS = st.dates(date(1990, 1, 1), date(2090, 12, 31))
LENGTHS = st.one_of(
    st.builds(Length, st.integers(0, 4000), st.just("D")),
    st.builds(Length, st.integers(0, 130), st.just("M")),
    st.builds(Length, st.integers(0, 12), st.just("Y")),
)


# --- Lengths ---------------------------------------------------------------------------------------------


@given(LENGTHS)
def test_a_length_is_read_as_it_is_written(length: Length) -> None:
    assert Length.parse(str(length)) == length


@pytest.mark.parametrize(
    "written",
    ["", "P", "10D", "P-1D", "P1", "P1W", "P1D\n", " P1D", "P01D", "P1.5Y", "P1Y2M", "p1d", "P٣D", "P101Y", "P99999D"],
)  # fmt: skip
def test_what_is_no_length_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match=r"P10D|century"):
        Length.parse(written)


@given(DAYS, LENGTHS)
def test_nothing_ends_before_it_began_and_what_begins_later_ends_no_earlier(
    day: date, length: Length
) -> None:
    assert length.after(day) >= day
    assert length.after(day + timedelta(days=1)) >= length.after(day)


@given(DAYS, st.integers(0, 130))
def test_months_keep_the_day_of_the_month_or_take_its_last(day: date, months: int) -> None:
    later = Length(months, "M").after(day)
    assert (later.year * 12 + later.month) - (day.year * 12 + day.month) == months
    assert later.day == day.day or (later + timedelta(days=1)).day == 1


@pytest.mark.parametrize(
    ("day", "written", "last"),
    [
        (date(2024, 2, 29), "P1Y", date(2025, 2, 28)),
        (date(2024, 2, 29), "P4Y", date(2028, 2, 29)),
        (date(2026, 1, 31), "P1M", date(2026, 2, 28)),
        (date(2028, 1, 31), "P1M", date(2028, 2, 29)),
        (date(2026, 11, 26), "P10D", date(2026, 12, 6)),
        (date(2026, 12, 31), "P0D", date(2026, 12, 31)),
        (date(2026, 10, 31), "P4M", date(2027, 2, 28)),
    ],
)
def test_the_last_day(day: date, written: str, last: date) -> None:
    assert Length.parse(written).after(day) == last


@given(DAYS)
def test_accounting_is_counted_from_the_end_of_the_year(day: date) -> None:
    _, rule = RULES[Clock.INVOICE_ISSUED]
    last = rule.last_day(day)
    assert (last.year, last.month, last.day) == (day.year + 10, 12, 31)
    assert (last - date(day.year, 12, 31)).days == 3650 + sum(
        isleap(year) for year in range(day.year + 1, day.year + 11)
    )
    assert Retention.ACCOUNTING.period.expires_on(str(day.year)) == last


# --- The vocabulary --------------------------------------------------------------------------------------


@pytest.mark.parametrize("retention", list(Retention))
def test_every_retention_has_a_clock_and_nothing_is_kept_for_ever(retention: Retention) -> None:
    assert retention.period.rules
    for rule in retention.period.rules:
        assert RULES[rule.clock] == (retention, rule)
        assert rule.allows(rule.length) and rule.allows(rule.least) and rule.allows(rule.most)
        assert rule.most.nominal_days <= 10 * 366
        assert rule.law


def test_every_clock_counts_for_something() -> None:
    assert {*RULES, AFTER_A_HOLD.clock} == set(Clock)


def test_what_the_law_keeps_can_be_kept_neither_for_less_nor_for_more() -> None:
    for retention in (one for one in Retention if one.period.kept_by_law):
        assert all(rule.is_fixed for rule in retention.period.rules)
        assert retention.period.divided_by is Bucket.YEAR
    _, rule = RULES[Clock.INVOICE_ISSUED]
    assert not rule.allows(Length(9, "Y")) and not rule.allows(Length(11, "Y"))


def test_what_policies_promise() -> None:
    """P8 and O5, O6: accounts three months, messages a year, cancelled orders ten days, accounting ten years."""
    promised = {
        Clock.ACCOUNT_CLOSED: "P3M",
        Clock.MESSAGE_SETTLED: "P1Y",
        Clock.ORDER_CANCELLED: "P10D",
        Clock.INVOICE_ISSUED: "P10Y",
    }
    assert {clock: str(RULES[clock][1].length) for clock in promised} == promised
    _, account = RULES[Clock.ACCOUNT_CLOSED]
    assert (str(account.least), str(account.most)) == ("P0D", "P3Y")


def test_every_kind_has_a_retention_with_a_clock() -> None:
    assert KINDS
    assert all(kind.retention.period.rules for kind in KINDS.values())
