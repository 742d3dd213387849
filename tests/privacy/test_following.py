"""A request followed, confirmed and taken back by its link; requests that somebody of the store wrote down."""

import itertools
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from libs.common import pace
from libs.common.auth import Role
from libs.common.events.privacy import Verb
from libs.common.personal.data import Sealed
from libs.common.personal.vocabulary import Purpose
from services.privacy.domain.rights import Right
from services.privacy.domain.verification import ENOUGH, Proof, is_verified
from services.privacy.kinds import NoteText
from tests.privacy.conftest import Person, Platform
from tests.privacy.test_letters import KEPT, erased
from tests.privacy.ways import (
    asked,
    export,
    mails,
    open_store,
    post,
    requests_of,
    send_form,
    token_of,
)

PATHS = ("confirmations", "status", "status/withdrawal")


@pytest.fixture(autouse=True)
async def store(platform: Platform) -> AsyncIterator[None]:
    await open_store(platform)
    with pytest.MonkeyPatch.context() as patch:

        async def at_once(_: float) -> None:
            return None

        patch.setattr(pace, "sleep", at_once)
        yield


# --- The link --------------------------------------------------------------------------------------------


async def test_the_link_shows_where_a_request_is_and_asks_for_what_is_needed(platform: Platform) -> None:
    person, token, request_id = await asked(platform)
    answer = await post(platform, "status", token=token)
    assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-store")
    seen = answer.json()
    assert (seen["id"], seen["right"], seen["state"], seen["store"]) == (
        str(request_id), "access", "verifying", "Canary & Sons",
    )  # fmt: skip
    assert seen["awaited"] == {"confirm": True, "document": True, "answer": False, "withdraw": True}
    assert person.email not in answer.text and token not in answer.text
    confirmed = (await post(platform, "confirmations", token=token)).json()
    assert (confirmed["state"], confirmed["proofs"], confirmed["enough"]) == ("running", ["email-link"], [])
    assert confirmed["awaited"] == {"confirm": False, "document": False, "answer": False, "withdraw": False}
    assert confirmed["due_on"] is not None
    assert [one["state"] for one in confirmed["steps"]] == ["received", "verifying", "deciding", "running"]


async def test_confirming_twice_is_confirming_once(platform: Platform) -> None:
    person, token, request_id = await asked(platform)
    first = (await post(platform, "confirmations", token=token)).json()
    again = (await post(platform, "confirmations", token=token)).json()
    assert first == again
    assert len(await platform.tasks(request_id, Verb.EXPORT)) == 1
    await export(platform, request_id)
    over = await post(platform, "confirmations", token=token)
    assert (over.status_code, over.json()["state"]) == (200, "completed")
    [request] = await requests_of(platform, person)
    assert len(request.proofs) == 1


async def test_a_request_is_taken_back_while_nothing_was_done_and_not_after(platform: Platform) -> None:
    person, token, _ = await asked(
        platform, "rectification", corrections=[{"category": "user.name", "value": "Ada"}]
    )
    await post(platform, "confirmations", token=token)
    for _ in range(2):
        taken = await post(platform, "status/withdrawal", token=token)
        assert (taken.status_code, taken.json()["state"]) == (200, "cancelled")
    assert (await post(platform, "confirmations", token=token)).json()["state"] == "cancelled"
    other, late, _ = await asked(platform)
    await post(platform, "confirmations", token=late)
    refused = await post(platform, "status/withdrawal", token=late)
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/not-decidable")
    assert (await requests_of(platform, other))[0].state == "running"
    assert (await requests_of(platform, person))[0].state == "cancelled"


@pytest.mark.parametrize("path", PATHS)
async def test_any_other_secret_is_of_no_request(platform: Platform, path: str) -> None:
    await asked(platform)
    wrong = await post(platform, path, token="x" * 43)
    assert (wrong.status_code, wrong.json()["type"]) == (404, "/problems/request-link-not-valid")
    bodies: list[Any] = [
        {},
        {"token": ""},
        {"token": "canary"},
        {"token": None},
        {"token": "x" * 43, "more": 1},
        [],
    ]
    for body in bodies:
        refused = await platform.client.post(f"/privacy/v1/{path}", json=body)
        assert refused.status_code == 422 and "canary" not in refused.text
    broken = await platform.client.post(
        f"/privacy/v1/{path}", content=b"{", headers={"Content-Type": "application/json"}
    )
    assert broken.status_code == 400


async def test_a_secret_is_of_its_own_request_alone(platform: Platform) -> None:
    _, one, one_id = await asked(platform)
    elsewhere = replace(platform, store_id=uuid4())
    await open_store(elsewhere)
    _, other, other_id = await asked(elsewhere)
    assert (await post(platform, "status", token=one)).json()["id"] == str(one_id)
    assert (await post(platform, "status", token=other)).json()["id"] == str(other_id)
    await post(platform, "confirmations", token=other)
    assert (await post(platform, "status", token=one)).json()["state"] == "verifying"


async def test_whoever_was_erased_has_no_link_but_that_of_the_erasure(platform: Platform) -> None:
    person, token, _ = await asked(platform, "restriction")
    await erased(platform, person)
    assert (await post(platform, "status", token=token)).status_code == 404
    seen = (await post(platform, "status", token=await token_of(platform, person))).json()
    assert (seen["right"], seen["state"]) == ("erasure", "completed")
    assert [
        (one["kind"], one["until"], one["ground"]) for one in seen["kept"] if one["retention"] == "accounting"
    ] == [(KEPT.kind, str(KEPT.until), KEPT.ground)]


async def test_a_refusal_is_shown_with_its_ground(platform: Platform) -> None:
    _, token, request_id = await asked(platform, "erasure")
    body = {"refuse": "not-identified", "explanation": "canary: the letter was not signed"}
    refused = await platform.do(request_id, "decision", body)
    assert refused.status_code in {200, 201}, refused.text
    seen = (await post(platform, "status", token=token)).json()
    assert (seen["state"], seen["refusal"]["ground"]) == ("refused", "not-identified")
    assert seen["refusal"]["article"].startswith("GDPR, Art. 11(2)")
    assert seen["supervisor"]["website"].startswith("https://")


async def test_a_question_of_the_store_is_shown_and_answered_by_the_link(platform: Platform) -> None:
    _, token, request_id = await asked(
        platform, "rectification", corrections=[{"category": "user.name", "value": "Ada"}]
    )
    await post(platform, "confirmations", token=token)
    put = await platform.do(request_id, "question", {"text": "canary: which order?"})
    assert put.status_code < 300, put.text
    seen = (await post(platform, "status", token=token)).json()
    assert [one["text"] for one in seen["questions"]] == ["canary: which order?"]
    assert seen["awaited"]["answer"] and seen["awaited"]["document"] and seen["stopped_since"] is not None
    assert (await post(platform, "status/answers", token=token, text="The first.")).status_code == 204
    seen = (await post(platform, "status", token=token)).json()
    assert (seen["awaited"]["answer"], seen["stopped_since"]) == (False, None)
    assert seen["questions"][0]["answered_at"] is not None


# --- On somebody's behalf --------------------------------------------------------------------------------


async def on_behalf(
    platform: Platform, email: str, right: str = "access", role: Role = Role.SUPPORT, **more: Any
) -> httpx.Response:
    headers = more.pop("headers", platform.officer(role=role))
    body = {"right": right, "email": email, "channel": "letter", "seen": "canary-signature", "language": "en"}
    return await platform.client.post(
        f"{platform.path}/requests-on-behalf", json=body | more, headers=headers
    )


@pytest.mark.parametrize("role", [Role.OWNER, Role.PRIVACY_OFFICER, Role.SUPPORT])
async def test_staff_open_a_request_and_the_person_is_told(platform: Platform, role: Role) -> None:
    person = await platform.person()
    opened = await on_behalf(platform, person.email, role=role)
    assert (opened.status_code, opened.json()["state"]) == (201, "running")
    assert opened.headers["Location"] == f"{platform.path}/requests/{opened.json()['id']}"
    [request] = await requests_of(platform, person)
    assert (request.way, [one["proof"] for one in request.proofs]) == ("staff", ["staff"])
    with platform.at(datetime.now(UTC) + timedelta(minutes=2)):
        pass
    async with platform.database.session(platform.store_id) as session:
        await session.execute(
            text("UPDATE notice SET due_at = now() WHERE request_id = :id"), {"id": request.id}
        )
        [note] = (await session.execute(text("SELECT about, box, author FROM request_note"))).all()
    assert [template for template, _, _ in await mails(platform, person)] == ["request-opened-for-you"]
    kept = await platform.work.vault.open(
        Sealed(NoteText, note.box),
        store_id=platform.store_id,
        subject_id=person.subject_id,
        purpose=Purpose.RIGHTS_OF_THE_PERSON,
    )
    assert (note.about, kept.text) == ("evidence", "letter: canary-signature")


async def test_a_letter_that_is_entered_late_counts_from_the_day_it_came(platform: Platform) -> None:
    person = await platform.person()
    with platform.at(datetime(2027, 3, 12, 9, tzinfo=UTC)):
        opened = await on_behalf(platform, person.email, received_on="2027-03-02")
    assert (opened.status_code, opened.json()["due_on"]) == (201, "2027-04-02")
    assert opened.json()["received_at"].startswith("2027-03-0")
    assert opened.json()["received_at"] == opened.json()["verified_at"] < opened.json()["opened_at"]


async def test_a_letter_of_california_counts_from_the_day_it_came(platform: Platform) -> None:
    person = await platform.person()
    with platform.at(datetime(2027, 3, 12, 20, tzinfo=UTC)):
        opened = await on_behalf(platform, person.email, right="know", received_on="2027-03-02")
    detail, _ = await platform.seen(UUID(opened.json()["id"]))
    assert detail["due_on"] == "2027-04-16", "45 days"


async def test_what_comes_in_today_is_received_when_it_is_entered(platform: Platform) -> None:
    person = await platform.person()
    now = datetime(2027, 3, 12, 9, tzinfo=UTC)
    with platform.at(now):
        opened = (await on_behalf(platform, person.email)).json()
    assert (opened["received_at"], datetime.fromisoformat(opened["verified_at"])) == (None, now)


async def test_a_letter_that_has_not_come_yet_is_refused(platform: Platform) -> None:
    person = await platform.person()
    with platform.at(datetime(2027, 3, 12, 9, tzinfo=UTC)):
        refused = await on_behalf(platform, person.email, received_on="2027-03-13")
    assert (refused.status_code, refused.json()["type"].rsplit("/")[-1]) == (422, "received-in-the-future")
    assert await requests_of(platform, person) == []


async def test_where_the_word_of_staff_is_not_enough_the_person_confirms(platform: Platform) -> None:
    await platform.decides(enough={"access": ["email-link"]})
    person = await platform.person()
    opened = await on_behalf(platform, person.email)
    assert (opened.status_code, opened.json()["state"]) == (201, "verifying")
    token = await token_of(platform, person)
    confirmed = (await post(platform, "confirmations", token=token)).json()
    assert (confirmed["state"], confirmed["proofs"]) == ("running", ["staff", "email-link"])


async def test_what_staff_saw_lies_with_the_request_that_was_joined(platform: Platform) -> None:
    person, _, request_id = await asked(platform)
    joined = await on_behalf(platform, person.email)
    assert (joined.status_code, joined.json()["id"], joined.json()["state"]) == (
        200,
        str(request_id),
        "running",
    )
    async with platform.database.session(platform.store_id) as session:
        [note] = (await session.execute(text("SELECT request_id FROM request_note"))).all()
    assert note.request_id == request_id


async def test_only_who_receives_letters_opens_requests_for_others(platform: Platform) -> None:
    person = await platform.person()
    body = {"right": "access", "email": person.email, "channel": "phone", "seen": "A voice."}
    path = f"{platform.path}/requests-on-behalf"
    assert (await platform.client.post(path, json=body)).status_code == 401
    for role in (Role.MANAGER, Role.CUSTOMER):
        refused = await platform.client.post(path, json=body, headers=person.token(role=role))
        assert refused.status_code == 403
    foreign = Person(uuid4(), person.subject_id, person.email).token(role=Role.OWNER)
    assert (await platform.client.post(path, json=body, headers=foreign)).status_code == 404
    assert await requests_of(platform, person) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"channel": "telepathy"}, {"seen": ""}, {"seen": "x" * 3001}, {"seen": "a\x00b"}, {"email": "nobody"},
        {"right": "objection"}, {"extra": 1}, {"received_on": "yesterday"}, {"received_on": "2018-05-24"},
    ],
)  # fmt: skip
async def test_bad_input_of_staff_is_refused(platform: Platform, changes: dict[str, Any]) -> None:
    person = await platform.person()
    refused = await on_behalf(platform, changes.pop("email", person.email), **changes)
    assert refused.status_code == 422 and "canary" not in refused.text
    assert await requests_of(platform, person) == []


async def test_a_key_opens_one_request_on_behalf(platform: Platform) -> None:
    person = await platform.person()
    headers = platform.officer(role=Role.SUPPORT) | {"Idempotency-Key": str(uuid4())}
    first = await on_behalf(platform, person.email, headers=headers)
    again = await on_behalf(platform, person.email, headers=headers)
    assert (first.json(), again.headers["Idempotency-Replayed"]) == (again.json(), "true")


# --- Again and again -------------------------------------------------------------------------------------


async def test_the_store_sees_how_often_the_same_was_asked(platform: Platform) -> None:
    person = await platform.person()
    start = datetime(2027, 3, 1, 12, tzinfo=UTC)
    ids: list[UUID] = []
    for number in range(3):
        with platform.at(start + timedelta(days=30 * number)):
            ids.append(await platform.opened(person, "access"))
            await export(platform, ids[-1])
    with platform.at(start + timedelta(days=400)):
        await send_form(platform, person.email)
        late = (await requests_of(platform, person))[-1].id
    counts = [(await platform.seen(request_id))[0]["alike"] for request_id in (*ids, late)]
    assert counts == [1, 2, 3, 2], "a year is a year"
    own = await platform.detail(person, ids[0])
    assert own["alike"] is None


# --- What is enough, as a model --------------------------------------------------------------------------

SETS = st.frozensets(st.sampled_from(Proof))


@given(SETS, SETS)
def test_one_proof_that_is_enough_is_enough(proofs: frozenset[Proof], enough: frozenset[Proof]) -> None:
    assert is_verified(proofs, enough) == any(one in enough for one in proofs)


@given(SETS, SETS, SETS)
def test_more_proof_never_takes_verification_away(
    proofs: frozenset[Proof], more: frozenset[Proof], enough: frozenset[Proof]
) -> None:
    assert is_verified(proofs | more, enough) >= is_verified(proofs, enough)


def test_every_right_can_be_used_without_an_account() -> None:
    assert all(Proof.EMAIL in ENOUGH[right] for right in Right)
    assert not any(
        Proof.ORDER in ENOUGH[right] for right in (Right.ERASURE, Right.RECTIFICATION, Right.LIFTING)
    )


WAYS = ("form", "session", "staff")
GIVES = {"form": None, "session": "session", "staff": "staff"}


@pytest.mark.parametrize("order", list(itertools.permutations(WAYS, 2)))
@pytest.mark.parametrize("enough", [["session"], ["staff"], ["email-link"], ["session", "staff"]])
async def test_joining_lends_proofs_and_never_takes_any(
    platform: Platform, order: tuple[str, ...], enough: list[str]
) -> None:
    """Whichever way two requests of one kind come in, and in whichever order, one is open, verified by the first
    proof that is enough, and no proof is lost.
    """
    await platform.decides(enough={"access": enough})
    person = await platform.person()
    given: list[str] = []
    for way in order:
        match way:
            case "form":
                await send_form(platform, person.email)
            case "session":
                await platform.ask(person, "access")
            case _:
                await on_behalf(platform, person.email)
        if (proof := GIVES[way]) is not None:
            given.append(proof)
        [request] = await requests_of(platform, person)
        verified = bool(set(given) & set(enough))
        assert (request.state == "running") == verified
        known = [one["proof"] for one in request.proofs]
        # What comes once a request is verified is not asked for, so it need not be kept.
        assert set(known) <= set(given) and bool(set(known) & set(enough)) == verified
