"""A request that has ended, its log and its certificate, as tests of the evidence begin with."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text

from libs.common.events.privacy import Outcome, Retained, TaskAnswered, Verb
from libs.common.personal.answers import sign
from services.privacy import letters
from services.privacy.evidence import certificates, placing
from services.privacy.evidence.placing import key_of
from tests.privacy.conftest import Person, Platform

KEPT = Retained(
    kind="OrderContact", retention="accounting", bucket="2026", count=1, ground="code de commerce, L123-22",
    until=datetime(2036, 12, 31).date(),
)  # fmt: skip
LATER = timedelta(seconds=121)


async def erased(platform: Platform, *, kept: bool = False) -> tuple[Person, UUID]:
    """Somebody is erased: the keyring, then the shop and the privacy service, then everybody reads again."""
    person = await platform.person()
    request_id = await platform.opened(person, "erasure")
    await platform.ask_keyring()
    if kept:
        await platform.deliver(shop_keeps(platform, request_id))
    else:
        await platform.deliver(
            platform.answer(request_id, Verb.ERASE, Outcome.DONE, counts={"shop_order": 2})
        )
    await platform.answer_itself(request_id, Verb.ERASE)
    await platform.ask_keyring()
    await platform.deliver(
        platform.answer(
            request_id,
            Verb.VERIFY_ERASED,
            Outcome.DONE,
            reread=["shop_order"],
            skipped={"outbox": "names-nobody"},
        )
    )
    await platform.answer_itself(request_id, Verb.VERIFY_ERASED)
    assert await platform.state(person, request_id) == "completed"
    return person, request_id


def shop_keeps(platform: Platform, request_id: UUID) -> TaskAnswered:
    answer = platform.answer(
        request_id, Verb.ERASE, Outcome.RETAINED, counts={"shop_order": 2}, retained=[KEPT]
    )
    return sign(answer, store_id=platform.store_id, key=platform.shop_key)


async def place(platform: Platform) -> None:
    """Give what waits in this store its place."""
    while await placing.place_in(platform.work, platform.store_id, key_of(platform.work.settings)):
        pass


async def issue(platform: Platform, *, after: timedelta = LATER) -> None:
    """What the duties do, so much later."""
    await letters.write(platform.work)
    await place(platform)
    now = datetime.now(UTC) + after
    while await certificates.issue(replace(platform.work, clock=lambda: now)):
        pass
    await place(platform)


async def certified(platform: Platform, *, kept: bool = False) -> tuple[Person, UUID, dict[str, Any]]:
    """An erasure with its certificate, as the store's officer fetches it."""
    person, request_id = await erased(platform, kept=kept)
    await issue(platform)
    return person, request_id, await fetched(platform, request_id)


async def fetched(platform: Platform, request_id: UUID) -> dict[str, Any]:
    response = await platform.client.get(
        f"{platform.path}/requests/{request_id}/certificate", headers=platform.officer()
    )
    assert response.status_code == 200, response.text
    return response.json()


async def knows_the_store(platform: Platform) -> None:
    """As after `StoreOpened`."""
    async with platform.database.session(platform.store_id) as session:
        await session.execute(
            text(
                "INSERT INTO known_store VALUES (:id, 'papeterie', 'Papeterie', 'FR', 'EUR', 'fr', 1)"
                " ON CONFLICT DO NOTHING"
            ),
            {"id": platform.store_id},
        )


async def log_of(platform: Platform) -> list[bytes]:
    """The lines of the store's log, as an auditor gets them."""
    response = await platform.client.get(f"{platform.path}/evidence/log", headers=platform.officer())
    assert response.status_code == 200, response.text
    return response.content.splitlines()
