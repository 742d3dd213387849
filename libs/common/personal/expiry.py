"""What a participant does when the time for which data is kept is over: it forgets keys, empties rows a batch at a
time, and reads again until none is left.

The keys are destroyed by then, so nothing opens any more, however long the rows take. A batch is a transaction of its
own and passes over rows that somebody else has locked, so that whoever buys meanwhile does not wait.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import orjson
from sqlalchemy import ARRAY, Index, Uuid, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from libs.common.db import (
    ALL_STORES,
    Base,
    Database,
    Query,
    Transaction,
    fetch,
    impersonal,
    ring_after_commit,
)
from libs.common.events.privacy import KeysExpired
from libs.common.personal.erasure import Asked, left_under
from libs.common.personal.holdings import Attached, Holding, OnErase
from libs.common.personal.tombstones import Subject, hold_off
from libs.common.personal.vocabulary import Bucket, Retention

CHANNEL = "expired_buckets"
"""NOTIFY channel: rows are to be cleaned."""
AT_ONCE = 100
"""Buckets that one pass takes."""
ROWS = 500
"""Of a table that one transaction changes."""
_LEASE_SECONDS = 60.0
_AGAIN_SECONDS = 2.0

Place = tuple[UUID, UUID, int, str, str]
"""Store, subject, generation, retention, bucket."""


class ExpiredBucket(Base):
    """A bucket whose time is over: what a late event brings for it is refused, and rows under it are cleaned.

    Kept for as long as an event could still come, and no longer: it says which order was whose.
    """

    __tablename__ = "expired_bucket"
    __table_args__ = (
        Index("ix_expired_bucket_due", "next_try_at", postgresql_where=text("cleaned_at IS NULL")),
        Index("ix_expired_bucket_cleaned_at", "cleaned_at", postgresql_where=text("cleaned_at IS NOT NULL")),
    )

    store_id: Mapped[UUID] = mapped_column(primary_key=True)
    subject_id: Mapped[UUID] = mapped_column(primary_key=True)
    generation: Mapped[int] = mapped_column(primary_key=True)
    retention: Mapped[str] = mapped_column(primary_key=True, info=impersonal("a word of the vocabulary"))
    bucket: Mapped[str] = mapped_column(primary_key=True, info=impersonal("a year, or an id"))
    key_ids: Mapped[list[UUID]] = mapped_column(ARRAY(Uuid), info=impersonal("ids of keys"))
    counts: Mapped[dict[str, int]] = mapped_column(
        JSONB, info=impersonal("numbers of rows by table"), server_default=text("'{}'::jsonb")
    )
    next_try_at: Mapped[datetime] = mapped_column(server_default=func.now())
    cleaned_at: Mapped[datetime | None]


# --- Late events -----------------------------------------------------------------------------------------

_OVER = """
    SELECT store_id, subject_id, generation, retention, bucket
    FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::text[], $5::text[])
        AS asked (store_id, subject_id, generation, retention, bucket)
    JOIN expired_bucket USING (store_id, subject_id, generation, retention, bucket)
    WHERE NOT retention = ANY($6::text[])
"""
_WHOLE = [one.value for one in Retention if one.period.divided_by is Bucket.WHOLE]
"""Retentions that go on after their keys expired: what is sealed next has new ones."""


async def over_among(session: AsyncSession, places: Iterable[Place]) -> set[Place]:
    """The buckets that are over for good. Whoever asks has passed `erased_among` for their people before."""
    asked = list(places)
    rows = await fetch(session, _OVER, *_columns(asked), _WHOLE) if asked else []
    return {(row.store_id, row.subject_id, row.generation, row.retention, row.bucket) for row in rows}


def _columns(places: Sequence[Place]) -> list[list[Any]]:
    return [[place[position] for place in places] for position in range(5)]


# --- Noting ----------------------------------------------------------------------------------------------

# What is heard again is done again only if it names keys that were not known, as after a restart of the period.
_NOTE = """
    INSERT INTO expired_bucket AS known (store_id, subject_id, generation, retention, bucket, key_ids)
    SELECT $1, subject_id, generation, retention, bucket, CAST(key_ids AS uuid[])
    FROM unnest($2::uuid[], $3::bigint[], $4::text[], $5::text[], $6::text[])
        AS told (subject_id, generation, retention, bucket, key_ids)
    ORDER BY subject_id, generation, retention, bucket
    ON CONFLICT (store_id, subject_id, generation, retention, bucket) DO UPDATE SET
        key_ids = (SELECT array_agg(DISTINCT key_id) FROM unnest(known.key_ids || excluded.key_ids) AS key_id),
        cleaned_at = CASE WHEN known.key_ids @> excluded.key_ids THEN known.cleaned_at END,
        next_try_at = CASE WHEN known.key_ids @> excluded.key_ids THEN known.next_try_at ELSE now() END
    RETURNING subject_id, generation, retention, bucket, counts, cleaned_at IS NOT NULL AS cleaned
"""


async def note(session: AsyncSession, store_id: UUID, events: Sequence[KeysExpired]) -> list[Any]:
    """From now on late events are refused, and rows are cleaned by the duty. Returns what was clean before, to be
    answered again. Waits for writers that passed the guard before.
    """
    told: dict[tuple[Any, ...], set[UUID]] = defaultdict(set)
    for event in events:
        told[event.subject_id, event.generation, event.retention.value, event.bucket] |= set(event.key_ids)
    people: list[Subject] = [(store_id, subject_id, generation) for subject_id, generation, *_ in told]
    await hold_off(session, people)
    rows = await fetch(
        session, _NOTE, store_id,
        *(list(column) for column in zip(*told, strict=True)),
        # An array of arrays must be rectangular, so each comes as text.
        ["{" + ",".join(sorted(map(str, key_ids))) + "}" for key_ids in told.values()],
    )  # fmt: skip
    ring_after_commit(session, CHANNEL)
    return [row for row in rows if row.cleaned]


# --- Claiming --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Over:
    """A bucket that is to be cleaned."""

    store_id: UUID
    subject_id: UUID
    generation: int
    retention: Retention
    bucket: str
    key_ids: Sequence[UUID]


_CLAIM = Query("""
    UPDATE expired_bucket SET next_try_at = now() + make_interval(secs => :lease)
    WHERE (store_id, subject_id, generation, retention, bucket) IN (
        SELECT store_id, subject_id, generation, retention, bucket FROM expired_bucket
        WHERE cleaned_at IS NULL AND next_try_at <= now() AND retention = ANY(CAST(:retentions AS text[]))
        ORDER BY next_try_at LIMIT :limit FOR UPDATE SKIP LOCKED)
    RETURNING store_id, subject_id, generation, retention, bucket, key_ids
""")


async def claim(database: Database, retentions: Iterable[Retention]) -> list[Over]:
    """Buckets of these retentions to clean, for this worker alone until the lease ends."""
    held = [one.value for one in retentions]
    async with database.transaction(ALL_STORES) as transaction:
        rows = await _CLAIM.rows(transaction, lease=_LEASE_SECONDS, limit=AT_ONCE, retentions=held)
    return [
        Over(
            row.store_id,
            row.subject_id,
            row.generation,
            Retention(row.retention),
            row.bucket,
            row.key_ids,
        )
        for row in rows
    ]


_CLEANED = Query("""
    UPDATE expired_bucket SET cleaned_at = now(), counts = CAST(given.counts AS jsonb)
    FROM unnest(CAST(:stores AS uuid[]), CAST(:subjects AS uuid[]), CAST(:generations AS bigint[]),
        CAST(:retentions AS text[]), CAST(:buckets AS text[]), CAST(:counts AS text[]))
        AS given (store_id, subject_id, generation, retention, bucket, counts)
    WHERE (expired_bucket.store_id, expired_bucket.subject_id, expired_bucket.generation, expired_bucket.retention,
        expired_bucket.bucket) = (given.store_id, given.subject_id, given.generation, given.retention, given.bucket)
""")
_AGAIN = Query("""
    UPDATE expired_bucket SET next_try_at = now() + make_interval(secs => :pause)
    FROM unnest(CAST(:stores AS uuid[]), CAST(:subjects AS uuid[]), CAST(:generations AS bigint[]),
        CAST(:retentions AS text[]), CAST(:buckets AS text[]))
        AS given (store_id, subject_id, generation, retention, bucket)
    WHERE (expired_bucket.store_id, expired_bucket.subject_id, expired_bucket.generation, expired_bucket.retention,
        expired_bucket.bucket) = (given.store_id, given.subject_id, given.generation, given.retention, given.bucket)
""")


async def cleaned(session: AsyncSession, done: Mapping[Over, Counter[str]]) -> None:
    """Nothing is left under these."""
    counts = [orjson.dumps(+number).decode() for number in done.values()]
    await _CLEANED.rows(session, **_named(done), counts=counts)


async def put_back(database: Database, over: Iterable[Over]) -> None:
    """Something is left, a row that was locked for instance: look again in a moment."""
    async with database.transaction(ALL_STORES) as transaction:
        await _AGAIN.rows(transaction, **_named(over), pause=_AGAIN_SECONDS)


def _named(over: Iterable[Over]) -> dict[str, list[Any]]:
    listed = list(over)
    return {
        "stores": [one.store_id for one in listed],
        "subjects": [one.subject_id for one in listed],
        "generations": [one.generation for one in listed],
        "retentions": [one.retention.value for one in listed],
        "buckets": [one.bucket for one in listed],
    }


_FORGET = Query("DELETE FROM expired_bucket WHERE cleaned_at < now() - make_interval(secs => :kept)")


async def purge(database: Database, *, kept_seconds: float) -> None:
    """Forget buckets for which no topic, retry or replay can bring anything any more."""
    async with database.transaction(ALL_STORES) as transaction:
        await _FORGET.rows(transaction, kept=kept_seconds)


# --- Cleaning --------------------------------------------------------------------------------------------

# A bucket and each of its keys is one row, so that one statement takes any number of them.
_BATCH = """
    ended AS MATERIALIZED (
        SELECT * FROM unnest($1::bigint[], $2::uuid[], $3::uuid[], $4::bigint[], $5::text[], $6::bytea[])
            AS ended (position, store_id, subject_id, generation, bucket, key_id)
    )
"""
_BELONGS = """
    held.store_id = ended.store_id AND held.subject_id = ended.subject_id AND held.generation = ended.generation
"""


class Cleaning:
    """What cleans one holding, and what counts what is left of it; both are built once."""

    def __init__(self, holding: Holding) -> None:
        self.holding = holding
        self._clean = self._cleaning()
        self._left = f"""
            WITH {_BATCH} SELECT ended.position, count(*) AS number
            FROM ended JOIN {holding.name} AS held ON {self._is_under()} GROUP BY ended.position
        """  # noqa: S608 - names of the declarations

    def _is_under(self) -> str:
        """In SQL, that a row is of the holding, lies under the bucket, and is not clean."""
        holding = self.holding
        own = [f"substr(held.{holding.box}, 2, 16) = ended.key_id"]
        if holding.bucket is not None:
            own.append(f"held.{holding.bucket}::text = ended.bucket")
        of_its_kind = [f"held.{name} = '{value}'" for name, value in (holding.only or {}).items()]
        full = [f"held.{name} IS NOT NULL" for name in holding.emptied] if self.is_cleared else ["true"]
        parts = [_BELONGS, f"({' OR '.join(own)})", *of_its_kind, f"({' OR '.join(full)})"]
        return " AND ".join(parts)

    @property
    def is_cleared(self) -> bool:
        """Whether rows stay, without what they said about the person."""
        return self.holding.on_erase is OnErase.CLEAR

    def _cleaning(self) -> str:
        holding = self.holding
        keys = [column.name for column in holding.sql.primary_key.columns]
        some = ", ".join(f"held.{key}" for key in keys)
        detached = [
            self._detaching(one, number)
            for number, one in enumerate(holding.attached)
            if one.delete and not self.is_cleared
        ]
        empty = [f"{name} = NULL" for name in holding.emptied]
        if "version" in holding.sql.columns:
            empty.append("version = held.version + 1")
        change = (
            f"UPDATE {holding.name} AS held SET {', '.join(empty)} FROM chosen"  # noqa: S608 - names of the declarations
            if self.is_cleared
            else f"DELETE FROM {holding.name} AS held USING chosen"  # noqa: S608 - names of the declarations
        )
        same = " AND ".join(f"held.{key} = chosen.{key}" for key in keys)
        return f"""
            WITH {_BATCH}, found AS (
                SELECT ended.position, {some} FROM ended JOIN {holding.name} AS held ON {self._is_under()}
                ORDER BY {some} LIMIT $7 FOR UPDATE OF held SKIP LOCKED
            ), chosen AS (
                SELECT DISTINCT ON ({", ".join(keys)}) * FROM found
            ){"".join(detached)}, changed AS ({change} WHERE {same} RETURNING chosen.position)
            SELECT position, count(*) AS number FROM changed GROUP BY position
        """  # noqa: S608 - names of the declarations

    def _detaching(self, attached: Attached, number: int) -> str:
        return f""", detached_{number} AS (
            DELETE FROM {attached.sql.name} AS child USING chosen
            WHERE child.{attached.by} = chosen.id
        )"""  # noqa: S608 - names of the declarations

    async def clean(self, transaction: Transaction, batch: Sequence[list[Any]]) -> dict[int, int]:
        """Rows that one batch changed, by the position of their bucket; empty when none is left unlocked."""
        rows = await fetch(transaction, self._clean, *batch, ROWS)
        return {row.position: row.number for row in rows}

    async def left(self, session: AsyncSession | Transaction, batch: Sequence[list[Any]]) -> dict[int, int]:
        """Rows that are not clean, locked ones among them."""
        return {row.position: row.number for row in await fetch(session, self._left, *batch)}


def cleanings(holdings: Iterable[Holding]) -> dict[Retention, list[Cleaning]]:
    """What is cleaned when a period is over: everything that lies in a box."""
    found: dict[Retention, list[Cleaning]] = defaultdict(list)
    for holding in holdings:
        if holding.retention is not None and holding.box is not None:
            found[holding.retention].append(Cleaning(holding))
    return dict(found)


def batch_of(over: Sequence[Over]) -> list[list[Any]]:
    """The parameters of `_BATCH`."""
    rows = [
        (position, one.store_id, one.subject_id, one.generation, one.bucket, key_id)
        for position, one in enumerate(over)
        for key_id in [*(key.bytes for key in one.key_ids), *([] if one.key_ids else [None])]
    ]
    return [list(column) for column in zip(*rows, strict=True)]


async def left_over(
    session: AsyncSession, store_id: UUID, over: Sequence[Over], of_retention: Iterable[Cleaning]
) -> dict[Over, Counter[str]]:
    """What is still there: by the declarations, and by the database's own catalogue, which knows of none."""
    left: dict[Over, Counter[str]] = defaultdict(Counter)
    batch = batch_of(over)
    for cleaning in of_retention:
        for position, number in (await cleaning.left(session, batch)).items():
            left[over[position]][cleaning.holding.name] += number
    named = {uuid4(): one for one in over}
    asked = [
        (Asked(id_, store_id, one.subject_id, one.generation), one.key_ids) for id_, one in named.items()
    ]
    found, _ = await left_under(session, store_id, asked)
    for id_, counts in found.items():
        left[named[id_]] += counts
    return {one: counts for one, counts in left.items() if counts}
