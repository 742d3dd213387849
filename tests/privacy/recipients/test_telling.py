"""Who outside is told of what, by which names, and in which order (GDPR, Art. 17(2) and 19)."""

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from libs.common.events.privacy import Outcome, References, TaskAnswered, Verb
from libs.common.personal.participant import Participant
from libs.common.personal.references import Found
from libs.common.personal.vocabulary import Category
from libs.common.worker import Work
from services.privacy import consumer, letters
from services.privacy.domain.states import State
from services.privacy.engine import decisions
from services.privacy.engine.phases import begin
from tests.common.personal.shop import Purchase, ShopContact
from tests.privacy.conftest import Person, received
from tests.privacy.recipients.conftest import Outside
from tests.privacy.recipients.receiver import done

CORRECTION = {"category": Category.NAME.value, "value": "Canary Wharf"}


async def purchase(work: Work, person: Person, email: str) -> UUID:
    """An order at the shop, with another address than the person's own."""
    order_id = uuid4()
    sealed = await work.vault.seal(
        ShopContact(name="Canary", email=email), store_id=person.store_id, subject_id=person.subject_id,
        bucket=str(order_id),
    )  # fmt: skip
    async with work.database.session(person.store_id) as session:
        session.add(
            Purchase(
                id=order_id, store_id=person.store_id, subject_id=person.subject_id,
                generation=sealed.generation, number="1001", email_index=b"index", contact=sealed.box,
            )
        )  # fmt: skip
    return order_id


async def shop_refers(
    outside: Outside, shop_work: Work, shop_participant: Participant, request_id: UUID
) -> TaskAnswered:
    """The shop's own answer, from its declarations alone."""
    asked = (await outside.platform.tasks(request_id, Verb.REFER))[-1]
    async with shop_work.database.session(outside.platform.store_id) as session:
        await shop_participant.on_tasks(session, [received(asked, outside.platform.store_id)])
    await shop_participant.refer(shop_work)
    async with shop_work.database.session(outside.platform.store_id) as session:
        rows = await session.execute(
            text("SELECT payload FROM outbox WHERE headers ->> 'ce_type' = :type ORDER BY id DESC"),
            {"type": TaskAnswered.type},
        )
        answers = [TaskAnswered.model_validate_json(row.payload) for row in rows]
    return next(one for one in answers if one.request_id == request_id and one.verb is Verb.REFER)


async def corrected(outside: Outside, person: Person) -> UUID:
    asked = await outside.platform.ask(person, "rectification", corrections=[CORRECTION])
    assert asked.status_code == 201, asked.text
    return UUID(asked.json()["id"])


# --- By which names --------------------------------------------------------------------------------------


async def test_a_participant_says_by_its_declarations_what_outsiders_know(
    outside: Outside, shop_work: Work, shop_participant: Participant
) -> None:
    await outside.active()
    outside.receiver.answering = done
    platform = outside.platform
    person = await platform.person()
    order = await purchase(shop_work, person, "canary-gift@vitrine.example")
    request_id = await platform.opened(person, "erasure")
    answer = await shop_refers(outside, shop_work, shop_participant, request_id)
    assert answer.outcome is Outcome.DONE and answer.references is not None
    await platform.deliver(answer)
    await outside.refer(request_id)
    await platform.ask_keyring()
    await platform.answer_all(request_id, Verb.ERASE)
    await outside.deliver()
    [came] = outside.receiver.of("privacy.erase")
    assert came.json["data"]["person"] == {
        "emails": [person.email, "canary-gift@vitrine.example"],
        "phones": [],
        "accounts": [],
        "orders": [str(order)],
    }


async def test_what_was_said_is_sealed_and_is_no_part_of_the_evidence(outside: Outside) -> None:
    await outside.active()
    platform = outside.platform
    person = await platform.person()
    request_id = await platform.opened(person, "erasure")
    asked = (await platform.tasks(request_id, Verb.REFER))[-1]
    answer = await outside.refers(asked, emails=["canary-order@vitrine.example"])
    await platform.deliver(answer)
    async with platform.database.session(platform.store_id) as session:
        facts = (
            await session.scalars(
                text("SELECT CAST(facts AS text) FROM evidence_pending WHERE request_id = :id"),
                {"id": request_id},
            )
        ).all()
        kept = await session.scalar(
            text("SELECT box FROM request_reference WHERE request_id = :id"), {"id": request_id}
        )
    assert answer.references is not None and kept == answer.references.payload
    said = [one for one in facts if answer.digest in one]
    assert len(said) == 1 and "references" not in said[0]


async def test_names_that_were_not_signed_for_are_refused(outside: Outside) -> None:
    recipient = await outside.active()
    platform = outside.platform
    person = await platform.person()
    request_id = await platform.opened(person, "erasure")
    asked = (await platform.tasks(request_id, Verb.REFER))[-1]
    good = await outside.refers(asked, emails=["canary-order@vitrine.example"])
    other = await outside.refers(asked, emails=["canary-forged@vitrine.example"])
    forged = good.model_copy(update={"references": other.references})
    await platform.deliver(forged)
    await outside_answers_itself(outside, request_id)
    parts = (await platform.detail(person, request_id))["parts"]
    [part] = [one for one in parts if one["participant"] == "test-shop" and one["task"] == "refer"]
    assert (part["state"], part["reason"]) == ("failed", "incomplete")
    await platform.ask_keyring()
    assert not await platform.tasks(request_id, Verb.ERASE)
    await platform.deliver(good)
    await platform.ask_keyring()
    await outside.deliver()
    [came] = outside.receiver.of("privacy.erase")
    assert "canary-order@vitrine.example" in came.json["data"]["person"]["emails"]
    assert (await outside.part(person, request_id, recipient))["state"] == "received"


async def outside_answers_itself(outside: Outside, request_id: UUID) -> None:
    platform = outside.platform
    before = len(await platform.published(TaskAnswered))
    await platform.deliver((await platform.tasks(request_id, Verb.REFER))[-1])
    await consumer.PARTICIPANT.refer(platform.work)
    answers = (await platform.published(TaskAnswered))[before:]
    await platform.deliver(*[one for one in answers if one.request_id == request_id])


@given(
    st.lists(
        st.builds(
            References,
            emails=st.lists(st.emails(), max_size=3).map(tuple),
            phones=st.lists(st.text(min_size=1, max_size=5), max_size=3).map(tuple),
            accounts=st.lists(st.uuids(), max_size=3).map(tuple),
            orders=st.lists(st.uuids(), max_size=3).map(tuple),
        ),
        max_size=4,
    )
)
def test_what_many_say_is_said_once_and_nothing_is_lost(said: list[References]) -> None:
    found = Found()
    for one in said:
        found.add(one)
    merged = found.references()
    for name in References.model_fields:
        values = [value for one in said for value in getattr(one, name)]
        kept = getattr(merged, name)
        assert set(kept) == set(values) and len(kept) == len(set(values))
        assert list(kept) == list(dict.fromkeys(values))


# --- In which order --------------------------------------------------------------------------------------


async def test_nothing_is_destroyed_before_it_is_known_whom_to_tell(outside: Outside) -> None:
    await outside.active()
    platform = outside.platform
    person = await platform.person()
    request_id = await platform.opened(person, "erasure")
    await platform.ask_keyring()
    assert not await platform.tasks(request_id, Verb.ERASE)
    await outside.deliver()
    assert outside.receiver.came == []
    await outside.refer(request_id)
    await platform.ask_keyring()
    assert await platform.tasks(request_id, Verb.ERASE)


async def test_a_recipient_that_vanished_delays_the_end_and_not_the_destruction(outside: Outside) -> None:
    await outside.active()
    await outside.call("POST", f"/{(await outside.call('GET')).json()['items'][0]['id']}/pausing")
    person = await outside.platform.person()
    request_id = await outside.erased_but_outside(person)
    detail = await outside.platform.detail(person, request_id)
    erased = {one["participant"]: one["state"] for one in detail["parts"] if one["task"] == "erase"}
    assert erased.pop("keyring") in {"done", "retained"}
    assert erased.pop("test-shop") == erased.pop("privacy") == "nothing-held"
    assert list(erased.values()) == ["waiting"]
    assert detail["state"] == "running"


async def test_without_a_recipient_nobody_is_asked_for_names(outside: Outside) -> None:
    person = await outside.platform.person()
    request_id = await outside.platform.opened(person, "erasure")
    assert not await outside.platform.tasks(request_id, Verb.REFER)


async def test_a_correction_is_told_with_the_names_of_before_it(outside: Outside) -> None:
    platform = outside.platform
    recipient = await outside.active()
    outside.receiver.answering = done
    await platform.decides(passing={"rectification": "at-once", "erasure": "at-once"})
    person = await platform.person()
    request_id = await corrected(outside, person)
    # An address that is corrected is not known outside: the names come first.
    assert not await platform.tasks(request_id, Verb.RECTIFY)
    await outside.refer(request_id)
    assert len(await platform.tasks(request_id, Verb.RECTIFY)) == 1
    await platform.answer_all(request_id, Verb.RECTIFY)
    await outside.deliver()
    [came] = outside.receiver.of("privacy.rectify")
    told = came.json["data"]
    assert told["corrections"] == [CORRECTION]
    assert told["person"]["emails"] == [person.email]
    assert (await outside.part(person, request_id, recipient))["state"] == "done"
    assert await platform.state(person, request_id) == "completed"


@pytest.mark.parametrize(
    ("right", "verb", "more"),
    [
        ("restriction", Verb.RESTRICT, {}),
        ("objection", Verb.OBJECT, {"purpose": "marketing.communications.email"}),
        ("consent-withdrawal", Verb.OBJECT, {"purpose": "marketing.communications.email"}),
    ],
)
async def test_what_binds_us_binds_at_once_and_is_told(
    outside: Outside, right: str, verb: Verb, more: dict[str, Any]
) -> None:
    platform = outside.platform
    recipient = await outside.active(role="controller")
    await platform.decides(passing={right: "at-once", "erasure": "at-once"})
    person = await platform.person()
    asked = await platform.ask(person, right, **more)
    assert asked.status_code == 201, asked.text
    request_id = UUID(asked.json()["id"])
    # The keyring waits for nobody here.
    await platform.ask_keyring()
    assert await platform.tasks(request_id, verb)
    await platform.answer_all(request_id, verb)
    assert await platform.state(person, request_id) == "running"
    await outside.refer(request_id)
    await outside.deliver()
    [came] = outside.receiver.of(f"privacy.{verb}")
    assert came.json["data"]["purpose"] == more.get("purpose")
    assert (await outside.part(person, request_id, recipient))["state"] == "told"
    assert await platform.state(person, request_id) == "completed"


async def test_that_a_restriction_ends_is_told_when_it_does_and_not_before(outside: Outside) -> None:
    platform = outside.platform
    await platform.decides(passing={"restriction": "at-once", "erasure": "at-once"})
    person = await platform.person()
    restriction = await platform.opened(person, "restriction")
    await platform.ask_keyring()
    await platform.answer_all(restriction, Verb.RESTRICT)
    await outside.active(role="controller")
    lifted = await platform.client.post(
        f"{platform.path}/requests/{restriction}/lifting", headers=platform.officer()
    )
    assert lifted.status_code == 201, lifted.text
    await outside.refer(UUID(lifted.json()["id"]))
    outside.later(timedelta(days=5))
    await outside.deliver()
    assert outside.receiver.came == []
    outside.later(timedelta(days=3))
    await outside.deliver()
    assert [one.json["type"] for one in outside.receiver.came] == ["privacy.lift-restriction"]


# --- Erased meanwhile ------------------------------------------------------------------------------------


async def test_whoever_is_erased_first_is_told_of_as_erased_only(outside: Outside) -> None:
    platform = outside.platform
    recipient = await outside.active(role="controller")
    await platform.decides(passing={"restriction": "at-once", "erasure": "at-once"})
    person = await platform.person()
    await outside.call("POST", f"/{recipient['id']}/pausing")
    restriction = await platform.opened(person, "restriction")
    await platform.ask_keyring()
    await platform.answer_all(restriction, Verb.RESTRICT)
    await outside.refer(restriction)
    request_id = await outside.erased_but_outside(person)
    await platform.deliver((await platform.tasks(request_id, Verb.ERASE))[-1])
    await outside.call("POST", f"/{recipient['id']}/resumption")
    await outside.deliver()
    assert [one.json["type"] for one in outside.receiver.came] == ["privacy.erase"]
    assert (await outside.part(person, request_id, recipient))["state"] == "told"
    part = await outside.part(person, restriction, recipient)
    assert (part["state"], part["settlement"]["ground"]) == ("settled", "person-erased")
    assert await platform.state(person, restriction) == "completed"


# --- Who is told of being told ---------------------------------------------------------------------------


async def test_the_preview_and_the_mail_name_who_is_told(outside: Outside) -> None:
    platform = outside.platform
    await outside.active(name="Parcel & Co", role="controller")
    await platform.decides(passing={"erasure": "officer"})
    person = await platform.person()
    request_id = await platform.opened(person, "erasure")
    preview = await platform.client.get(
        f"{platform.path}/requests/{request_id}/preview", headers=platform.officer()
    )
    assert preview.json()["recipients"] == ["Parcel & Co"]
    approved = await platform.do(request_id, "decision", {"approve": True})
    assert approved.status_code == 200, approved.text
    await outside.refer(request_id)
    await platform.ask_keyring()
    await platform.answer_all(request_id, Verb.ERASE)
    await outside.deliver()
    await platform.ask_keyring()
    await platform.answer_all(request_id, Verb.VERIFY_ERASED)
    assert await platform.state(person, request_id) == "completed"
    while await letters.write(outside.work()):
        pass
    mails = await platform.waiting(person.subject_id)
    [ended] = [text for template, _, text in mails if template == "erasure-done"]
    assert "Parcel & Co" in ended


async def test_an_earlier_round_is_not_sent_any_more(outside: Outside) -> None:
    platform = outside.platform
    recipient = await outside.active(role="controller")
    await outside.call("POST", f"/{recipient['id']}/pausing")
    person = await platform.person()
    request_id = await outside.erased_but_outside(person)
    async with platform.database.session(platform.store_id) as session:
        again = text("UPDATE request SET round = round + 1 WHERE id = :id")
        await session.execute(again, {"id": request_id})
        row = await decisions.locked(session, platform.store_id, request_id)
        await begin(session, platform.store_id, [row], State.RUNNING, expected=["test-shop", "privacy"])
    await outside.call("POST", f"/{recipient['id']}/resumption")
    await outside.deliver()
    assert outside.receiver.came == []
    await outside.refer(request_id)
    await outside.deliver()
    assert len(outside.receiver.came) == 1
    states = [one["state"] for one in await outside.deliveries(recipient) if one["what"] == "erase"]
    assert states == ["done", "void"]
