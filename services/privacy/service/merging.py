"""Two subjects found to be one person, and one found to be somebody else after all: what somebody of the store says."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.events.privacy import Life
from libs.common.personal.keys import KeyringClient, Standing
from libs.common.personal.vault import Vault, normalise
from services.privacy.desk_schemas import MergedSubject, MergeView, NamedSubject
from services.privacy.domain.problems import SameSubject, SubjectUnknown
from services.privacy.domain.states import OVER
from services.privacy.engine import people
from services.privacy.models import Request


@dataclass(frozen=True, slots=True)
class Found:
    """A subject that was named, as the keyring knows it."""

    life: Life
    standing: Standing


# --- Before the transaction ------------------------------------------------------------------------------


async def found(
    vault: Vault, keyring: KeyringClient, named: Sequence[NamedSubject], *, store_id: UUID
) -> list[Found]:
    """Who is meant. An address is used to derive a subject, and kept nowhere.

    Raises SubjectUnknown, also for a subject of another store; SameSubject, KeyringUnavailable.
    """
    subjects = [
        one.subject_id or await vault.subject_id(store_id, normalise(str(one.email))) for one in named
    ]
    if len(set(subjects)) < len(subjects):
        raise SameSubject
    standings = await keyring.standings([(store_id, subject_id) for subject_id in subjects])
    if not all(one.generation for one in standings):
        raise SubjectUnknown
    return [
        Found(Life(subject_id=subject_id, generation=standing.generation), standing)
        for subject_id, standing in zip(subjects, standings, strict=True)
    ]


# --- In the transaction ----------------------------------------------------------------------------------


async def merge(
    session: AsyncSession, store_id: UUID, both: Sequence[Found], *, now: datetime, expected: Sequence[str]
) -> tuple[MergeView, bool]:
    """Join them, and say what each brings. Returns whether that is new. Raises SubjectErased, TooManySubjects."""
    one, other = both
    is_new = await people.join(session, store_id, one.life, other.life, now=now, expected=expected)
    return await view(session, store_id, both, merged=True), is_new


async def looked_at(session: AsyncSession, store_id: UUID, both: Sequence[Found]) -> MergeView:
    """What each would bring; nothing changes. Raises SubjectErased where nothing is left to be merged."""
    one, other = both
    await people.check_living(session, store_id, [one.life, other.life])
    merged = other.life in await people.others(session, store_id, one.life)
    return await view(session, store_id, both, merged=merged)


async def separate(
    session: AsyncSession, store_id: UUID, subject: Found, *, now: datetime, expected: Sequence[str]
) -> None:
    """The subject is nobody else's from now on. A second time changes nothing."""
    await people.separate(session, store_id, subject.life, now=now, expected=expected)


async def view(session: AsyncSession, store_id: UUID, both: Sequence[Found], *, merged: bool) -> MergeView:
    """Counts, no content: no box is opened for it."""
    return MergeView(merged=merged, subjects=[await _shown(session, store_id, one) for one in both])


async def _shown(session: AsyncSession, store_id: UUID, one: Found) -> MergedSubject:
    total = await session.scalar(select(func.count()).select_from(Request).where(*_of(store_id, one.life)))
    keys = Counter(
        f"{key.retention}/{key.bucket}" if key.bucket.isdecimal() else str(key.retention)
        for key in one.standing.keys
        if key.generation == one.life.generation
    )
    return MergedSubject(
        subject_id=one.life.subject_id,
        generation=one.life.generation,
        keys=dict(sorted(keys.items())),
        requests=total or 0,
        open=sorted(await _open(session, store_id, one.life)),
    )


async def _open(session: AsyncSession, store_id: UUID, life: Life) -> Sequence[UUID]:
    is_open = Request.state.not_in(OVER)
    return (await session.scalars(select(Request.id).where(*_of(store_id, life), is_open))).all()


def _of(store_id: UUID, life: Life) -> tuple[Any, Any]:
    return Request.store_id == store_id, people.among(Request, [life])
