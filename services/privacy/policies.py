"""What a store has decided about requests, and what the law says where it has decided nothing."""

from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.db import Database, fetch
from services.privacy.domain.decisions import PASSING, Passing
from services.privacy.domain.rights import Right, stops_at_once
from services.privacy.domain.verification import ENOUGH, UNASKED, Proof, Way

LIFTING_NOTICE_DAYS = 7
"""Where a store says nothing."""
DEFAULT_LANGUAGE = "en"
"""Of mails, where neither the person nor the store named one that we have."""


@dataclass(frozen=True, slots=True)
class Policy:
    """A store's, at one moment."""

    language: str = DEFAULT_LANGUAGE
    country: str | None = None
    """None while this service has not heard of the store."""
    closed: bool = False
    """Whether the store is closed, or has ended: then the platform answers for it."""
    lifting_notice_days: int = LIFTING_NOTICE_DAYS
    passing_set: dict[str, str] = field(default_factory=dict[str, str])
    enough_set: dict[str, list[str]] = field(default_factory=dict[str, list[str]])

    def passing(self, right: Right, purpose: str | None = None, way: Way = Way.SESSION) -> Passing:
        """Whether a verified request of this right waits for somebody."""
        if way in UNASKED:
            # Whatever a store chose: nobody is asked, unless a service names what speaks against it.
            return Passing.WHEN_CLEAR
        if stops_at_once(right, purpose):
            return Passing.AT_ONCE
        return Passing(self.passing_set.get(right, PASSING[right]))

    def enough(self, right: Right) -> frozenset[Proof]:
        """The proofs each of which is enough for this right."""
        chosen = self.enough_set.get(right)
        return ENOUGH[right] if chosen is None else frozenset(Proof(one) for one in chosen)


_POLICY = """
    SELECT language, country, coalesce(state <> 'open', false) AS closed, passing, enough, lifting_notice_days
    FROM (SELECT) AS one
    LEFT JOIN known_store ON known_store.store_id = $1
    LEFT JOIN privacy_settings ON privacy_settings.store_id = $1
"""


async def language_of(database: Database, store_id: UUID) -> str:
    """The language of a store alone: in one round trip, before the keyring is called and a transaction begins."""
    return _spoken(await database.read(store_id, _LANGUAGE))


_LANGUAGE = "SELECT language FROM known_store WHERE store_id = $1::uuid"


def _spoken(language: str | None) -> str:
    return language if language in {"en", "fr"} else DEFAULT_LANGUAGE


async def policy_of(session: AsyncSession, store_id: UUID) -> Policy:
    """The policy of a store."""
    [row] = await fetch(session, _POLICY, store_id)
    return Policy(
        language=_spoken(row.language),
        country=row.country,
        closed=row.closed,
        lifting_notice_days=row.lifting_notice_days or LIFTING_NOTICE_DAYS,
        passing_set=row.passing or {},
        enough_set=row.enough or {},
    )
