"""A year's figures, from the entries of the log in which requests ended."""

import csv
import io
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.db import fetch
from services.privacy.calendars import calendar_for
from services.privacy.domain.rights import Law, Right, name_of
from services.privacy.evidence.schemas import RightFigures, YearlyFigures
from services.privacy.policies import policy_of
from services.privacy.settings import present

# What nobody verified was perhaps nobody's request: only what was is counted as cancelled.
_ENDED = """
    WITH ended AS (
        SELECT kind, at, convert_from(content, 'UTF8')::jsonb -> 'facts' AS facts FROM evidence_entry
        WHERE store_id = $1 AND at >= $2 AND at < $3 AND kind IN ('completed', 'refused', 'cancelled')
    ), timed AS (
        SELECT kind, facts ->> 'right' AS claim, facts ->> 'law' AS law, facts ->> 'purpose' AS purpose,
            (facts ->> 'late')::boolean AS late,
            extract(epoch FROM at - (facts ->> 'since')::timestamptz)::float8 / 86400 AS days
        FROM ended WHERE kind <> 'cancelled' OR (facts ->> 'verified')::boolean
    )
    SELECT claim, law, CASE claim WHEN 'objection' THEN purpose END AS purpose,
        count(*) FILTER (WHERE kind = 'completed') AS completed, count(*) FILTER (WHERE kind = 'refused') AS refused,
        count(*) FILTER (WHERE kind = 'cancelled') AS cancelled,
        count(*) FILTER (WHERE kind <> 'cancelled' AND late) AS late,
        array_agg(days ORDER BY days) FILTER (WHERE kind <> 'cancelled') AS days
    FROM timed GROUP BY 1, 2, 3
"""


async def yearly(session: AsyncSession, *, store_id: UUID, year: int, now: datetime) -> YearlyFigures:
    """The figures of a calendar year where the store is."""
    zone = await _zone(session, store_id)
    begin, end = (datetime(one, 1, 1, tzinfo=zone) for one in (year, year + 1))
    rights: dict[str, RightFigures] = {}
    days: dict[str, list[float]] = {}
    for row in await fetch(session, _ENDED, store_id, begin, end):
        name = name_of(Right(row.claim), Law(row.law), row.purpose)
        found = rights.setdefault(name, RightFigures(right=name, late=0))
        for outcome in ("completed", "refused", "cancelled", "late"):
            setattr(found, outcome, getattr(found, outcome) + row[outcome])
        days.setdefault(name, []).extend(row.days or ())
    for name, found in rights.items():
        found.median_days, found.worst_days = _middle(sorted(days[name])), max(days[name], default=None)
    kept_from = now - timedelta(days=present().evidence_years * 366)
    return YearlyFigures(
        year=year,
        requests=sum(one.completed + one.refused + one.cancelled for one in rights.values()),
        rights=[rights[name] for name in sorted(rights)],
        kept_from=kept_from if begin < kept_from else None,
    )


async def _zone(session: AsyncSession, store_id: UUID) -> Any:
    country = (await policy_of(session, store_id)).country
    return calendar_for(Law.GDPR, country).zone if country else UTC


def _middle(days: list[float]) -> float | None:
    if not days:
        return None
    half = len(days) // 2
    return days[half] if len(days) % 2 else (days[half - 1] + days[half]) / 2


_COLUMNS = ("right", "completed", "refused", "cancelled", "late", "median_days", "worst_days")


def as_csv(figures: YearlyFigures) -> bytes:
    """A line per right, with the year before it."""
    written = io.StringIO()
    lines = csv.writer(written)
    lines.writerow(("year", *_COLUMNS))
    lines.writerows((figures.year, *(getattr(one, name) for name in _COLUMNS)) for one in figures.rights)
    return written.getvalue().encode()
