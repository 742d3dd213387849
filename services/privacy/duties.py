"""What the privacy worker does unasked: speak to the keyring, issue again, forget, measure."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime
from itertools import product
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from libs.common.events.privacy import Retained, Verb
from libs.common.outbox import publish_all
from libs.common.personal.keys import Erased, Erasure, KeptKey, KeyringClient, LiveKey
from libs.common.personal.vocabulary import Retention
from libs.common.telemetry import continuing, is_kept, meter
from libs.common.worker import Work
from services.privacy.domain.rights import Right
from services.privacy.domain.states import FIRST_PAUSE, KEYRING, LONGEST_PAUSE, OPEN, TaskState
from services.privacy.engine.answers import record
from services.privacy.engine.tasks import COLUMNS, SOURCE, Answer, task, traces_of
from services.privacy.settings import present

_LEASE_SECONDS = 15.0
_AT_ONCE = 500
_ISSUED_AGAIN_AT_ONCE = 50
"""A queue is not a loss: when many wait, most are only waiting their turn, and issuing all again would lengthen it."""


# --- The keyring -----------------------------------------------------------------------------------------

_CLAIM = text("""
    WITH claimed AS (
        UPDATE task SET next_issue_at = now() + make_interval(secs => :lease), attempts = attempts + 1
        WHERE (request_id, participant, verb) IN (
            SELECT request_id, participant, verb FROM task
            WHERE participant = 'keyring' AND next_issue_at <= now()
            ORDER BY next_issue_at LIMIT :limit FOR UPDATE SKIP LOCKED)
        RETURNING request_id, verb
    )
    SELECT request.id, request.store_id, subject_id, generation, round, verb
    FROM claimed JOIN request ON request.id = claimed.request_id
""")


async def ask_keyring(work: Work) -> int:
    """Destroy the keys of erasures that begin, and look at what is left for those that are being checked.

    What is to be done is saved, the keyring is called outside any transaction, and what it answered is saved;
    every call may be repeated. Returns 0 unless more is waiting.
    """
    async with work.database.platform_session() as session:
        rows = (await session.execute(_CLAIM, {"lease": _LEASE_SECONDS, "limit": _AT_ONCE})).all()
    if rows:
        everybody = sorted(present().participants)
        answers = await _destroyed(work, [row for row in rows if row.verb == Verb.ERASE])
        answers += await _checked(work, [row for row in rows if row.verb == Verb.VERIFY_ERASED])
        for store_id, of_store in _by_store(answers).items():
            async with work.database.session(store_id) as session:
                await record(session, store_id, of_store, expected=everybody, now=datetime.now(UTC))
    return len(rows) // _AT_ONCE


async def _destroyed(work: Work, rows: Sequence[Row[Any]]) -> list[tuple[UUID, Answer]]:
    if not rows:
        return []
    asked = [Erasure(row.store_id, row.subject_id, row.generation, row.id) for row in rows]
    erased = await _keyring(work).destroy(asked)
    return [(row.store_id, _after_destroying(row, one)) for row, one in zip(rows, erased, strict=True)]


def _after_destroying(row: Row[Any], erased: Erased) -> Answer:
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


async def _checked(work: Work, rows: Sequence[Row[Any]]) -> list[tuple[UUID, Answer]]:
    if not rows:
        return []
    left = await _keyring(work).status([(row.store_id, row.subject_id) for row in rows])
    today = datetime.now(UTC).date()
    return [(row.store_id, _after_checking(row, keys, today)) for row, keys in zip(rows, left, strict=True)]


def _after_checking(row: Row[Any], keys: Iterable[LiveKey], today: date) -> Answer:
    open_still = sum(1 for key in keys if _should_be_gone(row, key, today))
    state = TaskState.FAILED if open_still else TaskState.DONE
    content = {"outcome": state, "counts": {"keys": open_still}, "reason": "live-keys" if open_still else ""}
    return Answer(row.id, KEYRING, Verb(row.verb), row.round, state, content)


def _should_be_gone(row: Row[Any], key: LiveKey, today: date) -> bool:
    if key.generation > row.generation:
        return False
    if key.retention is Retention.REQUEST:
        return key.bucket != str(row.id)
    kept_until = key.expires_on
    return not key.retention.period.kept_by_law or (kept_until is not None and kept_until < today)


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


# --- Issuing again ---------------------------------------------------------------------------------------

_OVERDUE = text(f"""
    SELECT {COLUMNS} FROM request
    WHERE id IN (SELECT request_id FROM task WHERE next_issue_at <= now() AND participant <> 'keyring'
                 ORDER BY next_issue_at LIMIT :limit)
    ORDER BY id FOR UPDATE SKIP LOCKED
""")  # noqa: S608 - a constant of the engine
_ISSUED = text("""
    UPDATE task SET attempts = attempts + 1,
        next_issue_at = now() + make_interval(secs => least(:longest, :first * 2 ^ least(attempts + 1, 20)))
    WHERE request_id = ANY(CAST(:ids AS uuid[])) AND participant <> 'keyring'
        AND next_issue_at <= now() AND state IN ('waiting', 'failed')
    RETURNING request_id, participant, verb, attempts
""")


async def issue_again(work: Work) -> int:
    """Ask those who have not answered once more, with pauses that double from two seconds to ten minutes."""
    async with work.database.platform_session() as session:
        requests = (await session.execute(_OVERDUE, {"limit": _ISSUED_AGAIN_AT_ONCE})).all()
        if not requests:
            return 0
        values = {
            "ids": [request.id for request in requests],
            "first": FIRST_PAUSE.total_seconds(),
            "longest": LONGEST_PAUSE.total_seconds(),
        }
        missing: dict[tuple[UUID, str], list[Row[Any]]] = defaultdict(list)
        for row in await session.execute(_ISSUED, values):
            missing[row.request_id, row.verb].append(row)
        for request in requests:
            tasks = [
                task(
                    request,
                    Verb(verb),
                    attempt=1 + max(row.attempts for row in rows),
                    participants=sorted(row.participant for row in rows),
                )
                for (request_id, verb), rows in missing.items()
                if request_id == request.id
            ]
            with continuing(traces_of([request])):
                await publish_all(session, tasks, store_id=request.store_id, source=SOURCE)
    return 0


# --- Forgetting and measuring ----------------------------------------------------------------------------

_FORGET = text("""
    WITH expired AS (DELETE FROM download WHERE expires_at <= now() RETURNING request_id)
    DELETE FROM export_chunk USING expired WHERE export_chunk.request_id = expired.request_id
""")


async def forget_exports(work: Work) -> int:
    """An export is gone when its link has expired."""
    async with work.database.platform_session() as session:
        await session.execute(_FORGET)
    return 0


_open = meter.create_gauge("privacy.requests.open", description="Requests that have not ended.")
_age = meter.create_gauge("privacy.requests.age", unit="s", description="Age of the oldest open request.")
_waiting = meter.create_gauge("privacy.tasks.waiting", description="Tasks issued and not answered.")
_COUNT_OPEN = text("""
    SELECT claim, state, count(*) AS number, extract(epoch FROM now() - min(opened_at))::float8 AS age
    FROM request WHERE state NOT IN ('completed', 'refused', 'cancelled') GROUP BY claim, state
""")
_COUNT_WAITING = text("""
    SELECT name AS participant, count(task.request_id) AS number
    FROM (SELECT name FROM participant UNION SELECT participant FROM task WHERE next_issue_at IS NOT NULL) AS known
    LEFT JOIN task ON task.participant = known.name AND next_issue_at IS NOT NULL
    GROUP BY name
""")


async def measure(work: Work) -> int:
    """Open requests and their age, and what each participant has still to answer; 0 is told, or the last would stay."""
    if not is_kept():
        return 0
    async with work.database.platform_session() as session:
        found = {(row.claim, row.state): row for row in await session.execute(_COUNT_OPEN)}
        for right, state in product(Right, sorted(OPEN)):
            row = found.get((right, state))
            _open.set(row.number if row else 0, {"right": right, "state": state})
            _age.set(row.age if row else 0, {"right": right, "state": state})
        for row in await session.execute(_COUNT_WAITING):
            _waiting.set(row.number, {"participant": row.participant})
    return 0
