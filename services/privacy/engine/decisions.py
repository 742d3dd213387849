"""From a request to its decision: proofs, verification, the preview, and who says yes or no.

Whoever calls has locked the request's row in this transaction.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.db import ring_after_commit
from libs.common.errors import NotFound
from services.privacy.domain.decisions import Decision, Ground, Passing, authority
from services.privacy.domain.problems import GroundDoesNotFit, NotDecidable
from services.privacy.domain.rights import Law, Right
from services.privacy.domain.states import UNDECIDED, State
from services.privacy.domain.verification import Proof, is_verified
from services.privacy.engine.phases import NOTICES, begin
from services.privacy.engine.tasks import COLUMNS
from services.privacy.models import Request
from services.privacy.policies import Policy, policy_of
from services.privacy.timing import deadline_for, deadline_of, timed, unsaid

_LOCK = text(f"SELECT {COLUMNS} FROM request WHERE store_id = :store_id AND id = :id FOR UPDATE")  # noqa: S608


async def locked(session: AsyncSession, store_id: UUID, request_id: UUID) -> Row[Any]:
    """The request, locked. Raises NotFound."""
    row = (await session.execute(_LOCK, {"store_id": store_id, "id": request_id})).one_or_none()
    if row is None:
        raise NotFound
    return row


# --- Verification ----------------------------------------------------------------------------------------


def standing(
    policy: Policy,
    right: Right,
    law: Law,
    purpose: str | None,
    *,
    proofs: Iterable[Proof],
    received_at: datetime,
    now: datetime,
) -> dict[str, Any]:
    """Where a new request stands with these proofs, as columns; `steps` are the states it enters by them."""
    verified = is_verified([*proofs], policy.enough(right))
    acknowledged_at = now if verified and law is Law.CCPA else None
    deadline = deadline_for(
        policy.country,
        law,
        right,
        received_at=received_at,
        opened_at=now,
        verified_at=now if verified else None,
        acknowledged_at=acknowledged_at,
    )
    columns = {"acknowledged_at": acknowledged_at, **timed(deadline)}
    if not verified:
        return {"state": State.VERIFYING, "steps": [_step(State.VERIFYING, now)], **columns}
    return {"verified_at": now, **_passed(policy, right, purpose, now), **columns}


def _passed(policy: Policy, right: Right, purpose: str | None, now: datetime) -> dict[str, Any]:
    """What follows verification."""
    if policy.passing(right, purpose) is not Passing.AT_ONCE:
        return {"state": State.DECIDING, "steps": [_step(State.DECIDING, now)]}
    return {
        "state": State.RUNNING,
        "steps": [_step(State.DECIDING, now), _step(State.RUNNING, now)],
        "decision": Decision.BY_ITSELF,
        "decided_at": now,
    }


def _step(state: State, now: datetime) -> dict[str, str]:
    return {"state": state, "at": now.isoformat()}


_VERIFIED = text("""
    UPDATE request SET state = :state, steps = steps || CAST(:steps AS jsonb), version = version + 1,
        proofs = proofs || CAST(:proof AS jsonb), order_number = NULL, verified_at = :verified_at, decision = :decision,
        decided_at = :decided_at, due_on = :due_on, overdue_at = :overdue_at, acknowledge_by = :acknowledge_by,
        acknowledged_at = :acknowledged_at, watch = :watch, watch_at = :watch_at
    WHERE id = :id AND store_id = :store_id
""")
_PROVED = text("""
    UPDATE request SET proofs = proofs || CAST(:proof AS jsonb), version = version + 1
    WHERE id = :id AND store_id = :store_id
""")


async def prove(
    session: AsyncSession, request: Row[Any], proof: Proof, *, now: datetime, expected: Iterable[str]
) -> bool:
    """Note a proof; if it is enough, the law's period begins and the next phase with it. Returns whether it was."""
    values = {"id": request.id, "store_id": request.store_id}
    noted = orjson.dumps([{"proof": proof, "at": now.isoformat()}]).decode()
    if State(request.state) is not State.VERIFYING:
        await session.execute(_PROVED, values | {"proof": noted})
        return False
    right = Right(request.claim)
    proofs = [*(Proof(one["proof"]) for one in request.proofs), proof]
    policy = await policy_of(session, request.store_id)
    if not is_verified(proofs, policy.enough(right)):
        await session.execute(_PROVED, values | {"proof": noted})
        return False
    stands = _passed(policy, right, request.purpose, now)
    # The mail of receipt is what California calls to confirm it (11 CCR 7021(a)).
    acknowledged_at = request.acknowledged_at or (now if request.law == Law.CCPA else None)
    deadline = replace(deadline_of(request, policy.country), verified_at=now, acknowledged_at=acknowledged_at)
    columns: dict[str, Any] = {
        "decision": None,
        "decided_at": None,
        **stands,
        **timed(deadline, after=unsaid(request, now)),
        "steps": orjson.dumps(stands["steps"]).decode(),
        "verified_at": now,
        "acknowledged_at": acknowledged_at,
        "proof": noted,
    }
    await session.execute(_VERIFIED, columns | values)
    await notify(session, request, "request-received", now=now)
    await begin(session, request.store_id, [request], stands["state"], expected=expected)
    return True


async def recognised(
    session: AsyncSession, request: Row[Any], known: bool, *, now: datetime, expected: Iterable[str]
) -> None:
    """Everybody has said whether the order is the person's. If that is not enough, the mail's link must be."""
    if known and await prove(session, request, Proof.ORDER, now=now, expected=expected):
        return
    await notify(session, request, "confirm-request", now=now)


# --- Decisions -------------------------------------------------------------------------------------------


async def previewed(
    session: AsyncSession, request: Row[Any], *, clear: bool, now: datetime, expected: Iterable[str]
) -> None:
    """Everybody has counted: a clear case passes by itself where the store lets it, else somebody is asked."""
    policy = await policy_of(session, request.store_id)
    if clear and policy.passing(Right(request.claim), request.purpose) is Passing.WHEN_CLEAR:
        await _run(session, request, Decision.BY_ITSELF, by=None, now=now, expected=expected)
    else:
        await notify(session, request, "decision-wanted", now=now, reader="officer")


async def approve(
    session: AsyncSession, request: Row[Any], *, by: UUID, now: datetime, expected: Iterable[str]
) -> None:
    """Carry the request out. Raises NotDecidable."""
    if State(request.state) is not State.DECIDING:
        raise NotDecidable
    await notify(session, request, "request-approved", now=now)
    await _run(session, request, Decision.APPROVED, by=by, now=now, expected=expected)


_ENDED = text("""
    UPDATE request SET state = CAST(:state AS text), version = version + 1, watch = NULL, watch_at = NULL,
        steps = steps || jsonb_build_array(jsonb_build_object('state', CAST(:state AS text), 'at', :at)),
        decision = coalesce(:decision, decision), decided_at = CAST(:now AS timestamptz), decided_by = :by,
        ground = :ground
    WHERE id = :id AND store_id = :store_id
""")
_SILENCED = text("""
    WITH silenced AS (UPDATE task SET next_issue_at = NULL WHERE request_id = :id)
    DELETE FROM notice WHERE request_id = :id
""")


async def refuse(
    session: AsyncSession, request: Row[Any], ground: Ground, *, by: UUID, now: datetime
) -> None:
    """Refuse on a ground of the law, which the person is told with their right to complain (GDPR, Art. 12(4)).

    Raises NotDecidable, GroundDoesNotFit.
    """
    if State(request.state) not in UNDECIDED:
        raise NotDecidable
    if authority(ground, Right(request.claim), Law(request.law)) is None:
        raise GroundDoesNotFit
    decided = {"decision": Decision.REFUSED, "ground": ground, "by": by}
    await _end(session, request, State.REFUSED, now, **decided)
    await notify(session, request, "request-refused", now=now)


async def cancel(session: AsyncSession, request: Row[Any], *, now: datetime) -> None:
    """The person takes the request back, or never showed that it is theirs. Raises NotDecidable."""
    if State(request.state) not in UNDECIDED:
        raise NotDecidable
    await _end(session, request, State.CANCELLED, now)


async def _end(session: AsyncSession, request: Row[Any], state: State, now: datetime, **decided: Any) -> None:
    undecided: Mapping[str, Any] = {"decision": None, "ground": None, "by": None}
    values = {"id": request.id, "store_id": request.store_id}
    await session.execute(
        _ENDED, {**undecided, **decided, **values, "state": state, "at": now.isoformat(), "now": now}
    )
    await session.execute(_SILENCED, {"id": request.id})


_RUNNING = text("""
    UPDATE request SET state = 'running', version = version + 1, decision = :decision, decided_by = :by,
        decided_at = CAST(:now AS timestamptz), begins_at = :begins_at,
        steps = steps || jsonb_build_array(jsonb_build_object('state', 'running', 'at', CAST(:at AS text)))
    WHERE id = :id AND store_id = :store_id
""")


async def _run(
    session: AsyncSession,
    request: Row[Any],
    decision: Decision,
    *,
    by: UUID | None,
    now: datetime,
    expected: Iterable[str],
    begins_at: datetime | None = None,
) -> None:
    values = {
        "id": request.id,
        "store_id": request.store_id,
        "decision": decision,
        "by": by,
        "now": now,
        "at": now.isoformat(),
        "begins_at": begins_at,
    }
    await session.execute(_RUNNING, values)
    await begin(session, request.store_id, [request], State.RUNNING, expected=expected)


# --- Mails -----------------------------------------------------------------------------------------------

_NOTIFY = text("""
    INSERT INTO notice (store_id, request_id, template, reader, note_id, due_at)
    VALUES (:store_id, :request_id, :template, :reader, :note_id, :due_at)
""")
ACKNOWLEDGED_AFTER = timedelta(minutes=1)
"""A request that ends sooner gets one mail instead of two."""


async def notify(
    session: AsyncSession,
    request: Row[Any] | Request,
    template: str,
    *,
    now: datetime,
    reader: str = "person",
    note_id: UUID | None = None,
) -> None:
    """A mail about the request is to be written once the session has committed; it repeats the note, if any."""
    due_at = now + ACKNOWLEDGED_AFTER if template == "request-received" else now
    await session.execute(
        _NOTIFY,
        {
            "store_id": request.store_id,
            "request_id": request.id,
            "template": template,
            "reader": reader,
            "note_id": note_id,
            "due_at": due_at,
        },
    )
    ring_after_commit(session, NOTICES)
