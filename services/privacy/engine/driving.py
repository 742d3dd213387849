"""A part that is stuck: somebody has it asked again at once, or answers for it.

Whoever calls has locked the request's row in this transaction.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.db import ring_after_commit
from libs.common.errors import NotFound
from libs.common.events.privacy import Verb
from services.privacy.domain.parts import FITTING, Settled, Settlement
from services.privacy.domain.problems import KeyringAnswersItself, PartNotOpen, SettlementDoesNotFit
from services.privacy.domain.rights import Right
from services.privacy.domain.states import KEYRING, State, TaskState
from services.privacy.engine.answers import settled
from services.privacy.engine.phases import KEYRING_TASKS
from services.privacy.engine.tasks import IS_ASKED, IS_UNANSWERED, verbs_of
from services.privacy.evidence.entries import Noted, Step, note

_PART = "request_id = :request_id AND participant = :participant AND verb = :verb AND store_id = :store_id"
_KNOWN = text(f"SELECT state FROM task WHERE {_PART}")  # noqa: S608 - a constant of this module
_DRIVEN = text(f"""
    UPDATE task SET attempts = 0, next_issue_at = :now WHERE {_PART} AND {IS_UNANSWERED} AND {IS_ASKED}
    RETURNING participant
""")  # noqa: S608 - constants of the engine


async def drive(
    session: AsyncSession, request: Row[Any], participant: str, verb: Verb, *, now: datetime
) -> None:
    """Have a part asked again at once, with pauses as for the first time. Raises NotFound, PartNotOpen."""
    values = _values(request, participant, verb)
    await _check_open(session, request, verb, values)
    if (await session.execute(_DRIVEN, values | {"now": now})).one_or_none() is None:
        raise PartNotOpen
    if participant == KEYRING:
        ring_after_commit(session, KEYRING_TASKS)


_SETTLED = text(f"""
    UPDATE task SET state = 'settled', answer = CAST(:answer AS jsonb), answered_at = :now, next_issue_at = NULL
    WHERE {_PART} AND {IS_UNANSWERED} AND {IS_ASKED} RETURNING participant
""")  # noqa: S608 - constants of the engine


async def settle(
    session: AsyncSession,
    request: Row[Any],
    participant: str,
    verb: Verb,
    *,
    outcome: Settled,
    ground: Settlement,
    note_id: UUID,
    by: UUID,
    now: datetime,
    expected: Iterable[str],
) -> None:
    """Answer for a participant: it is waited for no longer, and the request goes on as after its answer. The note has
    the reason in words. Of the person's order nothing is recognised by it, and a preview is for somebody to look at.

    Raises NotFound, PartNotOpen, KeyringAnswersItself, SettlementDoesNotFit.
    """
    if participant == KEYRING:
        raise KeyringAnswersItself
    if ground not in FITTING[outcome]:
        raise SettlementDoesNotFit(grounds=sorted(FITTING[outcome]))
    values = _values(request, participant, verb)
    await _check_open(session, request, verb, values)
    said = as_settled(outcome, ground)
    answer = orjson.dumps({**said, "counts": {}, "retained": []}).decode()
    if (await session.execute(_SETTLED, values | {"answer": answer, "now": now})).one_or_none() is None:
        raise PartNotOpen
    facts = {"participant": participant, "verb": verb, "round": request.round, **said}
    answered_for = Noted(request.id, Step.ANSWERED_FOR, {**facts, "by": by, "note": note_id})
    await note(session, request.store_id, [Noted(request.id, Step.SETTLED, facts), answered_for], now=now)
    taken = [(request.id, participant, verb)]
    await settled(session, request.store_id, {request.id: request}, taken, expected=expected, now=now)


def as_settled(outcome: Settled, ground: Settlement) -> Mapping[str, Any]:
    """What is said of a part in place of its participant's answer."""
    return {"outcome": TaskState.SETTLED, "said": outcome, "ground": ground}


async def _check_open(
    session: AsyncSession, request: Row[Any], verb: Verb, values: Mapping[str, Any]
) -> None:
    """Raises NotFound, or PartNotOpen for what belongs to another phase."""
    if (await session.execute(_KNOWN, values)).one_or_none() is None:
        raise NotFound
    if verb not in verbs_of(Right(request.claim), State(request.state)):
        raise PartNotOpen


def _values(request: Row[Any], participant: str, verb: Verb) -> dict[str, Any]:
    return {
        "request_id": request.id,
        "store_id": request.store_id,
        "participant": participant,
        "verb": verb,
    }
