"""What moves requests on: answers, chunks and announcements come in, tasks go out. A batch is a few statements.

A request's row is locked before anything of it is read or changed, in the order of ids, so that of two last
answers one sees the other, and no two batches wait for each other.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.db import ring_after_commit
from libs.common.events import Event
from libs.common.events.privacy import ExportChunk, KeysDestroyed, TaskIssued, Verb
from libs.common.outbox import publish_all
from libs.common.telemetry import continuing
from services.privacy.domain import (
    FIRST_PAUSE,
    KEYRING,
    LONGEST_PAUSE,
    TERMINAL,
    Right,
    State,
    TaskState,
    after,
)
from services.privacy.models import Request

logger = logging.getLogger(__name__)

SOURCE = "privacy"
KEYRING_TASKS = "keyring_tasks"
"""NOTIFY channel: the keyring is to be asked."""
NOTICES = "notices"
"""NOTIFY channel: a mail is to be written."""
_PAUSES = {"first": FIRST_PAUSE.total_seconds(), "longest": LONGEST_PAUSE.total_seconds()}


@dataclass(frozen=True, slots=True)
class Answer:
    """What came in for one task; `content` is kept whole, with its signature."""

    request_id: UUID
    participant: str
    verb: Verb
    round: int
    state: TaskState
    content: Mapping[str, Any]


def verb_of(right: Right, state: State) -> Verb | None:
    """What everybody is asked in a phase."""
    match right, state:
        case Right.ACCESS, State.RUNNING:
            return Verb.EXPORT
        case Right.ERASURE, State.RUNNING:
            return Verb.ERASE
        case Right.ERASURE, State.CHECKING:
            return Verb.VERIFY_ERASED
        case _:
            return None


# --- Answers ---------------------------------------------------------------------------------------------

_LOCK = text("""
    SELECT id, store_id, subject_id, generation, claim, state, round, traceparent FROM request
    WHERE store_id = :store_id AND id = ANY(CAST(:ids AS uuid[])) ORDER BY id FOR UPDATE
""")
# What is terminal stays as it is: a late, doubled or contradictory answer changes nothing.
_ANSWERED = text("""
    UPDATE task SET state = given.state, answer = CAST(given.answer AS jsonb), answered_at = now(),
        next_issue_at = CASE WHEN given.state = 'failed'
            THEN now() + make_interval(secs => least(:longest, :first * 2 ^ least(attempts, 20))) END
    FROM unnest(CAST(:requests AS uuid[]), CAST(:participants AS text[]), CAST(:verbs AS text[]),
        CAST(:states AS text[]), CAST(:answers AS text[])) AS given (request_id, participant, verb, state, answer)
    WHERE task.request_id = given.request_id AND task.participant = given.participant AND task.verb = given.verb
        AND task.state IN ('waiting', 'failed') AND task.store_id = :store_id
    RETURNING task.request_id, task.participant, task.verb, task.state
""")
_PARTS = text("""
    SELECT request_id, array_agg(DISTINCT state) AS states FROM task
    WHERE (request_id, verb) IN (SELECT * FROM unnest(CAST(:requests AS uuid[]), CAST(:verbs AS text[])))
    GROUP BY request_id ORDER BY request_id
""")


async def record(session: AsyncSession, store_id: UUID, answers: Iterable[Answer]) -> None:
    """Take answers in and move on every request whose phase they end."""
    given = list(answers)
    ids = sorted({answer.request_id for answer in given})
    requests = {row.id: row for row in await session.execute(_LOCK, {"store_id": store_id, "ids": ids})}
    with continuing(traces_of(requests.values())):
        await _record(session, store_id, given, requests)


async def _record(
    session: AsyncSession, store_id: UUID, given: Sequence[Answer], requests: Mapping[UUID, Row[Any]]
) -> None:
    expected = _one_each(answer for answer in given if _is_expected(answer, requests.get(answer.request_id)))
    incomplete = await _incomplete(session, expected)
    taken = await _take(session, store_id, [_refused(one) if one in incomplete else one for one in expected])
    if destroyed := [id_ for id_, who, verb in taken if who == KEYRING and verb is Verb.ERASE]:
        await _issue_erasure(session, store_id, [requests[id_] for id_ in destroyed])
    if anew := {one.request_id for one in incomplete}:
        await _ask_anew(session, store_id, [requests[id_] for id_ in sorted(anew)])
    await _move_on(session, store_id, {id_: requests[id_] for id_, *_ in taken if id_ not in anew})


def traces_of(requests: Iterable[Row[Any]]) -> dict[str, str | None]:
    """The trace that each request was opened in, by what events about it are ordered by."""
    return {str(id_): one.traceparent for one in requests for id_ in (one.id, one.subject_id)}


def _is_expected(answer: Answer, request: Row[Any] | None) -> bool:
    return (
        request is not None
        and verb_of(Right(request.claim), State(request.state)) is answer.verb
        and request.round == answer.round
    )


def _one_each(answers: Iterable[Answer]) -> list[Answer]:
    """Of several answers to one task the first that is terminal, or else the last."""
    chosen: dict[tuple[UUID, str], Answer] = {}
    for answer in answers:
        known = chosen.get((answer.request_id, answer.participant))
        if known is None or known.state not in TERMINAL:
            chosen[answer.request_id, answer.participant] = answer
    return list(chosen.values())


async def _take(
    session: AsyncSession, store_id: UUID, answers: Sequence[Answer]
) -> list[tuple[UUID, str, Verb]]:
    """Those that were waited for, of the others nothing is kept."""
    if not answers:
        return []
    rows = await session.execute(
        _ANSWERED,
        {
            "store_id": store_id,
            "requests": [answer.request_id for answer in answers],
            "participants": [answer.participant for answer in answers],
            "verbs": [answer.verb for answer in answers],
            "states": [answer.state for answer in answers],
            "answers": [orjson.dumps(answer.content).decode() for answer in answers],
            **_PAUSES,
        },
    )
    return [(row.request_id, row.participant, Verb(row.verb)) for row in rows]


# --- Chunks ----------------------------------------------------------------------------------------------

# Only of a request that runs, and only from who was asked: anything else is dropped.
_KEEP_CHUNKS = text("""
    INSERT INTO export_chunk AS chunk
        (request_id, participant, sequence, store_id, subject_id, generation, round, box, hash)
    SELECT request.id, given.participant, given.sequence, request.store_id, request.subject_id,
        request.generation, request.round, given.box, given.hash
    FROM unnest(CAST(:requests AS uuid[]), CAST(:participants AS text[]), CAST(:rounds AS bigint[]),
        CAST(:sequences AS bigint[]), CAST(:boxes AS bytea[]), CAST(:hashes AS bytea[]))
        AS given (request_id, participant, round, sequence, box, hash)
    JOIN request ON request.id = given.request_id AND request.round = given.round
        AND request.store_id = :store_id AND request.claim = 'access' AND request.state = 'running'
    JOIN task ON task.request_id = request.id AND task.participant = given.participant
        AND task.verb = 'export' AND task.state IN ('waiting', 'failed')
    ORDER BY request.id, given.participant, given.sequence
    ON CONFLICT (request_id, participant, sequence)
        DO UPDATE SET round = excluded.round, box = excluded.box, hash = excluded.hash
""")
_HASHES = text("""
    SELECT request_id, participant, string_agg(hash, CAST('' AS bytea) ORDER BY sequence) AS hashes
    FROM export_chunk
    JOIN unnest(CAST(:requests AS uuid[]), CAST(:participants AS text[]), CAST(:rounds AS bigint[]),
        CAST(:chunks AS bigint[])) AS given (request_id, participant, round, chunks)
        USING (request_id, participant, round)
    WHERE sequence < chunks
    GROUP BY request_id, participant
""")


async def keep_chunks(session: AsyncSession, store_id: UUID, chunks: Iterable[ExportChunk]) -> None:
    """Keep pieces of exports until their answer binds them. One sent again takes the place of the first."""
    last = {(chunk.request_id, chunk.participant, chunk.sequence): chunk for chunk in chunks}.values()
    await session.execute(
        _KEEP_CHUNKS,
        {
            "store_id": store_id,
            "requests": [chunk.request_id for chunk in last],
            "participants": [chunk.participant for chunk in last],
            "rounds": [chunk.round for chunk in last],
            "sequences": [chunk.sequence for chunk in last],
            "boxes": [chunk.box.payload for chunk in last],
            "hashes": [sha256(chunk.box.payload).digest() for chunk in last],
        },
    )


async def _incomplete(session: AsyncSession, answers: Sequence[Answer]) -> list[Answer]:
    """Exports whose chunks are not those the participant signed for: some were lost, or are somebody else's."""
    exports = [
        answer for answer in answers if answer.verb is Verb.EXPORT and answer.content.get("chunks", 0) > 0
    ]
    if not exports:
        return []
    rows = await session.execute(
        _HASHES,
        {
            "requests": [answer.request_id for answer in exports],
            "participants": [answer.participant for answer in exports],
            "rounds": [answer.round for answer in exports],
            "chunks": [answer.content["chunks"] for answer in exports],
        },
    )
    found = {(row.request_id, row.participant): sha256(row.hashes).hexdigest() for row in rows}
    return [
        answer
        for answer in exports
        if found.get((answer.request_id, answer.participant)) != answer.content.get("digest")
    ]


def _refused(answer: Answer) -> Answer:
    return replace(answer, state=TaskState.FAILED, content={**answer.content, "reason": "incomplete"})


# --- Phases ----------------------------------------------------------------------------------------------

_TURN = text("""
    UPDATE request SET state = CAST(:state AS text), version = version + 1,
        steps = steps || jsonb_build_array(jsonb_build_object('state', CAST(:state AS text), 'at', now())),
        completed_at = CASE WHEN :completed THEN now() END,
        notice = CASE WHEN NOT :completed THEN notice WHEN claim = 'access' THEN 'export-ready' ELSE 'erasure-done' END,
        notice_at = CASE WHEN NOT :completed THEN notice_at ELSE now() END
    WHERE id = ANY(CAST(:ids AS uuid[])) AND store_id = :store_id
""")
_ADD_CHECKS = text("""
    INSERT INTO task (request_id, participant, verb, store_id, next_issue_at)
    SELECT request_id, participant, 'verify-erased', store_id,
        now() + CASE WHEN participant = 'keyring' THEN interval '0' ELSE make_interval(secs => :first) END
    FROM task WHERE request_id = ANY(CAST(:ids AS uuid[])) AND verb = 'erase' AND store_id = :store_id
""")
_FIRST_ISSUED = text("""
    UPDATE task SET next_issue_at = now() + make_interval(secs => :first)
    WHERE request_id = ANY(CAST(:ids AS uuid[])) AND verb = 'erase' AND participant <> 'keyring'
        AND store_id = :store_id AND state = 'waiting'
""")
_NEXT_ROUND = text("""
    UPDATE request SET round = round + 1 WHERE id = ANY(CAST(:ids AS uuid[])) AND store_id = :store_id
""")
_DROP_CHECKS = text("""
    DELETE FROM task
    WHERE request_id = ANY(CAST(:ids AS uuid[])) AND verb = 'verify-erased' AND store_id = :store_id
""")
# An erasure begins again with the keys; an export is issued again to everybody, after a pause that grows.
_WAIT_AGAIN = text("""
    UPDATE task SET state = 'waiting', answer = NULL, answered_at = NULL, attempts = task.attempts + 1,
        next_issue_at = CASE WHEN verb = 'export' OR participant = 'keyring'
            THEN now() + make_interval(secs => least(:longest, :first * 2 ^ least(request.round - 2, 20))) END
    FROM request
    WHERE task.request_id = request.id AND request.id = ANY(CAST(:ids AS uuid[])) AND task.store_id = :store_id
""")


async def _move_on(session: AsyncSession, store_id: UUID, requests: Mapping[UUID, Row[Any]]) -> None:
    if not requests:
        return
    verbs = [verb_of(Right(one.claim), State(one.state)) for one in requests.values()]
    parts = await session.execute(_PARTS, {"requests": list(requests), "verbs": verbs})
    turned: dict[State, list[Row[Any]]] = defaultdict(list)
    for request_id, states in parts:
        request = requests[request_id]
        state = State(request.state)
        if (following := after(Right(request.claim), state, [TaskState(one) for one in states])) is not state:
            turned[following].append(request)
    if checked := turned[State.CHECKING]:
        await _turn(session, store_id, checked, State.CHECKING)
        await session.execute(_ADD_CHECKS, {"ids": _ids(checked), "store_id": store_id, **_PAUSES})
        ring_after_commit(session, KEYRING_TASKS)
        await publish_all(
            session, [task(one, Verb.VERIFY_ERASED) for one in checked], store_id=store_id, source=SOURCE
        )
    if completed := turned[State.COMPLETED]:
        await _turn(session, store_id, completed, State.COMPLETED)
        ring_after_commit(session, NOTICES)
    if anew := turned[State.RUNNING]:
        await _turn(session, store_id, anew, State.RUNNING)
        await _ask_anew(session, store_id, anew)


async def _turn(session: AsyncSession, store_id: UUID, requests: Sequence[Row[Any]], state: State) -> None:
    completed = state is State.COMPLETED
    await session.execute(
        _TURN, {"ids": _ids(requests), "store_id": store_id, "state": state, "completed": completed}
    )


async def _issue_erasure(session: AsyncSession, store_id: UUID, requests: Sequence[Row[Any]]) -> None:
    """The keys are gone: everybody forgets what is in memory, then cleans up."""
    await session.execute(_FIRST_ISSUED, {"ids": _ids(requests), "store_id": store_id, **_PAUSES})
    events: list[Event] = [
        KeysDestroyed(subject_id=one.subject_id, generation=one.generation) for one in requests
    ]
    events += [task(one, Verb.ERASE) for one in requests]
    await publish_all(session, events, store_id=store_id, source=SOURCE)


async def _ask_anew(session: AsyncSession, store_id: UUID, requests: Sequence[Row[Any]]) -> None:
    """Another round: what was answered before does not count any more."""
    logger.warning("requests begin another round", extra={"count": len(requests)})
    values = {"ids": _ids(requests), "store_id": store_id}
    await session.execute(_NEXT_ROUND, values)
    await session.execute(_DROP_CHECKS, values)
    await session.execute(_WAIT_AGAIN, {**values, **_PAUSES})
    ring_after_commit(session, KEYRING_TASKS)


def task(
    request: Row[Any] | Request, verb: Verb, *, attempt: int = 1, participants: Sequence[str] = ()
) -> TaskIssued:
    """What everybody, or who has not answered yet, is asked."""
    return TaskIssued(
        request_id=request.id,
        verb=verb,
        subject_id=request.subject_id,
        generation=request.generation,
        round=request.round,
        attempt=attempt,
        participants=list(participants),
    )


def _ids(requests: Iterable[Row[Any]]) -> list[UUID]:
    return sorted(request.id for request in requests)
