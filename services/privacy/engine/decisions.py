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

from libs.common.errors import NotFound
from libs.common.personal.vocabulary import Clock
from services.privacy.domain.decisions import Decision, Ground, Passing, authority, grounds_for
from services.privacy.domain.problems import GroundDoesNotFit, NoPreview, NotDecidable
from services.privacy.domain.rights import Law, Right
from services.privacy.domain.states import UNDECIDED, State
from services.privacy.domain.verification import UNASKED, Proof, Way, is_verified
from services.privacy.engine.clock import resume
from services.privacy.engine.notices import notify
from services.privacy.engine.phases import NOTE_TURNED, TURNED, begin
from services.privacy.engine.tasks import COLUMNS
from services.privacy.evidence.entries import Noted, Step, note
from services.privacy.models import Request
from services.privacy.policies import Policy, policy_of
from services.privacy.retention.clocks import start, start_of_own
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
    way: Way,
    proofs: Iterable[Proof],
    received_at: datetime,
    now: datetime,
) -> dict[str, Any]:
    """Where a new request stands with these proofs, as columns; `steps` are the states it enters by them.

    What shows who asks came with it, so the law's period runs from its receipt, however late it is entered here.
    """
    verified = way in UNASKED or is_verified([*proofs], policy.enough(right))
    acknowledged_at = now if verified and law is Law.CCPA else None
    deadline = deadline_for(
        policy.country,
        law,
        right,
        received_at=received_at,
        opened_at=now,
        verified_at=received_at if verified else None,
        acknowledged_at=acknowledged_at,
    )
    columns = {"acknowledged_at": acknowledged_at, **timed(deadline)}
    if not verified:
        return {"state": State.VERIFYING, "steps": [_step(State.VERIFYING, now)], **columns}
    return {"verified_at": received_at, **_passed(policy, right, purpose, way, now), **columns}


def _passed(policy: Policy, right: Right, purpose: str | None, way: Way, now: datetime) -> dict[str, Any]:
    """What follows verification."""
    if policy.passing(right, purpose, way) is not Passing.AT_ONCE:
        return {"state": State.DECIDING, "steps": [_step(State.DECIDING, now)]}
    return {
        "state": State.RUNNING,
        "steps": [_step(State.DECIDING, now), _step(State.RUNNING, now)],
        "decision": Decision.BY_ITSELF,
        "decided_at": now,
    }


def announced(
    policy: Policy, right: Right, *, begins_at: datetime, by: UUID, now: datetime
) -> dict[str, Any]:
    """Where a request stands that the store's own staff opened, and of which the person is told before it begins."""
    deadline = deadline_for(policy.country, Law.GDPR, right, received_at=now, opened_at=now, verified_at=now)
    return {
        "verified_at": now,
        "state": State.RUNNING,
        "steps": [_step(State.DECIDING, now), _step(State.RUNNING, now)],
        "decision": Decision.APPROVED,
        "decided_at": now,
        "decided_by": by,
        "begins_at": begins_at,
        **timed(deadline),
    }


def carried_on(policy: Policy, right: Right, law: Law, *, now: datetime) -> dict[str, Any]:
    """Where a request stands that does for more subjects of a person what was decided before."""
    deadline = deadline_for(policy.country, law, right, received_at=now, opened_at=now, verified_at=now)
    return {
        "verified_at": now,
        "state": State.RUNNING,
        "steps": [_step(State.DECIDING, now), _step(State.RUNNING, now)],
        "decision": Decision.BY_ITSELF,
        "decided_at": now,
        **timed(deadline),
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
# Whoever has not said whether they know the order, or what they hold, need not any more.
_UNASKED = text("""
    UPDATE task SET next_issue_at = NULL
    WHERE request_id = :id AND store_id = :store_id AND next_issue_at IS NOT NULL
""")
_PROVED = text("""
    UPDATE request SET proofs = proofs || CAST(:proof AS jsonb), version = version + 1
    WHERE id = :id AND store_id = :store_id
""")


_NOT_ASKED = text("""
    DELETE FROM notice WHERE request_id = :id AND template IN ('confirm-request', 'proof-wanted')
""")


async def prove(
    session: AsyncSession, request: Row[Any], proof: Proof, *, now: datetime, expected: Iterable[str]
) -> bool:
    """Note a proof; if it is enough, the law's period begins and the next phase with it. Returns whether it was."""
    values = {"id": request.id, "store_id": request.store_id}
    given = [Proof(one["proof"]) for one in request.proofs]
    noted = orjson.dumps([] if proof in given else [{"proof": proof, "at": now.isoformat()}]).decode()
    await note(session, request.store_id, [Noted(request.id, Step.PROVED, {"proof": proof})], now=now)
    if State(request.state) is not State.VERIFYING:
        await session.execute(_PROVED, values | {"proof": noted})
        return False
    right = Right(request.claim)
    policy = await policy_of(session, request.store_id)
    if not is_verified([*given, proof], policy.enough(right)):
        await session.execute(_PROVED, values | {"proof": noted})
        return False
    stands = _passed(policy, right, request.purpose, Way(request.way), now)
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
    await note(session, request.store_id, verified(request.id, columns), now=now)
    await notify(session, request, received(request), now=now)
    await session.execute(_UNASKED, values)
    await session.execute(_NOT_ASKED, {"id": request.id})
    await begin(session, request.store_id, [request], stands["state"], expected=expected)
    return True


def verified(request_id: UUID, stands: Mapping[str, Any]) -> list[Noted]:
    """The steps of a request that is verified, and decided where nobody weighs it."""
    steps = [Noted(request_id, Step.VERIFIED, {"due_on": stands["due_on"]})]
    if stands.get("decision") is not None:
        decided = {"decision": stands["decision"], "by": stands.get("decided_by")}
        steps.append(Noted(request_id, Step.DECIDED, decided))
    return steps


async def recognised(
    session: AsyncSession, request: Row[Any], known: bool, *, now: datetime, expected: Iterable[str]
) -> None:
    """Everybody has said whether the order is the person's. If that is not enough, the mail's link must be."""
    if known and await prove(session, request, Proof.ORDER, now=now, expected=expected):
        return
    await session.execute(_NO_ORDER, {"id": request.id, "store_id": request.store_id})
    await ask_for_proof(session, request, at=now)


def received(request: Any) -> str:
    """The mail that says that a request was received, that somebody of the store wrote it down, or that it follows from
    a closed account.
    """
    return _RECEIVED.get(Way(request.way), "request-received")


_RECEIVED = {Way.STAFF: "request-opened-for-you", Way.CLOSING: "account-ended"}


_NO_ORDER = text("UPDATE request SET order_number = NULL WHERE id = :id AND store_id = :store_id")
_TRY_ORDER = text("""
    UPDATE request SET order_number = :order_number, version = version + 1,
        round = round + CASE WHEN EXISTS (SELECT FROM task WHERE request_id = :id) THEN 1 ELSE 0 END
    WHERE id = :id AND store_id = :store_id
""")
RECOGNISED_WITHIN = timedelta(minutes=10)
"""After this the mail's link is offered anyway: a service that is away keeps nobody from their rights."""


async def recognise(
    session: AsyncSession,
    request: Row[Any] | Request,
    order_number: str,
    *,
    now: datetime,
    expected: Iterable[str],
) -> None:
    """Ask everybody whether the order of this number is the person's, in a round of its own."""
    values = {"id": request.id, "store_id": request.store_id}
    await session.execute(_TRY_ORDER, values | {"order_number": order_number})
    row = await locked(session, request.store_id, request.id)
    await begin(session, request.store_id, [row], State.VERIFYING, expected=expected)
    await ask_for_proof(session, row, at=now + RECOGNISED_WITHIN)


async def ask_for_proof(session: AsyncSession, request: Row[Any] | Request, *, at: datetime) -> None:
    """A mail with the link of the request, by which it is confirmed where that is enough; one waits at a time."""
    enough = (await policy_of(session, request.store_id)).enough(Right(request.claim))
    await session.execute(_NOT_ASKED, {"id": request.id})
    await notify(session, request, "confirm-request" if Proof.EMAIL in enough else "proof-wanted", now=at)


# --- Decisions -------------------------------------------------------------------------------------------


async def previewed(
    session: AsyncSession, request: Row[Any], *, clear: bool, now: datetime, expected: Iterable[str]
) -> None:
    """Everybody has counted: a clear case passes by itself where the store lets it, else somebody is asked."""
    policy = await policy_of(session, request.store_id)
    passing = policy.passing(Right(request.claim), request.purpose, Way(request.way))
    if clear and passing is Passing.WHEN_CLEAR:
        await _run(session, request, Decision.BY_ITSELF, by=None, now=now, expected=expected)
    else:
        await notify(session, request, "decision-wanted", now=now, reader="officer")


_ASKED_AGAIN = text(f"""
    UPDATE request SET round = round + 1, version = version + 1 WHERE id = :id AND store_id = :store_id
    RETURNING {COLUMNS}
""")  # noqa: S608 - a constant of this package


async def preview_again(session: AsyncSession, request: Row[Any], *, expected: Iterable[str]) -> None:
    """Ask everybody anew what they hold: what was answered before does not count any more. Raises NoPreview."""
    if State(request.state) is not State.DECIDING:
        raise NoPreview
    again = (await session.execute(_ASKED_AGAIN, {"id": request.id, "store_id": request.store_id})).one()
    await begin(session, request.store_id, [again], State.DECIDING, expected=expected)


async def approve(
    session: AsyncSession, request: Row[Any], *, by: UUID, now: datetime, expected: Iterable[str]
) -> None:
    """Carry the request out. Raises NotDecidable."""
    if State(request.state) is not State.DECIDING:
        raise NotDecidable
    await session.execute(_UNASKED, {"id": request.id, "store_id": request.store_id})
    await notify(session, request, "request-approved", now=now)
    await _run(session, request, Decision.APPROVED, by=by, now=now, expected=expected)


# What was refused is certified as well, and what a verified person took back.
_ENDED = text(f"""
    WITH turned AS (
        UPDATE request SET state = CAST(:state AS text), version = version + 1, watch = NULL, watch_at = NULL,
            steps = steps
                || jsonb_build_array(jsonb_build_object('state', CAST(:state AS text), 'at', CAST(:at AS text))),
            decision = coalesce(:decision, decision), decided_at = CAST(:now AS timestamptz), decided_by = :by,
            ground = :ground
        WHERE id = :id AND store_id = :store_id
        RETURNING {TURNED}, CAST(:now AS timestamptz) AS at
    ), evidence AS ({NOTE_TURNED})
    INSERT INTO certificate_due (request_id, store_id, due_at)
    SELECT id, store_id, at FROM turned WHERE state = 'refused' OR verified_at IS NOT NULL
""")  # noqa: S608 - a constant of this package
_SILENCED = text("""
    WITH silenced AS (UPDATE task SET next_issue_at = NULL WHERE request_id = :id)
    DELETE FROM notice WHERE request_id = :id
""")


_TELL_AGENT = text("""
    INSERT INTO notice (store_id, request_id, template, reader, due_at)
    SELECT store_id, id, :template, 'agent', :now FROM request
    WHERE id = :id AND store_id = :store_id AND agent IS NOT NULL
""")


async def refuse(
    session: AsyncSession,
    request: Row[Any],
    ground: Ground,
    *,
    by: UUID,
    now: datetime,
    note_id: UUID | None = None,
) -> None:
    """Refuse on a ground of the law, which the person is told with the reasons that the note gives and their right to
    complain (GDPR, Art. 12(4)).

    Raises NotDecidable, GroundDoesNotFit.
    """
    if State(request.state) not in UNDECIDED:
        raise NotDecidable
    right, law = Right(request.claim), Law(request.law)
    if authority(ground, right, law) is None:
        raise GroundDoesNotFit(grounds=grounds_for(right, law))
    decided = {"decision": Decision.REFUSED, "ground": ground, "by": by}
    await note(session, request.store_id, [Noted(request.id, Step.DECIDED, decided)], now=now)
    await _end(session, request, State.REFUSED, now, **decided)
    await notify(session, request, "request-refused", now=now, note_id=note_id)


async def cancel(session: AsyncSession, request: Row[Any], *, now: datetime) -> None:
    """The person takes the request back, or never showed that it is theirs. Raises NotDecidable."""
    if State(request.state) not in UNDECIDED:
        raise NotDecidable
    await _end(session, request, State.CANCELLED, now)


async def absorb(session: AsyncSession, request: Row[Any], *, now: datetime) -> None:
    """Another request of the person does the same, for all of their subjects: this one ends, and they are told so."""
    await _end(session, request, State.CANCELLED, now)
    await notify(session, request, "request-under-way", now=now)


async def _end(session: AsyncSession, request: Row[Any], state: State, now: datetime, **decided: Any) -> None:
    undecided: Mapping[str, Any] = {"decision": None, "ground": None, "by": None}
    values = {"id": request.id, "store_id": request.store_id}
    await session.execute(
        _ENDED, {**undecided, **decided, **values, "state": state, "at": now.isoformat(), "now": now}
    )
    await session.execute(_SILENCED, {"id": request.id})
    ended = {"template": f"agent-request-{state}", "now": now}
    await session.execute(_TELL_AGENT, values | ended)
    await start(session, request.store_id, [start_of_own(request, Clock.REQUEST_ENDED, request.id, at=now)])


_RUNNING = text("""
    UPDATE request SET state = 'running', version = version + 1, decision = :decision, decided_by = :by,
        decided_at = CAST(:now AS timestamptz),
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
) -> None:
    values = {
        "id": request.id,
        "store_id": request.store_id,
        "decision": decision,
        "by": by,
        "now": now,
        "at": now.isoformat(),
    }
    await resume(session, request, now=now)
    await session.execute(_RUNNING, values)
    decided = Noted(request.id, Step.DECIDED, {"decision": decision, "by": by})
    await note(session, request.store_id, [decided], now=now)
    await begin(session, request.store_id, [request], State.RUNNING, expected=expected)
