"""The privacy desk: who may do what, what becomes of it, what the person is told, and what nobody sees."""

import logging
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlalchemy import text

from libs.common.auth import PLATFORM_STORE, Role
from libs.common.events.identity import StoreOpened
from libs.common.events.privacy import Outcome, ParticipantAnnounced, Retained, Verb
from libs.common.personal.datamap import data_map
from libs.common.personal.vocabulary import Category, Retention
from services.privacy import key_tasks, letters
from services.privacy.policies import Policy
from services.privacy.service import deciding
from tests.common.personal import shop
from tests.common.personal.shop import SHOP
from tests.privacy.conftest import Person, Platform

KEPT = Retained(
    kind="ShopInvoice", retention=Retention.ACCOUNTING, bucket="2026", count=1,
    ground="Code de commerce, art. L123-22", until=date(2036, 12, 31),
)  # fmt: skip
MONDAY = datetime(2027, 3, 1, 9, tzinfo=UTC)


async def french(platform: Platform) -> None:
    """The store is in France, and its calendar is known."""
    await platform.deliver(
        StoreOpened(
            store_id=platform.store_id, slug=f"s-{platform.store_id.hex}", name="Chez Ada", country="FR",
            currency="EUR", language="fr", version=1,
        )
    )  # fmt: skip


async def deciding_on(platform: Platform, right: str = "erasure", **more: Any) -> tuple[Person, UUID]:
    """A request that waits for the desk, and has been counted for."""
    await platform.decides(passing={right: "officer"})
    person = await platform.person()
    response = await platform.ask(person, right, **more)
    assert response.status_code == 201, response.text
    request_id = UUID(response.json()["id"])
    await platform.answer_all(request_id, Verb.PREVIEW)
    assert await platform.state(person, request_id) == "deciding"
    return person, request_id


async def mails(platform: Platform, person: Person) -> list[tuple[str, str, str]]:
    while await letters.write(platform.work):
        pass
    return await platform.waiting(person.subject_id)


def token_in(mail: str) -> str:
    [link] = [word for word in mail.split() if "/privacy/request?" in word]
    return urlsplit(link).fragment.removeprefix("token=")


async def places_of(words: str, privacy_environment: Mapping[str, str]) -> list[str]:
    """The tables in which a word lies in the clear."""
    connection: Any = await asyncpg.connect(privacy_environment["PRIVACY_MIGRATION_DATABASE_URL"])
    try:
        await connection.execute("SET app.store = '*'")
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        return [
            table["tablename"]
            for table in tables
            for needle in (words, words.encode().hex())
            if await connection.fetchval(
                f'SELECT count(*) FROM "{table["tablename"]}" AS t WHERE t::text ILIKE $1', f"%{needle}%"
            )
        ]
    finally:
        await connection.close()


# --- Who may -----------------------------------------------------------------------------------------------

ROUTES: list[tuple[str, str, Any]] = [
    ("GET", "preview", None),
    ("POST", "preview", None),
    ("GET", "proposal", None),
    ("POST", "decision", {"approve": True}),
    ("POST", "extension", {"reason": "complexity"}),
    ("POST", "question", {"text": "Which order do you mean?"}),
    ("PUT", "assignment", {"account_id": None}),
    ("POST", "lifting", None),
    ("POST", "notes", {"text": "A note."}),
    ("GET", "notes", None),
]


@pytest.mark.parametrize(("method", "what", "body"), ROUTES)
async def test_only_the_stores_officers_answer(platform: Platform, method: str, what: str, body: Any) -> None:
    person, request_id = await deciding_on(platform)
    before, _ = await platform.seen(request_id)
    path = f"{platform.path}/requests/{request_id}/{what}"

    async def status(headers: dict[str, str], to: str = path) -> int:
        given = {"If-Match": "*"} | headers
        return (await platform.client.request(method, to, json=body, headers=given)).status_code

    assert await status({}) == 401
    assert await status(person.token()) == 403
    assert await status(platform.officer(role=Role.MANAGER)) == 403
    assert await status(platform.officer(role=Role.SUPPORT)) == 403
    # Another store's officer, here and with this request under their own store.
    elsewhere = uuid4()
    assert await status(platform.officer(store=str(elsewhere))) == 404
    there = path.replace(str(platform.store_id), str(elsewhere))
    assert await status(platform.officer(store=str(elsewhere)), there) == 404
    # The platform, for as long as the store is not silent.
    assert await status(platform.of_platform()) == 404
    assert await status(platform.of_platform(Role.SUPPORT)) == 404
    assert await status(platform.officer(), f"{platform.path}/requests/{uuid4()}/{what}") in {404, 409}
    assert await status(platform.officer(), f"{platform.path}/requests/nonsense/{what}") == 422
    assert (await platform.seen(request_id))[0] == before


@pytest.mark.parametrize(
    ("what", "body"),
    [
        ("decision", {}),
        ("decision", {"approve": False}),
        ("decision", {"approve": True, "refuse": "excessive", "explanation": "Both."}),
        ("decision", {"refuse": "excessive"}),
        ("decision", {"refuse": "excessive", "explanation": "   "}),
        ("decision", {"refuse": "because", "explanation": "Not a ground."}),
        ("decision", {"refuse": "excessive", "explanation": "x" * 4001}),
        ("decision", {"refuse": "excessive", "explanation": "a\0b"}),
        ("decision", {"refuse": "data-is-accurate", "explanation": "Of another right."}),
        ("extension", {"reason": "holidays"}),
        ("extension", {}),
        ("question", {"text": ""}),
        ("question", {"text": "x" * 4001}),
        ("notes", {"text": ""}),
        ("notes", {"text": "fine", "more": 1}),
        ("assignment", {}),
        ("assignment", {"account_id": "me"}),
    ],
)
async def test_bad_input_changes_nothing_and_is_not_repeated(
    platform: Platform, what: str, body: dict[str, Any]
) -> None:
    _, request_id = await deciding_on(platform)
    before = await platform.seen(request_id)
    response = await platform.do(request_id, what, body, method="PUT" if what == "assignment" else "POST")
    assert response.status_code == 422
    assert response.headers["Content-Type"] == "application/problem+json"
    assert "x" * 100 not in response.text
    assert await platform.seen(request_id) == before


@pytest.mark.parametrize(
    ("method", "what", "body"),
    [
        ("POST", "decision", {"approve": True}),
        ("POST", "decision", {"refuse": "excessive", "explanation": "Ten times this week."}),
        ("POST", "extension", {"reason": "complexity"}),
        ("POST", "question", {"text": "Which order do you mean?"}),
        ("PUT", "assignment", {"account_id": str(uuid4())}),
    ],
)
async def test_whoever_read_an_older_version_changes_nothing(
    platform: Platform, method: str, what: str, body: Any
) -> None:
    _, request_id = await deciding_on(platform)
    _, old = await platform.seen(request_id)
    assert (
        await platform.do(request_id, "assignment", {"account_id": str(uuid4())}, method="PUT")
    ).is_success
    before = await platform.seen(request_id)
    stale = await platform.do(request_id, what, body, method=method, **{"If-Match": old})
    assert (stale.status_code, stale.json()["type"]) == (412, "/problems/stale")
    path = f"{platform.path}/requests/{request_id}/{what}"
    missing = await platform.client.request(method, path, json=body, headers=platform.officer())
    assert missing.status_code == 428
    assert await platform.seen(request_id) == before
    assert (await platform.do(request_id, what, body, method=method)).is_success


# --- The preview -------------------------------------------------------------------------------------------


async def test_the_preview_counts_explains_and_names_who_has_not_answered(platform: Platform) -> None:
    await platform.deliver(
        ParticipantAnnounced(
            participant=SHOP,
            public_key=platform.shop_key.as_dict(private=False),
            data_map=data_map(SHOP, shop.HOLDINGS, []),
        )
    )
    await platform.decides(passing={"erasure": "when-clear"})
    person = await platform.person()
    request_id = await platform.opened(person, "erasure")
    await platform.deliver(
        platform.answer(
            request_id, Verb.PREVIEW, Outcome.RETAINED, counts={"purchase": 2, "invoice": 1, "visit": 0},
            retained=[KEPT], obligations=["order-under-way", "in-words-of-its-own"],
        )
    )  # fmt: skip
    path = f"{platform.path}/requests/{request_id}/preview"
    found = (await platform.client.get(path, headers=platform.officer())).json()
    assert found["unanswered"] == ["privacy"] and not found["clear"] and found["asked"]
    assert found["recipients"] == ["carrier"]
    [part] = [one for one in found["parts"] if one["participant"] == SHOP]
    held = {one["table"]: one for one in part["held"]}
    assert held.keys() == {"purchase", "invoice"}, "what counts nothing is not held"
    assert (held["purchase"]["count"], held["purchase"]["becomes"]) == (2, "emptied")
    assert {"user.contact.email", "user.name"} <= set(held["purchase"]["categories"])
    assert held["invoice"]["becomes"] == "kept" and "L123-22" in held["invoice"]["why"]
    assert part["retained"][0]["until"] == "2036-12-31"
    explained = {one["word"]: one["explanation"] for one in part["obligations"]}
    assert "not delivered yet" in explained["order-under-way"]
    assert "words of its own" in explained["in-words-of-its-own"]
    in_french = await platform.client.get(path, params={"language": "fr"}, headers=platform.officer())
    assert "pas encore livrée" in in_french.text
    wrong = await platform.client.get(path, params={"language": "xx"}, headers=platform.officer())
    assert wrong.status_code == 422


async def test_a_preview_is_asked_for_again_and_older_answers_do_not_count(platform: Platform) -> None:
    person, request_id = await deciding_on(platform)
    late = platform.answer(request_id, Verb.PREVIEW, Outcome.DONE, counts={"purchase": 9})
    path = f"{platform.path}/requests/{request_id}/preview"
    again = await platform.client.post(path, headers=platform.officer())
    assert again.status_code == 202 and again.json()["round"] == 2
    assert again.json()["unanswered"] == ["privacy", SHOP]
    await platform.deliver(late)
    assert (await platform.client.get(path, headers=platform.officer())).json()["unanswered"] == [
        "privacy",
        SHOP,
    ]
    await platform.answer_all(request_id, Verb.PREVIEW)
    assert (await platform.client.get(path, headers=platform.officer())).json()["clear"]
    assert (await platform.do(request_id, "decision", {"approve": True})).status_code == 200
    over = await platform.client.post(path, headers=platform.officer())
    assert (over.status_code, over.json()["type"]) == (409, "/problems/no-preview")
    assert await platform.state(person, request_id) == "running"


async def test_of_a_request_that_passes_by_itself_nobody_was_asked(platform: Platform) -> None:
    person = await platform.person()
    request_id = await platform.opened(person, "access")
    path = f"{platform.path}/requests/{request_id}/preview"
    found = (await platform.client.get(path, headers=platform.officer())).json()
    assert (found["asked"], found["parts"], found["clear"]) == (False, [], False)


# --- Decisions ---------------------------------------------------------------------------------------------


async def test_an_approval_is_carried_out_and_sent_again_is_the_same(platform: Platform) -> None:
    person, request_id = await deciding_on(platform)
    officer = uuid4()
    _, etag = await platform.seen(request_id)
    headers = platform.officer(sub=str(officer)) | {"If-Match": etag, "Idempotency-Key": uuid4().hex}
    path = f"{platform.path}/requests/{request_id}/decision"
    first = await platform.client.post(path, json={"approve": True}, headers=headers)
    assert first.status_code == 200, first.text
    assert (first.json()["decision"], first.json()["desk"]["decided_by"]) == ("approved", str(officer))
    again = await platform.client.post(path, json={"approve": True}, headers=headers)
    assert again.json() == first.json() and again.headers["Idempotency-Replayed"] == "true"
    other = await platform.do(request_id, "decision", {"approve": True})
    assert (other.status_code, other.json()["type"]) == (409, "/problems/not-decidable")
    refused = await platform.do(request_id, "decision", {"refuse": "excessive", "explanation": "Too late."})
    assert refused.status_code == 409
    await platform.ask_keyring()
    await platform.answer_all(request_id, Verb.ERASE)
    await platform.ask_keyring()
    await platform.answer_all(request_id, Verb.VERIFY_ERASED)
    assert await platform.state(person, request_id) == "completed"
    told = {template for template, *_ in await mails(platform, person)}
    assert told == {"request-approved", "erasure-done"}


async def test_whoever_was_not_asked_any_more_is_not_asked_again(platform: Platform) -> None:
    await platform.decides(passing={"erasure": "officer"})
    person = await platform.person()
    request_id = await platform.opened(person, "erasure")
    assert (await platform.do(request_id, "decision", {"approve": True})).status_code == 200
    async with platform.database.session(platform.store_id) as session:
        waiting = await session.scalar(
            text(
                "SELECT count(*) FROM task WHERE request_id = :id AND verb = 'preview' AND next_issue_at IS NOT NULL"
            ),
            {"id": request_id},
        )
    assert waiting == 0


async def test_a_refusal_says_why_on_what_ground_and_where_to_complain(
    platform: Platform, privacy_environment: Mapping[str, str]
) -> None:
    await french(platform)
    person, request_id = await deciding_on(platform, language="fr")
    reason = f"canary-{uuid4().hex} a demandé dix fois"
    response = await platform.do(request_id, "decision", {"refuse": "excessive", "explanation": reason})
    assert response.status_code == 200
    found = response.json()
    assert (found["state"], found["ground"], found["authority"]) == (
        "refused",
        "excessive",
        "GDPR, Art. 12(5)",
    )
    assert found["supervisor"]["website"] == "https://www.cnil.fr"
    assert reason not in response.text
    [(template, subject, body)] = await mails(platform, person)
    assert (template, subject) == ("request-refused", "Votre demande est refusée")
    for said in (reason, "GDPR, Art. 12(5)", "https://www.cnil.fr", "répétitif", str(request_id), "Chez Ada"):
        assert said in body, said
    assert len(token_in(body)) == 43
    assert await places_of(reason, privacy_environment) == []
    assert await platform.state(person, request_id) == "refused"
    async with platform.database.session(platform.store_id) as session:
        watched = await session.scalar(
            text("SELECT watch_at FROM request WHERE id = :id"), {"id": request_id}
        )
    assert watched is None, "the end of a request ends its watch"


async def test_a_ground_answers_only_rights_and_laws_it_is_for(platform: Platform) -> None:
    _, request_id = await deciding_on(platform)
    response = await platform.do(
        request_id, "decision", {"refuse": "compelling-grounds", "explanation": "It is no objection."}
    )
    assert (response.status_code, response.json()["type"]) == (422, "/problems/ground-does-not-fit")
    assert "excessive" in response.json()["grounds"]
    assert "compelling-grounds" not in response.json()["grounds"]
    _, californian = await deciding_on(platform, "objection", purpose="analytics.reporting")
    fits = await platform.do(
        californian, "decision", {"refuse": "compelling-grounds", "explanation": "The figures are the law's."}
    )
    assert fits.status_code == 200


# --- Time --------------------------------------------------------------------------------------------------


async def test_an_extension_is_taken_once_within_the_first_period(platform: Platform) -> None:
    await french(platform)
    with platform.at(MONDAY):
        person, request_id = await deciding_on(platform)
        assert (await platform.seen(request_id))[0]["due_on"] == "2027-04-01"
    with platform.at(MONDAY + timedelta(days=20)):
        response = await platform.do(request_id, "extension", {"reason": "complexity"})
        assert response.status_code == 200, response.text
        found = response.json()
        assert (found["due_on"], found["extension"]) == ("2027-06-01", "complexity")
        assert response.headers["ETag"] == (await platform.seen(request_id))[1]
        again = await platform.do(request_id, "extension", {"reason": "complexity"})
        assert (again.status_code, again.json()["type"]) == (409, "/problems/extended-already")
    async with platform.database.session(platform.store_id) as session:
        await session.execute(
            text("UPDATE notice SET due_at = now() WHERE request_id = :id"), {"id": request_id}
        )
    told = {template: body for template, _, body in await mails(platform, person)}
    assert "it is complex" in told["request-extended"] and "June 1, 2027" in told["request-extended"]


async def test_no_time_is_taken_after_the_last_day_or_before_the_first(platform: Platform) -> None:
    await french(platform)
    with platform.at(MONDAY):
        _, request_id = await deciding_on(platform)
    with platform.at(MONDAY + timedelta(days=32)):
        for what, body in (("extension", {"reason": "complexity"}), ("question", {"text": "Still there?"})):
            late = await platform.do(request_id, what, body)
            assert (late.status_code, late.json()["type"]) == (409, "/problems/deadline-passed")
        assert (await platform.seen(request_id))[0]["overdue"] is True
        assert (await platform.do(request_id, "decision", {"approve": True})).status_code == 200
    await platform.decides(enough={"erasure": ["document"]})
    person = await platform.person()
    unverified = await platform.opened(person, "erasure")
    for what, body in (("extension", {"reason": "complexity"}), ("question", {"text": "Who are you?"})):
        early = await platform.do(unverified, what, body)
        assert (early.status_code, early.json()["type"]) == (409, "/problems/not-decidable")
    _, opt_out = await deciding_on(platform, "access")
    assert (await platform.do(opt_out, "extension", {"reason": "number-of-requests"})).status_code == 200


async def test_a_question_stops_the_clock_until_it_is_answered_by_the_link(
    platform: Platform, privacy_environment: Mapping[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await french(platform)
    asked, answered = f"canary-{uuid4().hex}?", f"canary-{uuid4().hex}!"
    with platform.at(MONDAY):
        person, request_id = await deciding_on(platform)
        assert (await platform.do(request_id, "question", {"text": asked})).status_code == 200
    with platform.at(MONDAY + timedelta(minutes=1)):
        second = await platform.do(request_id, "question", {"text": "And which colour?"})
        assert second.status_code == 200
        found = second.json()
        assert (found["due_on"], found["stopped_since"]) == (None, "2027-03-01T09:00:00Z")
        while await letters.write(platform.work):
            pass
    async with platform.database.session(platform.store_id) as session:
        await session.execute(
            text("UPDATE notice SET due_at = now() WHERE request_id = :id AND template LIKE '%question'"),
            {"id": request_id},
        )
    told = [body for template, _, body in await mails(platform, person) if template == "request-question"]
    assert len(told) == 2 and any(asked in body for body in told)
    token = token_in(told[0])
    path = "/privacy/v1/status/answers"
    for wrong, status in (
        ({"token": token}, 422),
        ({"token": token, "text": ""}, 422),
        ({"token": token, "text": "x" * 4001}, 422),
        ({"token": "another", "text": "hello"}, 404),
    ):
        assert (await platform.client.post(path, json=wrong)).status_code == status
    with platform.at(MONDAY + timedelta(days=10)):
        given = await platform.client.post(path, json={"token": token, "text": answered})
        assert (given.status_code, given.content) == (204, b"")
        found, _ = await platform.seen(request_id)
        # Ten days were waited: the first of April became Sunday the eleventh, so Monday.
        assert (found["due_on"], found["stopped_since"], len(found["stops"])) == ("2027-04-12", None, 1)
        again = await platform.client.post(path, json={"token": token, "text": answered})
        assert (again.status_code, again.json()["type"]) == (409, "/problems/nothing-asked")
    notes = await platform.client.get(
        f"{platform.path}/requests/{request_id}/notes", headers=platform.officer()
    )
    assert [(one["about"], one["text"]) for one in notes.json()["items"]] == [
        ("question", asked), ("question", "And which colour?"), ("answer", answered),
    ]  # fmt: skip
    assert notes.json()["items"][2]["author"] is None
    for word in (asked, answered):
        assert await places_of(word, privacy_environment) == []
        assert [
            vars(one)
            for one in caplog.records
            if one.name.startswith(("services", "libs")) and word in str(vars(one))
        ] == []


async def test_a_decision_starts_a_stopped_clock_again(platform: Platform) -> None:
    await french(platform)
    with platform.at(MONDAY):
        person, request_id = await deciding_on(platform)
        await platform.do(request_id, "question", {"text": "Which order?"})
    with platform.at(MONDAY + timedelta(days=3)):
        assert (await platform.do(request_id, "decision", {"approve": True})).status_code == 200
    found = await platform.detail(person, request_id)
    assert found["due_on"] == "2027-04-05" and found["stopped_since"] is None


async def test_californias_clock_does_not_stop(platform: Platform) -> None:
    with platform.at(MONDAY):
        await platform.decides(passing={"erasure": "officer"})
        person = await platform.person()
        request_id = UUID((await platform.ask(person, "delete")).json()["id"])
        before, _ = await platform.seen(request_id)
        assert before["due_on"] == "2027-04-15"
        assert before["acknowledged_at"] is not None, "the mail of receipt confirms it"
        await platform.do(request_id, "question", {"text": "Which order?"})
        found, _ = await platform.seen(request_id)
        assert found["due_on"] == "2027-04-15" and found["stopped_since"] is not None
        extended = await platform.do(request_id, "extension", {"reason": "complexity"})
        assert extended.json()["due_on"] == "2027-05-30"
        assert extended.json()["stopped_since"] is not None
    assert found["right"] == "delete" and "cppa.ca.gov" in found["supervisor"]["website"]


# --- Assigning and noting ----------------------------------------------------------------------------------


async def test_lists_are_narrowed(platform: Platform) -> None:
    await french(platform)
    colleague = str(uuid4())
    with platform.at(MONDAY):
        _, mine = await deciding_on(platform)
        _, others = await deciding_on(platform)
        person = await platform.person()
        access = await platform.opened(person, "access")
    assert (await platform.do(mine, "assignment", {"account_id": colleague}, method="PUT")).json()["desk"][
        "assignee"
    ] == colleague

    async def ids(now: datetime = MONDAY, **query: str) -> set[str]:
        with platform.at(now):
            response = await platform.client.get(
                f"{platform.path}/requests", params=query, headers=platform.officer()
            )
        assert response.status_code == 200, response.text
        return {one["id"] for one in response.json()["items"]}

    assert await ids(assignee=colleague) == {str(mine)}
    assert await ids(right="erasure") == {str(mine), str(others)}
    assert await ids(right="delete") == set()
    assert await ids(state="running") == {str(access)}
    assert await ids(overdue="true") == set()
    # The last day is over when it is over in Paris.
    assert await ids(datetime(2027, 4, 1, 21, 59, tzinfo=UTC), overdue="true") == set()
    midnight = datetime(2027, 4, 1, 22, tzinfo=UTC)
    assert await ids(midnight, overdue="true") == {str(mine), str(others), str(access)}
    assert await ids(midnight, overdue="false") == set()
    cleared = await platform.do(mine, "assignment", {"account_id": None}, method="PUT")
    assert cleared.json()["desk"]["assignee"] is None
    for wrong in ({"state": "sleeping"}, {"right": "magic"}, {"assignee": "me"}, {"overdue": "perhaps"}):
        bad = await platform.client.get(f"{platform.path}/requests", params=wrong, headers=platform.officer())
        assert bad.status_code == 422


async def test_notes_are_sealed_and_read_in_parts(
    platform: Platform, privacy_environment: Mapping[str, str]
) -> None:
    person, request_id = await deciding_on(platform)
    word = f"canary-{uuid4().hex}"
    path = f"{platform.path}/requests/{request_id}/notes"
    key = {"Idempotency-Key": uuid4().hex}
    for number in range(5):
        response = await platform.do(request_id, "notes", {"text": f"{word} {number}"})
        assert response.status_code == 201 and word not in response.text
    twice = [
        await platform.client.post(
            path, json={"text": "once"}, headers=platform.officer(sub=str(UUID(int=7))) | key
        )
        for _ in range(2)
    ]
    assert twice[0].json() == twice[1].json()
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        query = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = (await platform.client.get(path, params=query, headers=platform.officer())).json()
        seen += [one["text"] for one in page["items"]]
        cursor = page["next"]
    assert seen == [*(f"{word} {number}" for number in range(5)), "once"]
    assert (await platform.seen(request_id))[0]["desk"]["notes"] == 6
    assert await places_of(word, privacy_environment) == []
    bad = await platform.client.get(path, params={"cursor": "nonsense"}, headers=platform.officer())
    assert bad.status_code == 400
    # The person sees how it stands, and nothing of what the desk has of its own.
    assert (await platform.detail(person, request_id))["desk"] is None


async def test_the_proposal_is_shown_with_what_no_model_takes(
    platform: Platform, privacy_environment: Mapping[str, str]
) -> None:
    value = f"canary-{uuid4().hex}"
    await platform.decides(passing={"rectification": "officer"})
    person = await platform.person()
    response = await platform.ask(
        person, "rectification", corrections=[{"category": "user.name", "value": value, "reason": "A typo."}]
    )
    request_id = UUID(response.json()["id"])
    await platform.deliver(platform.answer(request_id, Verb.PREVIEW, refused=[Category.NAME]))
    path = f"{platform.path}/requests/{request_id}/proposal"
    found = (await platform.client.get(path, headers=platform.officer())).json()
    assert found == {
        "corrections": [{"category": "user.name", "value": value, "reason": "A typo."}],
        "refused": ["user.name"],
    }
    assert await places_of(value, privacy_environment) == []
    _, erasure = await deciding_on(platform)
    none = await platform.client.get(
        f"{platform.path}/requests/{erasure}/proposal", headers=platform.officer()
    )
    assert none.status_code == 404


# --- Lifting -----------------------------------------------------------------------------------------------


async def test_a_restriction_is_lifted_some_days_after_its_person_was_told(platform: Platform) -> None:
    await french(platform)
    person = await platform.person()
    request_id = await platform.opened(person, "restriction")
    path = f"{platform.path}/requests/{request_id}/lifting"
    early = await platform.client.post(path, headers=platform.officer())
    assert (early.status_code, early.json()["type"]) == (409, "/problems/not-restricted")
    await platform.ask_keyring()
    await platform.answer_all(request_id, Verb.RESTRICT, Outcome.DONE)
    assert await platform.state(person, request_id) == "completed"
    now = datetime.now(UTC)
    response = await platform.client.post(path, headers=platform.officer())
    assert response.status_code == 201, response.text
    lifting = UUID(response.json()["id"])
    assert response.headers["Location"].endswith(str(lifting))
    found, _ = await platform.seen(lifting)
    begins_at = datetime.fromisoformat(found["begins_at"])
    assert timedelta(days=7) <= begins_at - now < timedelta(days=7, minutes=1)
    assert (found["right"], found["state"], found["decision"]) == (
        "restriction-lifting",
        "running",
        "approved",
    )
    async with platform.database.session(platform.store_id) as session:
        asked = await session.scalar(
            text("SELECT next_issue_at FROM task WHERE request_id = :id AND participant = 'keyring'"),
            {"id": lifting},
        )
    assert asked == begins_at, "nothing is lifted before"
    told = [(template, body) for template, _, body in await mails(platform, person)]
    assert [template for template, _ in told].count("lifting-announced") == 1
    again = await platform.client.post(path, headers=platform.officer())
    assert (again.status_code, again.json()["id"]) == (200, str(lifting))
    for after, state in ((timedelta(seconds=-1), "waiting"), (timedelta(seconds=1), "done")):
        with platform.at(begins_at + after) as work:
            await key_tasks.ask_keyring(work)
        parts = (await platform.seen(lifting))[0]["parts"]
        assert [one["state"] for one in parts if one["participant"] == "keyring"] == [state]
    await platform.answer_all(lifting, Verb.LIFT_RESTRICTION, Outcome.DONE)
    told = [(template, body) for template, _, body in await mails(platform, person)]
    assert {"restriction-done", "lifting-announced", "restriction-lifting-done"} <= {one for one, _ in told}


# --- The platform ------------------------------------------------------------------------------------------


async def escalate(platform: Platform, request_id: UUID) -> None:
    async with platform.database.session(platform.store_id) as session:
        await session.execute(
            text("UPDATE request SET escalated_at = now(), version = version + 1 WHERE id = :id"),
            {"id": request_id},
        )


async def test_the_platform_answers_once_a_store_is_silent(platform: Platform) -> None:
    person, request_id = await deciding_on(platform)
    _, other = await deciding_on(platform)
    path = f"{platform.path}/requests/{request_id}"
    assert (await platform.client.get(path, headers=platform.of_platform())).status_code == 404
    await escalate(platform, request_id)
    found = await platform.client.get(path, headers=platform.of_platform())
    assert found.status_code == 200 and found.json()["desk"]["may_decide"] == ["store", "platform"]
    assert (await platform.client.get(f"{path}/preview", headers=platform.of_platform())).status_code == 200
    assert (await platform.client.get(path, headers=platform.of_platform(Role.SUPPORT))).status_code == 404
    elsewhere = f"{platform.path}/requests/{other}"
    assert (await platform.client.get(elsewhere, headers=platform.of_platform())).status_code == 404
    headers = platform.of_platform() | {"If-Match": found.headers["ETag"]}
    decided = await platform.client.post(
        f"{path}/decision", json={"refuse": "unfounded", "explanation": "…"}, headers=headers
    )
    assert decided.status_code == 422
    body = {"refuse": "manifestly-unfounded", "explanation": "The platform answers for the store."}
    decided = await platform.client.post(f"{path}/decision", json=body, headers=headers)
    assert decided.status_code == 200
    assert await platform.state(person, request_id) == "refused"


async def test_the_platform_lists_what_it_may_answer(platform: Platform) -> None:
    people = [await deciding_on(platform) for _ in range(3)]
    for _, request_id in people:
        await escalate(platform, request_id)
    wanted = [str(request_id) for _, request_id in people]
    seen: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        query = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = await platform.client.get(
            "/privacy/v1/escalations", params=query, headers=platform.of_platform()
        )
        assert page.status_code == 200, page.text
        seen += page.json()["items"]
        cursor = page.json()["next"]
    assert [one["request_id"] for one in seen if one["request_id"] in wanted] == wanted
    assert {one["store_id"] for one in seen if one["request_id"] in wanted} == {str(platform.store_id)}
    for headers, status in (
        ({}, 401),
        (platform.officer(), 403),
        (people[0][0].token(), 403),
        (platform.of_platform(Role.SUPPORT), 403),
    ):
        assert (await platform.client.get("/privacy/v1/escalations", headers=headers)).status_code == status
    bad = await platform.client.get(
        "/privacy/v1/escalations", params={"cursor": "x"}, headers=platform.of_platform()
    )
    assert bad.status_code == 400


async def test_of_a_closed_store_the_platform_alone_decides(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, request_id = await deciding_on(platform)

    async def closed(*_: Any) -> Policy:
        return Policy(closed=True)

    monkeypatch.setattr(deciding, "policy_of", closed)
    mine = await platform.client.get(
        f"{platform.path}/requests/{request_id}/preview", headers=platform.officer()
    )
    assert (mine.status_code, mine.json()["type"]) == (403, "/problems/not-yours-to-decide")
    theirs = await platform.client.get(
        f"{platform.path}/requests/{request_id}/preview", headers=platform.of_platform()
    )
    assert theirs.status_code == 200


async def test_the_platforms_own_people_are_answered_by_its_own_officers(platform: Platform) -> None:
    email = f"canary-{uuid4().hex[:12]}@vitrine.example"
    subject_id = await platform.work.vault.subject_id(PLATFORM_STORE, email)
    merchant = Person(PLATFORM_STORE, subject_id, email)
    path = f"/privacy/v1/stores/{PLATFORM_STORE}/requests"
    opened = await platform.client.post(
        path, json={"right": "access", "email": email}, headers=merchant.token()
    )
    assert opened.status_code == 201
    found = await platform.client.get(f"{path}/{opened.json()['id']}/preview", headers=platform.of_platform())
    assert found.status_code == 200


# --- Figures and explanations ------------------------------------------------------------------------------


async def test_figures_count_and_measure_without_anybodys_data(platform: Platform) -> None:
    await french(platform)
    with platform.at(MONDAY):
        _, late = await deciding_on(platform)
        _, stopped = await deciding_on(platform)
        refused = [(await deciding_on(platform))[1] for _ in range(3)]
        await platform.do(stopped, "question", {"text": "Which?"})
    for days, request_id in zip((1, 2, 9), refused, strict=True):
        with platform.at(MONDAY + timedelta(days=days)):
            body = {"refuse": "excessive", "explanation": "Again."}
            assert (await platform.do(request_id, "decision", body)).status_code == 200
    await escalate(platform, late)
    with platform.at(MONDAY + timedelta(days=40)):
        found = await platform.client.get(f"{platform.path}/figures", headers=platform.officer())
    figures = found.json()
    assert figures["open"] == {"checking": 0, "deciding": 2, "received": 0, "running": 0, "verifying": 0}
    assert (figures["overdue"], figures["stopped"], figures["escalated"]) == (1, 1, 1)
    assert (figures["answered"], figures["answered_late"]) == (3, 0)
    assert (figures["median_days"], figures["worst_days"]) == (2.0, 9.0)
    path = f"{platform.path}/figures"
    assert (await platform.client.get(path)).status_code == 401
    assert (await platform.client.get(path, headers=platform.officer(role=Role.MANAGER))).status_code == 403
    assert (await platform.client.get(path, headers=platform.of_platform())).status_code == 404
    empty = await platform.client.get(
        f"/privacy/v1/stores/{(other := uuid4())}/figures", headers=platform.officer(store=str(other))
    )
    assert empty.json()["median_days"] is None and empty.json()["answered"] == 0


async def test_an_explanation_is_computed_from_declarations_and_counts(platform: Platform) -> None:
    await french(platform)
    await platform.deliver(
        ParticipantAnnounced(
            participant=SHOP,
            public_key=platform.shop_key.as_dict(private=False),
            data_map=data_map(SHOP, shop.HOLDINGS, []),
        )
    )
    person = await platform.person()
    request_id = await platform.opened(person, "explanation")
    path = f"{platform.path}/requests/{request_id}/explanation"
    assert (await platform.client.get(path, headers=person.token())).status_code == 404
    await platform.deliver(
        platform.answer(request_id, Verb.PREVIEW, Outcome.DONE, counts={"purchase": 2}),
    )
    await platform.answer_all(request_id, Verb.PREVIEW)
    assert await platform.state(person, request_id) == "completed"
    found = await platform.client.get(path, headers=person.token())
    [one] = found.json()["processing"]
    assert (one["service"], one["kind"], one["count"]) == (SHOP, "ShopContact", 2)
    assert one["purposes"] == ["essential.service.operations"] and one["legal_basis"] == "Contract"
    assert one["recipients"] == ["carrier"] and one["period"] and one["source"]
    assert found.json()["supervisor_website"] == "https://www.cnil.fr"
    other = await platform.person()
    assert (await platform.client.get(path, headers=other.token())).status_code == 404
    assert (await platform.client.get(path, headers=platform.officer())).status_code == 200
    assert (await platform.client.get(path)).status_code == 401
    [(template, _, body)] = await mails(platform, person)
    assert template == "explanation-ready"
    by_link = "/privacy/v1/status/explanation"
    token = token_in(body)
    read = await platform.client.post(by_link, json={"token": token}, params={"language": "fr"})
    assert read.status_code == 200 and "boutique" in read.json()["processing"][0]["source"]
    assert (await platform.client.post(by_link, json={"token": "nobody"})).status_code == 404
    assert (await platform.client.post(by_link, json={})).status_code == 422


async def test_a_clear_case_passes_by_itself_where_the_store_lets_it(platform: Platform) -> None:
    await platform.decides(passing={"erasure": "when-clear"})
    person = await platform.person()
    request_id = await platform.opened(person, "erasure")
    await platform.answer_all(request_id, Verb.PREVIEW)
    found, _ = await platform.seen(request_id)
    assert (found["state"], found["decision"], found["desk"]["decided_by"]) == ("running", "by-itself", None)
    await platform.ask_keyring()
    await platform.answer_all(request_id, Verb.ERASE)
    await platform.ask_keyring()
    await platform.answer_all(request_id, Verb.VERIFY_ERASED)
    assert await platform.state(person, request_id) == "completed"
