"""One person with several subjects: joined, asked about together, erased together, forgotten together."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select, text

from deploy.local.waiting import until
from libs.common.auth import Role
from libs.common.events.identity import EmailConfirmed, EmailRemoved
from libs.common.events.privacy import KeysDestroyed, Life, Outcome, Verb
from libs.common.personal.errors import KeyDestroyed, KeyObjected, KeyRestricted
from libs.common.personal.vocabulary import Purpose
from services.privacy.endings import keyring_of
from services.privacy.engine import people
from services.privacy.key_tasks import ask_keyring
from services.privacy.kinds import RequestContact
from services.privacy.models import PersonSubject, Request
from tests.common.personal.shop import SHOP, Purchase
from tests.privacy.conftest import EVERYBODY, Person, Platform
from tests.privacy.test_thread import ENDS_WITHIN, Running, running

__all__ = ["running"]


@pytest.fixture
async def two(running: Running) -> AsyncIterator[tuple[Running, Person, Person]]:
    """Somebody who has bought under two addresses."""
    one, other = await running.platform.person(), await running.platform.person()
    for person in (one, other):
        await running.purchase(person)
    yield running, one, other


def named(one: Person, other: Person) -> list[dict[str, str]]:
    return [{"email": one.email}, {"subject_id": str(other.subject_id)}]


async def merged(
    platform: Platform, one: Person, other: Person, status: int = 201, **more: Any
) -> dict[str, Any]:
    body = {"subjects": named(one, other)} | more
    answer = await platform.client.post(f"{platform.path}/merges", json=body, headers=platform.officer())
    assert answer.status_code == status, answer.text
    return answer.json()


async def separated(platform: Platform, person: Person, status: int = 204) -> None:
    body = {"subject": {"email": person.email}}
    answer = await platform.client.post(f"{platform.path}/separations", json=body, headers=platform.officer())
    assert answer.status_code == status, answer.text


async def known(platform: Platform, person: Person) -> None:
    """As whoever has been at the store before."""
    await platform.work.vault.seal(
        _contact(person),
        store_id=person.store_id,
        subject_id=person.subject_id,
        bucket=str(uuid4()),
        begin=True,
    )


def _contact(person: Person) -> RequestContact:
    return RequestContact.model_validate({"email": person.email, "language": "en"})


async def lives_in(platform: Platform) -> dict[UUID, set[UUID]]:
    """The subjects of every person with several, by person."""
    found: dict[UUID, set[UUID]] = {}
    async with platform.database.session(platform.store_id) as session:
        for row in await session.scalars(select(PersonSubject)):
            found.setdefault(row.person_id, set()).add(row.subject_id)
    return found


async def about(platform: Platform, request_id: UUID) -> set[UUID]:
    """The subjects that a request is about."""
    async with platform.database.session(platform.store_id) as session:
        request = await session.get_one(Request, request_id)
        return {request.subject_id, *(UUID(one["subject_id"]) for one in request.also or ())}


# --- The command -----------------------------------------------------------------------------------------


async def test_a_preview_counts_what_each_has_and_changes_nothing(
    two: tuple[Running, Person, Person],
) -> None:
    running, one, other = two
    platform = running.platform
    await running.invoice(other)
    request_id = await platform.opened(one, "restriction")
    seen = await merged(platform, one, other, 200, preview=True)
    assert seen["merged"] is False
    mine, theirs = seen["subjects"]
    assert (mine["subject_id"], mine["keys"]) == (str(one.subject_id), {"order": 1, "request": 1})
    assert (mine["requests"], mine["open"]) == (1, [str(request_id)])
    assert theirs["keys"] == {"accounting/2026": 1, "order": 1} and theirs["requests"] == 0
    assert await lives_in(platform) == {}


async def test_a_merge_may_be_repeated_and_keeps_no_address(platform: Platform) -> None:
    one, other = await platform.person(), await platform.person()
    for person in (one, other):
        await known(platform, person)
    assert (await merged(platform, one, other))["merged"] is True
    assert (await merged(platform, other, one, 200))["merged"] is True
    [subjects] = (await lives_in(platform)).values()
    assert subjects == {one.subject_id, other.subject_id}
    async with platform.database.session(platform.store_id) as session:
        for table in ("person_subject", "idempotency_record", "outbox", "request"):
            rows = (await session.scalars(text(f"SELECT CAST({table} AS text) FROM {table}"))).all()
            assert not [row for row in rows if "canary" in row], table


async def test_a_third_subject_joins_a_person_and_two_people_become_one(platform: Platform) -> None:
    a, b, c, d = [await platform.person() for _ in range(4)]
    for person in (a, b, c, d):
        await known(platform, person)
    await merged(platform, a, b)
    await merged(platform, c, d)
    assert sorted(map(len, (await lives_in(platform)).values())) == [2, 2]
    await merged(platform, b, c)
    assert list((await lives_in(platform)).values()) == [{one.subject_id for one in (a, b, c, d)}]


async def test_what_cannot_be_merged_says_why_and_changes_nothing(platform: Platform) -> None:
    one, nobody, erased = [await platform.person() for _ in range(3)]
    elsewhere = Platform(platform.app, platform.client, platform.work, platform.keyring, platform.shop_key)
    stranger = await elsewhere.person()
    for person in (one, erased, stranger):
        await known(platform if person is not stranger else elsewhere, person)
    request_id = await platform.opened(erased, "erasure")
    await finish(platform, request_id)
    post, path = platform.client.post, f"{platform.path}/merges"

    async def slug(subjects: Any, headers: dict[str, str] | None = None) -> tuple[int, str]:
        answer = await post(path, json={"subjects": subjects}, headers=headers or platform.officer())
        assert "canary" not in answer.text
        return answer.status_code, answer.json()["type"].rpartition("/")[2]

    mine = {"email": one.email}
    twice = {"email": one.email.upper()}
    assert await slug([mine, twice]) == (422, "same-subject")
    assert await slug([mine, {"email": nobody.email}]) == (422, "subject-unknown")
    assert await slug([mine, {"subject_id": str(stranger.subject_id)}]) == (422, "subject-unknown")
    assert await slug([mine, {"email": erased.email}]) == (409, "subject-erased")
    for wrong in (
        [mine],
        [mine, {}],
        [mine, mine | {"subject_id": str(erased.subject_id)}],
        [mine, {"email": "x"}],
    ):
        assert (await slug(wrong))[0] == 422
    for role in (Role.SUPPORT, Role.MANAGER, Role.CUSTOMER):
        assert (await slug([mine, mine], platform.officer(role=role)))[0] == 403
    assert (await slug([mine, mine], elsewhere.officer()))[0] == 404
    assert await lives_in(platform) == {}


async def finish(platform: Platform, request_id: UUID) -> None:
    """An erasure, from the keyring to the last check."""
    await ask_keyring(platform.work)
    for verb in (Verb.ERASE, Verb.VERIFY_ERASED):
        await answer_all(platform, request_id, verb)
        await ask_keyring(platform.work)


async def answer_all(platform: Platform, request_id: UUID, verb: Verb) -> None:
    asked = (await platform.tasks(request_id, verb))[-1]
    await platform.deliver(platform.answer(request_id, verb, Outcome.DONE, round=asked.round))
    await platform.answer_itself(request_id, verb)


async def test_a_person_has_only_so_many_addresses(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(people, "SUBJECTS", 2)
    a, b, c = [await platform.person() for _ in range(3)]
    for person in (a, b, c):
        await known(platform, person)
    await merged(platform, a, b)
    assert (await merged(platform, a, c, 409))["most"] == 2
    assert [len(one) for one in (await lives_in(platform)).values()] == [2]


# --- Later requests --------------------------------------------------------------------------------------


async def test_a_later_request_is_about_all_subjects_and_answered_once(
    two: tuple[Running, Person, Person],
) -> None:
    running, one, other = two
    platform = running.platform
    await running.purchase(other)
    await merged(platform, one, other)
    async with running.shop_worker():
        request_id = await platform.opened(one, "access")
        detail = await running.ended(one, request_id)
    parts = [part for part in detail["parts"] if part["participant"] == SHOP]
    assert [(part["task"], part["counts"]) for part in parts] == [("export", {"purchase": 3})]
    # On a busy machine the task may have been issued again.
    task, *_ = await platform.tasks(request_id, Verb.EXPORT)
    assert task.also == [Life(subject_id=other.subject_id, generation=1)]
    # Whoever signs in with either address sees it.
    for person in (one, other):
        assert (await platform.detail(person, request_id))["id"] == str(request_id)
        listed = await platform.client.get(f"{platform.path}/requests", headers=person.token())
        assert [item["id"] for item in listed.json()["items"]] == [str(request_id)]
    stranger = await platform.person()
    seen = await platform.client.get(f"{platform.path}/requests/{request_id}", headers=stranger.token())
    assert seen.status_code == 404


async def test_an_erasure_of_one_address_leaves_nothing_under_any(
    two: tuple[Running, Person, Person],
) -> None:
    running, one, other = two
    platform = running.platform
    await running.invoice(other)
    await merged(platform, one, other)
    async with running.shop.database.session(platform.store_id) as session:
        boxes = {row.subject_id: row.contact for row in await session.scalars(select(Purchase))}
    async with running.shop_worker():
        request_id = await platform.opened(one, "erasure")
        detail = await running.ended(one, request_id)
    parts = {(part["participant"], part["task"]): part for part in detail["parts"]}
    assert parts[SHOP, "erase"]["counts"] == {"purchase": 2}
    assert [kept["kind"] for kept in parts[SHOP, "erase"]["retained"]] == ["ShopInvoice"]
    assert parts["keyring", "erase"]["counts"]["keys"] >= 2
    for subject_id, box in boxes.items():
        assert box is not None
        with pytest.raises(KeyDestroyed):
            await running.shop.vault.open(
                box, store_id=platform.store_id, subject_id=subject_id, purpose=Purpose.FULFIL_ORDER
            )
    told = {one.subject_id for one in await platform.published(KeysDestroyed)}
    assert told == {one.subject_id, other.subject_id}
    # Nothing says any more that the two were one person.
    assert await lives_in(platform) == {}
    assert await about(platform, request_id) == {one.subject_id}
    await returns_unlinked(running, one, other)


async def returns_unlinked(running: Running, one: Person, other: Person) -> None:
    """Both addresses begin anew, each alone: neither sees the other, nor anything of before."""
    platform = running.platform
    for person in (one, other):
        await running.purchase(person, generation=2)
        person.generation = 2
    async with running.shop_worker():
        request_id = await platform.opened(other, "access")
        detail = await running.ended(other, request_id)
    assert await about(platform, request_id) == {other.subject_id}
    [exported] = [part for part in detail["parts"] if part["participant"] == SHOP]
    assert exported["counts"] == {"purchase": 1}
    listed = await platform.client.get(f"{platform.path}/requests", headers=one.token())
    assert listed.json()["items"] == []


@pytest.mark.parametrize("right", ["restriction", "objection"])
async def test_what_the_keyring_enforces_covers_every_subject(
    two: tuple[Running, Person, Person], right: str
) -> None:
    running, one, other = two
    await merged(running.platform, one, other)
    await _enforced(running, one, [one, other], right)


async def _enforced(running: Running, asking: Person, over: list[Person], right: str) -> None:
    platform = running.platform
    await platform.decides(passing={"objection": "at-once"})
    purpose = {"purpose": Purpose.FULFIL_ORDER} if right == "objection" else {}
    async with running.shop_worker():
        asked = await platform.ask(asking, right, **purpose)
        await running.ended(asking, UUID(asked.json()["id"]))
    for person in over:
        assert await refusal(running, person) is (KeyRestricted if right == "restriction" else KeyObjected)


async def refusal(running: Running, person: Person) -> type[Exception] | None:
    """What stands between the shop and a person's first purchase."""
    async with running.shop.database.session(person.store_id) as session:
        box = await session.scalar(
            select(Purchase.contact).where(Purchase.subject_id == person.subject_id).limit(1)
        )
    assert box is not None
    running.shop.vault.drop(person.store_id, [person.subject_id])
    try:
        await running.shop.vault.open(
            box, store_id=person.store_id, subject_id=person.subject_id, purpose=Purpose.FULFIL_ORDER
        )
    except (KeyRestricted, KeyDestroyed) as problem:
        return type(problem)
    return None


@pytest.mark.parametrize("right", ["restriction", "objection"])
async def test_what_was_carried_out_for_one_holds_for_who_joins(
    two: tuple[Running, Person, Person], right: str
) -> None:
    running, one, other = two
    platform = running.platform
    await _enforced(running, one, [one], right)
    assert await refusal(running, other) is None
    async with running.shop_worker():
        await merged(platform, other, one)

        async def is_enforced() -> bool:
            return await refusal(running, other) is not None

        await until(is_enforced, ENDS_WITHIN, "what one had asked for was not carried on for the other")
        if right == "restriction":
            lifted = await platform.ask(other, "restriction-lifting")
            await running.ended(other, UUID(lifted.json()["id"]))
            assert [await refusal(running, person) for person in (one, other)] == [None, None]


async def test_a_corrected_name_is_corrected_under_every_address(two: tuple[Running, Person, Person]) -> None:
    running, one, other = two
    platform = running.platform
    await platform.decides(passing={"rectification": "at-once"})
    await merged(platform, one, other)
    corrections = [{"category": "user.name", "value": "Canary Corrected"}]
    async with running.shop_worker():
        asked = await platform.ask(one, "rectification", corrections=corrections)
        await running.ended(one, UUID(asked.json()["id"]))
    async with running.shop.database.session(platform.store_id) as session:
        rows = list(await session.scalars(select(Purchase)))
    for row in rows:
        assert row.contact is not None
        contact = await running.shop.vault.open(
            row.contact, store_id=row.store_id, subject_id=row.subject_id, purpose=Purpose.FULFIL_ORDER
        )
        assert contact.name == "Canary Corrected"
    assert len(rows) == 2


async def test_a_request_by_another_address_joins_the_one_that_is_open(platform: Platform) -> None:
    one, other = await platform.person(), await platform.person()
    for person in (one, other):
        await known(platform, person)
    await merged(platform, one, other)
    request_id = await platform.opened(one, "erasure")
    again = await platform.ask(other, "erasure")
    assert (again.status_code, again.json()["id"]) == (200, str(request_id))
    refused = await platform.ask(other, "access")
    assert (refused.status_code, refused.json()["type"].rpartition("/")[2]) == (409, "erasure-under-way")


# --- A further address of an account ---------------------------------------------------------------------


def confirmed(one: Person, other: Person) -> EmailConfirmed:
    return EmailConfirmed(
        account_id=uuid4(),
        alias_id=uuid4(),
        subject_id=one.subject_id,
        generation=one.generation,
        alias_subject_id=other.subject_id,
        alias_generation=other.generation,
    )


async def test_a_confirmed_address_is_the_same_person_until_it_is_removed(platform: Platform) -> None:
    one, other = await platform.person(), await platform.person()
    for person in (one, other):
        await known(platform, person)
    assert (await platform.ask(one, "access", email=other.email)).status_code == 422
    event = confirmed(one, other)
    await platform.deliver(event, event)
    assert list((await lives_in(platform)).values()) == [{one.subject_id, other.subject_id}]
    # The answer may go to any address of theirs.
    asked = await platform.ask(one, "access", email=other.email)
    assert asked.status_code == 201
    assert await about(platform, UUID(asked.json()["id"])) == {one.subject_id, other.subject_id}
    removed = EmailRemoved.model_validate(event.model_dump())
    await platform.deliver(removed, removed)
    assert await lives_in(platform) == {}
    assert await about(platform, UUID(asked.json()["id"])) == {one.subject_id}
    # The same news again, as after a publisher's repair, is old; a new confirmation is not.
    await platform.deliver(event)
    assert await lives_in(platform) == {}
    await platform.deliver(confirmed(one, other))
    assert len(await lives_in(platform)) == 1


async def test_a_late_word_of_an_earlier_life_joins_nobody(platform: Platform) -> None:
    """It was published before the erasure, and arrives when the person has come back."""
    one, other = await platform.person(), await platform.person()
    for person in (one, other):
        await known(platform, person)
    late = confirmed(one, other)
    await finish(platform, await platform.opened(one, "erasure"))
    await known(platform, one)
    one.generation = 2
    await platform.deliver(late)
    assert await lives_in(platform) == {}
    request_id = await platform.opened(one, "access")
    assert await about(platform, request_id) == {one.subject_id}
    # What is said of the life that is now counts.
    await platform.deliver(confirmed(one, other))
    assert await about(platform, request_id) == {one.subject_id, other.subject_id}


# --- Requests under way ----------------------------------------------------------------------------------


@pytest.mark.parametrize("right", ["access", "erasure"])
async def test_a_request_that_runs_is_not_complete_without_who_joins(
    two: tuple[Running, Person, Person], right: str
) -> None:
    running, one, other = two
    platform = running.platform
    request_id = await platform.opened(one, right)
    verb = Verb.EXPORT if right == "access" else Verb.ERASE

    async def is_asked() -> bool:
        return bool(await platform.tasks(request_id, verb))

    await until(is_asked, ENDS_WITHIN, "nobody was asked")
    await merged(platform, one, other)
    async with running.shop_worker():
        detail = await running.ended(one, request_id)
    [part] = [part for part in detail["parts"] if (part["participant"], part["task"]) == (SHOP, verb)]
    if right == "access":
        assert part["counts"] == {"purchase": 2}
    else:
        # What was done in the round before, for one of them, is not counted again.
        assert part["counts"] in ({"purchase": 1}, {"purchase": 2})
        async with running.shop.database.session(platform.store_id) as session:
            readable = select(func.count()).select_from(Purchase).where(Purchase.contact.is_not(None))
            assert await session.scalar(readable) == 0
        assert await lives_in(platform) == {}


async def test_an_erasure_that_is_being_checked_begins_again_with_who_joins(platform: Platform) -> None:
    one, other = await platform.person(), await platform.person()
    await known(platform, other)
    request_id = await platform.opened(one, "erasure")
    await ask_keyring(platform.work)
    await answer_all(platform, request_id, Verb.ERASE)
    assert await platform.state(one, request_id) == "checking"
    await merged(platform, one, other)
    assert await platform.state(one, request_id) == "running"
    await finish(platform, request_id)
    assert await platform.state(one, request_id) == "completed"
    [status] = await keyring_of(platform.work.settings, platform.work.http).standings(
        [(platform.store_id, other.subject_id)]
    )
    assert status.erased and [key for key in status.keys if key.retention != "request"] == []
    rounds = {
        one.round: {life.subject_id for life in one.lives}
        for one in await platform.tasks(request_id, Verb.ERASE)
    }
    assert rounds == {1: {one.subject_id}, 2: {one.subject_id, other.subject_id}}


async def test_what_is_to_be_decided_is_previewed_over_both(platform: Platform) -> None:
    await platform.decides(passing={"erasure": "officer"})
    one, other = await platform.person(), await platform.person()
    await known(platform, other)
    request_id = await platform.opened(one, "erasure")
    await answer_all(platform, request_id, Verb.PREVIEW)
    await merged(platform, one, other)
    seen = await platform.client.get(
        f"{platform.path}/requests/{request_id}/preview", headers=platform.officer()
    )
    assert sorted(seen.json()["unanswered"]) == sorted(EVERYBODY) and seen.json()["round"] == 2
    late = platform.answer(request_id, Verb.PREVIEW, Outcome.DONE, counts={"purchase": 1})
    await platform.deliver(late)
    again = await platform.client.get(
        f"{platform.path}/requests/{request_id}/preview", headers=platform.officer()
    )
    assert SHOP in again.json()["unanswered"], "an answer about one of the two counted for both"


async def test_of_two_erasures_of_one_person_the_furthest_goes_on(platform: Platform) -> None:
    await platform.decides(passing={"erasure": "officer"})
    one, other = await platform.person(), await platform.person()
    waiting = await platform.opened(one, "erasure")
    await platform.decides(passing={"erasure": "at-once"})
    runs = await platform.opened(other, "erasure")
    await merged(platform, one, other)
    assert await platform.state(one, waiting) == "cancelled"
    assert await about(platform, runs) == {one.subject_id, other.subject_id}
    await finish(platform, runs)
    assert await platform.state(other, runs) == "completed"


async def test_an_erasure_cancels_what_its_person_asked_by_another_address(platform: Platform) -> None:
    one, other = await platform.person(), await platform.person()
    for person in (one, other):
        await known(platform, person)
    export = await platform.opened(other, "access")
    await merged(platform, one, other)
    erasure = await platform.opened(one, "erasure")
    await finish(platform, erasure)
    assert await platform.state(other, export) == "cancelled"
    assert await platform.state(one, erasure) == "completed"


# --- Separating ------------------------------------------------------------------------------------------


async def test_a_separation_takes_back_what_is_still_to_be_done(two: tuple[Running, Person, Person]) -> None:
    running, one, other = two
    platform = running.platform
    await merged(platform, one, other)
    request_id = await platform.opened(one, "access")
    await separated(platform, other)
    await separated(platform, other)
    assert await about(platform, request_id) == {one.subject_id}
    assert await lives_in(platform) == {}
    async with running.shop_worker():
        detail = await running.ended(one, request_id)
    [exported] = [part for part in detail["parts"] if part["participant"] == SHOP]
    assert exported["counts"] == {"purchase": 1}
    seen = await platform.client.get(f"{platform.path}/requests/{request_id}", headers=other.token())
    assert seen.status_code == 404


async def test_an_erasure_that_runs_ends_for_all_it_began_with(platform: Platform) -> None:
    one, other = await platform.person(), await platform.person()
    for person in (one, other):
        await known(platform, person)
    await merged(platform, one, other)
    request_id = await platform.opened(one, "erasure")
    await ask_keyring(platform.work)
    await separated(platform, other)
    assert await about(platform, request_id) == {one.subject_id, other.subject_id}
    await finish(platform, request_id)
    assert await platform.state(one, request_id) == "completed"


# --- Races and properties --------------------------------------------------------------------------------


async def test_a_request_and_a_merge_at_the_same_time_miss_nobody(platform: Platform) -> None:
    """The request has passed its guard and is not committed: the merge waits for it, and then finds it."""
    one, other = await platform.person(), await platform.person()
    for person in (one, other):
        await known(platform, person)
    reached, go_on = asyncio.Event(), asyncio.Event()
    honest = people.others

    async def held(session: Any, store_id: UUID, life: Life, *, hold: bool = False) -> list[Life]:
        found = await honest(session, store_id, life, hold=hold)
        if hold:
            reached.set()
            await go_on.wait()
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(people, "others", held)
        opening = asyncio.create_task(platform.opened(one, "access"))
        await reached.wait()
        merging = asyncio.create_task(merged(platform, one, other))
        await until(lambda: waits_for_a_lock(platform), ENDS_WITHIN, "the merge did not wait")
        go_on.set()
        request_id, _ = await asyncio.gather(opening, merging)
    assert await about(platform, request_id) == {one.subject_id, other.subject_id}


async def waits_for_a_lock(platform: Platform) -> bool:
    async with platform.database.platform_session() as session:
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        return bool(await session.scalar(text(waiting)))


_STEPS = st.lists(st.tuples(st.booleans(), st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=12)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=_STEPS)
async def test_people_are_what_a_plain_partition_says(
    platform: Platform, steps: list[tuple[bool, int, int]]
) -> None:
    """Any order of joining and separating; and requests are about exactly who belongs together."""
    lives = [Life(subject_id=uuid4(), generation=1) for _ in range(5)]
    store_id = uuid4()
    groups = [{life} for life in lives]
    requests = {}
    async with platform.database.session(store_id) as session:
        for life in lives:
            request = Request(
                store_id=store_id, **life.model_dump(), claim="access", state="verifying", steps=[],
                opened_at=platform.work.clock(), way="form",
            )  # fmt: skip
            session.add(request)
            requests[life] = request
    now = platform.work.clock()
    for joins, first, second in steps:
        one, other = lives[first], lives[second]
        async with platform.database.session(store_id) as session:
            if joins and one != other:
                await people.join(session, store_id, one, other, now=now, expected=EVERYBODY)
            elif not joins:
                await people.separate(session, store_id, one, now=now, expected=EVERYBODY)
        groups = _stepped(groups, joins, one, other)
    async with platform.database.session(store_id) as session:
        for group in groups:
            for life in group:
                assert set(await people.others(session, store_id, life)) == group - {life}
                also = (await session.get_one(Request, requests[life].id)).also or []
                assert {Life.model_validate(one) for one in also} == group - {life}


def _stepped(groups: list[set[Life]], joins: bool, one: Life, other: Life) -> list[set[Life]]:
    mine = next(group for group in groups if one in group)
    theirs = next(group for group in groups if other in group)
    if joins:
        return [group for group in groups if group not in (mine, theirs)] + [mine | theirs]
    return [group for group in groups if group is not mine] + [part for part in (mine - {one}, {one}) if part]
