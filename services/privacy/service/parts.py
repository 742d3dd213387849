"""Parts of requests that are stuck: have them asked again, or answer for them."""

from collections.abc import Collection
from datetime import datetime
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.auth import PLATFORM_STORE, Caller
from libs.common.events.privacy import Verb
from services.privacy.domain.notes import About
from services.privacy.domain.problems import NotYoursToSettle
from services.privacy.domain.states import KEYRING, RECIPIENT
from services.privacy.engine import decisions, driving
from services.privacy.models import Task
from services.privacy.participant_schemas import NewSettlement
from services.privacy.recipients import deliveries
from services.privacy.schemas import Part
from services.privacy.service import noting, reading
from services.privacy.service.deciding import may_decide
from services.privacy.service.noting import Note


async def may_settle(
    session: AsyncSession,
    *,
    store_id: UUID,
    request_id: UUID,
    participant: str,
    officer: Caller,
    services: Collection[str],
) -> None:
    """The platform answers for its own services, and for others whoever answers the request. Raises NotYoursToSettle,
    and what `may_decide` raises.
    """
    if participant not in {*services, KEYRING}:
        await may_decide(session, store_id=store_id, request_id=request_id, officer=officer)
    elif officer.store_id != PLATFORM_STORE:
        raise NotYoursToSettle


async def drive(
    session: AsyncSession, *, store_id: UUID, request_id: UUID, participant: str, verb: Verb, now: datetime
) -> Part:
    """Have a part asked again at once, of a recipient outside have it told. Raises NotFound, PartNotOpen,
    RecipientDisabled.
    """
    request = await decisions.locked(session, store_id, request_id)
    await driving.drive(session, request, participant, verb, now=now)
    if participant.startswith(RECIPIENT):
        await deliveries.drive(session, store_id, request_id, participant, verb, now=now)
    return await _part(session, request_id, participant, verb)


async def settle(
    session: AsyncSession,
    note: Note,
    wanted: NewSettlement,
    *,
    participant: str,
    verb: Verb,
    by: UUID,
    now: datetime,
    expected: Collection[str],
) -> Part:
    """Answer for a participant; the note says why. Raises what `driving.settle` raises."""
    request = await decisions.locked(session, note.store_id, note.request_id)
    await driving.settle(
        session,
        request,
        participant,
        verb,
        outcome=wanted.outcome,
        ground=wanted.ground,
        note_id=note.id,
        by=by,
        now=now,
        expected=expected,
    )
    if participant.startswith(RECIPIENT):
        await deliveries.stop(session, note.store_id, note.request_id, participant, verb)
    noting.keep(session, note, About.SETTLEMENT, author=by, now=now)
    return await _part(session, note.request_id, participant, verb)


async def _part(session: AsyncSession, request_id: UUID, participant: str, verb: Verb) -> Part:
    one = await session.scalars(
        select(Task).where(Task.request_id == request_id, Task.participant == participant, Task.verb == verb)
    )
    return reading.part(one.one())
