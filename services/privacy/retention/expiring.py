"""On its day what was kept goes: keys first, then rows, then everybody who held some of it reads again.

    tell       the keyring knows the last day of every bucket
    expire     what is due is claimed, its keys are named, destroyed, and everybody is told: a commit between each
    remind     who has not said that nothing is left is told again
    finish     when nobody finds anything, and nobody can have a key in memory any more, it is over

Each step may be repeated, and a crash between two only delays. A legal hold and a restriction stop the second: what is
claimed already is past them. Time is the worker's.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from libs.common import inbox
from libs.common.db import ALL_STORES, Batch, Query, Row, Transaction, fetch, ring_after_commit
from libs.common.events import Received
from libs.common.events.privacy import KeysExpired, RowsCleaned
from libs.common.inbox import batched
from libs.common.outbox import publish_all
from libs.common.personal.keys import Expired, Expiry, KeyringClient
from libs.common.personal.restrictions import is_restricted
from libs.common.personal.vault import announce
from libs.common.personal.vocabulary import Clock, Retention
from libs.common.telemetry import is_kept, meter
from libs.common.worker import Work
from services.privacy.believing import believed
from services.privacy.endings import keyring_of
from services.privacy.engine.phases import lapse
from services.privacy.engine.tasks import SOURCE
from services.privacy.evidence.certificates import kept_has_ended, year_has_ended
from services.privacy.retention.clocks import WHOLE, YEARS, Start, start

logger = logging.getLogger(__name__)

CHANNEL = "expiries"
"""NOTIFY channel: keys are gone, or everybody has cleaned."""
AT_ONCE = 100
SEALED_WITHIN = timedelta(minutes=5)
"""After the last day: whoever had the key in memory has sealed with it, and what that started has been heard."""
_LEASE = timedelta(seconds=60)
_POSTPONED = timedelta(minutes=10)
_FIRST_PAUSE, _LONGEST_PAUSE = timedelta(seconds=30), timedelta(minutes=10)
"""Whoever is busy with a hundred thousand rows is not asked for the same ones meanwhile: each answer is signed anew."""
_EVEN_ON_HOLD = [Retention.EXPORT.value, Retention.REQUEST.value, Retention.VERIFICATION.value]
"""What serves the rights of somebody whose data is restricted goes on its day all the same."""

_PLACE = "(expiry.store_id, expiry.subject_id, expiry.generation, expiry.retention, expiry.bucket)"
_GIVEN = """unnest(CAST(:stores AS uuid[]), CAST(:subjects AS uuid[]), CAST(:generations AS bigint[]),
        CAST(:retentions AS text[]), CAST(:buckets AS text[])"""
_SAME = f"{_PLACE} = (given.store_id, given.subject_id, given.generation, given.retention, given.bucket)"


def held(table: str) -> str:
    """In SQL, that a legal hold is in force over a row of `table`, an expiry, at `:now`: of its person, by whichever of
    their subjects, or of everybody.
    """
    return f"""EXISTS (
        SELECT FROM legal_hold AS hold
        WHERE hold.store_id = {table}.store_id AND hold.lifted_at IS NULL AND hold.ends_at > :now
            AND (hold.subject_id IS NULL OR hold.subject_id = {table}.subject_id
                OR hold.subject_id = ANY({table}.others)
                OR EXISTS (SELECT FROM person_subject AS own JOIN person_subject AS other USING (store_id, person_id)
                    WHERE own.store_id = {table}.store_id AND own.subject_id = {table}.subject_id
                        AND other.subject_id = hold.subject_id))
            AND {table}.retention = ANY(hold.retentions))"""  # noqa: S608 - the name of a table


STOPPED = f"""({held("expiry")}
        OR NOT expiry.retention = ANY(CAST(:even_on_hold AS text[])) AND {is_restricted("expiry")})"""
"""In SQL, that nothing goes on its day, at `:now`."""


def places_of(rows: Iterable[Any]) -> dict[str, list[Any]]:
    """The columns by which a statement finds buckets."""
    listed = list(rows)
    names = {
        "stores": "store_id",
        "subjects": "subject_id",
        "generations": "generation",
        "retentions": "retention",
        "buckets": "bucket",
    }
    return {column: [getattr(row, name) for row in listed] for column, name in names.items()}


# --- Telling the keyring ---------------------------------------------------------------------------------

UNTOLD = Batch("""
    SELECT store_id, subject_id, generation, retention, bucket, expires_on FROM expiry
    WHERE told_on IS DISTINCT FROM expires_on AND state IN ('running', 'stopped')
    ORDER BY store_id, subject_id LIMIT :limit
""")
# What has moved meanwhile is told once more; if two tell at once, a day that is too late is found out on the day.
_TOLD = Query(f"""
    UPDATE expiry SET told_on = given.day
    FROM {_GIVEN}, CAST(:days AS date[])) AS given (store_id, subject_id, generation, retention, bucket, day)
    WHERE {_SAME} AND expiry.expires_on IS NOT DISTINCT FROM given.day
""")  # noqa: S608 - constants of this module


async def tell(work: Work) -> int:
    """Let the keyring know new and moved days. Returns 0 unless more are waiting. Raises KeyringUnavailable."""
    async with work.database.transaction(ALL_STORES) as transaction:
        rows = await UNTOLD.rows(transaction, limit=AT_ONCE)
    if rows:
        await keyring_of(work.settings, work.http).expire([_expiry(row) for row in rows])
        async with work.database.transaction(ALL_STORES) as transaction:
            await _TOLD.rows(transaction, **places_of(rows), days=[row.expires_on for row in rows])
    return len(rows) // AT_ONCE


def _expiry(row: Row) -> Expiry:
    return Expiry(
        row.store_id, row.subject_id, row.generation, Retention(row.retention), row.bucket, row.expires_on
    )


# --- The day ---------------------------------------------------------------------------------------------

# What was claimed and not finished, by a crash for instance, is claimed again. Locked rows stay where they are:
# they are changed by their place, of an array that is made once: a join may take another batch for every row.
CLAIM = Batch(f"""
    WITH claimed_before AS (
        SELECT ctid FROM expiry
        WHERE state = 'destroying' AND next_try_at <= :now AND NOT {STOPPED}
        ORDER BY next_try_at LIMIT :limit FOR UPDATE SKIP LOCKED
    ), due AS (
        SELECT ctid FROM expiry
        WHERE state = 'running' AND due_at <= :due AND told_on = expires_on
            AND (next_try_at IS NULL OR next_try_at <= :now) AND NOT {STOPPED}
        ORDER BY due_at LIMIT :limit - (SELECT count(*) FROM claimed_before) FOR UPDATE SKIP LOCKED
    )
    UPDATE expiry SET state = 'destroying', next_try_at = CAST(:until AS timestamptz), attempts = attempts + 1
    WHERE ctid = ANY(ARRAY(TABLE claimed_before UNION ALL TABLE due))
    RETURNING store_id, subject_id, generation, retention, bucket, expires_on, key_ids
""")  # noqa: S608 - constants of this module
_NAME = Query(f"""
    UPDATE expiry SET key_ids = (SELECT coalesce(array_agg(DISTINCT id), '{{}}')
        FROM unnest(expiry.key_ids || CAST(given.key_ids AS uuid[])) AS id)
    FROM {_GIVEN}, CAST(:keys AS text[])) AS given (store_id, subject_id, generation, retention, bucket, key_ids)
    WHERE {_SAME} AND expiry.state = 'destroying'
    RETURNING expiry.store_id, expiry.subject_id, expiry.generation, expiry.retention, expiry.bucket,
        expiry.expires_on, expiry.key_ids
""")  # noqa: S608 - constants of this module


async def expire(work: Work) -> int:
    """Destroy the keys of what is due, and tell everybody. Returns 0 unless more is due. Raises KeyringUnavailable."""
    now = work.clock()
    claim = {"now": now, "due": now - SEALED_WITHIN, "until": now + _LEASE, "limit": AT_ONCE}
    async with work.database.transaction(ALL_STORES) as transaction:
        rows = await CLAIM.rows(transaction, **claim, even_on_hold=_EVEN_ON_HOLD)
    if not rows:
        return 0
    keyring = keyring_of(work.settings, work.http)
    named = await _named(keyring, rows)
    async with work.database.transaction(ALL_STORES) as transaction:
        rows = await _NAME.rows(transaction, **places_of(rows), keys=named)
    outcomes = await keyring.destroy_expired([_expiry(row) for row in rows])
    await _destroyed(work, list(zip(rows, outcomes, strict=True)), now)
    return len(rows) // AT_ONCE


async def _named(keyring: KeyringClient, rows: Sequence[Row]) -> list[str]:
    """The ids of the keys that are to go, as arrays: whoever reads again once they are gone looks for them."""
    people = list(dict.fromkeys((row.store_id, row.subject_id) for row in rows))
    keys: dict[tuple[Any, ...], list[str]] = defaultdict(list)
    for (store_id, subject_id), of_person in zip(people, await keyring.status(people), strict=True):
        for key in of_person:
            if key.retention.value not in WHOLE or key.expires_on is not None:
                place = store_id, subject_id, key.generation, key.retention.value, key.bucket
                keys[place].append(str(key.key_id))
    places = [(row.store_id, row.subject_id, row.generation, row.retention, row.bucket) for row in rows]
    return ["{" + ",".join(keys[place]) + "}" for place in places]


# With the keys that went now, those of periods before are named: whoever was restored meanwhile may have them again.
_CLEANING = Query(f"""
    UPDATE expiry SET state = 'cleaning', destroyed_at = :now, attempts = 0, next_try_at = :next,
        key_ids = expiry.key_ids || expiry.past_key_ids, past_key_ids = '{{}}',
        waiting = ARRAY(SELECT jsonb_array_elements_text(
            coalesce(CAST(:holders AS jsonb) -> expiry.retention, '[]'::jsonb)))
    FROM {_GIVEN}) AS given (store_id, subject_id, generation, retention, bucket)
    WHERE {_SAME} AND expiry.state = 'destroying'
    RETURNING expiry.store_id, expiry.subject_id, expiry.generation, expiry.retention, expiry.bucket, expiry.key_ids
""")  # noqa: S608 - constants of this module
_BACK = Query(f"""
    UPDATE expiry SET state = 'running', next_try_at = :next, told_on = NULL, key_ids = '{{}}'
    FROM {_GIVEN}) AS given (store_id, subject_id, generation, retention, bucket)
    WHERE {_SAME} AND expiry.state = 'destroying'
""")  # noqa: S608 - constants of this module


async def _destroyed(work: Work, outcomes: Sequence[tuple[Row, Expired]], now: datetime) -> None:
    gone = [row for row, outcome in outcomes if outcome.outcome == "destroyed"]
    kept = [row for row, outcome in outcomes if outcome.outcome != "destroyed"]
    if kept:
        # A restriction that this service has not heard of yet, or a clock that is ahead of the keyring's.
        logger.info("keys are not destroyed on their day yet", extra={"count": len(kept)})
        async with work.database.transaction(ALL_STORES) as transaction:
            await _BACK.rows(transaction, **places_of(kept), next=now + _POSTPONED)
    for store_id, of_store in by_store(gone).items():
        async with work.database.session(store_id) as session:
            holders, soon = await _holders(session), now + _FIRST_PAUSE
            cleaned = await _CLEANING.rows(
                session, **places_of(of_store), now=now, next=soon, holders=holders
            )
            await announce(session, {(row.store_id, row.subject_id) for row in of_store})
            await publish_all(session, [_told(row) for row in cleaned], store_id=store_id, source=SOURCE)
            ring_after_commit(session, CHANNEL)


def by_store(rows: Iterable[Row]) -> dict[UUID, list[Row]]:
    """Events belong to one store."""
    stores: dict[UUID, list[Row]] = defaultdict(list)
    for row in rows:
        stores[row.store_id].append(row)
    return stores


def _told(row: Row) -> KeysExpired:
    return KeysExpired(
        subject_id=row.subject_id,
        generation=row.generation,
        retention=Retention(row.retention),
        bucket=row.bucket,
        key_ids=row.key_ids,
    )


_HOLDERS = """
    SELECT coalesce(jsonb_object_agg(retention, names), '{}')::text AS holders FROM (
        SELECT entry -> 'retention' ->> 'name' AS retention, jsonb_agg(DISTINCT name) AS names
        FROM participant, jsonb_array_elements(data_map) AS entry
        WHERE entry -> 'retention' ->> 'name' IS NOT NULL GROUP BY 1) AS held
"""


async def _holders(session: AsyncSession | Transaction) -> str:
    """By retention, who has announced that they hold something of it, as JSON."""
    [row] = await fetch(session, _HOLDERS)
    return row.holders


# --- Rows ------------------------------------------------------------------------------------------------

UNHEARD = Batch("""
    UPDATE expiry SET attempts = attempts + 1, next_try_at = CAST(:now AS timestamptz)
        + make_interval(secs => least(:longest, :first * 2 ^ least(attempts + 1, 20)))
    WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM expiry
        WHERE state = 'cleaning' AND waiting <> '{}' AND next_try_at <= CAST(:now AS timestamptz)
        ORDER BY next_try_at LIMIT :limit FOR UPDATE SKIP LOCKED))
    RETURNING store_id, subject_id, generation, retention, bucket, key_ids
""")


async def remind(work: Work) -> int:
    """Tell those who have not answered once more, with pauses that double from half a minute to ten minutes."""
    pauses = {"first": _FIRST_PAUSE.total_seconds(), "longest": _LONGEST_PAUSE.total_seconds()}
    async with work.database.platform_session() as session:
        rows = await UNHEARD.rows(session, now=work.clock(), limit=AT_ONCE, **pauses)
        for store_id, of_store in by_store(rows).items():
            await publish_all(session, [_told(row) for row in of_store], store_id=store_id, source=SOURCE)
    return len(rows) // AT_ONCE


_HEARD = Query(f"""
    UPDATE expiry SET waiting = array_remove(waiting, given.participant)
    FROM {_GIVEN}, CAST(:participants AS text[]))
        AS given (store_id, subject_id, generation, retention, bucket, participant)
    WHERE {_SAME} AND expiry.state = 'cleaning'
""")  # noqa: S608 - constants of this module


@batched
async def on_rows_cleaned(session: AsyncSession, events: Sequence[Received[RowsCleaned]]) -> None:
    """Believe what is signed with the key of the participant that it names."""
    by_participant: dict[str, list[_Place]] = defaultdict(list)
    for event in await believed(session, events):
        by_participant[event.data.participant].append(_Place(event))
    # One participant after the other: a statement changes a row once.
    for participant, places in by_participant.items():
        await _HEARD.rows(session, **places_of(places), participants=[participant] * len(places))
    ring_after_commit(session, CHANNEL)


class _Place:
    """A bucket as an answer names it."""

    def __init__(self, event: Received[RowsCleaned]) -> None:
        self.store_id = event.envelope.store_id
        self.subject_id = event.data.subject_id
        self.generation = event.data.generation
        self.retention = event.data.retention.value
        self.bucket = event.data.bucket


# What began meanwhile has the version of the row, which it has to be above once more.
FINISH = Batch("""
    UPDATE expiry SET state = 'over', over_at = :now, next_try_at = NULL,
        version = version - CASE WHEN next_clock IS NULL THEN 0 ELSE 1 END
    WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM expiry
        WHERE state = 'cleaning' AND waiting = '{}' AND destroyed_at <= :forgotten
        ORDER BY destroyed_at LIMIT :limit FOR UPDATE SKIP LOCKED))
    RETURNING store_id, subject_id, generation, retention, bucket, expires_on, next_clock, next_started_at, version,
        left_by, left_by <> '{}' OR EXISTS (
            SELECT FROM request WHERE claim = 'erasure' AND state IN ('running', 'checking', 'completed')
                AND (request.store_id, request.subject_id) = (expiry.store_id, expiry.subject_id)) AS erased
""")


async def finish(work: Work) -> int:
    """It is over once nothing is left anywhere, also not in anybody's memory; what outlived an erasure completes its
    certificate. Returns 0 unless more may be.
    """
    now = work.clock()
    values = {"now": now, "forgotten": now - lapse(), "limit": AT_ONCE}
    async with work.database.platform_session() as session:
        rows = await FINISH.rows(session, **values)
        for store_id, of_store in by_store(row for row in rows if row.next_clock).items():
            await start(session, store_id, [_next(row) for row in of_store])
        for row in rows:
            if row.erased:
                await kept_has_ended(session, **_ended(row, now, *_OF_ONE))
        for row in {(row.store_id, row.retention, row.bucket): row for row in rows}.values():
            if row.retention in YEARS:
                await year_has_ended(session, **_ended(row, now, "store_id", "retention", "bucket"))
    return len(rows) // AT_ONCE


_OF_ONE = ("store_id", "subject_id", "generation", "retention", "bucket", "left_by")


def _ended(row: Row, now: datetime, *names: str) -> dict[str, Any]:
    return {name: getattr(row, name) for name in names} | {"on": row.expires_on or now.date()}


def _next(row: Row) -> Start:
    retention, clock = Retention(row.retention), Clock(row.next_clock)
    return Start(
        row.subject_id, row.generation, retention, row.bucket, clock, row.next_started_at, row.version + 1
    )


_PURGE = Query("DELETE FROM expiry WHERE state = 'over' AND over_at <= :before")
_PURGE_PAST = Query(
    "UPDATE expiry SET past_key_ids = '{}' WHERE past_key_ids <> '{}' AND state <> 'over' AND over_at <= :before"
)


async def purge(work: Work) -> int:
    """What is long over is forgotten: a row says which order, which request was whose."""
    async with work.database.transaction(ALL_STORES) as transaction:
        for statement in (_PURGE, _PURGE_PAST):
            await statement.rows(transaction, before=work.clock() - inbox.KEPT_FOR)
    return 0


# --- After a restore -------------------------------------------------------------------------------------

# Of what goes on, the period that runs waits until what is past is clean once more.
_CLEAN_AGAIN = Query("""
    UPDATE expiry SET state = 'cleaning', attempts = 0, next_try_at = :now,
        waiting = ARRAY(SELECT jsonb_array_elements_text(
            coalesce(CAST(:holders AS jsonb) -> retention, '[]'::jsonb))),
        (key_ids, past_key_ids, next_clock, next_started_at) = (
            SELECT key_ids, past_key_ids, next_clock, next_started_at WHERE state <> 'running'
            UNION ALL SELECT past_key_ids, '{}', clock, started_at WHERE state = 'running')
    WHERE over_at >= :since AND (state = 'over' OR state = 'running' AND past_key_ids <> '{}') OR state = 'cleaning'
    RETURNING retention
""")
_GONE_SINCE = Query("""
    SELECT store_id, subject_id, generation, retention, bucket, expires_on FROM expiry
    WHERE state IN ('cleaning', 'over') AND destroyed_at >= :since
""")
_TELL_AGAIN = Query("""
    UPDATE expiry SET told_on = NULL WHERE told_on IS NOT NULL AND state IN ('running', 'stopped')
""")


async def clean_again(work: Work, *, since: datetime) -> int:
    """After a participant's database was restored: rows that were cleaned since `since` are cleaned again. Their keys
    stay gone.

    Returns how many buckets. What is longer ago than 30 days is not known any more; its boxes open nowhere.
    """
    async with work.database.transaction(ALL_STORES) as transaction:
        holders = await _holders(transaction)
        rows = await _CLEAN_AGAIN.rows(transaction, now=work.clock(), since=since, holders=holders)
    return len(rows)


async def end_again(work: Work, *, since: datetime) -> None:
    """After the keyring was restored: it is told every last day anew, and which buckets have ended since `since`.

    Raises KeyringUnavailable.
    """
    async with work.database.transaction(ALL_STORES) as transaction:
        await _TELL_AGAIN.rows(transaction)
        gone = await _GONE_SINCE.rows(transaction, since=since)
    await keyring_of(work.settings, work.http).destroy_expired([_expiry(row) for row in gone])


# --- Measuring -------------------------------------------------------------------------------------------

_due = meter.create_gauge("privacy.expiries.due", description="Buckets past their last day with keys left.")
_age = meter.create_gauge(
    "privacy.expiries.age", unit="s", description="Since when the oldest of them is due that nothing stops."
)
_stopped = meter.create_gauge(
    "privacy.expiries.stopped", description="Of those, on legal hold or restricted."
)
_unclean = meter.create_gauge(
    "privacy.expiries.cleaning", description="Buckets whose keys are gone, with rows left."
)
_COUNT = Query(f"""
    SELECT retention, count(*) FILTER (WHERE state <> 'cleaning' AND NOT stopped) AS due,
        count(*) FILTER (WHERE state <> 'cleaning' AND stopped) AS stopped,
        count(*) FILTER (WHERE state = 'cleaning') AS cleaning,
        coalesce(extract(epoch FROM CAST(:now AS timestamptz)
            - min(due_at) FILTER (WHERE state <> 'cleaning' AND NOT stopped)), 0)::float8 AS age
    FROM (
        SELECT retention, state, due_at, {STOPPED} AS stopped FROM expiry
        WHERE state = 'running' AND due_at <= CAST(:now AS timestamptz) OR state IN ('destroying', 'cleaning')
    ) AS found GROUP BY retention
""")  # noqa: S608 - constants of this module


async def measure(work: Work) -> int:
    """What is due, since when, and what is stopped; 0 is told too, or the last figure would stay."""
    if not is_kept():
        return 0
    async with work.database.transaction(ALL_STORES) as transaction:
        rows = await _COUNT.rows(transaction, now=work.clock(), even_on_hold=_EVEN_ON_HOLD)
    found: Mapping[str, Row] = {row.retention: row for row in rows}
    for retention in Retention:
        row, labels = found.get(retention.value), {"retention": retention.value}
        _due.set(row.due if row else 0, labels)
        _age.set(row.age if row else 0, labels)
        _stopped.set(row.stopped if row else 0, labels)
        _unclean.set(row.cleaning if row else 0, labels)
    return 0
