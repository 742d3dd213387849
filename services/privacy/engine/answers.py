"""Answers come in: each is taken once, and every request whose phase they end is moved on."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.events.privacy import Verb
from libs.common.telemetry import continuing, meter
from services.privacy.domain.rights import Right
from services.privacy.domain.states import KEYRING, TERMINAL, State, TaskState, after
from services.privacy.engine import decisions
from services.privacy.engine.archives import assemble, is_export
from services.privacy.engine.chunks import incomplete
from services.privacy.engine.others import count_others
from services.privacy.engine.phases import (
    PAUSES,
    ask_anew,
    begin,
    follow_keyring,
    let_begin,
    let_forget,
    let_go,
    turn,
)
from services.privacy.engine.tasks import (
    COLUMNS,
    IS_ASKED,
    IS_TERMINAL,
    IS_UNANSWERED,
    Answer,
    Taken,
    is_led,
    is_part,
    measured_as,
    traces_of,
    verb_of,
    verbs_of,
)

_LOCK = text(f"""
    SELECT {COLUMNS} FROM request
    WHERE store_id = :store_id AND id = ANY(CAST(:ids AS uuid[])) ORDER BY id FOR UPDATE
""")  # noqa: S608 - a constant of this package
# What is terminal stays as it is: a late, doubled or contradictory answer changes nothing.
_ANSWERED = text(f"""
    WITH answered AS (
        UPDATE task SET state = given.state, answer = CAST(given.answer AS jsonb), answered_at = now(),
            next_issue_at = CASE WHEN given.state = 'failed'
                THEN now() + make_interval(secs => least(:longest, :first * 2 ^ least(attempts, 20))) END
        FROM unnest(CAST(:requests AS uuid[]), CAST(:participants AS text[]), CAST(:verbs AS text[]),
            CAST(:states AS text[]), CAST(:answers AS text[]), CAST(:noted AS text[]))
            AS given (request_id, participant, verb, state, answer, noted)
        WHERE task.request_id = given.request_id AND task.participant = given.participant AND task.verb = given.verb
            AND task.{IS_UNANSWERED} AND {IS_ASKED} AND task.store_id = :store_id
        RETURNING task.request_id, task.store_id, task.participant, task.verb, task.state, given.noted,
            extract(epoch FROM now() - task.asked_at)::float8 AS waited
    ), evidence AS (
        INSERT INTO evidence_pending (store_id, request_id, kind, facts)
        SELECT store_id, request_id, 'answered', CAST(noted AS jsonb) FROM answered
    )
    SELECT request_id, participant, verb, state, waited FROM answered
""")  # noqa: S608 - a constant of this package
# A preview that found obligations, or values that no model takes, or that nobody made, is for somebody to look at.
_PARTS = text(f"""
    SELECT request_id, array_agg(DISTINCT state) AS states, coalesce(bool_or(state = 'settled'
        OR answer -> 'obligations' <> '[]'::jsonb OR answer -> 'refused' <> '[]'::jsonb), false) AS unclear,
        bool_and(participant = 'keyring' OR {IS_TERMINAL}) AS but_keyring
    FROM task
    WHERE request_id = ANY(CAST(:requests AS uuid[]))
        AND (request_id, verb) IN (SELECT * FROM unnest(CAST(:requests AS uuid[]), CAST(:verbs AS text[])))
    GROUP BY request_id ORDER BY request_id
""")  # noqa: S608 - a constant of this package


_BEFORE = frozenset({Verb.PREPARE, Verb.REFER})
"""What others wait for."""


async def record(
    session: AsyncSession,
    store_id: UUID,
    answers: Iterable[Answer],
    *,
    expected: Iterable[str],
    now: datetime,
) -> None:
    """Take answers in. `expected` are the participants that are asked whether they announced themselves or not."""
    given = list(answers)
    requests = await locked(session, store_id, {answer.request_id for answer in given})
    with continuing(traces_of(requests.values())):
        still = await _record(session, store_id, given, requests)
        await _move_on(session, store_id, still, expected=expected, now=now)


async def locked(session: AsyncSession, store_id: UUID, ids: Iterable[UUID]) -> dict[UUID, Row[Any]]:
    """Requests as they are once nobody else changes them, in the order of their ids."""
    rows = await session.execute(_LOCK, {"store_id": store_id, "ids": sorted(ids)})
    return {row.id: row for row in rows}


async def _record(
    session: AsyncSession, store_id: UUID, given: Sequence[Answer], requests: Mapping[UUID, Row[Any]]
) -> dict[UUID, Row[Any]]:
    """Save the answers. Returns the requests that they may move on."""
    wanted = _one_each(answer for answer in given if _is_wanted(answer, requests.get(answer.request_id)))
    lacking = await incomplete(session, wanted)
    taken = await _take(session, store_id, [refused(one) if one in lacking else one for one in wanted])
    await count_others(session, store_id, _others(given, wanted, taken), requests)
    await _lead_on(session, store_id, requests, taken)
    if anew := {one.request_id for one in lacking}:
        await ask_anew(session, store_id, [requests[id_] for id_ in sorted(anew)])
    return {id_: requests[id_] for id_, *_ in taken if id_ not in anew}


async def settled(
    session: AsyncSession,
    store_id: UUID,
    requests: Mapping[UUID, Row[Any]],
    taken: Sequence[Taken],
    *,
    expected: Iterable[str],
    now: datetime,
) -> None:
    """Go on after parts that somebody else answered for, as after their own answers. The requests are locked."""
    with continuing(traces_of(requests.values())):
        await _lead_on(session, store_id, requests, taken)
        still = {id_: requests[id_] for id_, *_ in taken}
        await _move_on(session, store_id, still, expected=expected, now=now)


async def _lead_on(
    session: AsyncSession, store_id: UUID, requests: Mapping[UUID, Row[Any]], taken: Sequence[Taken]
) -> None:
    """Within a phase some wait for others."""
    if led := [requests[id_] for id_, who, _ in taken if who == KEYRING and _is_led(requests[id_])]:
        await follow_keyring(session, store_id, led)
    if before := [requests[id_] for id_, _, verb in taken if verb in _BEFORE]:
        await let_begin(session, store_id, list({one.id: one for one in before}.values()))
    if gone := [requests[id_] for id_, who, verb in taken if who == KEYRING and verb is Verb.VERIFY_ERASED]:
        await let_forget(session, store_id, [one for one in gone if is_part(one)])


def _is_wanted(answer: Answer, request: Row[Any] | None) -> bool:
    return (
        request is not None
        and answer.verb in verbs_of(Right(request.claim), State(request.state))
        and request.round == answer.round
    )


def _is_led(request: Row[Any]) -> bool:
    return is_led(Right(request.claim), State(request.state))


def refused(answer: Answer) -> Answer:
    """An answer that does not fit what came with it: it is asked for again."""
    why = {"reason": "incomplete"}
    # What was signed said otherwise, so the evidence has it without its signature.
    received = {name: value for name, value in (answer.received or {}).items() if name != "signature"}
    return replace(
        answer,
        state=TaskState.FAILED,
        content={**answer.content, **why},
        received=received | {"outcome": TaskState.FAILED} | why,
    )


def _one_each(answers: Iterable[Answer]) -> list[Answer]:
    """Of several answers to one task the first that is terminal, or else the last."""
    chosen: dict[Taken, Answer] = {}
    for answer in answers:
        known = chosen.get(answer.place)
        if known is None or known.state not in TERMINAL:
            chosen[answer.place] = answer
    return list(chosen.values())


def _others(given: Iterable[Answer], wanted: Iterable[Answer], taken: Iterable[Taken]) -> list[Answer]:
    """What changed nothing. A failure that an answer of the same moment made up for is no such thing."""
    places = set(taken)
    chosen = {id(one) for one in wanted if one.place in places}
    counted: set[Taken] = set()
    others: list[Answer] = []
    for answer in given:
        if id(answer) in chosen:
            counted.add(answer.place)
        elif answer.place not in places or answer.place in counted:
            others.append(answer)
    return others


async def _take(session: AsyncSession, store_id: UUID, answers: Sequence[Answer]) -> list[Taken]:
    """Those that were waited for, of the others nothing is kept."""
    if not answers:
        return []
    found = await session.execute(
        _ANSWERED,
        {
            "store_id": store_id,
            "requests": [answer.request_id for answer in answers],
            "participants": [answer.participant for answer in answers],
            "verbs": [answer.verb for answer in answers],
            "states": [answer.state for answer in answers],
            "answers": [orjson.dumps(answer.content).decode() for answer in answers],
            "noted": [orjson.dumps(answer.noted).decode() for answer in answers],
            **PAUSES,
        },
    )
    rows = found.all()
    _measure(rows)
    return [(row.request_id, row.participant, Verb(row.verb)) for row in rows]


_latency = meter.create_histogram(
    "privacy.participant.latency",
    unit="s",
    description="From the issue of a task to the answer that ended it.",
    explicit_bucket_boundaries_advisory=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 86400),
)
_failed = meter.create_counter("privacy.answers.failed", description="Answers that a participant failed.")


def _measure(rows: Sequence[Row[Any]]) -> None:
    for row in rows:
        labels = {"participant": measured_as(row.participant), "verb": row.verb}
        if row.state == TaskState.FAILED:
            _failed.add(1, labels)
        elif row.waited is not None:
            _latency.record(max(0, row.waited), labels)


async def _move_on(
    session: AsyncSession,
    store_id: UUID,
    requests: Mapping[UUID, Row[Any]],
    *,
    expected: Iterable[str],
    now: datetime,
) -> None:
    if not requests:
        return
    verbs = [verb_of(Right(one.claim), State(one.state)) for one in requests.values()]
    turned: dict[State, list[Row[Any]]] = defaultdict(list)
    cleaned: list[Row[Any]] = []
    for part in await session.execute(_PARTS, {"requests": list(requests), "verbs": verbs}):
        request = requests[part.request_id]
        state, states = State(request.state), {TaskState(one) for one in part.states}
        if (following := after(Right(request.claim), state, states)) is not state:
            turned[following].append(request)
        elif state is State.VERIFYING and states <= TERMINAL:
            await decisions.recognised(session, request, TaskState.DONE in states, now=now, expected=expected)
        elif state is State.CHECKING and part.but_keyring and is_part(request):
            cleaned.append(request)
        elif state is State.DECIDING and states <= TERMINAL:
            await decisions.previewed(session, request, clear=not part.unclear, now=now, expected=expected)
    if cleaned:
        await let_go(session, store_id, cleaned)
    if checked := turned[State.CHECKING]:
        await turn(session, store_id, checked, State.CHECKING)
        await begin(session, store_id, checked, State.CHECKING, expected=())
    if exported := [one for one in turned[State.COMPLETED] if is_export(one)]:
        await assemble(session, store_id, exported)
    if completed := [one for one in turned[State.COMPLETED] if not is_export(one)]:
        await turn(session, store_id, completed, State.COMPLETED)
    if anew := turned[State.RUNNING]:
        await turn(session, store_id, anew, State.RUNNING)
        await ask_anew(session, store_id, anew)
