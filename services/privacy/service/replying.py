"""What somebody does with the link that is in every mail about their request: no account is needed."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.db import Database
from libs.common.personal.vault import Vault
from services.privacy.desk_schemas import Explanation, Language
from services.privacy.domain.notes import About
from services.privacy.domain.problems import NothingAsked, StatusGone
from services.privacy.domain.states import OVER
from services.privacy.engine import clock, decisions
from services.privacy.models import Request
from services.privacy.service import noting, previewing
from services.privacy.service.opening import hashed


@dataclass(frozen=True, slots=True)
class Followed:
    """The request of a link."""

    id: UUID
    store_id: UUID


async def followed(database: Database, token: str) -> Followed:
    """The request that a link was given for. Raises StatusGone."""
    async with database.platform_session() as session:
        row = (
            await session.execute(
                select(Request.id, Request.store_id).where(Request.status_hash == hashed(token))
            )
        ).one_or_none()
    if row is None:
        raise StatusGone
    return Followed(row.id, row.store_id)


async def answer(database: Database, vault: Vault, *, token: str, text: str, now: datetime) -> None:
    """The person answers what they were asked, and the clock goes on.

    Raises StatusGone, NothingAsked, SubjectErased, KeyringUnavailable.
    """
    found = await followed(database, token)
    async with database.session(found.store_id) as session:
        request = await session.get_one(Request, found.id)
        if not clock.is_stopped(request) or request.state in OVER:
            # Before a key is asked for, so that a link cannot be used to fill a store with boxes.
            raise NothingAsked
    note = await noting.sealed(database, vault, store_id=found.store_id, request_id=found.id, text=text)
    async with database.session(found.store_id) as session:
        row = await decisions.locked(session, found.store_id, found.id)
        await clock.answered(session, row, now=now)
        noting.keep(session, note, About.ANSWER, author=None, now=now)


async def explained(database: Database, *, token: str, language: Language) -> Explanation:
    """The answer to a request for an explanation. Raises StatusGone, NotFound before it is there."""
    found = await followed(database, token)
    async with database.session(found.store_id) as session:
        return await _explained(session, found, language)


async def _explained(session: AsyncSession, found: Followed, language: Language) -> Explanation:
    return await previewing.explanation(
        session, store_id=found.store_id, request_id=found.id, of=None, language=language
    )
