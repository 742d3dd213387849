"""A sixth participant, as tests of parts begin with: announced, answering with a key of its own, gone afterwards."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from joserfc.jwk import ECKey
from sqlalchemy import text

from libs.common.auth import PLATFORM_STORE
from libs.common.events.privacy import Outcome, ParticipantAnnounced, TaskAnswered, Verb
from libs.common.personal.answers import sign
from libs.common.worker import Work
from services.privacy.engine import joining, leaving
from tests.privacy.conftest import Platform


@dataclass(frozen=True)
class Sixth:
    """Somebody else's consumer."""

    platform: Platform
    name: str = field(default_factory=lambda: f"newsletter-{uuid4().hex[:8]}")
    key: ECKey = field(default_factory=lambda: ECKey.generate_key("P-256"))

    def announced(self, **more: Any) -> ParticipantAnnounced:
        public = self.key.as_dict(private=False)
        return ParticipantAnnounced(participant=self.name, public_key=public, data_map=[], **more)

    async def announce(self, **more: Any) -> None:
        await self.platform.deliver(self.announced(**more), store_id=PLATFORM_STORE)

    def says(
        self, request_id: UUID, verb: Verb, outcome: Outcome = Outcome.NOTHING_HELD, **more: Any
    ) -> TaskAnswered:
        """A signed answer."""
        answer = TaskAnswered(
            request_id=request_id, verb=verb, participant=self.name, outcome=outcome, **more
        )
        return sign(answer, store_id=self.platform.store_id, key=self.key)

    async def answer(
        self, request_id: UUID, verb: Verb, outcome: Outcome = Outcome.NOTHING_HELD, **more: Any
    ) -> None:
        await self.platform.deliver(self.says(request_id, verb, outcome, **more))

    async def part(self, request_id: UUID, verb: Verb) -> dict[str, Any] | None:
        """Its part as the desk sees it; None where it has none."""
        return await part_of(self.platform, request_id, self.name, verb)


@asynccontextmanager
async def sixth(platform: Platform, *, announced: bool = True, **more: Any) -> AsyncGenerator[Sixth]:
    """While the block runs there is one more."""
    one = Sixth(platform)
    if announced:
        await one.announce(**more)
        await settle_down(platform)
    try:
        yield one
    finally:
        async with platform.database.platform_session() as session:
            for table in ("participant", "departure"):
                await session.execute(text(f"DELETE FROM {table} WHERE name = :name"), {"name": one.name})


async def settle_down(platform: Platform) -> None:
    """What the duties do when somebody joins or leaves."""
    while await joining.join(platform.work):
        pass
    await hand_over(platform.work)


async def hand_over(work: Work) -> None:
    """What the duty does when somebody has left."""
    while await leaving.hand_over(work):
        pass


async def part_of(platform: Platform, request_id: UUID, name: str, verb: Verb) -> dict[str, Any] | None:
    seen, _ = await platform.seen(request_id)
    found = [part for part in seen["parts"] if (part["participant"], part["task"]) == (name, verb)]
    assert len(found) <= 1
    return found[0] if found else None
