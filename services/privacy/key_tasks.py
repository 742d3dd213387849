"""What the keyring does in a request: a row like any participant's, and calls that may all be repeated."""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import date, datetime
from itertools import islice
from typing import Any, TypeVar
from uuid import UUID

from libs.common.db import ALL_STORES, Query, Row
from libs.common.events.privacy import Held, Retained, Verb
from libs.common.personal.datamap import retentions_concerned
from libs.common.personal.keys import (
    Erased,
    Erasure,
    KeptKey,
    KeyringClient,
    Life,
    LiveKey,
    Objection,
    Retirement,
)
from libs.common.personal.vocabulary import Category, Purpose, Retention
from libs.common.telemetry import joint_spans
from libs.common.worker import Work
from services.privacy.domain.states import KEYRING, TaskState
from services.privacy.engine.answers import record
from services.privacy.engine.tasks import Answer, is_part, lives_of
from services.privacy.holds import as_answer, held_of
from services.privacy.retention import clocks
from services.privacy.settings import present

T = TypeVar("T")

_LEASE_SECONDS = 15.0
_AT_ONCE = 500

_CLAIM = Query("""
    WITH claimed AS (
        UPDATE task SET next_issue_at = now() + make_interval(secs => :lease), attempts = attempts + 1
        WHERE (request_id, participant, verb) IN (
            SELECT request_id, participant, verb FROM task
            WHERE participant = 'keyring' AND next_issue_at <= :now
            ORDER BY next_issue_at LIMIT :limit FOR UPDATE SKIP LOCKED)
        RETURNING request_id, verb
    )
    SELECT request.id, request.store_id, subject_id, generation, also, claim, purpose, category, retired, held, round,
        verb, traceparent
    FROM claimed JOIN request ON request.id = claimed.request_id
""")


async def ask_keyring(work: Work) -> int:
    """Do the keyring's part of what is due. Returns 0 unless more is waiting.

    What is to be done is saved, the keyring is called outside any transaction, and what it answered is saved.
    """
    claimed = {"lease": _LEASE_SECONDS, "limit": _AT_ONCE, "now": work.clock()}
    async with work.database.transaction(ALL_STORES) as transaction:
        rows = await _CLAIM.rows(transaction, **claimed)
    answers: list[tuple[UUID, Answer]] = []
    for (verb, part), asking in _ASKED.items():
        if asked := [row for row in rows if row.verb == verb and is_part(row) is part]:
            spans = ((f"task {row.verb}", row.traceparent) for row in asked)
            with joint_spans(spans, service=KEYRING):
                answers += await asking(work, asked)
    everybody = sorted(present().participants)
    for store_id, of_store in _by_store(answers).items():
        async with work.database.session(store_id) as session:
            await record(session, store_id, of_store, expected=everybody, now=work.clock())
    return len(rows) // _AT_ONCE


async def ask_again(work: Work, row: Row, *, done_by: datetime) -> None:
    """Do once more what a restored keyring has forgotten, and had done by then. What was destroyed of a part goes by
    its own step; what was sealed after a restriction is not on hold.
    """
    verb, part = Verb(row.verb), is_part(row)
    if verb is Verb.RESTRICT:
        await _keyring(work).restrict(_lives([row]), made_before=done_by)
    else:
        await _ASKED[verb, part](work, [row])
    if part and verb is Verb.ERASE:
        await _let_go(work, [row])


# --- Erasing ---------------------------------------------------------------------------------------------


async def _destroyed(work: Work, rows: Sequence[Row]) -> list[tuple[UUID, Answer]]:
    held = await _held(work, rows)
    asked = [
        Erasure(row.store_id, life.subject_id, life.generation, row.id, as_answer(held[row.id]))
        for row in rows
        for life in lives_of(row)
    ]
    erased = await _keyring(work).destroy(asked)
    await _count_for_what_stays(work, _of_each(rows, erased))
    return [
        (row.store_id, _after_destroying(row, some, as_answer(held[row.id])))
        for row, some in _of_each(rows, erased)
    ]


async def _held(work: Work, rows: Sequence[Row]) -> dict[UUID, list[Held]]:
    """By request, what is on legal hold of any of its person's subjects, until the last of these holds ends."""
    people = [(row.store_id, life.subject_id) for row in rows for life in lives_of(row)]
    async with work.database.transaction(ALL_STORES) as transaction:
        found = await held_of(transaction, people, now=work.clock())
    held: dict[UUID, list[Held]] = {}
    for row in rows:
        last: dict[Retention, Held] = {}
        for life in lives_of(row):
            for one in found.get((row.store_id, life.subject_id), ()):
                if one.retention not in last or last[one.retention].until < one.until:
                    last[one.retention] = one
        held[row.id] = [last[retention] for retention in sorted(last)]
    return held


async def _count_for_what_stays(work: Work, erasures: Sequence[tuple[Row, Sequence[Erased]]]) -> None:
    """What stays goes by itself on its day; of what is gone nothing is counted any more."""
    stores: dict[UUID, list[clocks.Erased]] = defaultdict(list)
    for row, of_person in erasures:
        for one in of_person:
            others = [other.subject_id for other in of_person if other is not one]
            kept = [_as_kept(key) for key in one.kept]
            erased = clocks.Erased(row.id, one.subject_id, one.generation, others, kept)
            stores[row.store_id].append(erased)
    for store_id, of_store in stores.items():
        async with work.database.session(store_id) as session:
            await clocks.after_erasure(session, store_id, of_store, now=work.clock())


def _as_kept(key: KeptKey) -> clocks.Kept:
    return clocks.Kept(key.generation, key.retention, key.bucket, key.law, key.expires_on)


def _after_destroying(row: Row, erased: Sequence[Erased], held: Sequence[Mapping[str, Any]]) -> Answer:
    kept = [_kept(key) for one in erased for key in one.kept]
    destroyed = sum(len(one.destroyed) for one in erased)
    state = TaskState.RETAINED if kept else TaskState.DONE if destroyed else TaskState.NOTHING_HELD
    content = {
        "outcome": state,
        "counts": {"keys": destroyed},
        "retained": kept,
        "held": list(held),
    }
    return Answer(row.id, KEYRING, Verb(row.verb), row.round, state, content)


def _kept(key: KeptKey) -> dict[str, Any]:
    return Retained(
        kind="key", retention=key.retention, bucket=key.bucket, count=1, ground=key.law, until=key.expires_on
    ).model_dump(mode="json")


async def _checked(work: Work, rows: Sequence[Row]) -> list[tuple[UUID, Answer]]:
    left = await _left(work, rows)
    today = work.clock().date()
    return [(row.store_id, _after_checking(row, some, today)) for row, some in _of_each(rows, left)]


def _after_checking(row: Row, left: Sequence[Sequence[LiveKey]], today: date) -> Answer:
    open_still = sum(
        1
        for life, keys in zip(lives_of(row), left, strict=True)
        for key in keys
        if key.generation <= life.generation and _should_be_gone(row, key, today)
    )
    state = TaskState.FAILED if open_still else TaskState.DONE
    content = {"outcome": state, "counts": {"keys": open_still}, "reason": "live-keys" if open_still else ""}
    return Answer(row.id, KEYRING, Verb(row.verb), row.round, state, content)


def _should_be_gone(row: Row, key: LiveKey, today: date) -> bool:
    if key.retention is Retention.REQUEST:
        return key.bucket != str(row.id)
    if any(key.retention == one["retention"] for one in row.held or ()):
        return False
    kept_until = key.expires_on
    return not key.retention.period.kept_by_law or (kept_until is not None and kept_until < today)


# --- Erasing a part --------------------------------------------------------------------------------------


async def _retired(work: Work, rows: Sequence[Row]) -> list[tuple[UUID, Answer]]:
    """The keys of what is concerned seal no more; once nothing lies under them, they can go."""
    async with work.database.transaction(ALL_STORES) as transaction:
        maps = await _DATA_MAPS.rows(transaction)
    entries = [entry for one in maps for entry in one.data_map if "kind" in entry]
    wanted = {row.id: set(_retentions(entries, row)) for row in rows}
    held = {
        id_: [one for one in of_one if one.retention in wanted[id_]]
        for id_, of_one in (await _held(work, rows)).items()
    }
    retiring = {id_: sorted(some - {one.retention for one in held[id_]}) for id_, some in wanted.items()}
    concerned = [row for row in rows if retiring[row.id]]
    retirements = [
        Retirement(row.store_id, life.subject_id, life.generation, retiring[row.id])
        for row in concerned
        for life in lives_of(row)
    ]
    retired = await _keyring(work).retire(retirements) if retirements else []
    ids = {row.id: [key_id for some in each for key_id in some] for row, each in _of_each(concerned, retired)}
    return [(row.store_id, _after_retiring(row, ids.get(row.id, []), held[row.id])) for row in rows]


def _retentions(entries: Sequence[Mapping[str, Any]], row: Row) -> Sequence[Retention]:
    return retentions_concerned(
        entries,
        Purpose(row.purpose) if row.purpose else None,
        Category(row.category) if row.category else None,
    )


_DATA_MAPS = Query("SELECT data_map FROM participant ORDER BY name")


def _after_retiring(row: Row, key_ids: Sequence[UUID], held: Sequence[Held]) -> Answer:
    """What is on legal hold is not retired, so nobody touches it: the part of it stays."""
    state = TaskState.RETAINED if held else TaskState.DONE if key_ids else TaskState.NOTHING_HELD
    kept = [
        Retained(kind="key", retention=one.retention, bucket="", count=1, ground=one.ground, until=one.until)
        for one in held
    ]
    content = {
        "retained": [one.model_dump(mode="json") for one in kept],
        "outcome": state,
        "counts": {"keys": len(key_ids)},
        "retired": [str(key_id) for key_id in key_ids],
    }
    return Answer(row.id, KEYRING, Verb(row.verb), row.round, state, content)


async def _let_go(work: Work, rows: Sequence[Row]) -> list[tuple[UUID, Answer]]:
    """Destroy what is retired; who is on hold stays so, under the new keys."""
    left = _of_each(rows, await _left(work, rows))
    held = [row for row, each in left if any(key.restricted for keys in each for key in keys)]
    if held:
        await _keyring(work).restrict(_lives(held))
    key_ids = [UUID(key_id) for row in rows for key_id in row.retired or ()]
    gone = iter(await _keyring(work).destroy_retired(key_ids) if key_ids else ())
    return [(row.store_id, _after_letting_go(row, [*islice(gone, len(row.retired or ()))])) for row in rows]


def _after_letting_go(row: Row, gone: Sequence[bool]) -> Answer:
    state = TaskState.DONE if all(gone) else TaskState.FAILED
    content = {"outcome": state, "counts": {"keys": sum(gone)}, "reason": "" if all(gone) else "live-keys"}
    return Answer(row.id, KEYRING, Verb(row.verb), row.round, state, content)


# --- Restricting and objecting ---------------------------------------------------------------------------


async def _restricted(work: Work, rows: Sequence[Row]) -> list[tuple[UUID, Answer]]:
    return _changed(rows, await _keyring(work).restrict(_lives(rows)))


async def _lifted(work: Work, rows: Sequence[Row]) -> list[tuple[UUID, Answer]]:
    return _changed(rows, await _keyring(work).lift(_lives(rows)))


async def _closed(work: Work, rows: Sequence[Row]) -> list[tuple[UUID, Answer]]:
    objections = [
        Objection(row.store_id, life.subject_id, life.generation, Purpose(row.purpose))
        for row in rows
        for life in lives_of(row)
    ]
    return _changed(rows, await _keyring(work).object(objections))


def _lives(rows: Iterable[Row]) -> list[Life]:
    return [Life(row.store_id, life.subject_id, life.generation) for row in rows for life in lives_of(row)]


def _changed(rows: Sequence[Row], keys: Sequence[int]) -> list[tuple[UUID, Answer]]:
    """Done in any case: what is minted later is closed as well."""
    return [
        (
            row.store_id,
            Answer(
                row.id, KEYRING, Verb(row.verb), row.round, TaskState.DONE,
                {"outcome": TaskState.DONE, "counts": {"keys": sum(each)}},
            ),
        )
        for row, each in _of_each(rows, keys)
    ]  # fmt: skip


_Asking = Callable[[Work, Sequence[Row]], Awaitable[list[tuple[UUID, Answer]]]]
_ASKED: Mapping[tuple[Verb, bool], _Asking] = {
    (Verb.ERASE, False): _destroyed,
    (Verb.VERIFY_ERASED, False): _checked,
    (Verb.ERASE, True): _retired,
    (Verb.VERIFY_ERASED, True): _let_go,
    (Verb.RESTRICT, False): _restricted,
    (Verb.LIFT_RESTRICTION, False): _lifted,
    (Verb.OBJECT, False): _closed,
}
"""What a verb asks of the keyring, of everything and of a part."""


# --- Asking ----------------------------------------------------------------------------------------------


def _keyring(work: Work) -> KeyringClient:
    return KeyringClient(
        url=work.settings.keyring_url,
        service=work.service,
        private_key=work.settings.service_key.get_secret_value(),
        http=work.http,
    )


async def _left(work: Work, rows: Iterable[Row]) -> list[list[LiveKey]]:
    """What the keyring still has, by subject."""
    return await _keyring(work).status(
        [(row.store_id, life.subject_id) for row in rows for life in lives_of(row)]
    )


def _of_each(rows: Sequence[Row], answers: Sequence[T]) -> list[tuple[Row, list[T]]]:
    """The answers of the keyring, which has one for each subject, by request."""
    waiting = iter(answers)
    return [(row, list(islice(waiting, len(lives_of(row))))) for row in rows]


def _by_store(answers: Iterable[tuple[UUID, Answer]]) -> dict[UUID, list[Answer]]:
    stores: dict[UUID, list[Answer]] = defaultdict(list)
    for store_id, answer in answers:
        stores[store_id].append(answer)
    return stores
