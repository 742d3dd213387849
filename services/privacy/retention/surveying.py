"""Of what runs: how long each kind is kept, what another choice would do, and what expires when. Counts only."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.db import Query, fetch
from libs.common.personal.vocabulary import RULES, Clock, Length, Retention
from services.privacy.desk_schemas import (
    ChangeForecast,
    ExpiriesOfMonth,
    Expiring,
    PeriodView,
    RetentionForecast,
    RetentionPreview,
    RetentionView,
)
from services.privacy.retention.expiring import held
from services.privacy.retention.periods import Choice, check, choice_of, left_to_move
from services.privacy.words import CLOCKS, said

# --- What is chosen --------------------------------------------------------------------------------------

_KINDS = """
    SELECT entry -> 'retention' ->> 'name' AS retention, array_agg(DISTINCT entry ->> 'kind') AS kinds
    FROM participant, jsonb_array_elements(data_map) AS entry
    WHERE entry -> 'retention' ->> 'name' IS NOT NULL GROUP BY 1
"""


async def _kinds(session: AsyncSession) -> Mapping[str, list[str]]:
    """By retention, the kinds of data that somebody announced."""
    return {row.retention: sorted(row.kinds) for row in await fetch(session, _KINDS)}


async def periods(session: AsyncSession, *, store_id: UUID, language: str) -> tuple[RetentionView, int]:
    """How long everything is kept, between which bounds the store may choose, and the version of its choice."""
    choice, kinds = await choice_of(session, store_id), await _kinds(session)
    views = [
        PeriodView(
            clock=clock,
            retention=retention,
            kinds=kinds.get(retention, []),
            starts=said(CLOCKS, clock, language),
            length=str(choice.length(clock)),
            default=str(rule.length),
            least=str(rule.least),
            most=str(rule.most),
            chosen=clock in choice.lengths,
            fixed=rule.is_fixed,
            from_end_of_year=rule.from_end_of_year,
            law=rule.law,
        )
        for clock, (retention, rule) in RULES.items()
    ]
    left = await left_to_move(session, store_id)
    return RetentionView(periods=views, zone=choice.zone, left_to_move=left), choice.version


# --- What another choice would do ------------------------------------------------------------------------

_CHANGE = Query("""
    WITH asked AS (
        SELECT * FROM unnest(CAST(:clocks AS text[]), CAST(:months AS int[]), CAST(:days AS int[]))
            AS asked (clock, months, days)
    ), moved AS (
        SELECT subject_id, expiry.clock, expires_on,
            CAST(CAST(started_at AT TIME ZONE CAST(:zone AS text) AS date)
                + make_interval(months => asked.months, days => asked.days) AS date) AS moved_to
        FROM expiry JOIN asked USING (clock) WHERE store_id = :store_id AND state = 'running'
    )
    SELECT clock, count(*) AS records, count(DISTINCT subject_id) AS persons,
        count(*) FILTER (WHERE moved_to < expires_on) AS earlier,
        count(*) FILTER (WHERE moved_to > expires_on) AS later,
        count(*) FILTER (WHERE moved_to < CAST(:today AS date) AND expires_on >= CAST(:today AS date)) AS at_once,
        count(DISTINCT subject_id) FILTER (WHERE moved_to < expires_on) AS persons_earlier,
        count(DISTINCT subject_id) FILTER (WHERE moved_to > expires_on) AS persons_later,
        count(DISTINCT subject_id) FILTER (
            WHERE moved_to < CAST(:today AS date) AND expires_on >= CAST(:today AS date)) AS persons_at_once
    FROM moved GROUP BY clock ORDER BY clock
""")


async def preview(
    session: AsyncSession, *, store_id: UUID, lengths: Mapping[Clock, Length], now: datetime
) -> RetentionPreview:
    """What would expire earlier, later, and at once, if this were chosen. Changes nothing. Raises PeriodNotAllowed."""
    check(lengths)
    choice, kinds = await choice_of(session, store_id), await _kinds(session)
    wanted = Choice(lengths, choice.zone)
    # What the law fixes, and counts from the end of a year, moves with no choice.
    clocks = [clock for clock, (_, rule) in RULES.items() if not rule.is_fixed]
    rows = await _CHANGE.rows(
        session,
        store_id=store_id,
        zone=choice.zone,
        today=choice.today(now),
        clocks=[clock.value for clock in clocks],
        # What PostgreSQL makes of a date and an interval is what `Length.after` does.
        months=[_months(wanted.length(clock)) for clock in clocks],
        days=[_days(wanted.length(clock)) for clock in clocks],
    )
    changes = [_change(row, choice, wanted, kinds) for row in rows]
    return RetentionPreview(changes=changes)


def _months(length: Length) -> int:
    return 0 if length.unit == "D" else length.number * (12 if length.unit == "Y" else 1)


def _days(length: Length) -> int:
    return length.number if length.unit == "D" else 0


def _change(row: Any, choice: Choice, wanted: Choice, kinds: Mapping[str, Sequence[str]]) -> ChangeForecast:
    clock = Clock(row.clock)
    retention, _ = RULES[clock]
    return ChangeForecast(
        clock=clock,
        retention=retention,
        kinds=list(kinds.get(retention, [])),
        length=str(choice.length(clock)),
        wanted=str(wanted.length(clock)),
        records=row.records,
        persons=row.persons,
        earlier=row.earlier,
        later=row.later,
        at_once=row.at_once,
        persons_earlier=row.persons_earlier,
        persons_later=row.persons_later,
        persons_at_once=row.persons_at_once,
    )


# --- What expires when -----------------------------------------------------------------------------------

# What is overdue, stopped for instance, stands with the present month.
_FORECAST = Query(f"""
    SELECT greatest(date_trunc('month', expires_on), date_trunc('month', CAST(:today AS date)))::date AS month,
        retention, count(*) AS records, count(DISTINCT subject_id) AS persons,
        count(*) FILTER (WHERE {held("expiry")}) AS held
    FROM expiry
    WHERE store_id = :store_id AND state = 'running' AND expires_on < CAST(:until AS date)
    GROUP BY 1, 2 ORDER BY 1, 2
""")  # noqa: S608 - names of this package


async def forecast(session: AsyncSession, *, store_id: UUID, months: int, now: datetime) -> RetentionForecast:
    """What expires in this month and the next ones, by kind; what a hold keeps beyond is counted apart."""
    choice, kinds = await choice_of(session, store_id), await _kinds(session)
    today = choice.today(now)
    listed = [_month_after(today, number) for number in range(months + 1)]
    found: dict[date, list[Expiring]] = {month: [] for month in listed[:months]}
    values = {"store_id": store_id, "today": today, "until": listed[months], "now": now}
    for row in await _FORECAST.rows(session, **values):
        expiring = Expiring(
            retention=Retention(row.retention),
            kinds=kinds.get(row.retention, []),
            records=row.records,
            persons=row.persons,
            held=row.held,
        )
        found[row.month].append(expiring)
    return RetentionForecast(
        months=[ExpiriesOfMonth(month=f"{month:%Y-%m}", expiring=items) for month, items in found.items()]
    )


def _month_after(day: date, months: int) -> date:
    year, month = divmod(day.year * 12 + day.month - 1 + months, 12)
    return date(year, month + 1, 1)
