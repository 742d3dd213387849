"""Answers that change nothing: each is counted under the word for why, and one that comes too late goes on record."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncSession

from services.privacy.believing import refuse
from services.privacy.domain.parts import Unwanted, unwanted
from services.privacy.domain.states import TaskState
from services.privacy.engine.tasks import IS_ASKED, Answer

# After a restore a participant does again, and says again, what it was asked in a round of its own.
_TASKS = text(f"""
    SELECT task.state, {IS_ASKED} AS asked, answer, EXISTS (
        SELECT FROM redo WHERE redo.request_id = given.request_id AND redo.participant = given.participant
            AND redo.verb = given.verb AND redo.round = given.round) AS again
    FROM unnest(CAST(:requests AS uuid[]), CAST(:participants AS text[]), CAST(:verbs AS text[]),
        CAST(:rounds AS bigint[])) WITH ORDINALITY AS given (request_id, participant, verb, round, position)
        LEFT JOIN task ON (task.request_id, task.participant, task.verb)
            = (given.request_id, given.participant, given.verb) AND task.store_id = :store_id
    ORDER BY position
""")  # noqa: S608 - a constant of the engine


async def count_others(
    session: AsyncSession, store_id: UUID, answers: Sequence[Answer], requests: Mapping[UUID, Row[Any]]
) -> None:
    """Say of each answer why it was not taken."""
    if not answers:
        return
    tasks = await session.execute(
        _TASKS,
        {
            "store_id": store_id,
            "requests": [answer.request_id for answer in answers],
            "participants": [answer.participant for answer in answers],
            "verbs": [answer.verb for answer in answers],
            "rounds": [answer.round for answer in answers],
        },
    )
    settled: list[Answer] = []
    for answer, task in zip(answers, tasks, strict=True):
        if task.again:
            continue
        refuse("TaskAnswered", answer.participant, _why(answer, task, requests.get(answer.request_id)))
        if task.state == TaskState.SETTLED:
            settled.append(answer)
    for answer in settled:
        await _note(session, store_id, answer)


def _why(answer: Answer, task: Row[Any], request: Row[Any] | None) -> Unwanted:
    return unwanted(
        TaskState(task.state) if task.state else None,
        is_asked=bool(task.asked),
        rounds_ahead=answer.round - (request.round if request else answer.round),
        is_known=request is not None,
        is_same=_said(task.answer) == _said(answer.content),
    )


def _said(content: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Of the same answer signed twice the signatures differ."""
    return {name: value for name, value in (content or {}).items() if name != "signature"}


# Once: whoever is answered for may say the same for ever.
_NOTE = text("""
    INSERT INTO evidence_pending (store_id, request_id, kind, facts)
    SELECT :store_id, :request_id, 'answered-late', CAST(:noted AS jsonb)
    WHERE NOT EXISTS (
        SELECT FROM evidence_pending WHERE store_id = :store_id AND request_id = :request_id
            AND kind = 'answered-late' AND facts ->> 'participant' = :participant AND facts ->> 'verb' = :verb
    ) AND NOT EXISTS (
        SELECT FROM evidence_entry,
            LATERAL (SELECT CAST(convert_from(content, 'UTF8') AS jsonb) -> 'facts') AS said (facts)
        WHERE store_id = :store_id AND request_id = :request_id AND kind = 'answered-late'
            AND facts ->> 'participant' = :participant AND facts ->> 'verb' = :verb
    )
""")


async def _note(session: AsyncSession, store_id: UUID, answer: Answer) -> None:
    """A participant that was answered for has answered after all: the log shows both."""
    values = {
        "store_id": store_id,
        "request_id": answer.request_id,
        "participant": answer.participant,
        "verb": answer.verb,
        "noted": orjson.dumps(answer.noted).decode(),
    }
    await session.execute(_NOTE, values)
