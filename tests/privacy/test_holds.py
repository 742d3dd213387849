"""Legal holds: they stop timers and erasures, say so, and what they kept goes when they end."""

from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from libs.common.auth import Role
from libs.common.events.privacy import TaskIssued, Verb
from libs.common.personal.errors import KeyRestricted
from libs.common.personal.vocabulary import Clock, Purpose
from services.privacy import key_tasks, letters
from services.privacy.models import PersonSubject
from tests.common.personal.shop import Invoice, Purchase
from tests.privacy.conftest import Person
from tests.privacy.lasting import Lasting, kept_of, lasting

__all__ = ["lasting"]
UNTIL = date(2027, 9, 1)
CLAIM = "GDPR, Art. 17(3)(e)"


async def hold(lasting: Lasting, person: Person | None, **changes: Any) -> httpx.Response:
    about: dict[str, Any] = {"email": person.email} if person is not None else {"everybody": True}
    body = about | {"ground": "litigation", "until": str(UNTIL)} | changes
    with lasting.on(lasting.now):
        return await lasting.call("POST", "holds", json=body)


async def held(lasting: Lasting, person: Person | None, **changes: Any) -> UUID:
    response = await hold(lasting, person, **changes)
    assert response.status_code == 201, response.text
    return UUID(response.json()["id"])


async def lift(lasting: Lasting, hold_id: UUID) -> None:
    with lasting.on(lasting.now):
        response = await lasting.call("DELETE", f"holds/{hold_id}")
    assert response.status_code == 204, response.text


# --- Over HTTP -------------------------------------------------------------------------------------------


async def test_a_hold_says_who_placed_it_why_and_until_when_and_no_name(lasting: Lasting) -> None:
    person, account = await lasting.person(), uuid4()
    body = {"email": person.email, "ground": "claim-announced", "until": str(UNTIL)}
    headers = lasting.platform.officer(sub=str(account))
    with lasting.on(lasting.now):
        placed = await lasting.call("POST", "holds", json=body, headers=headers)
    assert placed.status_code == 201 and placed.headers["location"].endswith(placed.json()["id"])
    view = placed.json()
    assert (view["ground"], view["until"], view["placed_by"]) == ("claim-announced", str(UNTIL), str(account))
    assert view["retentions"] == ["accounting", "correspondence", "order"]
    assert view["subject_id"] == str(person.subject_id) and person.email not in placed.text
    seen = await lasting.call("GET", f"holds/{view['id']}")
    assert seen.json() == view
    await lift(lasting, UUID(view["id"]))
    lifted = (await lasting.call("GET", f"holds/{view['id']}")).json()
    assert lifted["lifted_at"] and lifted["lifted_by"]
    lasting.later(days=1)
    await lift(lasting, UUID(view["id"]))
    assert (await lasting.call("GET", f"holds/{view['id']}")).json() == lifted, (
        "a second time changes nothing"
    )


async def test_the_list_can_be_of_one_person_and_of_what_is_in_force(lasting: Lasting) -> None:
    one, other = await lasting.person(), await lasting.person()
    first = await held(lasting, one)
    lasting.later(hours=1)
    second = await held(lasting, other, until=str(lasting.now.date()))
    lasting.later(hours=1)
    third = await held(lasting, None)

    async def listed(**params: Any) -> list[str]:
        with lasting.on(lasting.now):
            return [
                item["id"] for item in (await lasting.call("GET", "holds", params=params)).json()["items"]
            ]

    assert await listed() == [str(third), str(second), str(first)]
    assert await listed(subject_id=str(one.subject_id)) == [str(third), str(first)]
    lasting.later(days=1)
    assert await listed(in_force=True) == [str(third), str(first)]
    page = (await lasting.call("GET", "holds", params={"limit": 2})).json()
    rest = (await lasting.call("GET", "holds", params={"limit": 2, "cursor": page["next"]})).json()
    assert [item["id"] for item in (*page["items"], *rest["items"])] == await listed()
    assert rest.get("next") is None


@pytest.mark.parametrize(
    "changes",
    [
        {"until": "2027-03-09"}, {"until": "2032-03-11"}, {"until": "never"}, {"ground": "spite"},
        {"retentions": []}, {"retentions": ["export"]}, {"retentions": ["verification"]},
        {"everybody": True}, {"email": None}, {"email": "nobody"}, {"note": "Mrs. Canary sues us"},
    ],
)  # fmt: skip
async def test_what_is_no_hold_is_refused_and_nothing_is_held(
    lasting: Lasting, changes: dict[str, Any]
) -> None:
    response = await hold(lasting, await lasting.person(), **changes)
    assert response.status_code == 422, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert "Canary" not in response.text
    assert (await lasting.call("GET", "holds")).json()["items"] == []


async def test_holds_are_for_officers_of_the_store(lasting: Lasting) -> None:
    hold_id = await held(lasting, await lasting.person())
    platform = lasting.platform
    for role in (Role.CUSTOMER, Role.SUPPORT, Role.MANAGER):
        response = await lasting.call("GET", "holds", headers=platform.officer(role=role))
        assert response.status_code == 403
    for method in ("GET", "DELETE"):
        stranger = platform.officer(store=str(uuid4()))
        response = await lasting.call(method, f"holds/{hold_id}", headers=stranger)
        assert response.status_code == 404
        assert (await platform.client.request(method, f"{platform.path}/holds/{hold_id}")).status_code == 401
        assert (await lasting.call(method, f"holds/{uuid4()}")).status_code == 404


# --- What it stops ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("everybody", [False, True])
async def test_nothing_on_hold_goes_on_its_day_and_all_of_it_when_the_hold_ends(
    lasting: Lasting, everybody: bool
) -> None:
    person, other = await lasting.person(), await lasting.person()
    for one in (person, other):
        await lasting.start(one, Clock.ORDER_CANCELLED, await lasting.purchase(one))
    await held(lasting, None if everybody else person)
    lasting.later(days=20)
    await lasting.settle()
    assert await lasting.left(Purchase) == (2 if everybody else 1)
    lasting.now = datetime(2027, 9, 1, 21, tzinfo=UTC)
    await lasting.settle()
    assert await lasting.left(Purchase) == (2 if everybody else 1), "its last day is not over in Paris"
    lasting.now = datetime(2027, 9, 1, 22, 1, tzinfo=UTC)
    await lasting.settle()
    assert await lasting.left(Purchase) == 0


async def test_a_hold_of_one_kind_stops_no_other(lasting: Lasting) -> None:
    person = await lasting.person()
    await lasting.start(person, Clock.ORDER_CANCELLED, await lasting.purchase(person))
    await held(lasting, person, retentions=["correspondence"])
    lasting.later(days=12)
    await lasting.settle()
    assert await lasting.left(Purchase) == 0


async def test_a_hold_is_of_a_person_by_whichever_of_their_subjects(lasting: Lasting) -> None:
    one, other = await lasting.person(), await lasting.person()
    await lasting.start(one, Clock.ORDER_CANCELLED, await lasting.purchase(one))
    hold_id, person_id = await held(lasting, other), uuid4()
    async with lasting.platform.database.session(lasting.store_id) as session:
        session.add_all(
            PersonSubject(
                store_id=lasting.store_id, subject_id=subject.subject_id, generation=1, person_id=person_id,
                joined_at=lasting.now,
            )
            for subject in (one, other)
        )  # fmt: skip
    lasting.later(days=12)
    await lasting.settle()
    assert await lasting.left(Purchase) == 1
    await lift(lasting, hold_id)
    await lasting.settle()
    assert await lasting.left(Purchase) == 0


async def test_one_of_two_holds_is_enough(lasting: Lasting) -> None:
    person = await lasting.person()
    await lasting.start(person, Clock.ORDER_CANCELLED, await lasting.purchase(person))
    first, second = await held(lasting, person), await held(lasting, None)
    lasting.later(days=12)
    await lift(lasting, first)
    await lasting.settle()
    assert await lasting.left(Purchase) == 1
    await lift(lasting, second)
    await lasting.settle()
    assert await lasting.left(Purchase) == 0


# --- Erasures --------------------------------------------------------------------------------------------


async def test_an_erasure_says_what_is_kept_for_a_claim_and_it_goes_when_the_hold_ends(
    lasting: Lasting,
) -> None:
    person = await lasting.person()
    order = await lasting.purchase(person)
    await lasting.invoice(person, 2027)
    hold_id = await held(lasting, person)
    detail = await lasting.erase(person)
    kept = {(one["retention"], one["ground"], one["until"]) for one in kept_of(detail)}
    assert ("order", CLAIM, str(UNTIL)) in kept
    assert ("accounting", "Code de commerce, art. L123-22; GDPR, Art. 17(3)(b)", "2037-12-31") in kept
    assert await lasting.left(Purchase) == 1
    async with lasting.shop.database.session(lasting.store_id) as session:
        box = (await session.get_one(Purchase, order)).contact
    assert box is not None
    lasting.shop.vault.drop(lasting.store_id, [person.subject_id])
    place: dict[str, Any] = {"store_id": lasting.store_id, "subject_id": person.subject_id}
    with pytest.raises(KeyRestricted):
        await lasting.shop.vault.open(box, purpose=Purpose.FULFIL_ORDER, **place)
    opened = await lasting.shop.vault.open(box, purpose=Purpose.LEGAL_CLAIMS, **place)
    assert opened.email == person.email
    lasting.later(days=60)
    await lasting.settle()
    assert await lasting.left(Purchase) == 1
    await lift(lasting, hold_id)
    await lasting.settle()
    assert await lasting.left(Purchase) == 0 and await lasting.left(Invoice) == 1
    assert {one for one, _ in await lasting.live(person)} == {"accounting", "request"}


async def test_the_mail_says_what_is_kept_and_until_when(lasting: Lasting) -> None:
    person = await lasting.person()
    await lasting.purchase(person)
    await held(lasting, person)
    await lasting.erase(person)
    while await letters.write(lasting.work):
        pass
    mails = {template: text for template, _, text in await lasting.platform.waiting(person.subject_id)}
    assert "the names and addresses of your orders, until September 1, 2027" in mails["erasure-done"]
    assert CLAIM in mails["erasure-done"]


async def test_what_is_not_on_hold_is_erased(lasting: Lasting) -> None:
    person, other = await lasting.person(), await lasting.person()
    await lasting.purchase(person)
    await lasting.invoice(person, 2027)
    await held(lasting, person, retentions=["correspondence"])
    await held(lasting, other)
    detail = await lasting.erase(person)
    assert "order" not in {one["retention"] for one in kept_of(detail)}
    assert await lasting.left(Purchase) == 0


async def test_somebody_who_comes_back_is_not_what_is_held(lasting: Lasting) -> None:
    person = await lasting.person()
    await lasting.purchase(person)
    hold_id = await held(lasting, person)
    await lasting.erase(person)
    await lasting.purchase(person)
    [keys] = await lasting.platform.keyring.client("privacy").status([(lasting.store_id, person.subject_id)])
    assert {(key.generation, key.restricted) for key in keys if key.retention == "order"} == {
        (1, True), (2, False),
    }  # fmt: skip
    await lift(lasting, hold_id)
    lasting.later(days=1)
    await lasting.settle()
    assert await lasting.left(Purchase) == 1, "what they have given since is theirs"


async def test_an_erasure_that_a_hold_would_keep_from_waits_for_somebody_to_look(lasting: Lasting) -> None:
    person = await lasting.person()
    await lasting.platform.decides(passing={"erasure": "when-clear"})
    await held(lasting, None, until="2031-01-01")
    # What an obligation is asked of is the present, whatever moment a test pretends.
    request_id = await lasting.platform.opened(person, "erasure")
    await lasting.platform.answer_itself(request_id, Verb.PREVIEW)
    await lasting.platform.deliver(lasting.platform.answer(request_id, Verb.PREVIEW))
    assert await lasting.platform.state(person, request_id) == "deciding"
    preview = await lasting.call("GET", f"requests/{request_id}/preview")
    words = {one["word"] for part in preview.json()["parts"] for one in part["obligations"]}
    assert words == {"legal-hold"}


async def test_of_a_part_nothing_on_hold_is_touched_and_that_is_said(lasting: Lasting) -> None:
    person = await lasting.person()
    await lasting.purchase(person)
    await held(lasting, person)
    await lasting.platform.decides(passing={"erasure": "at-once"})
    body = {"right": "erasure", "email": person.email, "category": "user.name"}
    response = await lasting.platform.ask(person, **body)
    assert response.status_code == 201, response.text
    request_id = UUID(response.json()["id"])
    await key_tasks.ask_keyring(lasting.work)
    [asked] = [one for one in await lasting.platform.published(TaskIssued) if one.verb is Verb.ERASE]
    [keys] = await lasting.platform.keyring.client("privacy").status([(lasting.store_id, person.subject_id)])
    assert asked.retired == [] and not any(key.retired for key in keys)
    detail = await lasting.platform.detail(person, request_id)
    assert ("order", CLAIM, str(UNTIL)) in {
        (one["retention"], one["ground"], one["until"])
        for part in detail["parts"]
        for one in part["retained"]
    }


async def test_a_hold_on_erased_data_stops_its_end_too(lasting: Lasting) -> None:
    person = await lasting.person()
    await lasting.purchase(person)
    first = await held(lasting, person)
    await lasting.erase(person)
    await held(lasting, person, until="2028-01-01")
    await lift(lasting, first)
    lasting.later(days=90)
    await lasting.settle()
    assert await lasting.left(Purchase) == 1
    lasting.now = datetime(2028, 1, 2, 9, tzinfo=UTC)
    await lasting.settle()
    assert await lasting.left(Purchase) == 0
