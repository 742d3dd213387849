"""After a restore: whatever a database has forgotten of what was asked of its service is asked again.

Of a participant's database, or the keyring's, the requests here say what it had done since the backup, and it does that
again in the same order. When the database that was restored is this one, requests are lost, but not what came of them:
the keyring knows who is erased and who is on hold. `docs/adr/0014-after-a-restore.md` says what nobody knows.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Row, text
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.db import ALL_STORES, Query
from libs.common.events import Received
from libs.common.events.privacy import DatabaseRestored, KeysChanged, Verb
from libs.common.inbox import batched
from libs.common.outbox import publish_all
from libs.common.personal import restrictions
from libs.common.personal.keys import Fate
from libs.common.worker import Work
from services.privacy import closings, key_tasks, store_endings
from services.privacy.domain.decisions import Decision
from services.privacy.domain.rights import Right
from services.privacy.domain.states import FIRST_PAUSE, KEYRING, LONGEST_PAUSE, TERMINAL, State
from services.privacy.domain.verification import Way
from services.privacy.endings import keyring_of
from services.privacy.engine.phases import begin
from services.privacy.engine.tasks import SOURCE, Answer, task
from services.privacy.evidence.entries import note
from services.privacy.models import Request, Returned
from services.privacy.retention import expiring
from services.privacy.service.opening import opened
from services.privacy.settings import present

logger = logging.getLogger(__name__)

MARGIN = timedelta(minutes=10)
"""Between the clocks of two database servers. What is done twice for it is done to the same end."""
AT_ONCE = 200
_CHANGES = [Verb.ERASE, Verb.RECTIFY, Verb.RESTRICT, Verb.LIFT_RESTRICTION, Verb.OBJECT]


# --- Hearing of it ---------------------------------------------------------------------------------------


@batched
async def on_restored(session: AsyncSession, events: Sequence[Received[DatabaseRestored]]) -> None:
    """Note who is older than what was asked of them."""
    for event in events:
        await _note(session, event.data.restoration_id, event.data.participant, event.data.taken_at)


async def _note(session: AsyncSession, restoration_id: UUID, participant: str, taken_at: datetime) -> None:
    row = {"restoration_id": restoration_id, "participant": participant, "taken_at": taken_at}
    await session.execute(upsert(Returned).values(row).on_conflict_do_nothing())


async def ask_keyring(work: Work) -> int:
    """Whether the keyring was restored: it publishes nothing, so it is asked."""
    returned = await keyring_of(work.settings, work.http).restorations()
    async with work.database.platform_session() as session:
        for one in returned:
            await _note(session, one.restoration_id, KEYRING, one.taken_at)
    return 0


# --- What is to be done again ----------------------------------------------------------------------------

_HEARD = text("""
    SELECT restoration_id, participant, taken_at FROM returned WHERE compared_at IS NULL
    ORDER BY heard_at FOR UPDATE SKIP LOCKED
""")
_COMPARED = text("UPDATE returned SET compared_at = now() WHERE restoration_id = :restoration_id")
# What an erasure took with it is not corrected or restricted again; a correction whose values went has no other end.
# If this database was restored, others remember rounds that it does not: they are counted from that moment on.
_FORGOTTEN = text("""
    WITH forgotten AS (
        SELECT task.request_id, task.verb, task.store_id, task.answered_at FROM task
        JOIN request ON request.id = task.request_id
        WHERE task.participant = :participant AND task.verb = ANY(CAST(:verbs AS text[]))
            AND task.answered_at >= :since AND task.state IN ('done', 'nothing-held', 'retained')
            AND request.state = 'completed' AND (task.verb <> 'rectify' OR request.proposal IS NOT NULL)
            AND (task.verb = 'erase' OR NOT EXISTS (
                SELECT FROM request AS later
                WHERE (later.store_id, later.subject_id) = (request.store_id, request.subject_id)
                    AND later.generation >= request.generation AND later.claim = 'erasure'
                    AND later.state = 'completed' AND later.purpose IS NULL AND later.category IS NULL))
            AND NOT EXISTS (
                SELECT FROM redo WHERE (redo.restoration_id, redo.request_id, redo.verb)
                    = (:restoration_id, task.request_id, task.verb))
    ), raised AS (
        UPDATE request SET round = greatest(round + 1,
            (SELECT CAST(extract(epoch FROM max(restored_at)) AS bigint) FROM restoration))
        FROM (SELECT DISTINCT request_id FROM forgotten) AS again
        WHERE request.id = again.request_id RETURNING request.id, round
    )
    INSERT INTO redo (restoration_id, request_id, verb, participant, store_id, round, answered_at)
    SELECT :restoration_id, request_id, verb, :participant, store_id, round, answered_at
    FROM forgotten JOIN raised ON raised.id = request_id
    RETURNING request_id
""")
# What is under way is waited for anew: the phase does not end before it is done, or looked at, again.
_UNDER_WAY = text("""
    UPDATE task SET state = 'waiting', answer = NULL, answered_at = NULL, next_issue_at = now(), asked_at = now()
    FROM request
    WHERE request.id = task.request_id AND request.state IN ('running', 'checking')
        AND task.participant = :participant AND task.answered_at >= :since AND task.state <> 'settled'
        AND (request.state = 'running' AND task.verb = ANY(CAST(:verbs AS text[]))
            OR request.state = 'checking' AND task.verb = 'verify-erased')
    RETURNING request.id
""")


async def compare(work: Work) -> int:
    """Find out what those who were restored have forgotten. May be repeated. Raises KeyringUnavailable."""
    async with work.database.platform_session() as session:
        heard = (await session.execute(_HEARD)).all()
        for one in heard:
            values = {
                "restoration_id": one.restoration_id,
                "participant": one.participant,
                "since": one.taken_at - MARGIN,
            }
            again = (await session.execute(_FORGOTTEN, values | {"verbs": _CHANGES})).all()
            anew = (await session.execute(_UNDER_WAY, values | {"verbs": _CHANGES})).all()
            logger.warning(
                "a database was restored: what it has forgotten is asked again",
                extra={"participant": one.participant, "count": len(again) + len(anew)},
            )
    for one in heard:
        since = one.taken_at - MARGIN
        await store_endings.end_again(work, one.participant, since)
        if one.participant == KEYRING:
            await expiring.end_again(work, since=since)
        else:
            await expiring.clean_again(work, since=since)
        if one.participant == "identity":
            await closings.remember(work)
        if one.participant == SOURCE:
            await _learn(work)
        else:
            await _erase_buried(work, since)
        async with work.database.platform_session() as session:
            await session.execute(_COMPARED, {"restoration_id": one.restoration_id})
    return 0


# --- Asking again ----------------------------------------------------------------------------------------

# One at a time for each person: restricted, released and restricted again is not the same in another order.
_DUE = """
    UPDATE redo SET attempts = redo.attempts + 1,
        next_issue_at = now() + make_interval(secs => least(:longest, :first * 2 ^ least(redo.attempts + 1, 20)))
    FROM request
    WHERE request.id = redo.request_id AND (redo.restoration_id, redo.request_id, redo.verb) IN (
        SELECT due.restoration_id, due.request_id, due.verb FROM redo AS due
        JOIN request AS asked ON asked.id = due.request_id
        WHERE due.done_at IS NULL AND due.next_issue_at <= now() AND (due.participant = 'keyring') = :keyring
            AND NOT EXISTS (
                SELECT FROM redo AS earlier JOIN request AS before ON before.id = earlier.request_id
                WHERE earlier.done_at IS NULL AND NOT earlier.failed AND earlier.participant = due.participant
                    AND (before.store_id, before.subject_id) = (asked.store_id, asked.subject_id)
                    AND (earlier.answered_at, earlier.request_id) < (due.answered_at, due.request_id))
        ORDER BY due.answered_at LIMIT :limit FOR UPDATE OF due SKIP LOCKED)
    RETURNING request.*, redo.verb, redo.round AS asked_round, redo.attempts AS attempt, redo.participant,
        redo.answered_at
"""
_DUE_TEXT, _DUE_QUERY = text(_DUE), Query(_DUE)
_PAUSES = {"first": FIRST_PAUSE.total_seconds(), "longest": LONGEST_PAUSE.total_seconds()}


async def redo(work: Work) -> int:
    """Ask participants again for what is due."""
    async with work.database.platform_session() as session:
        due = (await session.execute(_DUE_TEXT, {"keyring": False, "limit": AT_ONCE, **_PAUSES})).all()
        for row in due:
            again = task(row, Verb(row.verb), attempt=row.attempt, participants=[row.participant])
            issued = again.model_copy(update={"round": row.asked_round})
            await publish_all(session, [issued], store_id=row.store_id, source=SOURCE)
    await _redo_at_keyring(work)
    return 0


async def _redo_at_keyring(work: Work) -> None:
    async with work.database.transaction(ALL_STORES) as transaction:
        due = await _DUE_QUERY.rows(transaction, keyring=True, limit=AT_ONCE, **_PAUSES)
    by_store: dict[UUID, list[Any]] = defaultdict(list)
    for row in due:
        await key_tasks.ask_again(work, row, done_by=row.answered_at + MARGIN)
        by_store[row.store_id].append(row)
    for store_id, rows in by_store.items():
        async with work.database.session(store_id) as session:
            await session.execute(_DONE, _columns([_answer_of(row) for row in rows]))
            forget = [KeysChanged(subject_id=row.subject_id, generation=row.generation) for row in rows]
            await publish_all(session, forget, store_id=store_id, source=SOURCE)


# Of a participant that was restored twice only the newest round is answered, and that is good for those before it.
_DONE = text("""
    UPDATE redo SET done_at = CASE WHEN given.failed THEN NULL ELSE now() END, failed = given.failed
    FROM unnest(CAST(:requests AS uuid[]), CAST(:participants AS text[]), CAST(:verbs AS text[]),
        CAST(:rounds AS bigint[]), CAST(:failures AS boolean[])) AS given (request_id, participant, verb, round, failed)
    WHERE redo.done_at IS NULL AND redo.request_id = given.request_id AND redo.participant = given.participant
        AND redo.verb = given.verb AND redo.round <= given.round
""")


async def take(session: AsyncSession, answers: Iterable[Answer]) -> None:
    """Note what was done again."""
    changes = [answer for answer in answers if answer.verb in _CHANGES]
    if changes:
        given = [
            (one.request_id, one.participant, one.verb, one.round, one.state not in TERMINAL)
            for one in changes
        ]
        await session.execute(_DONE, _columns(given))


def _answer_of(row: Any) -> tuple[UUID, str, str, int, bool]:
    return row.id, KEYRING, row.verb, row.asked_round, False


def _columns(answers: Sequence[tuple[UUID, str, str, int, bool]]) -> dict[str, list[Any]]:
    names = ("requests", "participants", "verbs", "rounds", "failures")
    return dict(zip(names, map(list, zip(*answers, strict=True)), strict=True))


# --- What no request says ----------------------------------------------------------------------------------

_BURIED = text("SELECT store_id, subject_id, generation FROM erased_subject WHERE erased_at >= :since")


async def _erase_buried(work: Work, since: datetime) -> None:
    """A request that has ended names one subject of its person; of the others the tombstones here know."""
    async with work.database.platform_session() as session:
        buried = (await session.execute(_BURIED, {"since": since})).all()
    await _erase_unknown(work, buried)


# --- When this database is the one -----------------------------------------------------------------------

_UNKNOWN = text("""
    SELECT asked.store_id, asked.subject_id, asked.generation
    FROM unnest(CAST(:stores AS uuid[]), CAST(:subjects AS uuid[]), CAST(:generations AS bigint[]))
        AS asked (store_id, subject_id, generation)
    WHERE NOT EXISTS (
        SELECT FROM request WHERE (request.store_id, request.subject_id) = (asked.store_id, asked.subject_id)
            AND request.generation >= asked.generation AND claim = 'erasure' AND purpose IS NULL
            AND category IS NULL AND state IN ('running', 'checking', 'completed'))
    ORDER BY store_id, subject_id
""")


async def _learn(work: Work) -> None:
    """Who is erased is erased again everywhere, by a request of our own; whose data is on hold is so here too."""
    keyring = keyring_of(work.settings, work.http)
    held: set[tuple[UUID, UUID, int]] = set()
    over: dict[tuple[UUID, UUID], int] = {}
    after: tuple[UUID, UUID, int] | None = None
    while fates := await keyring.fates(after=after):
        last = fates[-1]
        after = (last.store_id, last.subject_id, last.generation)
        held |= {(one.store_id, one.subject_id, one.generation) for one in fates if one.restricted}
        over |= {(one.store_id, one.subject_id): one.generation for one in fates if one.erased}
        await _erase_unknown(work, [one for one in fates if one.erased])
    # What the law keeps of somebody who was erased while they were on hold is still closed, and they are not.
    held = {(store, subject, life) for store, subject, life in held if life > over.get((store, subject), 0)}
    async with work.database.platform_session() as session:
        known = {tuple(row) for row in await session.execute(_HELD)}
        await restrictions.restrict(session, held)
        await restrictions.lift(session, known - held)


_HELD = text("SELECT store_id, subject_id, generation FROM restricted_subject")


async def _erase_unknown(work: Work, erased: Sequence[Fate] | Sequence[Row[Any]]) -> None:
    values = {
        "stores": [one.store_id for one in erased],
        "subjects": [one.subject_id for one in erased],
        "generations": [one.generation for one in erased],
    }
    async with work.database.platform_session() as session:
        unknown: Sequence[Row[Any]] = (await session.execute(_UNKNOWN, values)).all()
        for one in unknown:
            request = _request(one, work.clock())
            session.add(request)
            await session.flush()
            await note(session, one.store_id, opened(request), now=request.opened_at)
            everybody = sorted(present().participants)
            await begin(session, one.store_id, [request], State.RUNNING, expected=everybody)
    if unknown:
        logger.warning("erasures whose requests were lost are done again", extra={"count": len(unknown)})


def _request(one: Row[Any], now: datetime) -> Request:
    """It was verified and decided, only nobody remembers by whom."""
    states = (State.RECEIVED, State.VERIFYING, State.DECIDING, State.RUNNING)
    return Request(
        id=uuid4(),
        store_id=one.store_id,
        subject_id=one.subject_id,
        generation=one.generation,
        claim=Right.ERASURE,
        way=Way.RESTORE,
        state=State.RUNNING,
        steps=[{"state": state, "at": now.isoformat()} for state in states],
        opened_at=now,
        verified_at=now,
        decision=Decision.BY_ITSELF,
        decided_at=now,
    )


_DONE_LONG_AGO = text("DELETE FROM redo WHERE done_at < now() - interval '90 days'")


async def forget(work: Work) -> int:
    """What was done again long ago."""
    async with work.database.platform_session() as session:
        await session.execute(_DONE_LONG_AGO)
    return 0
