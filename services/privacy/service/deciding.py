"""What whoever answers for a store does with a request. Each locks the request and looks at its version first."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.auth import PLATFORM_STORE, Caller
from libs.common.db import Database
from libs.common.errors import NotFound
from libs.common.http import require_match
from libs.common.personal.vault import Vault
from libs.common.personal.vocabulary import Purpose
from services.privacy.asked import Asked
from services.privacy.domain.decisions import Extension, Ground
from services.privacy.domain.notes import About
from services.privacy.domain.problems import NotRestricted, NotYoursToDecide
from services.privacy.domain.rights import Right
from services.privacy.domain.states import State
from services.privacy.domain.verification import Proof, Way
from services.privacy.engine import clock, decisions
from services.privacy.evidence import entries
from services.privacy.evidence.entries import Noted, Step
from services.privacy.models import Request
from services.privacy.policies import policy_of
from services.privacy.service import noting, opening
from services.privacy.service.noting import Note


async def may_decide(session: AsyncSession, *, store_id: UUID, request_id: UUID, officer: Caller) -> None:
    """The store answers its customers. The platform does once the store has been silent past the escalation, and it
    alone when the store is closed. Raises NotFound for the platform before, NotYoursToDecide for a closed store.
    """
    policy = await policy_of(session, store_id)
    if officer.store_id == store_id:
        if policy.closed and store_id != PLATFORM_STORE:
            raise NotYoursToDecide
        return
    escalated_at = await session.scalar(
        select(Request.escalated_at).where(Request.id == request_id, Request.store_id == store_id)
    )
    if escalated_at is None and not policy.closed:
        raise NotFound


async def _matching(
    session: AsyncSession, store_id: UUID, request_id: UUID, if_match: str | None
) -> Row[Any]:
    request = await decisions.locked(session, store_id, request_id)
    require_match(if_match, request.version)
    return request


async def approve(
    session: AsyncSession,
    *,
    store_id: UUID,
    request_id: UUID,
    if_match: str | None,
    by: UUID,
    now: datetime,
    expected: Sequence[str],
) -> None:
    """Carry a request out. Raises NotFound, PreconditionFailed, NotDecidable."""
    request = await _matching(session, store_id, request_id, if_match)
    await decisions.approve(session, request, by=by, now=now, expected=expected)


async def refuse(
    session: AsyncSession, note: Note, ground: Ground, *, if_match: str | None, by: UUID, now: datetime
) -> None:
    """Refuse a request; the note says why. Raises NotFound, PreconditionFailed, NotDecidable, GroundDoesNotFit."""
    request = await _matching(session, note.store_id, note.request_id, if_match)
    await decisions.refuse(session, request, ground, by=by, now=now, note_id=note.id)
    noting.keep(session, note, About.REASON, author=by, now=now)


async def extend(
    session: AsyncSession,
    *,
    store_id: UUID,
    request_id: UUID,
    why: Extension,
    if_match: str | None,
    now: datetime,
) -> None:
    """Raises NotFound, PreconditionFailed, and what `clock.extend` raises."""
    request = await _matching(session, store_id, request_id, if_match)
    await clock.extend(session, request, why, now=now)


async def ask(session: AsyncSession, note: Note, *, if_match: str | None, by: UUID, now: datetime) -> None:
    """Ask the person what the note says. Raises NotFound, PreconditionFailed, NotDecidable, DeadlinePassed."""
    request = await _matching(session, note.store_id, note.request_id, if_match)
    await clock.ask(session, request, note.id, now=now)
    noting.keep(session, note, About.QUESTION, author=by, now=now)


_ASSIGNED = text("""
    UPDATE request SET assignee = :assignee, version = version + 1 WHERE id = :id AND store_id = :store_id
""")


async def assign(
    session: AsyncSession, *, store_id: UUID, request_id: UUID, assignee: UUID | None, if_match: str | None
) -> None:
    """Whose case it is. Raises NotFound, PreconditionFailed."""
    request = await _matching(session, store_id, request_id, if_match)
    await session.execute(_ASSIGNED, {"id": request.id, "store_id": store_id, "assignee": assignee})
    await entries.note(session, store_id, [Noted(request.id, Step.ASSIGNED, {"to": assignee})])


async def preview_again(
    session: AsyncSession, *, store_id: UUID, request_id: UUID, expected: Sequence[str]
) -> None:
    """Raises NotFound, NoPreview."""
    request = await decisions.locked(session, store_id, request_id)
    await decisions.preview_again(session, request, expected=expected)


# --- Lifting a restriction -------------------------------------------------------------------------------


async def lifting(
    database: Database, vault: Vault, *, store_id: UUID, request_id: UUID, by: UUID, now: datetime
) -> opening.Asking:
    """The lifting of a restriction that was carried out, before it has a row: the person is told first (GDPR,
    Art. 18(3)). Raises NotFound, NotRestricted, KeyDestroyed, SubjectErased, KeyringUnavailable.
    """
    async with database.session(store_id) as session:
        restriction = await session.scalar(
            select(Request).where(Request.id == request_id, Request.store_id == store_id)
        )
        days = (await policy_of(session, store_id)).lifting_notice_days
    if restriction is None:
        raise NotFound
    carried_out = (Right.RESTRICTION, State.COMPLETED)
    if (restriction.claim, restriction.state) != carried_out or restriction.contact is None:
        raise NotRestricted
    contact = await vault.open(
        restriction.contact,
        store_id=store_id,
        subject_id=restriction.subject_id,
        purpose=Purpose.RIGHTS_OF_THE_PERSON,
    )
    asking = await opening.sealed(
        vault,
        store_id=store_id,
        subject_id=restriction.subject_id,
        asked=Asked(Right.LIFTING),
        email=contact.email,
        language=contact.language,
        way=Way.STAFF,
        proofs=(Proof.STAFF,),
    )
    if asking.generation != restriction.generation:
        raise NotRestricted
    return replace(asking, begins_at=now + timedelta(days=days), decided_by=by)
