"""Participants that join while requests are open, and that leave: nothing waits for them, and nothing is lost."""

import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import text

from libs.common.auth import Role
from libs.common.events.privacy import KeysDestroyed, Outcome, StoreCleaned, TaskIssued, Verb
from libs.common.personal.answers import sign
from services.privacy import redoing
from services.privacy.engine import joining
from services.privacy.evidence.placing import key_of
from tests.common.personal.shop import SHOP
from tests.privacy.conftest import Platform
from tests.privacy.evidence import fetched, issue
from tests.privacy.joined import Sixth, hand_over, settle_down, sixth
from tests.privacy.test_engine import issue_again, make_due, until_checking, until_erase_is_issued
from tests.privacy.test_parts import is_problem
from tests.privacy.test_redoing import restore, undone
from vitrine import certificate
from vitrine.signing import Keys

ERASED = {"ground": "erased"}


async def leave(
    platform: Platform, name: str, body: Any = None, headers: dict[str, str] | None = None
) -> httpx.Response:
    path = f"/privacy/v1/participants/{name}/departure"
    headers = platform.of_platform() if headers is None else headers
    return await platform.client.post(path, json=ERASED if body is None else body, headers=headers)


async def left(platform: Platform, name: str, **body: Any) -> None:
    """It leaves, and the duty has handed everything over."""
    response = await leave(platform, name, body or ERASED)
    assert response.status_code == 202, response.text
    await settle_down(platform)


async def hand_over_for_good(platform: Platform) -> None:
    """The duty, when no request can be open any more that was opened before somebody left."""
    await hand_over(
        replace(platform.work, clock=lambda: datetime.now(UTC) + joining.WHILE + timedelta(seconds=1))
    )


async def state_of(one: Sixth, request_id: UUID, verb: Verb) -> str | None:
    part = await one.part(request_id, verb)
    return None if part is None else part["state"]


async def issued_to(platform: Platform, request_id: UUID, verb: Verb) -> TaskIssued:
    """What is asked again now."""
    await make_due(platform, request_id)
    await issue_again(platform)
    return (await platform.tasks(request_id, verb))[-1]


# --- Joining ---------------------------------------------------------------------------------------------


async def test_who_joins_while_a_request_runs_has_the_same_part_in_it(platform: Platform) -> None:
    async with sixth(platform, announced=False) as newsletter:
        person, request_id = await until_erase_is_issued(platform)
        await platform.answer_itself(request_id, Verb.ERASE)
        await newsletter.announce()
        await settle_down(platform)
        assert await state_of(newsletter, request_id, Verb.ERASE) == "waiting"
        issued = await issued_to(platform, request_id, Verb.ERASE)
        assert issued.participants == sorted([newsletter.name, SHOP])
        await platform.deliver(platform.answer(request_id, Verb.ERASE))
        assert await platform.state(person, request_id) == "running"
        await newsletter.answer(request_id, Verb.ERASE, Outcome.DONE, counts={"subscriber": 1})
        assert await platform.state(person, request_id) == "checking"
        assert await state_of(newsletter, request_id, Verb.VERIFY_ERASED) == "waiting"


async def test_who_joins_before_the_keyring_is_done_waits_for_it_like_everybody(platform: Platform) -> None:
    async with sixth(platform, announced=False) as newsletter:
        person = await platform.person()
        request_id = await platform.opened(person, "restriction")
        if await platform.state(person, request_id) != "running":
            await platform.answer_all(request_id, Verb.PREVIEW)
            assert (await platform.do(request_id, "decision", {"approve": True})).status_code == 200
        await newsletter.announce()
        await settle_down(platform)
        part = await newsletter.part(request_id, Verb.RESTRICT)
        assert part is not None and (part["state"], part["asked_at"]) == ("waiting", None)
        await platform.ask_keyring()
        part = await newsletter.part(request_id, Verb.RESTRICT)
        assert part is not None and part["asked_at"] is not None
        await platform.answer_all(request_id, Verb.RESTRICT)
        assert await platform.state(person, request_id) == "running"
        await newsletter.answer(request_id, Verb.RESTRICT)
        assert await platform.state(person, request_id) == "completed"


async def test_who_joins_during_a_preview_is_counted_with(platform: Platform) -> None:
    await platform.decides(passing={"erasure": "when-clear"})
    async with sixth(platform, announced=False) as newsletter:
        person = await platform.person()
        request_id = await platform.opened(person, "erasure")
        await platform.answer_itself(request_id, Verb.PREVIEW)
        await newsletter.announce()
        await settle_down(platform)
        await platform.deliver(platform.answer(request_id, Verb.PREVIEW))
        assert await platform.state(person, request_id) == "deciding"
        await newsletter.answer(request_id, Verb.PREVIEW, obligations=["order-under-way"])
        # What it says counts: somebody looks.
        assert await platform.state(person, request_id) == "deciding"


async def test_who_joins_during_the_check_is_read_and_erases_in_the_next_round(platform: Platform) -> None:
    async with sixth(platform, announced=False) as newsletter:
        person, request_id = await until_checking(platform)
        await newsletter.announce()
        await settle_down(platform)
        assert await state_of(newsletter, request_id, Verb.VERIFY_ERASED) == "waiting"
        assert await state_of(newsletter, request_id, Verb.ERASE) is None
        await newsletter.answer(
            request_id, Verb.VERIFY_ERASED, Outcome.FAILED, reason="left-over", counts={"subscriber": 1}
        )
        assert await platform.state(person, request_id) == "running"
        assert await state_of(newsletter, request_id, Verb.ERASE) == "waiting"
        await make_due(platform, request_id)
        await platform.ask_keyring()
        await platform.answer_all(request_id, Verb.ERASE)
        await newsletter.answer(request_id, Verb.ERASE, Outcome.DONE, counts={"subscriber": 1}, round=2)
        assert await platform.state(person, request_id) == "checking"
        await platform.ask_keyring()
        await platform.answer_all(request_id, Verb.VERIFY_ERASED)
        await newsletter.answer(request_id, Verb.VERIFY_ERASED, round=2)
        assert await platform.state(person, request_id) == "completed"


async def test_of_who_joined_during_the_check_only_that_is_certified(platform: Platform) -> None:
    async with sixth(platform, announced=False) as newsletter:
        person, request_id = await until_checking(platform)
        await newsletter.announce()
        await settle_down(platform)
        await platform.ask_keyring()
        await platform.answer_all(request_id, Verb.VERIFY_ERASED)
        await newsletter.answer(request_id, Verb.VERIFY_ERASED, Outcome.DONE, reread=["subscriber"])
        assert await platform.state(person, request_id) == "completed"
        await issue(platform)
        document = await fetched(platform, request_id)
        [part] = [
            one for one in document["certificate"]["participants"] if one["participant"] == newsletter.name
        ]
        assert (part["outcome"], part["checked"]["reread"]) == ("checked", ["subscriber"])
        certificate.check(document, Keys([key_of(platform.work.settings).as_dict(private=False)]))


async def test_an_export_that_everybody_has_answered_waits_for_nobody_else(platform: Platform) -> None:
    async with sixth(platform, announced=False) as newsletter:
        person = await platform.person()
        request_id = await platform.opened(person, "access")
        await platform.answer_all(request_id, Verb.EXPORT)
        await newsletter.announce()
        await settle_down(platform)
        assert await newsletter.part(request_id, Verb.EXPORT) is None
        await platform.assemble()
        assert await platform.state(person, request_id) == "completed"


async def test_the_keyring_waits_for_who_joins_and_tells_somebody_first(platform: Platform) -> None:
    async with sixth(platform, prepares=True) as first, sixth(platform, announced=False) as newsletter:
        person = await platform.person()
        request_id = await platform.opened(person, "erasure")
        await newsletter.announce(prepares=True)
        await settle_down(platform)
        assert await state_of(newsletter, request_id, Verb.PREPARE) == "waiting"
        await first.answer(request_id, Verb.PREPARE)
        await platform.ask_keyring()
        assert await platform.published(KeysDestroyed) == []
        await newsletter.answer(request_id, Verb.PREPARE)
        await platform.ask_keyring()
        assert len(await platform.published(KeysDestroyed)) == 1


async def test_who_joins_is_asked_too_by_which_names_outsiders_know_the_person(platform: Platform) -> None:
    async with sixth(platform, announced=False) as newsletter:
        person = await platform.person()
        request_id = await platform.opened(person, "erasure")
        async with platform.database.session(platform.store_id) as session:
            # As for a store with recipients.
            await session.execute(
                text("""
                    WITH waiting AS (
                        UPDATE task SET next_issue_at = NULL, asked_at = NULL
                        WHERE request_id = :id AND participant = 'keyring' RETURNING request_id, store_id
                    )
                    INSERT INTO task (request_id, participant, verb, store_id, next_issue_at, asked_at)
                    SELECT request_id, :shop, 'refer', store_id, now(), now() FROM waiting
                """),
                {"id": request_id, "shop": SHOP},
            )
        await newsletter.announce()
        await settle_down(platform)
        await platform.deliver(platform.answer(request_id, Verb.REFER))
        await platform.ask_keyring()
        assert await platform.published(KeysDestroyed) == []
        await newsletter.answer(request_id, Verb.REFER)
        await platform.ask_keyring()
        assert len(await platform.published(KeysDestroyed)) == 1


async def test_joining_ends_once_no_request_can_lack_the_participant(platform: Platform) -> None:
    async with sixth(platform) as newsletter:
        assert await _joining_until(platform, newsletter.name) is not None
        later = replace(platform.work, clock=lambda: datetime.now(UTC) + joining.WHILE + timedelta(seconds=1))
        while await joining.join(later):
            pass
        assert await _joining_until(platform, newsletter.name) is None
        # Whoever says once more that they are there joins nothing.
        await newsletter.announce()
        assert await _joining_until(platform, newsletter.name) is None


async def _joining_until(platform: Platform, name: str) -> datetime | None:
    async with platform.database.platform_session() as session:
        return await session.scalar(
            text("SELECT joining_until FROM participant WHERE name = :name"), {"name": name}
        )


# --- Leaving ---------------------------------------------------------------------------------------------


async def test_nothing_waits_for_who_left_and_the_certificate_says_so(platform: Platform) -> None:
    async with sixth(platform) as newsletter:
        person, request_id = await until_erase_is_issued(platform)
        await platform.answer_all(request_id, Verb.ERASE)
        assert await platform.state(person, request_id) == "running"
        await left(platform, newsletter.name)
        assert await platform.state(person, request_id) == "checking"
        part = await newsletter.part(request_id, Verb.ERASE)
        assert part is not None and part["settlement"] == {
            "said": None, "ground": "departed", "successor": None,
        }  # fmt: skip
        assert await newsletter.part(request_id, Verb.VERIFY_ERASED) is None
        await platform.ask_keyring()
        await platform.answer_all(request_id, Verb.VERIFY_ERASED)
        assert await platform.state(person, request_id) == "completed"
        await issue(platform)
        document = await fetched(platform, request_id)
        [said] = [
            one for one in document["certificate"]["participants"] if one["participant"] == newsletter.name
        ]
        assert (said["outcome"], said["settled"]["ground"]) == ("settled", "departed")
        certificate.check(document, Keys([key_of(platform.work.settings).as_dict(private=False)]))
        # A later request knows nothing of it.
        _, following = await until_erase_is_issued(platform)
        assert await newsletter.part(following, Verb.ERASE) is None


async def test_what_was_open_goes_to_the_successor(platform: Platform) -> None:
    async with sixth(platform) as newsletter, sixth(platform) as heir:
        person, request_id = await until_erase_is_issued(platform)
        await platform.answer_all(request_id, Verb.ERASE)
        await left(platform, newsletter.name, successor=heir.name)
        # It had the same to do already.
        assert await state_of(heir, request_id, Verb.ERASE) == "waiting"
        assert await platform.state(person, request_id) == "running"
        await heir.answer(request_id, Verb.ERASE, Outcome.DONE, counts={"subscriber": 2})
        assert await platform.state(person, request_id) == "checking"
        seen = await platform.client.get("/privacy/v1/participants", headers=platform.of_platform())
        [gone] = [one for one in seen.json()["departed"] if one["name"] == newsletter.name]
        assert (gone["ground"], gone["successor"]) == ("taken-over", heir.name)
        public = await platform.client.get("/privacy/v1/stores/00000000-0000-4000-8000-000000000001/data-map")
        assert gone in public.json()["departed"]


async def test_what_the_successor_said_before_it_had_the_data_does_not_count(platform: Platform) -> None:
    async with sixth(platform) as newsletter, sixth(platform) as heir:
        person, request_id = await until_erase_is_issued(platform)
        await platform.answer_all(request_id, Verb.ERASE)
        await heir.answer(request_id, Verb.ERASE)
        await left(platform, newsletter.name, successor=heir.name)
        assert await platform.state(person, request_id) == "running"
        assert await state_of(heir, request_id, Verb.ERASE) == "waiting"
        issued = await issued_to(platform, request_id, Verb.ERASE)
        assert (issued.participants, issued.round) == ([heir.name], 2)
        await heir.answer(request_id, Verb.ERASE, Outcome.DONE, counts={"subscriber": 1}, round=1)
        assert await platform.state(person, request_id) == "running"
        await heir.answer(request_id, Verb.ERASE, Outcome.DONE, counts={"subscriber": 1}, round=2)
        assert await platform.state(person, request_id) == "checking"


async def test_an_export_that_its_successor_has_answered_is_made_anew(platform: Platform) -> None:
    async with sixth(platform) as newsletter, sixth(platform) as heir:
        person = await platform.person()
        request_id = await platform.opened(person, "access")
        await platform.answer_all(request_id, Verb.EXPORT)
        await heir.answer(request_id, Verb.EXPORT)
        await left(platform, newsletter.name, successor=heir.name)
        issued = await issued_to(platform, request_id, Verb.EXPORT)
        assert (issued.participants, issued.round) == (sorted([heir.name, "privacy", SHOP]), 2)
        await platform.answer_all(request_id, Verb.EXPORT)
        await heir.answer(request_id, Verb.EXPORT, round=2)
        await platform.assemble()
        assert await platform.state(person, request_id) == "completed"


async def test_who_told_nobody_before_it_left_keeps_the_keyring_from_nothing(platform: Platform) -> None:
    async with sixth(platform, prepares=True) as newsletter:
        person = await platform.person()
        request_id = await platform.opened(person, "erasure")
        await left(platform, newsletter.name)
        await platform.ask_keyring()
        assert len(await platform.published(KeysDestroyed)) == 1
        await platform.answer_all(request_id, Verb.ERASE)
        assert await platform.state(person, request_id) == "checking"


async def test_who_left_after_it_erased_is_not_asked_to_look_again(platform: Platform) -> None:
    async with sixth(platform) as newsletter:
        person, request_id = await until_erase_is_issued(platform)
        await newsletter.answer(request_id, Verb.ERASE, Outcome.DONE)
        await left(platform, newsletter.name)
        await platform.answer_all(request_id, Verb.ERASE)
        assert await state_of(newsletter, request_id, Verb.VERIFY_ERASED) is None
        await platform.ask_keyring()
        await platform.answer_all(request_id, Verb.VERIFY_ERASED)
        assert await platform.state(person, request_id) == "completed"


async def test_another_round_does_not_wait_for_who_left_long_before_it(platform: Platform) -> None:
    async with sixth(platform) as newsletter:
        person, request_id = await until_erase_is_issued(platform)
        await newsletter.answer(request_id, Verb.ERASE, Outcome.DONE)
        await left(platform, newsletter.name)
        await hand_over_for_good(platform)
        await platform.answer_all(request_id, Verb.ERASE)
        await platform.ask_keyring()
        await platform.deliver(platform.answer(request_id, Verb.VERIFY_ERASED, Outcome.FAILED))
        await platform.answer_itself(request_id, Verb.VERIFY_ERASED)
        assert await platform.state(person, request_id) == "running"
        await settle_down(platform)
        assert await state_of(newsletter, request_id, Verb.ERASE) == "settled"
        await make_due(platform, request_id)
        await platform.ask_keyring()
        await platform.answer_all(request_id, Verb.ERASE)
        assert await platform.state(person, request_id) == "checking"


@pytest.mark.parametrize("is_taken_over", [True, False])
async def test_what_a_restored_leaver_forgot_is_done_again_where_its_data_is_now(
    platform: Platform, is_taken_over: bool
) -> None:
    before_all = datetime.now(UTC)
    async with sixth(platform) as newsletter, sixth(platform) as heir:
        person = await platform.person()
        request_id = await platform.opened(person, "restriction")
        await platform.ask_keyring()
        await platform.answer_all(request_id, Verb.RESTRICT)
        for one in (newsletter, heir):
            await one.answer(request_id, Verb.RESTRICT, Outcome.DONE)
        assert await platform.state(person, request_id) == "completed"
        issued = len(await platform.published(TaskIssued))
        await restore(platform, before_all, newsletter.name)
        await left(platform, newsletter.name, **({"successor": heir.name} if is_taken_over else ERASED))
        await redoing.redo(platform.work)
        again = (await platform.published(TaskIssued))[issued:]
        asked = [(one.request_id, one.verb, one.participants) for one in again]
        assert asked == ([(request_id, Verb.RESTRICT, [heir.name])] if is_taken_over else [])
        for task in again:
            await heir.answer(request_id, Verb.RESTRICT, Outcome.DONE, round=task.round)
        assert await undone(platform) == 0


async def test_a_successor_that_leaves_too_hands_on(platform: Platform) -> None:
    async with sixth(platform) as newsletter, sixth(platform) as heir, sixth(platform) as last:
        _, request_id = await until_erase_is_issued(platform)
        assert (await leave(platform, newsletter.name, {"successor": heir.name})).status_code == 202
        assert (await leave(platform, heir.name, {"successor": last.name})).status_code == 202
        await settle_down(platform)
        states = [await state_of(one, request_id, Verb.ERASE) for one in (newsletter, heir, last)]
        assert states == ["settled", "settled", "waiting"]


async def test_what_ends_waits_for_who_has_the_data_now(platform: Platform) -> None:
    async with sixth(platform) as newsletter, sixth(platform) as heir:
        async with platform.database.session(platform.store_id) as session:
            await session.execute(
                text("""
                    INSERT INTO expiry (store_id, subject_id, generation, retention, bucket, clock, started_at, state,
                        waiting, destroyed_at, next_try_at)
                    VALUES (:store_id, :subject_id, 1, 'order', gen_random_uuid()::text, 'order-cancelled', now(),
                        'cleaning', ARRAY[CAST(:name AS varchar), 'privacy'], now(), now())
                """),
                {"store_id": platform.store_id, "subject_id": uuid4(), "name": newsletter.name},
            )
            await session.execute(
                text(
                    "INSERT INTO store_ending (store_id, ended_at, keys_destroyed_at) VALUES (:id, now(), now())"
                ),
                {"id": platform.store_id},
            )
            await session.execute(
                text("""
                    INSERT INTO store_ending_part (store_id, participant, cleaned_at)
                    VALUES (:id, :name, NULL), (:id, :heir, now())
                """),
                {"id": platform.store_id, "name": newsletter.name, "heir": heir.name},
            )
        await left(platform, newsletter.name, successor=heir.name)
        async with platform.database.session(platform.store_id) as session:
            waiting = await session.scalar(text("SELECT waiting FROM expiry"))
            parts = (
                await session.execute(text("SELECT participant, cleaned_at FROM store_ending_part"))
            ).all()
            await session.execute(text("DELETE FROM store_ending_part"))
            await session.execute(text("DELETE FROM store_ending"))
        assert waiting == [heir.name, "privacy"]
        # It has cleaned what it had then.
        assert [tuple(one) for one in parts] == [(heir.name, None)]
        cleaned = StoreCleaned(store_id=platform.store_id, participant=newsletter.name)
        await platform.deliver(sign(cleaned, store_id=platform.store_id, key=newsletter.key))
        async with platform.database.session(platform.store_id) as session:
            assert (await session.execute(text("SELECT participant FROM store_ending_part"))).all() == []


async def test_what_who_left_still_signs_is_not_believed(
    platform: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    async with sixth(platform) as newsletter:
        person, request_id = await until_erase_is_issued(platform)
        await leave(platform, newsletter.name)
        with caplog.at_level(logging.WARNING, logger="services.privacy.believing"):
            await newsletter.answer(request_id, Verb.ERASE, Outcome.DONE)
            await newsletter.announce()
        refused = [one for one in caplog.records if one.name == "services.privacy.believing"]
        assert [one.__dict__["reason"] for one in refused] == ["forged", "departed"]
        assert await state_of(newsletter, request_id, Verb.ERASE) == "waiting"
        await settle_down(platform)
        assert await state_of(newsletter, request_id, Verb.ERASE) == "settled"
        assert await platform.state(person, request_id) == "running"


async def test_who_is_let_in_again_comes_with_whatever_key(platform: Platform) -> None:
    async with sixth(platform) as newsletter:
        _, request_id = await until_erase_is_issued(platform)
        await newsletter.answer(request_id, Verb.ERASE, Outcome.DONE)
        await platform.answer_all(request_id, Verb.ERASE)
        await newsletter.answer(request_id, Verb.VERIFY_ERASED, Outcome.DONE)
        old = newsletter.announced()
        await left(platform, newsletter.name)
        path = f"/privacy/v1/participants/{newsletter.name}/departure"
        seen = await platform.client.get(path, headers=platform.of_platform())
        assert (seen.status_code, seen.json()["open"]) == (200, 0)
        for _ in range(2):
            assert (await platform.client.delete(path, headers=platform.of_platform())).status_code == 204
        is_problem(await platform.client.get(path, headers=platform.of_platform()), 404, "not-found")
        again = Sixth(platform, newsletter.name)
        await again.announce()
        await settle_down(platform)
        await platform.deliver(old)
        _, following = await until_erase_is_issued(platform)
        await newsletter.answer(following, Verb.ERASE)
        assert await state_of(again, following, Verb.ERASE) == "waiting"
        await again.answer(following, Verb.ERASE)
        assert await state_of(again, following, Verb.ERASE) == "nothing-held"
        # What it signed with the first key is still checked with the first.
        await platform.ask_keyring()
        await platform.answer_all(request_id, Verb.VERIFY_ERASED)
        await issue(platform)
        document = await fetched(platform, request_id)
        checked = certificate.check(document, Keys([key_of(platform.work.settings).as_dict(private=False)]))
        assert checked.signed_answers >= 5


async def test_who_may_let_a_participant_leave_and_who_cannot_leave(platform: Platform) -> None:
    async with sixth(platform) as newsletter:
        is_problem(await leave(platform, newsletter.name, headers={}), 401, "unauthenticated")
        is_problem(await leave(platform, newsletter.name, headers=platform.officer()), 403, "forbidden")
        support = platform.of_platform(Role.SUPPORT)
        is_problem(await leave(platform, newsletter.name, headers=support), 403, "forbidden")
        is_problem(await leave(platform, SHOP), 409, "participant-required")
        for unknown in ("nobody-here", "keyring", f"recipient-{uuid4()}"):
            is_problem(await leave(platform, unknown), 404, "not-found")
        for successor in (newsletter.name, "nobody-here", "keyring"):
            refused = await leave(platform, newsletter.name, {"successor": successor})
            is_problem(refused, 422, "successor-unknown")
        for bad in (
            {},
            {"ground": "erased", "successor": SHOP},
            {"ground": "taken-over"},
            {"successor": "A B"},
        ):
            assert (await leave(platform, newsletter.name, bad)).status_code == 422
        path = f"/privacy/v1/participants/{newsletter.name}/departure"
        for headers, status in ((platform.officer(), 403), ({}, 401), (platform.of_platform(), 404)):
            assert (await platform.client.get(path, headers=headers)).status_code == status
        for headers, status in ((platform.officer(), 403), ({}, 401)):
            assert (await platform.client.delete(path, headers=headers)).status_code == status
        nobody = "/privacy/v1/participants/nobody-here/departure"
        assert (await platform.client.delete(nobody, headers=platform.of_platform())).status_code == 404
        first = await leave(platform, newsletter.name, {"successor": SHOP})
        assert (first.status_code, first.json()["successor"]) == (202, SHOP)
        again = await leave(platform, newsletter.name, {"successor": SHOP})
        assert (again.status_code, again.json()["departed_at"]) == (202, first.json()["departed_at"])
        is_problem(await leave(platform, newsletter.name), 409, "departed-already")


async def test_nobody_announces_the_name_of_a_recipient(platform: Platform) -> None:
    stranger = Sixth(platform, f"recipient-{uuid4()}")
    await stranger.announce()
    seen = await platform.client.get("/privacy/v1/participants", headers=platform.of_platform())
    assert stranger.name not in {one["name"] for one in seen.json()["items"]}


async def test_handing_over_ends_once_nothing_can_wait_any_more(platform: Platform) -> None:
    async with sixth(platform) as newsletter:
        await left(platform, newsletter.name)
        path = f"/privacy/v1/participants/{newsletter.name}/departure"
        seen = await platform.client.get(path, headers=platform.of_platform())
        assert seen.json()["handed_over_at"] is None
        await hand_over_for_good(platform)
        seen = await platform.client.get(path, headers=platform.of_platform())
        assert seen.json()["handed_over_at"] is not None
