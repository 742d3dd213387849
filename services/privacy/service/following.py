"""A request followed, confirmed and taken back without an account, by the secret of its link."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.db import Database
from libs.common.events.privacy import Retained, Verb
from libs.common.stores import KnownStore
from services.privacy.authorities import supervisor_of
from services.privacy.domain.decisions import Ground, authority
from services.privacy.domain.rights import Law, Right
from services.privacy.domain.states import OVER, UNDECIDED, State, TaskState
from services.privacy.domain.verification import Outcome, Proof
from services.privacy.engine import decisions
from services.privacy.engine.clock import is_stopped
from services.privacy.evidence import certificates
from services.privacy.evidence import reading as evidence
from services.privacy.models import DocumentCheck, Request, Task, VerificationDocument
from services.privacy.policies import Policy, policy_of
from services.privacy.schemas import Awaited, LogStanding, Refusal, RequestStatus, Step
from services.privacy.service.documents import is_wanted
from services.privacy.service.reading import fields
from services.privacy.service.replying import followed

_ANSWERS = (Verb.ERASE, Verb.PREVIEW, Verb.RECTIFY)
"""Whose answers say what the law keeps."""


async def confirm(database: Database, token: str, *, expected: Iterable[str], now: datetime) -> RequestStatus:
    """Whoever has the link reads the mail of the address. A second time changes nothing. Raises StatusGone."""
    found = await followed(database, token)
    async with database.session(found.store_id) as session:
        row = await decisions.locked(session, found.store_id, found.id)
        if State(row.state) not in OVER and Proof.EMAIL not in {one["proof"] for one in row.proofs}:
            await decisions.prove(session, row, Proof.EMAIL, now=now, expected=expected)
        return await status(session, found.id)


async def withdraw(database: Database, token: str, *, now: datetime) -> RequestStatus:
    """Take the request back. A second time changes nothing. Raises StatusGone, NotDecidable once it runs."""
    found = await followed(database, token)
    async with database.session(found.store_id) as session:
        row = await decisions.locked(session, found.store_id, found.id)
        if State(row.state) is not State.CANCELLED:
            await decisions.cancel(session, row, now=now)
        return await status(session, found.id)


async def follow(database: Database, token: str) -> RequestStatus:
    """Where the request is. Raises StatusGone."""
    found = await followed(database, token)
    async with database.session(found.store_id) as session:
        return await status(session, found.id)


# --- What is shown ---------------------------------------------------------------------------------------


async def status(session: AsyncSession, request_id: UUID) -> RequestStatus:
    """The request as it is now, in words and dates; no box is opened for it."""
    request = await session.get_one(Request, request_id, populate_existing=True)
    policy = await policy_of(session, request.store_id)
    state = State(request.state)
    proofs = list(dict.fromkeys(Proof(one["proof"]) for one in request.proofs))
    verifying = state is State.VERIFYING
    return RequestStatus(
        **fields(request),
        store=await session.scalar(select(KnownStore.name).where(KnownStore.store_id == request.store_id)),
        steps=[Step.model_validate(step) for step in request.steps],
        awaited=_awaited(request, policy, proofs),
        proofs=proofs,
        enough=sorted(policy.enough(Right(request.claim))) if verifying else [],
        documents=await _waiting(session, request),
        checks=await _checks(session, request),
        stopped_since=_stopped_since(request),
        extended_at=request.extended_at,
        extension=request.extension,
        refusal=_refusal(request),
        kept=await _kept(session, request) if state is State.COMPLETED else [],
        supervisor=supervisor_of(Law(request.law), policy.country),
        certificate=await certificates.standing(session, request.id),
        log=await _log(session, request.store_id),
    )


async def _log(session: AsyncSession, store_id: UUID) -> LogStanding | None:
    head = await evidence.latest_head(session, store_id)
    return None if head is None else LogStanding(size=head.size, root=head.root.hex(), head=head.signature)


def _awaited(request: Request, policy: Policy, proofs: list[Proof]) -> Awaited:
    verifying = request.state == State.VERIFYING
    return Awaited(
        confirm=verifying
        and Proof.EMAIL in policy.enough(Right(request.claim))
        and Proof.EMAIL not in proofs,
        document=is_wanted(request, policy),
        answer=is_stopped(request) and State(request.state) not in OVER,
        withdraw=request.state in UNDECIDED,
    )


def _stopped_since(request: Request) -> Any:
    return request.stops[-1]["from"] if is_stopped(request) else None


def _refusal(request: Request) -> Refusal | None:
    if request.ground is None:
        return None
    ground = Ground(request.ground)
    return Refusal(ground=ground, article=authority(ground, Right(request.claim), Law(request.law)))


async def _waiting(session: AsyncSession, request: Request) -> int:
    number = await session.scalar(
        select(func.count())
        .select_from(VerificationDocument)
        .where(VerificationDocument.request_id == request.id)
    )
    return number or 0


async def _checks(session: AsyncSession, request: Request) -> list[Outcome]:
    checks = await session.scalars(
        select(DocumentCheck.outcome)
        .where(DocumentCheck.request_id == request.id)
        .order_by(DocumentCheck.at, DocumentCheck.document_id)
    )
    return [Outcome(one) for one in checks]


async def _kept(session: AsyncSession, request: Request) -> list[Retained]:
    answers = await session.scalars(
        select(Task.answer).where(
            Task.request_id == request.id, Task.verb.in_(_ANSWERS), Task.state == TaskState.RETAINED
        )
    )
    kept = [Retained.model_validate(one) for answer in answers if answer for one in answer["retained"]]
    return sorted(
        (one for one in kept if one.kind != "key"), key=lambda one: (one.retention, one.kind, one.bucket)
    )
