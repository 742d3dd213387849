"""Parts that are stuck: shown, driven again, answered for; and answers that change nothing."""

import logging
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from libs.common.auth import Role
from libs.common.broker import Record
from libs.common.events import Undecodable, decode, headers_of
from libs.common.events.privacy import ExportChunk, Outcome, TaskAnswered, Verb
from libs.common.personal.answers import sign
from libs.common.personal.vocabulary import Purpose
from services.privacy import duties
from services.privacy.domain.parts import FITTING, STUCK_AFTER, STUCK_ATTEMPTS, Settled, Settlement, is_stuck
from services.privacy.domain.states import TERMINAL, TaskState
from services.privacy.evidence.placing import key_of
from services.privacy.kinds import NoteText
from services.privacy.models import RequestNote
from tests.common.personal.shop import SHOP
from tests.privacy.conftest import Platform, received
from tests.privacy.evidence import fetched, issue, log_of
from tests.privacy.joined import part_of, sixth
from tests.privacy.test_engine import issue_again, make_due, until_checking, until_erase_is_issued
from tests.privacy.ways import open_store, requests_of, send_form
from vitrine import certificate
from vitrine.signing import Keys

NOW = datetime(2027, 3, 1, tzinfo=UTC)
BY_HAND = {
    "outcome": "done",
    "ground": "done-by-hand",
    "reason": "The canary of the shop was deleted by hand.",
}


async def drive(
    platform: Platform, request_id: UUID, name: str, verb: Verb, headers: dict[str, str] | None = None
) -> httpx.Response:
    path = f"{platform.path}/requests/{request_id}/parts/{name}/{verb}/attempts"
    return await platform.client.post(path, headers=platform.officer() if headers is None else headers)


async def settle(
    platform: Platform,
    request_id: UUID,
    name: str,
    verb: Verb,
    headers: dict[str, str] | None = None,
    **changes: Any,
) -> httpx.Response:
    path = f"{platform.path}/requests/{request_id}/parts/{name}/{verb}/settlement"
    body = {**BY_HAND, **changes}
    return await platform.client.post(
        path, json=body, headers=platform.of_platform() if headers is None else headers
    )


def is_problem(response: httpx.Response, status: int, slug: str) -> None:
    assert (response.status_code, response.json()["type"]) == (status, f"/problems/{slug}"), response.text


# --- Being stuck -----------------------------------------------------------------------------------------


@given(
    state=st.sampled_from(TaskState),
    attempts=st.integers(0, 50),
    age=st.timedeltas(timedelta(hours=-1), timedelta(days=30)),
    later=st.timedeltas(timedelta(0), timedelta(days=30)),
)
def test_what_is_stuck_stays_so_until_it_is_answered(
    state: TaskState, attempts: int, age: timedelta, later: timedelta
) -> None:
    stuck = is_stuck(state, attempts, NOW - age, NOW)
    if state in TERMINAL:
        assert not stuck
    if stuck:
        assert is_stuck(state, attempts + 1, NOW - age, NOW + later)
    assert not is_stuck(state, attempts, None, NOW)


def test_a_part_is_stuck_that_fails_again_and_again_or_of_which_nothing_comes() -> None:
    just = NOW - timedelta(seconds=1)
    assert is_stuck(TaskState.FAILED, STUCK_ATTEMPTS, just, NOW)
    assert not is_stuck(TaskState.FAILED, STUCK_ATTEMPTS - 1, just, NOW)
    # A queue is not a failure.
    assert not is_stuck(TaskState.WAITING, STUCK_ATTEMPTS, just, NOW)
    assert is_stuck(TaskState.WAITING, 0, NOW - STUCK_AFTER, NOW)
    # Whoever has it may take days.
    assert not is_stuck(TaskState.RECEIVED, 0, NOW - STUCK_AFTER, NOW)
    assert is_stuck(TaskState.RECEIVED, 0, NOW - timedelta(days=3), NOW)


# --- Driving ---------------------------------------------------------------------------------------------


async def test_a_part_that_failed_often_is_asked_again_at_once_and_with_short_pauses(
    platform: Platform,
) -> None:
    _, request_id = await until_erase_is_issued(platform)
    await platform.deliver(platform.answer(request_id, Verb.ERASE, Outcome.FAILED, reason="disk-full"))
    for _ in range(9):
        await make_due(platform, request_id)
        await issue_again(platform)
    stuck = await part_of(platform, request_id, SHOP, Verb.ERASE)
    assert stuck is not None and stuck["attempts"] == 9
    response = await drive(platform, request_id, SHOP, Verb.ERASE)
    assert response.status_code == 202, response.text
    assert (response.json()["state"], response.json()["attempts"]) == ("failed", 0)
    issued = len(await platform.tasks(request_id, Verb.ERASE))
    async with platform.database.session(platform.store_id) as session:
        await session.execute(
            text("UPDATE task SET next_issue_at = now() + interval '1 day' WHERE request_id <> :id"),
            {"id": request_id},
        )
    await duties.issue_again(platform.work)
    again = (await platform.tasks(request_id, Verb.ERASE))[issued:]
    assert [(one.participants, one.attempt) for one in again] == [([SHOP], 2)]


async def test_what_is_not_waited_for_cannot_be_driven(platform: Platform) -> None:
    person = await platform.person()
    request_id = await platform.opened(person, "erasure")
    # The keyring comes first.
    is_problem(await drive(platform, request_id, SHOP, Verb.ERASE), 409, "part-not-open")
    assert (await drive(platform, request_id, "keyring", Verb.ERASE)).status_code == 202
    await platform.ask_keyring()
    is_problem(await drive(platform, request_id, SHOP, Verb.VERIFY_ERASED), 404, "not-found")
    is_problem(await drive(platform, request_id, "nobody", Verb.ERASE), 404, "not-found")
    await platform.deliver(platform.answer(request_id, Verb.ERASE))
    is_problem(await drive(platform, request_id, SHOP, Verb.ERASE), 409, "part-not-open")
    await platform.answer_itself(request_id, Verb.ERASE)
    is_problem(await drive(platform, request_id, "privacy", Verb.ERASE), 409, "part-not-open")


async def test_who_drives_and_who_does_not(platform: Platform) -> None:
    _, request_id = await until_erase_is_issued(platform)
    is_problem(await drive(platform, request_id, SHOP, Verb.ERASE, {}), 401, "unauthenticated")
    support = platform.officer(role=Role.SUPPORT)
    is_problem(await drive(platform, request_id, SHOP, Verb.ERASE, support), 403, "forbidden")
    foreign = platform.officer(store=str(uuid4()))
    is_problem(await drive(platform, request_id, SHOP, Verb.ERASE, foreign), 404, "not-found")
    is_problem(await drive(platform, uuid4(), SHOP, Verb.ERASE, platform.of_platform()), 404, "not-found")
    assert (await drive(platform, request_id, SHOP, Verb.ERASE, platform.of_platform())).status_code == 202
    path = f"{platform.path}/requests/{request_id}/parts"
    for bad in (f"{path}/{SHOP}/devour/attempts", f"{path}/No%20Name/erase/attempts"):
        assert (await platform.client.post(bad, headers=platform.officer())).status_code == 422


# --- Answering for somebody ------------------------------------------------------------------------------


async def test_whoever_is_answered_for_is_waited_for_no_longer_and_nothing_is_claimed_of_it(
    platform: Platform,
) -> None:
    person, request_id = await until_erase_is_issued(platform)
    await platform.answer_itself(request_id, Verb.ERASE)
    response = await settle(platform, request_id, SHOP, Verb.ERASE)
    assert response.status_code == 200, response.text
    assert response.json()["state"] == "settled"
    assert response.json()["settlement"] == {"said": "done", "ground": "done-by-hand", "successor": None}
    assert await platform.state(person, request_id) == "checking"
    # Nobody asks it whether it did: others have said that it is done.
    assert await part_of(platform, request_id, SHOP, Verb.VERIFY_ERASED) is None
    await platform.ask_keyring()
    await platform.answer_itself(request_id, Verb.VERIFY_ERASED)
    assert await platform.state(person, request_id) == "completed"
    await issue(platform)
    document = await fetched(platform, request_id)
    [part] = [one for one in document["certificate"]["participants"] if one["participant"] == SHOP]
    assert (part["outcome"], part["counts"], part["checked"]) == ("settled", {}, None)
    assert part["settled"] == {"said": "done", "ground": "done-by-hand", "successor": None}
    checked = certificate.check(document, Keys([key_of(platform.work.settings).as_dict(private=False)]))
    assert any("nothing is claimed" in line for line in certificate.in_words(checked))
    # Who answered is on record, and why only where it is sealed.
    assert '"by"' not in orjson.dumps(document).decode()
    entries = [orjson.loads(line) for line in await log_of(platform)]
    steps = {one["entry"]["step"]: one["entry"]["facts"] for one in entries if one.get("entry")}
    assert steps["answered-for"].keys() >= {"by", "note", "ground", "participant", "verb"}
    assert "canary" not in str(entries) + str(document)
    assert await _note(platform, request_id) == BY_HAND["reason"]


async def _note(platform: Platform, request_id: UUID) -> str:
    async with platform.database.session(platform.store_id) as session:
        row = (
            await session.execute(
                text("SELECT id FROM request_note WHERE request_id = :id AND about = 'settlement'"),
                {"id": request_id},
            )
        ).one()
        note = await session.get_one(RequestNote, row.id)
    found: NoteText = await platform.work.vault.open(
        note.box,
        store_id=note.store_id,
        subject_id=note.subject_id,
        purpose=Purpose.RIGHTS_OF_THE_PERSON,
    )
    return found.text


async def test_a_check_that_others_answer_for_completes_the_erasure(platform: Platform) -> None:
    person, request_id = await until_checking(platform)
    await platform.ask_keyring()
    await platform.answer_itself(request_id, Verb.VERIFY_ERASED)
    assert (await settle(platform, request_id, SHOP, Verb.VERIFY_ERASED)).status_code == 200
    assert await platform.state(person, request_id) == "completed"
    await issue(platform)
    document = await fetched(platform, request_id)
    [part] = [one for one in document["certificate"]["participants"] if one["participant"] == SHOP]
    assert (part["outcome"], part["checked"]["outcome"], part["checked"]["reread"]) == (
        "nothing-held", "settled", [],
    )  # fmt: skip
    certificate.check(document, Keys([key_of(platform.work.settings).as_dict(private=False)]))


async def test_a_preview_that_others_answer_for_is_looked_at(platform: Platform) -> None:
    await platform.decides(passing={"erasure": "when-clear"})
    person = await platform.person()
    request_id = await platform.opened(person, "erasure")
    await platform.answer_itself(request_id, Verb.PREVIEW)
    said: dict[str, Any] = {"outcome": "nothing-held", "ground": "holds-nothing"}
    assert (await settle(platform, request_id, SHOP, Verb.PREVIEW, **said)).status_code == 200
    assert await platform.state(person, request_id) == "deciding"
    assert (await platform.do(request_id, "decision", {"approve": True})).status_code == 200
    # What it was answered for before says nothing of what it is asked now.
    await platform.ask_keyring()
    assert (await part_of(platform, request_id, SHOP, Verb.ERASE) or {})["state"] == "waiting"


async def test_an_export_goes_without_whoever_was_answered_for(platform: Platform) -> None:
    person = await platform.person()
    request_id = await platform.opened(person, "access")
    await platform.answer_itself(request_id, Verb.EXPORT)
    assert (await settle(platform, request_id, SHOP, Verb.EXPORT)).status_code == 200
    await platform.assemble()
    assert await platform.state(person, request_id) == "completed"


async def test_no_order_is_recognised_by_who_answers_for_somebody(platform: Platform) -> None:
    await open_store(platform)
    person = await platform.person()
    await send_form(platform, person.email, order_number="1001")
    [request] = await requests_of(platform, person)
    request_id: UUID = request.id
    await platform.answer_itself(request_id, Verb.RECOGNISE)
    assert (await settle(platform, request_id, SHOP, Verb.RECOGNISE)).status_code == 200
    seen, _ = await platform.seen(request_id)
    assert (seen["state"], seen["desk"]["proofs"]) == ("verifying", [])


async def test_who_answers_for_whom(platform: Platform) -> None:
    async with sixth(platform) as newsletter:
        _, request_id = await until_erase_is_issued(platform)
        verb = Verb.ERASE
        is_problem(await settle(platform, request_id, SHOP, verb, {}), 401, "unauthenticated")
        support = platform.officer(role=Role.SUPPORT)
        is_problem(await settle(platform, request_id, newsletter.name, verb, support), 403, "forbidden")
        foreign = platform.officer(store=str(uuid4()))
        is_problem(await settle(platform, request_id, newsletter.name, verb, foreign), 404, "not-found")
        # The platform's own services are the platform's to answer for, and others the store's.
        store, its_own = platform.officer(), platform.of_platform()
        is_problem(await settle(platform, request_id, SHOP, verb, store), 403, "not-yours-to-settle")
        is_problem(await settle(platform, request_id, newsletter.name, verb, its_own), 404, "not-found")
        assert (await settle(platform, request_id, newsletter.name, verb, store)).status_code == 200
        assert (await settle(platform, request_id, SHOP, verb, its_own)).status_code == 200


async def test_what_cannot_be_answered_for_changes_nothing(platform: Platform) -> None:
    person = await platform.person()
    request_id = await platform.opened(person, "erasure")
    is_problem(await settle(platform, request_id, SHOP, Verb.ERASE), 409, "part-not-open")
    await platform.ask_keyring()
    is_problem(await settle(platform, request_id, SHOP, Verb.VERIFY_ERASED), 404, "not-found")
    wrong = await settle(platform, request_id, SHOP, Verb.ERASE, ground="kept-by-law")
    is_problem(wrong, 422, "settlement-does-not-fit")
    assert wrong.json()["grounds"] == ["destroyed", "done-by-hand", "unreachable"]
    wrongs: list[dict[str, Any]] = [
        {"reason": ""}, {"reason": "x" * 4001}, {"ground": "departed"}, {"outcome": "failed"},
    ]  # fmt: skip
    for bad in wrongs:
        assert (await settle(platform, request_id, SHOP, Verb.ERASE, **bad)).status_code == 422
    part = await part_of(platform, request_id, SHOP, Verb.ERASE)
    assert part is not None and part["state"] == "waiting"
    key = dict(platform.of_platform(), **{"Idempotency-Key": uuid4().hex})
    first = await settle(platform, request_id, SHOP, Verb.ERASE, key)
    again = await settle(platform, request_id, SHOP, Verb.ERASE, key)
    assert (first.status_code, first.content) == (again.status_code, again.content) == (200, first.content)
    is_problem(await settle(platform, request_id, SHOP, Verb.ERASE), 409, "part-not-open")


async def test_nobody_answers_for_the_keyring(platform: Platform) -> None:
    person = await platform.person()
    request_id = await platform.opened(person, "erasure")
    is_problem(await settle(platform, request_id, "keyring", Verb.ERASE), 409, "keyring-answers-itself")
    store = platform.officer()
    is_problem(await settle(platform, request_id, "keyring", Verb.ERASE, store), 403, "not-yours-to-settle")
    await platform.ask_keyring()
    part = await part_of(platform, request_id, "keyring", Verb.ERASE)
    assert part is not None and part["answered_at"] is not None
    assert await platform.state(person, request_id) == "running"


def test_every_ground_fits_something() -> None:
    assert {ground for grounds in FITTING.values() for ground in grounds} == set(Settlement)
    assert FITTING.keys() == set(Settled)


async def test_whoever_was_answered_for_stays_so_in_the_next_round(platform: Platform) -> None:
    async with sixth(platform) as newsletter:
        person, request_id = await until_erase_is_issued(platform)
        await platform.answer_all(request_id, Verb.ERASE)
        assert (
            await settle(platform, request_id, newsletter.name, Verb.ERASE, platform.officer())
        ).status_code == 200
        assert await platform.state(person, request_id) == "checking"
        await platform.deliver(
            platform.answer(request_id, Verb.VERIFY_ERASED, Outcome.FAILED, reason="left-over")
        )
        assert await platform.state(person, request_id) == "running"
        part = await newsletter.part(request_id, Verb.ERASE)
        assert part is not None and part["state"] == "settled"


# --- Answers that change nothing -------------------------------------------------------------------------


@pytest.fixture
def words(caplog: pytest.LogCaptureFixture) -> Any:
    """Under which words answers were counted since this was asked last."""
    caplog.set_level(logging.INFO, logger="services.privacy.believing")

    def counted() -> list[str]:
        found = [record.__dict__["reason"] for record in caplog.records if "reason" in record.__dict__]
        caplog.clear()
        return found

    return counted


async def test_each_answer_that_changes_nothing_has_a_word(platform: Platform, words: Any) -> None:
    person = await platform.person()
    request_id = await platform.opened(person, "erasure")
    done = platform.answer(request_id, Verb.ERASE, Outcome.DONE, counts={"purchase": 3})
    # The keyring comes first.
    await platform.deliver(done)
    assert words() == ["not-asked"]
    await platform.ask_keyring()
    await platform.deliver(platform.answer(request_id, Verb.RESTRICT))
    await platform.deliver(platform.answer(request_id, Verb.VERIFY_ERASED))
    await platform.deliver(platform.answer(request_id, Verb.ERASE, round=2))
    assert words() == ["not-asked"] * 3
    await platform.deliver(platform.answer(uuid4(), Verb.ERASE))
    assert words() == ["unknown-request"]
    await platform.deliver(done.model_copy(update={"counts": {}}))
    assert words() == ["forged"]
    failed = platform.answer(request_id, Verb.ERASE, Outcome.FAILED, reason="disk-full")
    # A failure that was made up for in the same moment is no contradiction; one that comes after it is.
    await platform.deliver(failed, done, done, failed)
    assert words() == ["doubled", "contradictory"]
    await platform.deliver(done)
    await platform.deliver(platform.answer(request_id, Verb.ERASE, Outcome.RETAINED))
    assert words() == ["doubled", "contradictory"]
    await platform.answer_itself(request_id, Verb.ERASE)
    assert words() == []
    found = platform.answer(request_id, Verb.VERIFY_ERASED, Outcome.FAILED, reason="left-over")
    await platform.deliver(found)
    assert await platform.state(person, request_id) == "running" and words() == []
    await platform.deliver(done, found)
    assert words() == ["late", "late"]
    part = await part_of(platform, request_id, SHOP, Verb.ERASE)
    assert part is not None and part["state"] == "waiting"


async def test_an_answer_of_another_store_is_to_an_unknown_request(platform: Platform, words: Any) -> None:
    _, request_id = await until_erase_is_issued(platform)
    elsewhere = uuid4()
    answer = TaskAnswered(request_id=request_id, verb=Verb.ERASE, participant=SHOP, outcome=Outcome.DONE)
    await platform.deliver(sign(answer, store_id=elsewhere, key=platform.shop_key), store_id=elsewhere)
    assert words() == ["unknown-request"]


async def test_who_was_answered_for_and_answers_after_all_is_noted_once(
    platform: Platform, words: Any
) -> None:
    person, request_id = await until_erase_is_issued(platform)
    await settle(platform, request_id, SHOP, Verb.ERASE)
    late = platform.answer(request_id, Verb.ERASE, Outcome.FAILED, reason="left-over")
    await platform.deliver(late)
    await platform.deliver(late)
    await issue(platform)
    await platform.deliver(late)
    assert words() == ["late"] * 3
    await issue(platform)
    entries = [orjson.loads(line) for line in await log_of(platform)]
    noted = [one["entry"]["facts"] for one in entries if one.get("entry", {}).get("step") == "answered-late"]
    assert [(one["participant"], one["outcome"]) for one in noted] == [(SHOP, "failed")]
    assert noted[0]["signature"]
    part = await part_of(platform, request_id, SHOP, Verb.ERASE)
    assert part is not None and part["state"] == "settled"
    assert await platform.state(person, request_id) == "running"


@pytest.mark.parametrize(
    "changes",
    [
        {"counts": {"purchase": -1}},
        {"counts": {"purchase": 2**40}},
        {"counts": {"canary@vitrine.example": 1}},
        {"beside": {"purchase": -1}},
        {"reread": ["a table that says something of somebody"]},
        {"round": 2**40},
        {"chunks": 2**40},
        {"reason": "canary@vitrine.example was not found"},
        {"reason": "\0"},
        {"counts": {f"table{number}": 1 for number in range(20_000)}},
    ],
    ids=lambda changes: next(iter(changes)),
)
async def test_what_an_answer_cannot_say_is_counted_and_changes_nothing(
    platform: Platform, words: Any, changes: dict[str, Any]
) -> None:
    person, request_id = await until_erase_is_issued(platform)
    await platform.deliver(platform.answer(request_id, Verb.ERASE, Outcome.DONE, **changes))
    assert words() == ["malformed"]
    part = await part_of(platform, request_id, SHOP, Verb.ERASE)
    assert part is not None and part["state"] == "waiting"
    await platform.deliver(platform.answer(request_id, Verb.ERASE))
    await platform.answer_itself(request_id, Verb.ERASE)
    assert await platform.state(person, request_id) == "checking"


async def test_what_cannot_be_read_keeps_no_other_answer_of_the_request_waiting(platform: Platform) -> None:
    _, request_id = await until_erase_is_issued(platform)
    event = received(platform.answer(request_id, Verb.ERASE), platform.store_id)
    body, headers = orjson.loads(event.record.value), headers_of(event.envelope)
    for change in (
        {"verb": "devour"},
        {"round": 0},
        {"round": "many"},
        {"outcome": "told"},
        {"participant": ""},
    ):
        with pytest.raises(Undecodable) as refused:
            decode(Record(event.data.topic, event.envelope.key, orjson.dumps(body | change), headers))
        assert (refused.value.reason, refused.value.blocking) == ("invalid-data", False)
    assert ExportChunk.stands_alone
