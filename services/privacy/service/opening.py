"""Opening a request, whichever way it came in."""

import hashlib
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Row, select, text
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.auth import Caller
from libs.common.db import Database, Query
from libs.common.errors import Problem, Unavailable
from libs.common.events.privacy import Life, Proposal
from libs.common.personal.data import PersonalData, Sealed
from libs.common.personal.errors import SubjectErased
from libs.common.personal.tombstones import guard
from libs.common.personal.vault import ToSeal, Vault
from libs.common.telemetry import current_traceparent
from services.privacy.asked import Asked
from services.privacy.calendars import NOWHERE, calendar_for
from services.privacy.domain.deadlines import day_of, start_of
from services.privacy.domain.problems import AddressNotOfAccount, ErasureUnderWay, ReceivedInTheFuture
from services.privacy.domain.rights import Right
from services.privacy.domain.states import OVER, State
from services.privacy.domain.verification import Proof, Way
from services.privacy.engine import decisions, people
from services.privacy.engine.notices import notify
from services.privacy.engine.phases import begin
from services.privacy.evidence.entries import Noted, Step, note
from services.privacy.kinds import AgentContact, RequestContact
from services.privacy.models import Request
from services.privacy.policies import Policy, policy_of

_TOKEN_BYTES = 32
Opened = Row[Any] | Request
"""A request that was just opened, or that was joined."""


@dataclass(frozen=True, slots=True, repr=False)
class Asking:
    """A request before it has a row: whose it is, and its boxes, under a key of the request's own."""

    id: UUID
    store_id: UUID
    subject_id: UUID
    generation: int
    asked: Asked
    way: Way
    proofs: tuple[Proof, ...]
    contact: Sealed[RequestContact] | None
    proposal: Sealed[Proposal] | None
    status_hash: bytes | None
    order_number: str | None = None
    begins_at: datetime | None = None
    """Of a lifting that the staff opens: the person is told before, and it runs then."""
    decided_by: UUID | None = None
    agent: Sealed[AgentContact] | None = None
    received_on: date | None = None
    """The day it reached the store, where that was not now."""
    also: tuple[Life, ...] = ()
    """The other subjects of the person, which only the transaction finds out."""

    @property
    def life(self) -> Life:
        """The subject whose address the request came by."""
        return Life(subject_id=self.subject_id, generation=self.generation)


# --- Before the transaction ------------------------------------------------------------------------------


async def signed_in(
    database: Database, vault: Vault, *, caller: Caller, asked: Asked, email: str, language: str
) -> Asking:
    """A request by somebody with a session, which the answer to it must not leave: any address of theirs is good.

    Raises AddressNotOfAccount, SubjectErased (also for a token of an earlier life), KeyringUnavailable.
    """
    subject_id = await vault.subject_id(caller.store_id, email)
    if subject_id != caller.customer:
        async with database.session(caller.store_id) as session:
            own = Life(subject_id=caller.customer, generation=caller.generation)
            if subject_id not in {
                one.subject_id for one in await people.others(session, caller.store_id, own)
            }:
                raise AddressNotOfAccount
    asking = await sealed(
        vault,
        store_id=caller.store_id,
        subject_id=caller.customer,
        asked=asked,
        email=email,
        language=language,
        way=Way.SESSION,
        proofs=(Proof.SESSION,),
    )
    if asking.generation != caller.generation:
        raise SubjectErased
    return asking


async def sealed(
    vault: Vault,
    *,
    store_id: UUID,
    subject_id: UUID,
    asked: Asked,
    email: str,
    language: str,
    way: Way,
    proofs: tuple[Proof, ...] = (),
    order_number: str | None = None,
    agent: AgentContact | None = None,
    begin: bool = False,
) -> Asking:
    """The request with its boxes. `begin` as in KeyWanted. Raises SubjectErased, KeyringUnavailable."""
    request_id, token = uuid4(), secrets.token_urlsafe(_TOKEN_BYTES)
    contact = RequestContact.model_validate({"email": email, "language": language, "status_token": token})
    pieces: list[PersonalData] = [one for one in (contact, asked.proposal, agent) if one is not None]
    to_seal = [ToSeal(one, store_id, subject_id, str(request_id), begin) for one in pieces]
    boxes: dict[type[PersonalData], Sealed[Any]] = {}
    generation = 0
    for one in await vault.seal_many(to_seal):
        if isinstance(one, Problem):
            raise one
        boxes[one.box.model] = one.box
        generation = one.generation
    return Asking(
        id=request_id,
        store_id=store_id,
        subject_id=subject_id,
        generation=generation,
        asked=asked,
        way=way,
        proofs=proofs,
        contact=boxes[RequestContact],
        proposal=boxes.get(Proposal),
        status_hash=hashed(token),
        order_number=order_number,
        agent=boxes.get(AgentContact),
    )


def hashed(token: str) -> bytes:
    """What is kept of a link's token: enough to recognise it, nothing to make it from."""
    return hashlib.sha256(token.encode()).digest()


# --- In the transaction ----------------------------------------------------------------------------------


async def open_request(
    session: AsyncSession, asking: Asking, *, expected: Iterable[str], now: datetime
) -> tuple[Opened, bool]:
    """Open a request and begin with it, or join the open one of its kind. Returns whether it is new.

    Whoever joins lends the open request their proofs, and one that nobody has verified is theirs from then on:
    somebody else's form changes nothing for them. Raises SubjectErased, ErasureUnderWay, ReceivedInTheFuture,
    Unavailable.
    """
    # Who takes answers in holds the request's row when the person is buried: the row comes first here too.
    await session.execute(select(Request.id).where(*_open_of_its_kind(asking)).with_for_update())
    await guard(session, asking.store_id, asking.subject_id, asking.generation)
    asking = await about_all(session, asking)
    if asking.asked.right is not Right.ERASURE and await _is_being_erased(session, asking):
        raise ErasureUnderWay
    policy = await policy_of(session, asking.store_id)
    made = None
    if asking.way is Way.OPENDSR or not asking.also or await open_one(session, asking) is None:
        made = (await session.execute(_INSERT, _values(asking, policy, now))).first()
    if made is None:
        return await _join(session, asking, policy, expected=expected, now=now), False
    await note(session, made.store_id, opened(made), now=now)
    if made.state != State.VERIFYING:
        told = "lifting-announced" if asking.begins_at else decisions.received(made)
        await notify(session, made, told, now=now)
        await begin(session, made.store_id, [made], State(made.state), expected=expected)
    else:
        await _ask_for_proof(session, made, asking, policy, expected=expected, now=now)
    return made, True


def opened(request: Opened) -> list[Noted]:
    """The steps of a request that was just opened: one that is verified as it is opened takes several at once."""
    facts = {
        "right": request.claim,
        "law": request.law,
        "purpose": request.purpose,
        "category": request.category,
        "way": request.way,
        "proofs": [one["proof"] for one in request.proofs],
        "received_at": request.received_at,
    }
    opened = Noted(request.id, Step.OPENED, facts)
    if request.state == State.VERIFYING:
        return [opened]
    stands = {name: getattr(request, name) for name in ("due_on", "decision", "decided_by")}
    return [opened, *decisions.verified(request.id, stands)]


async def about_all(session: AsyncSession, asking: Asking) -> Asking:
    """The request with all subjects of its person."""
    also = await people.others(session, asking.store_id, asking.life, hold=True)
    return replace(asking, also=tuple(also))


async def _ask_for_proof(
    session: AsyncSession,
    request: Row[Any] | Request,
    asking: Asking,
    policy: Policy,
    *,
    expected: Iterable[str],
    now: datetime,
) -> None:
    """The order's number where the store takes it, else the link of a mail. An agent may know the number too."""
    number = asking.order_number
    if number is None or asking.way is Way.AGENT or Proof.ORDER not in policy.enough(asking.asked.right):
        await decisions.ask_for_proof(session, request, at=now)
    else:
        await decisions.recognise(session, request, number, now=now, expected=expected)


_TABLE: Any = Request.__table__
# Written once, so that nothing of it but the values is made anew for each request.
_INSERT = upsert(_TABLE).on_conflict_do_nothing().returning(_TABLE)


def _values(asking: Asking, policy: Policy, now: datetime) -> dict[str, Any]:
    asked = asking.asked
    received_at = _received_at(asking, policy, now)
    if asking.begins_at is not None and asking.decided_by is not None:
        stands = decisions.announced(
            policy, asked.right, begins_at=asking.begins_at, by=asking.decided_by, now=now
        )
    else:
        stands = decisions.standing(
            policy,
            asked.right,
            asked.law,
            asked.purpose,
            way=asking.way,
            proofs=asking.proofs,
            received_at=received_at,
            now=now,
        )
    began: Sequence[State] = [State.RECEIVED]
    if stands["state"] is not State.VERIFYING:
        began = [State.RECEIVED, State.VERIFYING]
    stands["steps"] = [*({"state": one, "at": now.isoformat()} for one in began), *stands["steps"]]
    return {
        "id": asking.id,
        "store_id": asking.store_id,
        "subject_id": asking.subject_id,
        "generation": asking.generation,
        "claim": asked.right,
        "law": asked.law,
        "purpose": asked.purpose,
        "category": asked.category,
        "proposal": asking.proposal,
        "way": asking.way,
        "proofs": [{"proof": one, "at": now.isoformat()} for one in asking.proofs],
        "contact": asking.contact,
        "agent": asking.agent,
        "status_hash": asking.status_hash,
        "also": [life.model_dump(mode="json") for life in asking.also] or None,
        "opened_at": now,
        "received_at": received_at if received_at < now else None,
        "traceparent": current_traceparent(),
        **stands,
    }


def _received_at(asking: Asking, policy: Policy, now: datetime) -> datetime:
    """The beginning of the day it reached the store, where the store is. Raises ReceivedInTheFuture."""
    if asking.received_on is None:
        return now
    zone = calendar_for(asking.asked.law, policy.country or NOWHERE).zone
    if asking.received_on > day_of(now, zone):
        raise ReceivedInTheFuture
    return min(start_of(asking.received_on, zone), now)


_ERASURE_UNDER_WAY = Query("""
    SELECT EXISTS (
        SELECT FROM request JOIN unnest(CAST(:subjects AS uuid[]), CAST(:generations AS bigint[]))
            AS life (subject_id, generation) USING (subject_id, generation)
        WHERE store_id = :store_id AND claim = 'erasure' AND purpose IS NULL AND category IS NULL
            AND state IN ('running', 'checking')) AS found
""")


async def _is_being_erased(session: AsyncSession, asking: Asking) -> bool:
    """Whether an erasure of everything is under way; one that nobody has verified or decided yet stops nothing."""
    lives = [asking.life, *asking.also]
    [row] = await _ERASURE_UNDER_WAY.rows(
        session,
        store_id=asking.store_id,
        subjects=[life.subject_id for life in lives],
        generations=[life.generation for life in lives],
    )
    return row.found


async def _join(
    session: AsyncSession, asking: Asking, policy: Policy, *, expected: Iterable[str], now: datetime
) -> Request:
    joined = await open_one(session, asking)
    if joined is None:
        # It ended between the two statements: asking again opens another.
        raise Unavailable
    row = await decisions.locked(session, joined.store_id, joined.id)
    if State(row.state) is State.VERIFYING:
        await _lend(session, row, asking, policy, expected=expected, now=now)
        await session.refresh(joined)
    elif asking.way is not Way.SESSION:
        await notify(session, row, "request-under-way", now=now)
    return joined


_TAKE = text("""
    UPDATE request SET agent = NULL, version = version + 1,
        law = CASE WHEN :proved THEN :law ELSE law END, way = CASE WHEN :proved THEN :way ELSE way END
    WHERE id = :id AND store_id = :store_id
""")


async def _lend(
    session: AsyncSession,
    request: Row[Any],
    asking: Asking,
    policy: Policy,
    *,
    expected: Iterable[str],
    now: datetime,
) -> None:
    """Whatever shows that the person asks is good for the request that is open; who shows it says under which law."""
    if asking.way is not Way.AGENT:
        proved = {"proved": bool(asking.proofs), "law": asking.asked.law, "way": asking.way}
        await session.execute(_TAKE, proved | {"id": request.id, "store_id": request.store_id})
        joined = {"way": asking.way, "law": asking.asked.law, "proofs": list(asking.proofs)}
        await note(session, request.store_id, [Noted(request.id, Step.JOINED, joined)], now=now)
    for proof in asking.proofs:
        row = await decisions.locked(session, request.store_id, request.id)
        if await decisions.prove(session, row, proof, now=now, expected=expected):
            return
    await _ask_for_proof(session, request, asking, policy, expected=expected, now=now)


async def open_one(session: AsyncSession, asking: Asking) -> Request | None:
    """The request that this one joins, by its own address before another of the person."""
    return await session.scalar(
        select(Request)
        .where(*_open_of_its_kind(asking))
        .order_by(people.among(Request, [asking.life]).desc(), Request.opened_at, Request.id)
        .limit(1)
    )


def _open_of_its_kind(asking: Asking) -> list[Any]:
    """What is true of the request that this one joins. Two corrections are two wishes, and what came by another address
    of the person is joined once somebody has shown that it is theirs: before, its mails may go where nobody reads.
    """
    shown = Request.state.not_in([State.RECEIVED, State.VERIFYING])
    return [
        Request.store_id == asking.store_id,
        people.among(Request, [asking.life]) | (people.among(Request, asking.also) & shown),
        Request.claim == asking.asked.right,
        Request.claim != Right.RECTIFICATION,
        # What a store's own tool asked is answered to the tool, which could be told of nothing that others joined.
        Request.way != Way.OPENDSR,
        Request.purpose.is_not_distinct_from(asking.asked.purpose),
        Request.category.is_not_distinct_from(asking.asked.category),
        Request.state.not_in(OVER),
    ]
