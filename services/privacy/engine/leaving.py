"""A participant that left: whoever took over its data takes its part of what is open, and nobody waits for it.

The command to leave is `service.participants.leave`; this is the duty behind it. Every batch commits alone, and to
repeat one changes nothing, so a crash only delays.
"""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.db import ring_after_commit
from libs.common.events.privacy import Verb
from libs.common.worker import Work
from services.privacy import store_endings
from services.privacy.domain.parts import DEPARTED
from services.privacy.domain.states import TaskState
from services.privacy.engine.answers import locked, settled
from services.privacy.engine.joining import WHILE
from services.privacy.engine.phases import NEXT_ROUND, NOTE_ISSUED, ask_anew
from services.privacy.engine.tasks import COLUMNS, IS_ASKED, IS_TERMINAL, IS_UNANSWERED, PHASE, Taken, ids_of
from services.privacy.evidence.entries import Noted, Step, note
from services.privacy.retention import expiring
from services.privacy.settings import present

logger = logging.getLogger(__name__)

_AT_ONCE = 100

_LEAVING = text(
    "SELECT * FROM departure WHERE handed_over_at IS NULL AND readmitted_at IS NULL ORDER BY departed_at"
)
# A request that begins another round meanwhile says so afterwards, or was waited for.
_LOCK_DEPARTURE = text("SELECT FROM departure WHERE name = :name AND departed_at = :departed_at FOR UPDATE")
_HANDED_OVER = text("""
    UPDATE departure SET handed_over_at = :now
    WHERE name = :name AND departed_at = :departed_at AND departed_at <= :before
""")


async def hand_over(work: Work) -> int:
    """Hand over what is open of those who left. Returns 0 unless more may be."""
    async with work.database.platform_session() as session:
        leaving = (await session.execute(_LEAVING)).all()
    handed = 0
    for one in leaving:
        place = {"name": one.name, "departed_at": one.departed_at}
        async with work.database.platform_session() as session:
            await session.execute(_LOCK_DEPARTURE, place)
            number = await _hand_over(session, work, one)
            if not number:
                now = work.clock()
                await session.execute(_HANDED_OVER, {**place, "now": now, "before": now - WHILE})
        handed += number
    return int(handed > 0)


async def _hand_over(session: AsyncSession, work: Work, one: Row[Any]) -> int:
    heir = await _heir(session, one.successor)
    number = await _hand_over_requests(session, work, one, heir)
    number += await _hand_over_expiries(session, one.name, heir)
    number += await _hand_over_endings(session, work, one.name, heir)
    return number + await _hand_over_redo(session, one.name, heir)


_NEXT = text("SELECT successor FROM departure WHERE name = :name AND readmitted_at IS NULL")


async def _heir(session: AsyncSession, successor: str | None) -> str | None:
    """Who has the data by now: a successor may have left as well."""
    passed: set[str] = set()
    while successor is not None and successor not in passed:
        passed.add(successor)
        gone = (await session.execute(_NEXT, {"name": successor})).one_or_none()
        if gone is None:
            return successor
        successor = gone.successor
    return None


# --- Requests --------------------------------------------------------------------------------------------

# What was asked in a phase that is over needs no answer any more.
_OPEN = f"""
    task.participant = :name AND task.{IS_UNANSWERED}
        AND (task.verb = {PHASE} OR request.state = 'running' AND task.verb IN ('prepare', 'refer'))
"""
_LOCK = text(f"""
    SELECT {COLUMNS} FROM request WHERE state IN ('verifying', 'deciding', 'running', 'checking')
        AND EXISTS (SELECT FROM task WHERE task.request_id = request.id AND {_OPEN})
    ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED
""")  # noqa: S608 - constants of the engine
_SETTLED = text(f"""
    UPDATE task SET state = 'settled', answer = CAST(:answer AS jsonb), answered_at = now(), next_issue_at = NULL
    FROM request WHERE request.id = task.request_id AND request.id = ANY(CAST(:ids AS uuid[])) AND {_OPEN}
    RETURNING task.request_id, task.store_id, task.verb, request.round, {IS_ASKED} AS asked
""")  # noqa: S608 - constants of the engine
COUNT_OPEN = text(f"""
    SELECT count(*) FROM request JOIN task ON task.request_id = request.id
    WHERE request.state IN ('verifying', 'deciding', 'running', 'checking') AND {_OPEN}
""")  # noqa: S608 - constants of the engine
"""How many parts of requests wait for the participant `name`."""


async def _hand_over_requests(session: AsyncSession, work: Work, one: Row[Any], heir: str | None) -> int:
    requests = (await session.execute(_LOCK, {"name": one.name, "limit": _AT_ONCE})).all()
    if not requests:
        return 0
    said = {"outcome": TaskState.SETTLED, "ground": DEPARTED, "successor": one.successor}
    answer = orjson.dumps({**said, "counts": {}, "retained": []}).decode()
    values = {"ids": ids_of(requests), "name": one.name, "answer": answer}
    parts = (await session.execute(_SETTLED, values)).all()
    by_store: dict[UUID, list[Row[Any]]] = defaultdict(list)
    for part in parts:
        by_store[part.store_id].append(part)
    for store_id, of_store in by_store.items():
        await note(session, store_id, [noted for part in of_store for noted in _noted(one, part, said)])
        anew = await _take_over(session, store_id, of_store, heir) if heir is not None else set[UUID]()
        taken: list[Taken] = [
            (part.request_id, one.name, Verb(part.verb)) for part in of_store if part.request_id not in anew
        ]
        await _go_on(session, work, store_id, taken)
    logger.info("parts of a participant that left are handed over", extra={"count": len(parts)})
    return len(parts)


def _noted(one: Row[Any], part: Row[Any], said: Mapping[str, Any]) -> list[Noted]:
    facts = {"participant": one.name, "verb": part.verb, "round": part.round, **said}
    return [
        Noted(part.request_id, Step.SETTLED, facts),
        Noted(part.request_id, Step.ANSWERED_FOR, {**facts, "by": one.departed_by}),
    ]


async def _go_on(session: AsyncSession, work: Work, store_id: UUID, taken: Sequence[Taken]) -> None:
    """What waited for nobody else goes on. A round may have begun meanwhile, so the requests are read once more."""
    if taken:
        requests = await locked(session, store_id, {request_id for request_id, _, _ in taken})
        expected = sorted(present().participants)
        await settled(session, store_id, requests, taken, expected=expected, now=work.clock())


# --- The successor ---------------------------------------------------------------------------------------

_ANSWERED = text(f"""
    SELECT request_id, verb FROM task WHERE store_id = :store_id AND participant = :heir AND {IS_TERMINAL}
        AND (request_id, verb) IN (SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:verbs AS text[])))
""")  # noqa: S608 - a constant of the engine
_EXPECT = text(f"""
    WITH asked AS (
        INSERT INTO task AS task (request_id, participant, verb, store_id, next_issue_at, asked_at)
        SELECT request_id, :heir, verb, :store_id, due, due
        FROM unnest(CAST(:ids AS uuid[]), CAST(:verbs AS text[]), CAST(:asked AS boolean[]))
                AS part (request_id, verb, asked),
            LATERAL (SELECT CASE WHEN asked THEN now() END) AS time (due)
        ON CONFLICT (request_id, participant, verb) DO UPDATE SET
            state = 'waiting', answer = NULL, answered_at = NULL, attempts = 0,
            next_issue_at = excluded.next_issue_at, asked_at = excluded.asked_at
            WHERE task.{IS_TERMINAL}
        RETURNING task.request_id, task.store_id, task.participant, task.verb
    ){NOTE_ISSUED}
""")  # noqa: S608 - constants of the engine


async def _take_over(
    session: AsyncSession, store_id: UUID, parts: Sequence[Row[Any]], heir: str
) -> set[UUID]:
    """The successor has the same to do; what it answered before it had the data does not count any more, so that is a
    round of its own. Of an export all pieces are of one round: everybody is asked again. Returns these requests.
    """
    # Of what order was meant, and whom to tell first, it can say no more than it has.
    lasting = [part for part in parts if part.verb != Verb.RECOGNISE]
    values = {
        "store_id": store_id,
        "heir": heir,
        "ids": [part.request_id for part in lasting],
        "verbs": [part.verb for part in lasting],
    }
    answered = (await session.execute(_ANSWERED, values)).all()
    exports = {one.request_id for one in answered if one.verb == Verb.EXPORT}
    rounds = sorted({one.request_id for one in answered} - exports)
    await session.execute(NEXT_ROUND, {"store_id": store_id, "ids": rounds})
    await session.execute(_EXPECT, values | {"asked": [part.asked for part in lasting]})
    if exports:
        requests = await locked(session, store_id, exports)
        await ask_anew(session, store_id, list(requests.values()))
    return exports


# --- What else waits -------------------------------------------------------------------------------------

_EXPIRIES = text("""
    UPDATE expiry SET next_try_at = now(), waiting = CASE WHEN CAST(:heir AS text) IS NULL OR :heir = ANY(waiting)
        THEN array_remove(waiting, CAST(:name AS varchar))
        ELSE array_replace(waiting, CAST(:name AS varchar), CAST(:heir AS varchar)) END
    WHERE state = 'cleaning' AND :name = ANY(waiting) RETURNING retention
""")


async def _hand_over_expiries(session: AsyncSession, name: str, heir: str | None) -> int:
    found = (await session.execute(_EXPIRIES, {"name": name, "heir": heir})).all()
    if found:
        ring_after_commit(session, expiring.CHANNEL)
    return len(found)


_ENDINGS = text("""
    WITH gone AS (
        DELETE FROM store_ending_part WHERE participant = :name AND cleaned_at IS NULL RETURNING store_id
    ), taken_over AS (
        INSERT INTO store_ending_part AS part (store_id, participant)
        SELECT store_id, CAST(:heir AS varchar) FROM gone WHERE CAST(:heir AS text) IS NOT NULL
        ON CONFLICT (store_id, participant) DO UPDATE SET cleaned_at = NULL
    )
    UPDATE store_ending SET next_step_at = :now FROM gone
    WHERE store_ending.store_id = gone.store_id AND erased_at IS NULL
    RETURNING store_ending.store_id
""")


async def _hand_over_endings(session: AsyncSession, work: Work, name: str, heir: str | None) -> int:
    found = (await session.execute(_ENDINGS, {"name": name, "heir": heir, "now": work.clock()})).all()
    if found:
        ring_after_commit(session, store_endings.CHANNEL)
    return len(found)


# What a restored database forgot is done again where its data is now, and nowhere if that is gone.
_REDO = text("""
    WITH gone AS (
        DELETE FROM redo WHERE participant = :name AND done_at IS NULL AND CAST(:heir AS text) IS NULL RETURNING 1
    ), taken_over AS (
        UPDATE redo SET participant = :heir, attempts = 0, next_issue_at = now(), failed = false
        WHERE participant = :name AND done_at IS NULL AND CAST(:heir AS text) IS NOT NULL RETURNING 1
    )
    SELECT (SELECT count(*) FROM gone) + (SELECT count(*) FROM taken_over)
        + (SELECT count(*) FROM returned WHERE participant = :name AND compared_at IS NULL)
""")


async def _hand_over_redo(session: AsyncSession, name: str, heir: str | None) -> int:
    """What is still to be compared after a restore counts as well: of it more may come."""
    return int(await session.scalar(_REDO, {"name": name, "heir": heir}) or 0)
