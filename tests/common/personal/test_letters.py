"""Letters to people on hold wait, those about their own request do not."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from libs.common import mail
from libs.common.mail import Letter, RequestLetter, WaitingLetter, post, send_waiting
from libs.common.personal.keys import Life, Objection
from libs.common.personal.vocabulary import Purpose
from tests.common.personal.conftest import Shop

TO = "canary@vitrine.example"


@pytest.fixture
async def sent(made_shop: Shop, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the mail server was given: the templates. Nothing else waits in the shop's database."""
    templates: list[str] = []

    async def deliver(_work: Any, letters: Sequence[tuple[Any, Letter | RequestLetter]]) -> set[UUID]:
        templates.extend(letter.template for _, letter in letters)
        return {row.id for row, _ in letters}

    monkeypatch.setattr(mail, "_deliver", deliver)
    async with made_shop.database.platform_session() as session:
        await session.execute(text("DELETE FROM waiting_letter"))
    return templates


async def write(shop: Shop, subject_id: UUID, template: str) -> None:
    sealed = await shop.vault.seal(
        Letter(to=TO, template=template), store_id=shop.store_id, subject_id=subject_id
    )
    async with shop.database.session(shop.store_id) as session:
        post(session, sealed.box, store_id=shop.store_id, subject_id=subject_id, generation=1)


async def write_of_request(shop: Shop, subject_id: UUID, template: str) -> None:
    sealed = await shop.keyring.vault("privacy").seal(
        RequestLetter(to=TO, template=template),
        store_id=shop.store_id,
        subject_id=subject_id,
        bucket=str(uuid4()),
    )
    async with shop.database.session(shop.store_id) as session:
        post(session, sealed.box, store_id=shop.store_id, subject_id=subject_id, generation=1)


async def due(shop: Shop) -> None:
    async with shop.database.session(shop.store_id) as session:
        await session.execute(text("UPDATE waiting_letter SET next_try_at = now()"))


async def test_letters_to_people_on_hold_wait_and_use_up_no_attempt(made_shop: Shop, sent: list[str]) -> None:
    somebody = uuid4()
    await write(made_shop, somebody, "before")
    life = Life(made_shop.store_id, somebody, 1)
    await made_shop.keyring.client("privacy").restrict([life])
    made_shop.vault.drop(made_shop.store_id, [somebody])
    await write_of_request(made_shop, somebody, "about-the-request")
    await write(made_shop, somebody, "about-a-new-order")
    for _ in range(25):
        await due(made_shop)
        await send_waiting(made_shop.work)
    assert sorted(sent) == ["about-a-new-order", "about-the-request"]
    async with made_shop.database.session(made_shop.store_id) as session:
        waiting = (
            await session.execute(text("SELECT attempts, next_try_at > now() FROM waiting_letter"))
        ).all()
    assert waiting == [(0, True)]
    await made_shop.keyring.client("privacy").lift([life])
    await due(made_shop)
    await send_waiting(made_shop.work)
    assert sent[-1] == "before"
    assert await made_shop.count(WaitingLetter) == 0


async def test_a_letter_for_a_purpose_that_was_objected_to_is_not_sent(
    made_shop: Shop, sent: list[str]
) -> None:
    somebody = uuid4()
    await write(made_shop, somebody, "unwanted")
    objection = Objection(made_shop.store_id, somebody, 1, Purpose.SERVICE_MAIL)
    await made_shop.keyring.client("privacy").object([objection])
    made_shop.vault.drop(made_shop.store_id, [somebody])
    await send_waiting(made_shop.work)
    assert sent == []
    assert await made_shop.count(WaitingLetter) == 0
