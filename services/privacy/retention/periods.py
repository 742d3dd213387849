"""What a store has chosen of its periods, and the days that follow from it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.db import Transaction, fetch
from libs.common.http import require_match
from libs.common.personal.vocabulary import RULES, Clock, Length, rule_of
from services.privacy.calendars import calendar_of
from services.privacy.domain.deadlines import start_of
from services.privacy.domain.problems import PeriodNotAllowed
from services.privacy.models import RetentionSettings


@dataclass(frozen=True, slots=True)
class Choice:
    """A store's, at one moment: what it says nothing about is as the vocabulary has it."""

    lengths: Mapping[Clock, Length] = field(default_factory=dict[Clock, Length])
    zone: str = "UTC"
    revision: int = 0
    version: int = 1

    def length(self, clock: Clock) -> Length:
        """How long what a clock counts is kept."""
        rule = rule_of(clock)
        chosen = self.lengths.get(clock)
        # A bound that the law has moved since counts, not what was chosen before.
        return chosen if chosen is not None and rule.allows(chosen) else rule.length

    def last_day(self, clock: Clock, started_at: datetime) -> date:
        """The last day on which something is kept, where the store is."""
        day = started_at.astimezone(ZoneInfo(self.zone)).date()
        return rule_of(clock).last_day(day, self.length(clock))

    def due_at(self, last_day: date) -> datetime:
        """The instant at which that day is over."""
        return start_of(last_day + timedelta(days=1), ZoneInfo(self.zone)).astimezone(UTC)

    def today(self, now: datetime) -> date:
        """The day it is where the store is."""
        return now.astimezone(ZoneInfo(self.zone)).date()


_CHOICE = "SELECT lengths, zone, revision, version FROM retention_settings WHERE store_id = $1"


async def choice_of(session: AsyncSession | Transaction, store_id: UUID) -> Choice:
    """The choice of a store."""
    rows = await fetch(session, _CHOICE, store_id)
    return choice_from(rows[0]) if rows else Choice()


def choice_from(row: Any) -> Choice:
    """As a row has it."""
    return Choice(parsed(row.lengths), row.zone, row.revision, row.version)


def parsed(lengths: Mapping[str, str]) -> dict[Clock, Length]:
    """As it was written."""
    return {Clock(clock): Length.parse(length) for clock, length in lengths.items()}


def check(lengths: Mapping[Clock, Length]) -> None:
    """Raises PeriodNotAllowed where the law leaves less choice."""
    refused = [
        {"clock": clock, "least": str(rule.least), "most": str(rule.most), "law": rule.law}
        for clock, length in lengths.items()
        if not (rule := RULES[clock][1]).allows(length)
    ]
    if refused:
        raise PeriodNotAllowed(periods=refused)


async def choose(
    session: AsyncSession, *, store_id: UUID, lengths: Mapping[Clock, Length], if_match: str | None
) -> int:
    """Put what a store chooses in the place of what it chose before; what runs already follows, in batches.

    Returns the new version. Raises PeriodNotAllowed, PreconditionRequired, PreconditionFailed.
    """
    check(lengths)
    row = await _locked(session, store_id)
    require_match(if_match, row.version)
    row.lengths = {clock.value: str(length) for clock, length in lengths.items()}
    row.revision += 1
    row.version += 1
    return row.version


async def place(session: AsyncSession, *, store_id: UUID, country: str) -> None:
    """A store's days begin in the zone of its country; if that moves, so do they."""
    zone = calendar_of(country).zone.key
    row = await _locked(session, store_id)
    if row.zone != zone:
        row.zone = zone
        row.revision += 1


async def _locked(session: AsyncSession, store_id: UUID) -> RetentionSettings:
    await session.execute(upsert(RetentionSettings).values(store_id=store_id).on_conflict_do_nothing())
    return await session.get_one(RetentionSettings, store_id, with_for_update=True, populate_existing=True)


_LEFT = text("""
    SELECT count(*) FROM expiry JOIN retention_settings AS chosen USING (store_id)
    WHERE store_id = :store_id AND state IN ('running', 'stopped') AND expiry.revision < chosen.revision
""")


async def left_to_move(session: AsyncSession, store_id: UUID) -> int:
    """How many running periods are not computed by the present choice yet."""
    return await session.scalar(_LEFT, {"store_id": store_id}) or 0
