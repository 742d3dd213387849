"""What a store decides about requests, and where its privacy desk reads mail."""

from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import delete
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.db import Database
from libs.common.http import require_match
from libs.common.personal.data import Sealed
from libs.common.personal.errors import KeyDestroyed, KeyRestricted
from libs.common.personal.vault import SealedFor, Vault
from libs.common.personal.vocabulary import Clock, Purpose
from services.privacy.desk_schemas import DeskView, NewSettings, RightInForce, SettingsView
from services.privacy.domain.rights import Right
from services.privacy.kinds import DeskAddress
from services.privacy.models import PrivacyDesk, PrivacySettings
from services.privacy.policies import Policy, policy_of
from services.privacy.retention.clocks import start, start_of_own

_A_MOMENT = timedelta(microseconds=1)
Chosen = Literal["passing", "enough"]


async def read(database: Database, vault: Vault, *, store_id: UUID) -> tuple[SettingsView, int]:
    """A store's settings and their version, 0 before it decided anything. Raises KeyringUnavailable."""
    async with database.session(store_id) as session:
        row = await session.get(PrivacySettings, store_id)
        desk = await session.get(PrivacyDesk, store_id)
        policy = await policy_of(session, store_id)
    view = _view(row, policy, await _address(vault, desk))
    return view, 0 if row is None else row.version


async def _address(vault: Vault, desk: PrivacyDesk | None) -> DeskView | None:
    if desk is None:
        return None
    try:
        address = await vault.open(
            desk.box, store_id=desk.store_id, subject_id=desk.subject_id, purpose=Purpose.SERVICE_MAIL
        )
    except (KeyDestroyed, KeyRestricted):
        return None
    return DeskView(email=address.email, language=address.language)


def _view(row: PrivacySettings | None, policy: Policy, desk: DeskView | None) -> SettingsView:
    return SettingsView.model_validate(
        {
            "passing": row.passing if row else {},
            "enough": row.enough if row else {},
            "lifting_notice_days": row.lifting_notice_days if row else None,
            "branding": row.branding if row else {},
            "desk": desk,
            "in_force": {right: _in_force(policy, right) for right in Right},
            "lifting_notice_in_force": policy.lifting_notice_days,
        }
    )


def _in_force(policy: Policy, right: Right) -> RightInForce:
    sources: dict[Chosen, Any] = {"passing": policy.passing_set, "enough": policy.enough_set}
    return RightInForce(
        passing=policy.passing(right),
        enough=sorted(policy.enough(right)),
        chosen=[name for name, chosen in sources.items() if right in chosen],
    )


async def sealed_desk(vault: Vault, *, store_id: UUID, desk: DeskView) -> tuple[UUID, SealedFor[DeskAddress]]:
    """The address in a box of whoever it belongs to. Raises KeyringUnavailable."""
    subject_id = await vault.subject_id(store_id, desk.email)
    address = DeskAddress(email=desk.email, language=desk.language)
    # Naming an address is a live command: one whose owner was erased begins anew.
    return subject_id, await vault.seal(address, store_id=store_id, subject_id=subject_id, begin=True)


async def write(
    session: AsyncSession,
    *,
    store_id: UUID,
    wanted: NewSettings,
    desk: tuple[UUID, SealedFor[DeskAddress]] | None,
    if_match: str | None,
    now: datetime,
) -> int:
    """Put what a store decides in the place of what it decided before. Returns the new version.

    Raises PreconditionRequired, PreconditionFailed.
    """
    await session.execute(
        upsert(PrivacySettings).values(store_id=store_id, version=0).on_conflict_do_nothing()
    )
    row = await session.get_one(PrivacySettings, store_id, with_for_update=True)
    require_match(if_match, row.version)
    row.passing = {right.value: passing.value for right, passing in wanted.passing.items()}
    row.enough = {right.value: sorted(set(proofs)) for right, proofs in wanted.enough.items()}
    row.lifting_notice_days = wanted.lifting_notice_days
    row.branding = {language: one.model_dump() for language, one in wanted.branding.items()}
    row.version += 1
    gone = delete(PrivacyDesk).where(PrivacyDesk.store_id == store_id).returning(PrivacyDesk)
    clocks = [start_of_own(old, Clock.DESK_REPLACED, at=now) for old in await session.scalars(gone)]
    if desk is not None:
        subject_id, made = desk
        box: Sealed[DeskAddress] = made.box
        named = PrivacyDesk(store_id=store_id, subject_id=subject_id, generation=made.generation, box=box)
        session.add(named)
        # Whoever is named, again for instance, is named for as long as nobody says otherwise.
        clocks.append(start_of_own(named, Clock.DESK_REPLACED, at=now + _A_MOMENT, runs=False))
    await start(session, store_id, clocks)
    return row.version
