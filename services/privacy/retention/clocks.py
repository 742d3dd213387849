"""What starts and stops a period, turned into a last day by what the store has chosen."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.db import Query
from libs.common.events import Received
from libs.common.events.privacy import ClockStarted, ClockStopped
from libs.common.inbox import batched
from libs.common.personal.vocabulary import RULES, Bucket, Clock, Retention
from services.privacy.domain.holds import AUTHORITY
from services.privacy.retention.periods import choice_of

WHOLE = [one.value for one in Retention if one.period.divided_by is Bucket.WHOLE]
"""Retentions whose buckets go on: what is sealed after one has expired gets a new key, and a new period."""
YEARS = [one.value for one in Retention if one.period.divided_by is Bucket.YEAR]
"""Retentions whose buckets end for everybody at once."""
_ABOVE_ALL = 2**62
"""The version of what no clock may change: the person wants it gone."""


@dataclass(frozen=True, slots=True)
class Start:
    """A clock of one bucket; one that `runs` not was stopped."""

    subject_id: UUID
    generation: int
    retention: Retention
    bucket: str
    clock: Clock
    at: datetime
    version: int = 0
    runs: bool = True

    @property
    def place(self) -> tuple[UUID, int, Retention, str]:
        """Whose, and what."""
        return self.subject_id, self.generation, self.retention, self.bucket


# What is being destroyed is not brought back: where something new may be sealed, its clock runs after that.
_START = Query("""
    INSERT INTO expiry AS known (store_id, subject_id, generation, retention, bucket, clock, started_at, version, state,
        expires_on, due_at, revision)
    SELECT :store_id, subject_id, generation, retention, bucket, clock, started_at, version,
        CASE WHEN runs THEN 'running' ELSE 'stopped' END, expires_on, due_at, :revision
    FROM unnest(CAST(:subjects AS uuid[]), CAST(:generations AS bigint[]), CAST(:retentions AS text[]),
        CAST(:buckets AS text[]), CAST(:clocks AS text[]), CAST(:starts AS timestamptz[]),
        CAST(:versions AS bigint[]), CAST(:runs AS boolean[]), CAST(:days AS date[]), CAST(:dues AS timestamptz[]))
        AS given (subject_id, generation, retention, bucket, clock, started_at, version, runs, expires_on, due_at)
    ORDER BY subject_id, generation, retention, bucket
    ON CONFLICT (store_id, subject_id, generation, retention, bucket) DO UPDATE SET
        past_key_ids = CASE WHEN known.state = 'over' THEN known.past_key_ids || known.key_ids
            ELSE known.past_key_ids END,
        (version, clock, started_at, state, expires_on, due_at, revision, told_on, key_ids, attempts, next_try_at,
            next_clock, next_started_at) = (
            SELECT excluded.version, excluded.clock, excluded.started_at, excluded.state, excluded.expires_on,
                excluded.due_at, excluded.revision, CASE WHEN known.state <> 'over' THEN known.told_on END,
                CASE WHEN known.state <> 'over' THEN known.key_ids ELSE '{}' END, 0, NULL::timestamptz, NULL::varchar,
                NULL::timestamptz
            WHERE known.state NOT IN ('destroying', 'cleaning')
            UNION ALL
            SELECT excluded.version, known.clock, known.started_at, known.state, known.expires_on, known.due_at,
                known.revision, known.told_on, known.key_ids, known.attempts, known.next_try_at,
                CASE excluded.state WHEN 'running' THEN excluded.clock END,
                CASE excluded.state WHEN 'running' THEN excluded.started_at END
            WHERE known.state IN ('destroying', 'cleaning')
        )
    WHERE (known.version, known.started_at) < (excluded.version, excluded.started_at)
        AND (known.state IN ('running', 'stopped') OR known.retention = ANY(CAST(:whole AS text[])))
""")


async def start(session: AsyncSession, store_id: UUID, starts: Iterable[Start]) -> None:
    """Count from these on. Of several for one bucket the highest version counts, and of those the latest."""
    last: dict[Any, Start] = {}
    for one in starts:
        known = last.get(one.place)
        if known is None or (known.version, known.at) < (one.version, one.at):
            last[one.place] = one
    if not last:
        return
    choice = await choice_of(session, store_id)
    given = list(last.values())
    days = [choice.last_day(one.clock, one.at) if one.runs else None for one in given]
    await _START.rows(
        session,
        store_id=store_id,
        revision=choice.revision,
        whole=WHOLE,
        **_columns(given),
        days=days,
        dues=[choice.due_at(day) if day is not None else None for day in days],
    )


def _columns(starts: Sequence[Start]) -> dict[str, list[Any]]:
    return {
        "subjects": [one.subject_id for one in starts],
        "generations": [one.generation for one in starts],
        "retentions": [one.retention.value for one in starts],
        "buckets": [one.bucket for one in starts],
        "clocks": [one.clock.value for one in starts],
        "starts": [one.at for one in starts],
        "versions": [one.version for one in starts],
        "runs": [one.runs for one in starts],
    }


@batched
async def on_clock_started(session: AsyncSession, events: Sequence[Received[ClockStarted]]) -> None:
    """Something happened from which a period is counted."""
    starts = [
        Start(
            one.subject_id, one.generation, one.retention, one.bucket, one.clock, one.started_at, one.version
        )
        for one in (event.data for event in events)
    ]
    await start(session, events[0].envelope.store_id, starts)


@batched
async def on_clock_stopped(session: AsyncSession, events: Sequence[Received[ClockStopped]]) -> None:
    """It is undone."""
    stops = [
        Start(
            one.subject_id, one.generation, one.retention, one.bucket, one.clock, one.stopped_at, one.version,
            runs=False,
        )
        for one in (event.data for event in events)
    ]  # fmt: skip
    await start(session, events[0].envelope.store_id, stops)


# --- After an erasure ------------------------------------------------------------------------------------

_GONE = Query("""
    DELETE FROM expiry USING unnest(CAST(:subjects AS uuid[]), CAST(:lasts AS bigint[])) AS erased (subject_id, last)
    WHERE store_id = :store_id AND expiry.subject_id = erased.subject_id AND generation <= last
        AND state IN ('running', 'stopped')
        AND (expiry.subject_id, generation, retention, bucket) NOT IN (
            SELECT * FROM unnest(CAST(:whose AS uuid[]), CAST(:generations AS bigint[]), CAST(:retentions AS text[]),
                CAST(:buckets AS text[])))
""")


@dataclass(frozen=True, slots=True)
class Kept:
    """A key that outlived an erasure, on which ground, and until when where that is known."""

    generation: int
    retention: Retention
    bucket: str
    law: str
    until: date | None


@dataclass(frozen=True, slots=True)
class Erased:
    """A subject of whom an erasure kept what the law or a hold keeps. `others` are those of the same person."""

    request_id: UUID
    subject_id: UUID
    generation: int
    others: Sequence[UUID]
    kept: Sequence[Kept]


async def after_erasure(
    session: AsyncSession, store_id: UUID, erased: Sequence[Erased], *, now: datetime
) -> None:
    """Nothing is counted any more for what is gone. What stays goes by itself: what law keeps on its day, what a legal
    hold keeps as soon as that ends, since its own day is today.

    Only a hold needs to know the other subjects of a person, and the request, for as long as it lasts: for what the
    law keeps nothing says whose else it was.
    """
    kept = [(one.subject_id, key) for one in erased for key in one.kept]
    await _GONE.rows(
        session,
        store_id=store_id,
        subjects=[one.subject_id for one in erased],
        lasts=[one.generation for one in erased],
        whose=[subject_id for subject_id, _ in kept],
        **_places(key for _, key in kept),
    )
    starts = [_start_of_kept(subject_id, key, now) for subject_id, key in kept]
    await start(session, store_id, [one for one in starts if one is not None])
    for one in erased:
        if one.others and (held := [key for key in one.kept if key.law == AUTHORITY]):
            named = {"subject_id": one.subject_id, "others": one.others, "request_id": one.request_id}
            await _OF_ONE.rows(session, store_id=store_id, **named, **_places(held))


def _places(kept: Iterable[Kept]) -> dict[str, list[Any]]:
    keys = list(kept)
    return {
        "generations": [key.generation for key in keys],
        "retentions": [key.retention.value for key in keys],
        "buckets": [key.bucket for key in keys],
    }


def _start_of_kept(subject_id: UUID, key: Kept, now: datetime) -> Start | None:
    """None for what the request itself keeps: its own end starts that."""
    asked = Start(subject_id, key.generation, key.retention, key.bucket, Clock.ERASURE_ASKED, now, _ABOVE_ALL)
    if key.law == AUTHORITY:
        return asked
    if key.until is None or key.retention.period.divided_by is not Bucket.YEAR:
        return None
    # The day is the year's, whenever in it the clock started, and whether or not that was heard.
    in_year = datetime(int(key.bucket), 7, 1, tzinfo=UTC)
    return replace(asked, clock=Clock.INVOICE_ISSUED, at=in_year, version=0)


_OF_ONE = Query("""
    UPDATE expiry SET
        others = ARRAY(SELECT DISTINCT unnest(others || CAST(:others AS uuid[]))),
        left_by = ARRAY(SELECT DISTINCT unnest(left_by || CAST(:request_id AS uuid)))
    WHERE store_id = :store_id AND subject_id = :subject_id AND (generation, retention, bucket) IN (
        SELECT * FROM unnest(CAST(:generations AS bigint[]), CAST(:retentions AS text[]), CAST(:buckets AS text[])))
""")


CLOCKS = frozenset(
    {Clock.MESSAGE_SETTLED, Clock.DESK_REPLACED, Clock.EXPORT_READY, Clock.REQUEST_ENDED}
    | {Clock.DOCUMENT_RECEIVED}
)
"""What the privacy service starts itself."""


def start_of_own(
    person: Any, clock: Clock, bucket: UUID | None = None, *, at: datetime, runs: bool = True
) -> Start:
    """Of something that the privacy service holds about a person."""
    retention, _ = RULES[clock]
    return Start(
        person.subject_id, person.generation, retention, str(bucket) if bucket else "", clock, at, runs=runs
    )
