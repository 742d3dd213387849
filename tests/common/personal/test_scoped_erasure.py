"""A part of what is held about a person is erased: the rest is sealed anew, and the old keys go."""

from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select

from libs.common.events.privacy import Outcome, TaskAnswered, TaskIssued, Verb
from libs.common.mail import Letter, WaitingLetter, post
from libs.common.personal.data import Sealed
from libs.common.personal.datamap import data_map, retentions_concerned
from libs.common.personal.errors import KeyDestroyed
from libs.common.personal.keys import Retirement
from libs.common.personal.scope import Scope
from libs.common.personal.vocabulary import Category, Purpose, Retention
from tests.common.personal.conftest import Shop, task
from tests.common.personal.shop import HOLDINGS, Invoice, Member, Place, Purchase, ShopProfile

MARKETING = Scope(purpose=Purpose.MARKETING_MAIL)
PROFILE = ShopProfile(handle="canary", nickname="Canary", home=Place(street="1 rue", city="Lyon"))
RETENTIONS = [Retention.ORDER, Retention.CORRESPONDENCE]


async def retire(shop: Shop, subject_id: UUID) -> list[UUID]:
    retirement = Retirement(shop.store_id, subject_id, 1, RETENTIONS)
    [retired] = await shop.keyring.client("privacy").retire([retirement])
    return retired


def of_part(verb: Verb, subject_id: UUID, scope: Scope, retired: list[UUID]) -> TaskIssued:
    part = {"purpose": scope.purpose, "category": scope.category, "retired": retired}
    return task(verb, subject_id).model_copy(update=part)


async def erase(shop: Shop, subject_id: UUID, scope: Scope) -> tuple[TaskIssued, TaskAnswered]:
    asked = of_part(Verb.ERASE, subject_id, scope, await retire(shop, subject_id))
    await shop.ask(asked)
    await shop.participant.erase_parts(shop.work)
    answers = [one for one in await shop.published(TaskAnswered) if one.request_id == asked.request_id]
    return asked, answers[-1]


async def boxes(shop: Shop, table: Any, column: str = "contact") -> list[Sealed[Any]]:
    async with shop.database.session(shop.store_id) as session:
        rows = (await session.scalars(select(table))).all()
    return [box for row in rows if (box := getattr(row, column)) is not None]


async def test_what_is_used_for_nothing_else_goes_and_the_rest_outlives_the_keys(made_shop: Shop) -> None:
    somebody, other = uuid4(), uuid4()
    for person in (somebody, other):
        await made_shop.member(person, PROFILE.model_copy(update={"handle": f"canary-{person}"}))
        await made_shop.purchase(person, name="Canary")
        await made_shop.invoice(person)
        await made_shop.visit(person)
    before = [box.key_id for box in await boxes(made_shop, Invoice)]
    asked, answer = await erase(made_shop, somebody, MARKETING)
    assert (answer.outcome, answer.counts, answer.retained) == (Outcome.DONE, {"member": 1}, [])
    [checked] = await made_shop.ask(of_part(Verb.VERIFY_ERASED, somebody, MARKETING, asked.retired))
    assert (checked.outcome, checked.counts) == (Outcome.DONE, {})
    destroyed = await made_shop.keyring.client("privacy").destroy_retired(asked.retired)
    assert destroyed and all(destroyed)
    made_shop.vault.drop(made_shop.store_id, [somebody, other])
    assert [one.name for one in await made_shop.opened(Purchase)] == ["Canary", "Canary"]
    assert [box.key_id for box in await boxes(made_shop, Invoice)] == before
    assert len(await boxes(made_shop, Member, "profile")) == 1
    assert await made_shop.count(Purchase) == 2


async def test_an_optional_field_is_emptied_and_what_is_required_stays_and_is_said(made_shop: Shop) -> None:
    somebody = uuid4()
    await made_shop.member(somebody, PROFILE)
    await made_shop.purchase(somebody, name="Canary")
    await made_shop.invoice(somebody)
    name = Scope(category=Category.NAME)
    [preview] = await made_shop.ask(of_part(Verb.PREVIEW, somebody, name, []))
    _, answer = await erase(made_shop, somebody, name)
    assert (answer.outcome, answer.counts) == (Outcome.RETAINED, {"member": 1})
    assert {one.kind: one.count for one in answer.retained} == {"ShopContact": 1, "ShopInvoice": 1}
    assert all(one.ground for one in answer.retained)
    assert preview.retained == answer.retained
    [member] = await made_shop.opened(Member, "profile")
    assert member == PROFILE.model_copy(update={"nickname": None})
    [contact] = await made_shop.opened(Purchase)
    assert contact.name == "Canary"


async def test_a_whole_sub_model_is_a_field(made_shop: Shop) -> None:
    somebody = uuid4()
    await made_shop.member(somebody, PROFILE)
    _, answer = await erase(made_shop, somebody, Scope(category=Category.ADDRESS))
    assert (answer.outcome, answer.counts) == (Outcome.DONE, {"member": 1})
    [member] = await made_shop.opened(Member, "profile")
    assert (member.home, member.nickname) == (None, "Canary")


async def test_nothing_in_the_scope_is_nothing_held_and_still_leaves_nothing_under_old_keys(
    made_shop: Shop,
) -> None:
    somebody = uuid4()
    await made_shop.purchase(somebody)
    analytics = Scope(purpose=Purpose.ANALYTICS)
    asked, answer = await erase(made_shop, somebody, analytics)
    assert (answer.outcome, answer.counts, answer.retained) == (Outcome.NOTHING_HELD, {}, [])
    [box] = await boxes(made_shop, Purchase)
    assert box.key_id not in asked.retired


async def test_what_is_used_for_something_else_too_stays_and_is_said(made_shop: Shop) -> None:
    somebody = uuid4()
    await made_shop.purchase(somebody)
    both = Scope(purpose=Purpose.MARKETING_MAIL, category=Category.NAME)
    assert not both.leaves(HOLDINGS[0])
    _, answer = await erase(made_shop, somebody, Scope(purpose=Purpose.ACCOUNTING))
    assert answer.outcome is Outcome.NOTHING_HELD
    await made_shop.invoice(somebody)
    _, answer = await erase(made_shop, somebody, Scope(purpose=Purpose.ACCOUNTING))
    assert [one.kind for one in answer.retained] == ["ShopInvoice"]


async def test_a_check_finds_what_still_lies_under_a_retired_key(made_shop: Shop) -> None:
    somebody = uuid4()
    await made_shop.purchase(somebody)
    await made_shop.member(somebody, PROFILE)
    retired = await retire(made_shop, somebody)
    check = of_part(Verb.VERIFY_ERASED, somebody, MARKETING, retired)
    [answer] = await made_shop.ask(check)
    assert (answer.outcome, answer.reason) == (Outcome.FAILED, "left-over")
    assert answer.counts == {"purchase": 1, "member": 1}
    [other] = await made_shop.ask(of_part(Verb.VERIFY_ERASED, uuid4(), MARKETING, retired))
    assert other.outcome is Outcome.DONE


async def test_what_is_given_after_the_keys_were_retired_stays(made_shop: Shop) -> None:
    somebody = uuid4()
    await made_shop.member(somebody, PROFILE)
    retired = await retire(made_shop, somebody)
    made_shop.vault.drop(made_shop.store_id, [somebody])
    await made_shop.member(somebody, PROFILE.model_copy(update={"handle": "canary-again"}))
    asked = of_part(Verb.ERASE, somebody, MARKETING, retired)
    await made_shop.ask(asked)
    await made_shop.participant.erase_parts(made_shop.work)
    assert (await made_shop.published(TaskAnswered))[-1].counts == {"member": 1}
    [box] = await boxes(made_shop, Member, "profile")
    assert box.key_id not in retired


async def test_another_round_and_a_task_issued_again_change_nothing_more(made_shop: Shop) -> None:
    somebody = uuid4()
    await made_shop.purchase(somebody)
    asked, answer = await erase(made_shop, somebody, MARKETING)
    [box] = await boxes(made_shop, Purchase)
    assert await made_shop.ask(asked) == [answer]
    await made_shop.ask(asked.model_copy(update={"round": 2}))
    await made_shop.participant.erase_parts(made_shop.work)
    assert await boxes(made_shop, Purchase) == [box]


async def test_letters_that_wait_can_still_be_sent(made_shop: Shop) -> None:
    somebody = uuid4()
    letter = Letter(to="canary@vitrine.example", template="order-received")
    sealed = await made_shop.vault.seal(letter, store_id=made_shop.store_id, subject_id=somebody)
    async with made_shop.database.session(made_shop.store_id) as session:
        post(session, sealed.box, store_id=made_shop.store_id, subject_id=somebody, generation=1)
    asked, _ = await erase(made_shop, somebody, MARKETING)
    await made_shop.keyring.client("privacy").destroy_retired(asked.retired)
    made_shop.vault.drop(made_shop.store_id, [somebody])
    with pytest.raises(KeyDestroyed):
        await made_shop.vault.open(
            sealed.box, store_id=made_shop.store_id, subject_id=somebody, purpose=Purpose.SERVICE_MAIL
        )
    async with made_shop.database.session(made_shop.store_id) as session:
        [row] = (await session.scalars(select(WaitingLetter))).all()
    opened = await made_shop.vault.open(
        Sealed(Letter, row.box),
        store_id=made_shop.store_id,
        subject_id=somebody,
        purpose=Purpose.SERVICE_MAIL,
    )
    assert opened == letter


@pytest.mark.parametrize(
    ("scope", "retentions"),
    [
        (MARKETING, [Retention.ORDER]),
        (Scope(category=Category.NAME), [Retention.ORDER]),
        (Scope(purpose=Purpose.ACCOUNTING), []),
        (Scope(purpose=Purpose.ANALYTICS), []),
        (Scope(category=Category.CONTACT), [Retention.ORDER]),
    ],
)
def test_the_data_map_says_whose_keys_are_concerned(scope: Scope, retentions: list[Retention]) -> None:
    entries = data_map("test-shop", HOLDINGS, [])
    assert retentions_concerned(entries, scope.purpose, scope.category) == retentions
