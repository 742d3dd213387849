"""Whom requests wait for: listed for the platform and for a store, and explained in words and as data."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from libs.common.auth import Role
from libs.common.events.privacy import Outcome, ParticipantAnnounced, Verb
from services.privacy import duties
from services.privacy.domain.waiting import OTHER_WORDS, error_word
from tests.common.personal.shop import SHOP
from tests.privacy.conftest import Platform

OPERATIONS = "/privacy/v1/operations/requests"


async def explained(platform: Platform, request_id: UUID, **query: str) -> dict[str, Any]:
    answer = await platform.client.get(
        f"{OPERATIONS}/{request_id}", params=query, headers=platform.of_platform()
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


async def listed(platform: Platform, **query: Any) -> list[dict[str, Any]]:
    """All parts of the list, of this test's store alone."""
    found: list[dict[str, Any]] = []
    params = {"store": str(platform.store_id), "limit": 2} | query
    while True:
        answer = await platform.client.get(OPERATIONS, params=params, headers=platform.of_platform())
        assert answer.status_code == 200, answer.text
        found += answer.json()["items"]
        if (following := answer.json()["next"]) is None:
            return found
        params["cursor"] = following


def part(explanation: dict[str, Any], participant: str) -> dict[str, Any]:
    [found] = [one for one in explanation["parts"] if one["participant"] == participant]
    return found


# --- One -------------------------------------------------------------------------------------------------


async def test_an_export_says_who_has_not_answered_and_since_when(platform: Platform) -> None:
    person = await platform.person()
    request_id = await platform.opened(person, "access")
    before = await explained(platform, request_id)
    assert before["waits_for"] == "participants"
    assert before["participants"] == ["privacy", SHOP]
    await platform.answer_itself(request_id, Verb.EXPORT)
    found = await explained(platform, request_id)
    assert (found["participants"], found["ended"]) == ([SHOP], 1)
    waiting = part(found, SHOP)
    assert (waiting["task"], waiting["state"], waiting["waits"], waiting["tries"]) == (
        "export", "waiting", "answer", 1,
    )  # fmt: skip
    assert waiting["since"] == part(before, SHOP)["since"]
    assert waiting["next_try_at"] > waiting["since"]
    assert (waiting["error"], waiting["error_at"]) == (None, None)


async def test_a_failure_is_shown_with_its_word_and_its_time_until_it_is_answered(platform: Platform) -> None:
    person = await platform.person()
    request_id = await platform.opened(person, "access")
    failed = platform.answer(request_id, Verb.EXPORT, Outcome.FAILED, reason="box-unreadable")
    await platform.deliver(failed)
    found = await explained(platform, request_id)
    waiting = part(found, SHOP)
    assert (waiting["state"], waiting["error"]) == ("failed", "box-unreadable")
    assert found["failing"] == [SHOP]
    assert waiting["since"] <= waiting["error_at"] < waiting["next_try_at"]
    assert "box-unreadable" in waiting["words"]
    await platform.deliver(platform.answer(request_id, Verb.EXPORT, Outcome.NOTHING_HELD))
    found = await explained(platform, request_id)
    assert (found["participants"], found["failing"]) == (["privacy"], [])


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        ("", ""),
        ("left-over", "left-over"),
        ("http-503", "http-503"),
        ("no row of Ada", OTHER_WORDS),
        ("canary@vitrine.example", OTHER_WORDS),
        ("call-0612345678", OTHER_WORDS),
        ("a" * 41, OTHER_WORDS),
    ],
)
def test_what_is_no_fixed_word_is_not_repeated(reason: str, shown: str) -> None:
    assert error_word(reason) == shown


@pytest.mark.parametrize("language", ["en", "fr"])
async def test_a_participant_that_quotes_data_as_its_reason_is_not_repeated(
    platform: Platform, language: str
) -> None:
    person = await platform.person()
    request_id = await platform.opened(person, "access")
    await platform.deliver(
        platform.answer(request_id, Verb.EXPORT, Outcome.FAILED, reason=f"no row of {person.email}")
    )
    answer = await platform.client.get(
        f"{OPERATIONS}/{request_id}", params={"language": language}, headers=platform.of_platform()
    )
    assert answer.status_code == 200
    for word in (person.email, "canary", str(person.subject_id)):
        assert word not in answer.text


async def test_of_an_erasure_the_keyring_comes_first_and_the_others_say_so(platform: Platform) -> None:
    person = await platform.person()
    request_id = await platform.opened(person, "erasure")
    found = await explained(platform, request_id)
    assert found["participants"] == ["keyring"]
    shop = part(found, SHOP)
    assert (shop["waits"], shop["after"], shop["since"], shop["tries"]) == ("turn", ["keyring"], None, 0)
    assert "comes after keyring" in shop["words"]
    assert await listed(platform, waiting_for=SHOP) == []
    await platform.ask_keyring()
    found = await explained(platform, request_id)
    assert found["participants"] == ["privacy", SHOP]
    assert part(found, SHOP)["waits"] == "answer"


async def test_who_is_no_service_of_the_platform_can_be_answered_for_and_leave(platform: Platform) -> None:
    name = f"sixth-{uuid4().hex[:8]}"
    key = platform.shop_key.as_dict(private=False)
    await platform.deliver(ParticipantAnnounced(participant=name, public_key=key, data_map=[]))
    try:
        request_id = await platform.opened(await platform.person(), "erasure")
        assert part(await explained(platform, request_id), name)["ended_by"] == ["answer", "departure"]
        assert part(await explained(platform, request_id), "keyring")["ended_by"] == ["answer", "drive"]
        await platform.ask_keyring()
        ways = ["answer", "drive", "settlement", "departure"]
        assert part(await explained(platform, request_id), name)["ended_by"] == ways
        path = f"{platform.path}/requests/{request_id}/waiting"
        own = (await platform.client.get(path, headers=platform.officer())).json()
        assert part(own, name)["ended_by"] == ["answer", "drive", "settlement"]
    finally:
        left = await platform.client.post(
            f"/privacy/v1/participants/{name}/departure",
            json={"ground": "never-held"},
            headers=platform.of_platform(),
        )
    assert left.status_code == 202, left.text


async def test_every_issue_is_another_try(platform: Platform) -> None:
    person = await platform.person()
    request_id = await platform.opened(person, "access")
    before = part(await explained(platform, request_id), SHOP)
    async with platform.database.session(platform.store_id) as session:
        await session.execute(
            # Before everybody else's.
            text("UPDATE task SET next_issue_at = now() - interval '1 year' WHERE request_id = :id"),
            {"id": request_id},
        )
    await duties.issue_again(platform.work)
    after = part(await explained(platform, request_id), SHOP)
    assert (before["tries"], after["tries"]) == (1, 2)
    assert after["since"] == before["since"]
    assert after["next_try_at"] > before["next_try_at"]


async def test_a_request_that_is_to_be_decided_waits_for_a_decision(platform: Platform) -> None:
    await platform.decides(passing={"erasure": "officer"})
    person = await platform.person()
    request_id = await platform.opened(person, "erasure")
    assert (await explained(platform, request_id))["waits_for"] == "participants"
    await platform.answer_all(request_id, Verb.PREVIEW)
    found = await explained(platform, request_id)
    assert (found["waits_for"], found["parts"]) == ("decision", [])
    assert found["words"] == "It waits for a decision of whoever answers for the store."
    answer = await platform.do(request_id, "question", {"text": "Which order do you mean?"})
    assert answer.status_code == 200, answer.text
    found = await explained(platform, request_id)
    assert found["waits_for"] == "person"
    assert found["deadline"]["stopped_since"] is not None
    assert "stands still" in found["deadline"]["words"]


async def test_the_deadline_is_told_by_its_distance(platform: Platform) -> None:
    person = await platform.person()
    request_id = await platform.opened(person, "access")
    found = (await explained(platform, request_id))["deadline"]
    over_at = datetime.fromisoformat(found["over_at"])
    for distance, words in ((timedelta(days=3), "3 days are left"), (timedelta(days=-2), "2 days late")):
        with platform.at(over_at - distance):
            found = await explained(platform, request_id)
        assert found["deadline"]["seconds_left"] == distance.total_seconds()
        assert words in found["deadline"]["words"]
        assert found["overdue"] is (distance < timedelta(0))


async def test_who_fails_again_and_again_or_is_silent_for_long_is_stuck(platform: Platform) -> None:
    person = await platform.person()
    request_id = await platform.opened(person, "access")
    assert part(await explained(platform, request_id), SHOP)["stuck"] is False
    assert await listed(platform, stuck=True) == []
    async with platform.database.session(platform.store_id) as session:
        silent = "UPDATE task SET asked_at = now() - interval '1 hour' WHERE participant = :name AND request_id = :id"
        await session.execute(text(silent), {"id": request_id, "name": SHOP})
    found = await explained(platform, request_id)
    assert (part(found, SHOP)["stuck"], part(found, "privacy")["stuck"]) == (True, False)
    [one] = await listed(platform, stuck=True)
    assert (one["request_id"], one["stuck"]) == (str(request_id), [SHOP])


async def test_what_has_ended_waits_for_nobody(platform: Platform) -> None:
    person = await platform.person()
    request_id = await platform.opened(person, "access")
    await platform.answer_all(request_id, Verb.EXPORT)
    assert (await explained(platform, request_id))["waits_for"] == "worker"
    await platform.assemble()
    found = await explained(platform, request_id)
    assert (found["state"], found["waits_for"], found["parts"]) == ("completed", "nobody", [])
    assert found["deadline"]["seconds_left"] is None
    assert await listed(platform) == []
    [one] = await listed(platform, ended=True)
    assert one["request_id"] == str(request_id)


# --- A list ----------------------------------------------------------------------------------------------


async def test_the_list_skips_and_repeats_nothing_in_either_direction(platform: Platform) -> None:
    opened = [str(await platform.opened(await platform.person(), "access")) for _ in range(5)]
    assert [one["request_id"] for one in await listed(platform)] == opened
    for request_id in opened:
        await platform.answer_all(UUID(request_id), Verb.EXPORT)
    await platform.assemble()
    assert [one["request_id"] for one in await listed(platform, ended=True)] == opened[::-1]


async def test_the_list_is_chosen_from_by_each_of_its_conditions(platform: Platform) -> None:
    access = str(await platform.opened(await platform.person(), "access"))
    erasure = str(await platform.opened(await platform.person(), "erasure"))
    everything = {access, erasure}
    conditions: list[tuple[dict[str, Any], set[str]]] = [
        ({"right": "access"}, {access}),
        ({"right": "know"}, set()),
        ({"state": "running"}, everything),
        ({"state": "checking"}, set()),
        ({"waiting_for": SHOP}, {access}),
        ({"waiting_for": "keyring"}, {erasure}),
        ({"waiting_for": "nobody-of-this-name"}, set()),
        ({"overdue": True}, set()),
        ({"overdue": False}, everything),
        ({"older": 0}, everything),
        ({"older": 1}, set()),
        ({"store": str(uuid4())}, set()),
    ]
    for query, expected in conditions:
        assert {one["request_id"] for one in await listed(platform, **query)} == expected, query
    with platform.at(datetime.now(UTC) + timedelta(days=200)):
        assert {one["request_id"] for one in await listed(platform, overdue=True, older=199)} == everything


@pytest.mark.parametrize(
    "query", [{"state": "lost"}, {"waiting_for": "No Name"}, {"older": -1}, {"store": "x"}, {"cursor": "x"}]
)
async def test_a_list_that_cannot_be_is_refused(platform: Platform, query: dict[str, Any]) -> None:
    answer = await platform.client.get(OPERATIONS, params=query, headers=platform.of_platform())
    assert answer.status_code in {400, 422}
    assert answer.headers["content-type"] == "application/problem+json"


# --- Who may ---------------------------------------------------------------------------------------------


async def test_a_stores_officers_see_their_own_and_no_others(platform: Platform) -> None:
    person = await platform.person()
    request_id = await platform.opened(person, "access")
    one, several = f"{platform.path}/requests/{request_id}/waiting", f"{platform.path}/waiting-requests"
    for path in (one, several):
        assert (await platform.client.get(path)).status_code == 401
        assert (await platform.client.get(path, headers=person.token())).status_code == 403
        for role in (Role.MANAGER, Role.SUPPORT):
            assert (await platform.client.get(path, headers=platform.officer(role=role))).status_code == 403
        elsewhere = platform.officer(store=str(uuid4()))
        assert (await platform.client.get(path, headers=elsewhere)).status_code == 404
    # The platform has a list of its own.
    assert (await platform.client.get(several, headers=platform.of_platform())).status_code == 404
    with platform.at(datetime.now(UTC)):
        found = await platform.client.get(one, headers=platform.officer())
        seen = await platform.client.get(one, headers=platform.of_platform())
        assert seen.json() == await explained(platform, request_id)
    # The platform's own services answer to the platform alone.
    ways = {one["participant"]: one["ended_by"] for one in found.json()["parts"]}
    assert ways == {SHOP: ["answer", "drive"], "privacy": ["answer", "drive"]}
    ways = {one["participant"]: one["ended_by"] for one in seen.json()["parts"]}
    assert ways == {name: ["answer", "drive", "settlement"] for name in (SHOP, "privacy")}
    items = (await platform.client.get(several, headers=platform.officer())).json()["items"]
    assert [one["request_id"] for one in items] == [str(request_id)]
    elsewhere = uuid4()
    foreign = platform.officer(store=str(elsewhere))
    there = f"/privacy/v1/stores/{elsewhere}"
    assert (await platform.client.get(f"{there}/waiting-requests", headers=foreign)).json()["items"] == []
    assert (
        await platform.client.get(f"{there}/requests/{request_id}/waiting", headers=foreign)
    ).status_code == 404


async def test_only_the_platforms_officers_see_all_stores(platform: Platform) -> None:
    person = await platform.person()
    request_id = await platform.opened(person, "access")
    for path in (OPERATIONS, f"{OPERATIONS}/{request_id}"):
        assert (await platform.client.get(path)).status_code == 401
        for headers in (
            person.token(),
            platform.officer(),
            platform.officer(role=Role.OWNER),
            platform.of_platform(Role.SUPPORT),
        ):
            assert (await platform.client.get(path, headers=headers)).status_code == 403
    unknown = await platform.client.get(f"{OPERATIONS}/{uuid4()}", headers=platform.of_platform())
    assert unknown.status_code == 404
