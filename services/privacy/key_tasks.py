"""What the keyring does in a request: a row like any participant's, and calls that may all be repeated."""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import date
from itertools import islice
from typing import Any
from uuid import UUID

from libs.common.db import ALL_STORES, Query, Row
from libs.common.events.privacy import Retained, Verb
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
from libs.common.worker import Work
from services.privacy.domain.states import KEYRING, TaskState
from services.privacy.engine.answers import record
from services.privacy.engine.tasks import Answer, is_part
from services.privacy.settings import present

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
    SELECT request.id, request.store_id, subject_id, generation, claim, purpose, category, retired, round, verb
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
            answers += await asking(work, asked)
    everybody = sorted(present().participants)
    for store_id, of_store in _by_store(answers).items():
        async with work.database.session(store_id) as session:
            await record(session, store_id, of_store, expected=everybody, now=work.clock())
    return len(rows) // _AT_ONCE


async def ask_again(work: Work, row: Row) -> None:
    """Do once more what a restored keyring has forgotten. What was destroyed of a part goes by its own step."""
    verb, part = Verb(row.verb), is_part(row)
    await _ASKED[verb, part](work, [row])
    if part and verb is Verb.ERASE:
        await _let_go(work, [row])


# --- Erasing ---------------------------------------------------------------------------------------------


async def _destroyed(work: Work, rows: Sequence[Row]) -> list[tuple[UUID, Answer]]:
    asked = [Erasure(row.store_id, row.subject_id, row.generation, row.id) for row in rows]
    erased = await _keyring(work).destroy(asked)
    return [(row.store_id, _after_destroying(row, one)) for row, one in zip(rows, erased, strict=True)]


def _after_destroying(row: Row, erased: Erased) -> Answer:
    state = (
        TaskState.RETAINED if erased.kept else TaskState.DONE if erased.destroyed else TaskState.NOTHING_HELD
    )
    kept = [_kept(key) for key in erased.kept]
    content = {"outcome": state, "counts": {"keys": len(erased.destroyed)}, "retained": kept}
    return Answer(row.id, KEYRING, Verb(row.verb), row.round, state, content)


def _kept(key: KeptKey) -> dict[str, Any]:
    return Retained(
        kind="key", retention=key.retention, bucket=key.bucket, count=1, ground=key.law, until=key.expires_on
    ).model_dump(mode="json")


async def _checked(work: Work, rows: Sequence[Row]) -> list[tuple[UUID, Answer]]:
    left = await _keyring(work).status([(row.store_id, row.subject_id) for row in rows])
    today = work.clock().date()
    return [(row.store_id, _after_checking(row, keys, today)) for row, keys in zip(rows, left, strict=True)]


def _after_checking(row: Row, keys: Iterable[LiveKey], today: date) -> Answer:
    open_still = sum(1 for key in keys if _should_be_gone(row, key, today))
    state = TaskState.FAILED if open_still else TaskState.DONE
    content = {"outcome": state, "counts": {"keys": open_still}, "reason": "live-keys" if open_still else ""}
    return Answer(row.id, KEYRING, Verb(row.verb), row.round, state, content)


def _should_be_gone(row: Row, key: LiveKey, today: date) -> bool:
    if key.generation > row.generation:
        return False
    if key.retention is Retention.REQUEST:
        return key.bucket != str(row.id)
    kept_until = key.expires_on
    return not key.retention.period.kept_by_law or (kept_until is not None and kept_until < today)


# --- Erasing a part --------------------------------------------------------------------------------------


async def _retired(work: Work, rows: Sequence[Row]) -> list[tuple[UUID, Answer]]:
    """The keys of what is concerned seal no more; once nothing lies under them, they can go."""
    async with work.database.transaction(ALL_STORES) as transaction:
        maps = await _DATA_MAPS.rows(transaction)
    entries = [entry for one in maps for entry in one.data_map if "kind" in entry]
    retirements = [
        Retirement(
            row.store_id, row.subject_id, row.generation,
            retentions_concerned(
                entries,
                Purpose(row.purpose) if row.purpose else None,
                Category(row.category) if row.category else None,
            ),
        )
        for row in rows
    ]  # fmt: skip
    concerned = [one for one in retirements if one.retentions]
    retired = iter(await _keyring(work).retire(concerned) if concerned else ())
    return [
        (row.store_id, _after_retiring(row, next(retired) if one.retentions else []))
        for row, one in zip(rows, retirements, strict=True)
    ]


_DATA_MAPS = Query("SELECT data_map FROM participant ORDER BY name")


def _after_retiring(row: Row, key_ids: Sequence[UUID]) -> Answer:
    state = TaskState.DONE if key_ids else TaskState.NOTHING_HELD
    content = {
        "outcome": state,
        "counts": {"keys": len(key_ids)},
        "retired": [str(key_id) for key_id in key_ids],
    }
    return Answer(row.id, KEYRING, Verb(row.verb), row.round, state, content)


async def _let_go(work: Work, rows: Sequence[Row]) -> list[tuple[UUID, Answer]]:
    """Destroy what is retired; who is on hold stays so, under the new keys."""
    left = await _keyring(work).status([(row.store_id, row.subject_id) for row in rows])
    held = [row for row, keys in zip(rows, left, strict=True) if any(key.restricted for key in keys)]
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
        Objection(row.store_id, row.subject_id, row.generation, Purpose(row.purpose)) for row in rows
    ]
    return _changed(rows, await _keyring(work).object(objections))


def _lives(rows: Iterable[Row]) -> list[Life]:
    return [Life(row.store_id, row.subject_id, row.generation) for row in rows]


def _changed(rows: Iterable[Row], keys: Iterable[int]) -> list[tuple[UUID, Answer]]:
    """Done in any case: what is minted later is closed as well."""
    return [
        (
            row.store_id,
            Answer(
                row.id, KEYRING, Verb(row.verb), row.round, TaskState.DONE,
                {"outcome": TaskState.DONE, "counts": {"keys": number}},
            ),
        )
        for row, number in zip(rows, keys, strict=True)
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


def _by_store(answers: Iterable[tuple[UUID, Answer]]) -> dict[UUID, list[Answer]]:
    stores: dict[UUID, list[Answer]] = defaultdict(list)
    for store_id, answer in answers:
        stores[store_id].append(answer)
    return stores
