"""Ours as a processor: what a store's own tool asks becomes requests of the engine, and their state its status.

The store is the controller. It knows who asks and has decided, so we ask for no proof, write to nobody, and wait for
nobody unless a service names what speaks against an erasure. Whoever an identity names, known here or not, is
answered alike: a person of whom nothing is kept is a person of whom nothing is found.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import UUID, uuid4

from pydantic import EmailStr, TypeAdapter, ValidationError
from sqlalchemy import Row, insert, select, text
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.db import Database
from libs.common.errors import NotFound, Unavailable
from libs.common.personal.errors import SubjectErased
from libs.common.personal.vault import Vault, normalise
from libs.common.personal.vocabulary import Retention
from services.privacy.asked import Asked
from services.privacy.calendars import NOWHERE, calendar_for
from services.privacy.domain.deadlines import day_of
from services.privacy.domain.problems import ErasureUnderWay
from services.privacy.domain.rights import Law, Right
from services.privacy.domain.states import UNDECIDED, State
from services.privacy.domain.verification import Way
from services.privacy.engine import decisions, people
from services.privacy.opendsr import following
from services.privacy.opendsr.controllers import Controller
from services.privacy.opendsr.models import OpenDsrPart, OpenDsrRequest
from services.privacy.opendsr.wire import (
    VERSION,
    Discovery,
    Fault,
    Identity,
    IdentityFormat,
    IdentityType,
    Kind,
    NewRequest,
    Regulation,
    RequestStatus,
    RequestType,
    refused,
)
from services.privacy.policies import policy_of
from services.privacy.service import opening
from services.privacy.service.opening import Asking

SUPPORTED = (
    Kind(identity_type=IdentityType.EMAIL, identity_format=IdentityFormat.RAW),
    Kind(identity_type=IdentityType.CUSTOMER_ID, identity_format=IdentityFormat.RAW),
)
"""Whom we can find. A person's id is made from the address itself under a secret of the store, so a hash of the address
leads nowhere; and an index of such hashes, which anybody can compute, is what that secret is there against.
"""
_AHEAD = timedelta(minutes=5)
"""So far may another's clock be ahead of ours."""
_LONGEST_AGO = timedelta(days=3650)
_EXPECTED = timedelta(days=45)
"""Where no deadline runs yet."""
_RIGHTS = {
    RequestType.ACCESS: Right.ACCESS,
    RequestType.PORTABILITY: Right.PORTABILITY,
    RequestType.ERASURE: Right.ERASURE,
}
_LAWS = {Regulation.GDPR: Law.GDPR, Regulation.CCPA: Law.CCPA}
_EMAIL: TypeAdapter[str] = TypeAdapter(EmailStr)


def discovery(certificate_url: str) -> Discovery:
    """What we support."""
    return Discovery(
        api_version=VERSION,
        supported_identities=list(SUPPORTED),
        supported_subject_request_types=list(RequestType),
        processor_certificate=certificate_url,
    )


# --- What is asked ---------------------------------------------------------------------------------------


def check(wanted: NewRequest, controller: Controller, *, domain: str, plain: bool, now: datetime) -> None:
    """Raises NotOpenDsr for what is well formed and still cannot be done."""
    faults = [*_unsupported(wanted, domain), *_misdirected(wanted, controller, plain=plain)]
    if not now - _LONGEST_AGO <= wanted.submitted_time <= now + _AHEAD:
        faults.append(
            Fault(domain="Validation", reason="invalid", message="submitted_time is no time of a request.")
        )
    if faults:
        raise refused(faults)


def _unsupported(wanted: NewRequest, domain: str) -> Iterable[Fault]:
    for number, one in enumerate(wanted.subject_identities):
        if Kind(identity_type=one.identity_type, identity_format=one.identity_format) not in SUPPORTED:
            words = f"subject_identities.{number} is of a type or format that nobody is found by here."
            yield Fault(domain="Support", reason="unsupported", message=words)
        elif not _is_well_formed(one):
            words = f"subject_identities.{number}.identity_value is not valid for its type."
            yield Fault(domain="Validation", reason="invalid", message=words)
    if domain in wanted.extensions:
        yield Fault(domain="Support", reason="unsupported", message="There are no extensions here.")


def _is_well_formed(one: Identity) -> bool:
    try:
        if one.identity_type is IdentityType.EMAIL:
            _EMAIL.validate_python(one.identity_value)
        elif str(UUID(one.identity_value)) != one.identity_value.lower():
            return False
    except (ValueError, ValidationError):
        return False
    return True


def _misdirected(wanted: NewRequest, controller: Controller, *, plain: bool) -> Iterable[Fault]:
    """An address is called at every change and kept until the last: it has to be the tool's, and to name nobody."""
    names = [one.identity_value.casefold() for one in wanted.subject_identities]
    for number, url in enumerate(wanted.status_callback_urls):
        parts, place = urlsplit(url), f"status_callback_urls.{number}"
        if parts.scheme != "https" and not plain:
            yield Fault(domain="Validation", reason="invalid", message=f"{place} is not of https.")
        elif parts.netloc.lower() not in controller.callback_hosts:
            yield Fault(
                domain="Validation", reason="host", message=f"{place} has no host that is registered."
            )
        elif any(name in unquote(url).casefold() for name in names):
            yield Fault(domain="Validation", reason="personal", message=f"{place} names the person.")


# --- Before the transaction ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, repr=False)
class Prepared:
    """What a tool asked, and a request for each person that it named."""

    wanted: NewRequest
    named: Sequence[UUID]
    askings: Sequence[Asking]


async def named_in(vault: Vault, wanted: NewRequest, *, store_id: UUID) -> list[UUID]:
    """The subjects that the identities name, each once. Raises KeyringUnavailable."""
    subjects = [await _subject(vault, store_id, one) for one in wanted.subject_identities]
    return list(dict.fromkeys(subjects))


async def _subject(vault: Vault, store_id: UUID, one: Identity) -> UUID:
    if one.identity_type is IdentityType.EMAIL:
        return await vault.subject_id(store_id, normalise(one.identity_value))
    return UUID(one.identity_value)


async def prepared(
    database: Database, vault: Vault, wanted: NewRequest, named: Sequence[UUID], *, store_id: UUID
) -> Prepared:
    """A key for every request that is needed. Raises Unavailable while one of them is just being erased."""
    askings: list[Asking] = []
    covered: set[UUID] = set()
    for subject_id in named:
        if subject_id not in covered:
            asking = await _asking(vault, wanted, store_id=store_id, subject_id=subject_id)
            async with database.session(store_id) as session:
                covered |= {one.subject_id for one in await people.others(session, store_id, asking.life)}
            askings.append(asking)
    return Prepared(wanted, named, askings)


async def _asking(vault: Vault, wanted: NewRequest, *, store_id: UUID, subject_id: UUID) -> Asking:
    """A request under a key of its own: the key begins a person who is not known, as any command would."""
    request_id = uuid4()
    try:
        sealer = await vault.sealer(
            Retention.REQUEST,
            store_id=store_id,
            subject_id=subject_id,
            buckets={Retention.REQUEST: str(request_id)},
            begin=True,
        )
    except SubjectErased:
        raise Unavailable from None
    return Asking(
        id=request_id,
        store_id=store_id,
        subject_id=subject_id,
        generation=sealer.generation,
        asked=Asked(_RIGHTS[wanted.subject_request_type], _LAWS[wanted.regulation]),
        way=Way.OPENDSR,
        proofs=(),
        contact=None,
        proposal=None,
        status_hash=None,
    )


# --- In the transaction ----------------------------------------------------------------------------------


async def known(
    session: AsyncSession, controller: Controller, subject_request_id: UUID
) -> OpenDsrRequest | None:
    """What this tool asked under its id. Another tool's is not there."""
    return await session.scalar(
        select(OpenDsrRequest).where(
            OpenDsrRequest.store_id == controller.store_id,
            OpenDsrRequest.controller_id == controller.id,
            OpenDsrRequest.subject_request_id == subject_request_id,
        )
    )


def same(found: OpenDsrRequest, wanted: NewRequest, named: Sequence[UUID]) -> OpenDsrRequest:
    """The request that was asked before. Raises NotOpenDsr where something else was asked under its id."""
    asked = (wanted.subject_request_type, wanted.regulation, sorted(named))
    if (found.kind, found.regulation, sorted(found.named)) != asked:
        words = "subject_request_id was used for another request."
        raise refused([Fault(domain="State", reason="used", message=words)])
    return found


async def take(
    session: AsyncSession,
    controller: Controller,
    prepared: Prepared,
    *,
    expected: Iterable[str],
    now: datetime,
) -> OpenDsrRequest:
    """Open what was asked, once. Raises NotOpenDsr, Unavailable."""
    wanted, everybody = prepared.wanted, list(expected)
    made = await session.scalar(
        upsert(OpenDsrRequest)
        .values(
            id=uuid4(),
            store_id=controller.store_id,
            controller_id=controller.id,
            subject_request_id=wanted.id,
            kind=wanted.subject_request_type,
            regulation=wanted.regulation,
            named=list(prepared.named),
            callback_urls=list(dict.fromkeys(wanted.status_callback_urls)),
            received_at=now,
            expected_at=now + _EXPECTED,
        )
        .on_conflict_do_nothing()
        .returning(OpenDsrRequest)
    )
    if made is None:
        found = await known(session, controller, wanted.id)
        if found is None:
            raise Unavailable
        return same(found, wanted, prepared.named)
    due: list[datetime] = []
    for asking in prepared.askings:
        request = await _open(session, asking, wanted, expected=everybody, now=now)
        due += [request.overdue_at] if request.overdue_at is not None else []
        part = {"request_id": request.id, "store_id": controller.store_id, "opendsr_id": made.id}
        await session.execute(insert(OpenDsrPart).values(part))
    made.expected_at = max(due, default=made.expected_at)
    await session.flush()
    return made


async def _open(
    session: AsyncSession, asking: Asking, wanted: NewRequest, *, expected: Sequence[str], now: datetime
) -> Any:
    """The law's time runs from the day on which the store was asked, where the store is."""
    policy = await policy_of(session, asking.store_id)
    zone = calendar_for(asking.asked.law, policy.country or NOWHERE).zone
    received_on = day_of(min(wanted.submitted_time, now), zone)
    asking = replace(asking, received_on=received_on)
    try:
        request, _ = await opening.open_request(session, asking, expected=expected, now=now)
    except SubjectErased:
        raise Unavailable from None
    except ErasureUnderWay:
        words = "An erasure of this person has not ended yet."
        raise refused([Fault(domain="State", reason="erasure-under-way", message=words)]) from None
    return request


# --- Where it is -----------------------------------------------------------------------------------------


async def one(session: AsyncSession, controller: Controller, subject_request_id: UUID) -> OpenDsrRequest:
    """What this tool asked under its id. Raises NotFound."""
    found = await known(session, controller, subject_request_id)
    if found is None:
        raise NotFound
    return found


_PARTS = text(
    "SELECT request_id FROM opendsr_part WHERE opendsr_id = :id AND store_id = :store_id ORDER BY 1"
)


async def cancel(session: AsyncSession, found: OpenDsrRequest, *, now: datetime) -> None:
    """Take it back while nothing was done; a second time changes nothing. Raises NotOpenDsr."""
    if found.status == RequestStatus.CANCELLED:
        return
    ids = (await session.scalars(_PARTS, {"id": found.id, "store_id": found.store_id})).all()
    rows: list[Row[Any]] = [await decisions.locked(session, found.store_id, id_) for id_ in ids]
    if not all(State(row.state) in UNDECIDED for row in rows):
        words = "The request is not pending any more."
        raise refused([Fault(domain="State", reason="not-pending", message=words)])
    for row in rows:
        await decisions.cancel(session, row, now=now)
    await following.follow(session, found.id, now=now)
