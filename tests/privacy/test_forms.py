"""Anonymous forms: the same reply for everybody, a mail to the person alone, and nothing that harms the real one."""

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import orjson
import pytest
from sqlalchemy import text

from libs.common import pace, throttle
from libs.common.events.privacy import Outcome, TaskIssued, Verb
from services.privacy import endings, letters
from services.privacy.domain.states import VERIFICATION_DAYS
from tests.privacy.conftest import Person, Platform
from tests.privacy.keyring.conftest import RunningKeyring
from tests.privacy.test_letters import erased
from tests.privacy.ways import (
    ACCEPTED,
    PDF,
    addressees,
    asked,
    export,
    mails,
    open_store,
    post,
    requests_of,
    send_form,
    token_of,
)

AGENT = {"name": "Canary Agency", "email": "canary-agent@vitrine.example"}


@pytest.fixture(autouse=True)
async def store(platform: Platform) -> AsyncIterator[None]:
    """Every test is its own network, and nobody waits for the step."""
    await open_store(platform)
    with pytest.MonkeyPatch.context() as patch:

        async def at_once(_: float) -> None:
            return None

        patch.setattr(pace, "sleep", at_once)
        yield


def same(response: httpx.Response) -> tuple[int, bytes, list[tuple[str, str]]]:
    """All that a caller can tell one reply from another by."""
    return response.status_code, response.content, sorted(response.headers.items())


async def test_a_form_is_confirmed_by_the_link_in_the_mail_and_goes_on(platform: Platform) -> None:
    person = await platform.person()
    response = await send_form(platform, person.email)
    assert (response.status_code, response.json()) == (202, ACCEPTED)
    [request] = await requests_of(platform, person)
    assert (request.state, request.way, request.proofs, request.due_on) == ("verifying", "form", [], None)
    assert await platform.published(TaskIssued) == [], (
        "something was asked about a person who is not verified"
    )
    [(template, subject, body)] = await mails(platform, person)
    assert (template, subject) == ("confirm-request", "Is this request yours?")
    assert "Canary & Sons" in body and str(VERIFICATION_DAYS) in body
    confirmed = await post(platform, "confirmations", token=await token_of(platform, person))
    assert (confirmed.status_code, confirmed.json()["state"]) == (200, "running")
    [request] = await requests_of(platform, person)
    assert [one["proof"] for one in request.proofs] == ["email-link"] and request.due_on is not None
    assert len(await platform.tasks(request.id, Verb.EXPORT)) == 1


async def test_nobody_learns_from_a_reply_who_is_known(platform: Platform) -> None:
    """Known, unknown, joined, verified, written to too often, erased, being erased: byte by byte the same."""
    known, joined, gone, going = [await platform.person() for _ in range(4)]
    await platform.opened(known, "access")
    await send_form(platform, joined.email)
    await erased(platform, gone)
    await platform.opened(going, "erasure")
    often = await platform.person()
    replies = [await send_form(platform, often.email) for _ in range(8)]
    replies += [
        await send_form(platform, one.email) for one in (await platform.person(), known, joined, gone, going)
    ]
    replies.append(await send_form(platform, known.email, agent=AGENT))
    assert {same(one)[:2] for one in replies} == {(202, replies[0].content)}
    assert len({tuple(same(one)[2]) for one in replies}) == 1
    assert replies[0].json() == ACCEPTED


async def test_every_reply_waits_for_the_same_step(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, unknown, gone = [await platform.person() for _ in range(3)]
    await platform.opened(known, "access")
    await erased(platform, gone)
    waits: list[float] = []

    async def waited(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(pace, "sleep", waited)
    for number, person in enumerate((known, unknown, gone, unknown), start=1):
        await send_form(platform, person.email)
        assert len(waits) == number
    assert all(0 <= one <= platform.app.state.settings.answer_step for one in waits)


async def test_known_and_unknown_people_cost_the_same_calls_of_the_keyring(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, unknown = await platform.person(), await platform.person()
    await platform.opened(known, "erasure")
    keyring, calls = platform.app.state.vault._keyring, list[str]()
    original = keyring._call

    async def counted(path: str, body: Any) -> Any:
        calls.append(path)
        return await original(path, body)

    monkeypatch.setattr(keyring, "_call", counted)
    costs: list[list[str]] = []
    for person in (known, unknown):
        calls.clear()
        await send_form(platform, person.email, "erasure")
        costs.append([*calls])
    assert costs[0] == costs[1]


async def test_a_sender_is_limited_and_told_when_to_come_back(platform: Platform) -> None:
    most = platform.app.state.settings.forms_per_address
    key = await platform.work.vault.blind_index(
        platform.store_id, "form-address", throttle.network("127.0.0.1")
    )
    async with platform.database.session(platform.store_id) as session:
        bound = throttle.Bound(key, most, timedelta(hours=1))
        for _ in range(most):
            await throttle.count(session, platform.store_id, [bound], datetime.now(UTC))
    person = await platform.person()
    refused = await send_form(platform, person.email)
    assert (refused.status_code, refused.json()["type"]) == (429, "/problems/too-many-attempts")
    assert 0 < int(refused.headers["Retry-After"]) <= 3600
    assert await requests_of(platform, person) == []
    with platform.at(datetime.now(UTC) + timedelta(hours=1, minutes=1)):
        assert (await send_form(platform, person.email)).status_code == 202


async def test_an_address_is_written_to_a_few_times_and_then_left_alone(platform: Platform) -> None:
    person = await platform.person()
    most = platform.app.state.settings.mails_per_person
    for _ in range(most + 3):
        assert (await send_form(platform, person.email)).status_code == 202
        await mails(platform, person)
    assert len(await mails(platform, person)) == most
    async with platform.database.session(platform.store_id) as session:
        [stored] = (await session.execute(text("SELECT count(*) FROM attempts WHERE count > 5"))).scalars()
    assert stored >= 1


async def test_a_key_replays_the_reply_and_has_no_second_effect(platform: Platform) -> None:
    person, key = await platform.person(), {"Idempotency-Key": str(uuid4())}
    first = await send_form(platform, person.email, headers=key)
    again = await send_form(platform, person.email, headers=key)
    assert (first.status_code, again.status_code) == (202, 202)
    assert again.headers["Idempotency-Replayed"] == "true" and again.content == first.content
    assert len(await mails(platform, person)) == 1
    other = await send_form(platform, (await platform.person()).email, headers=key)
    assert (other.status_code, other.json()["type"]) == (422, "/problems/idempotency-key-reused")


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"right": "objection"}, 422), ({"right": "rectification"}, 422), ({"right": "nonsense"}, 422),
        ({"email": "canary"}, 422), ({"email": "canary\x00@vitrine.example"}, 422), ({"language": "tlh"}, 422),
        ({"order_number": "1; DROP"}, 422), ({"order_number": "9" * 41}, 422), ({"extra": 1}, 422),
        ({"agent": {"name": "Canary"}}, 422), ({"agent": {"name": "<b>canary</b>", "email": AGENT["email"]}}, 422),
        ({"agent": {"name": "canary\nBcc: all", "email": AGENT["email"]}}, 422),
        ({"purpose": "marketing.advertising"}, 422),
    ],
)  # fmt: skip
async def test_bad_input_is_refused_and_not_echoed(
    platform: Platform, changes: dict[str, Any], status: int
) -> None:
    person = await platform.person()
    refused = await send_form(platform, **{"email": person.email, **changes})
    assert refused.status_code == status
    assert refused.headers["content-type"] == "application/problem+json"
    assert "canary" not in refused.text.lower()
    assert await requests_of(platform, person) == []


async def test_an_unknown_store_has_no_form(platform: Platform) -> None:
    person = await platform.person()
    elsewhere = replace(platform, store_id=uuid4())
    assert (await send_form(elsewhere, person.email)).status_code == 404
    assert (await send_authorised(elsewhere, person)).status_code == 404


async def test_a_keyring_that_is_away_answers_503_for_everybody(
    platform: Platform, own_keyring: RunningKeyring
) -> None:
    person = await platform.person()
    vault, platform.app.state.vault = platform.app.state.vault, own_keyring.vault("privacy")
    await own_keyring.stop()
    try:
        response = await send_form(platform, person.email)
    finally:
        platform.app.state.vault = vault
    assert response.status_code == 503
    assert await requests_of(platform, person) == []


# --- Nothing of it touches the real person ---------------------------------------------------------------


async def test_an_unverified_erasure_stops_no_access_and_erases_nothing(platform: Platform) -> None:
    person, _, erasure = await asked(platform, "erasure")
    assert (await platform.ask(person, "access")).status_code == 201
    await platform.ask_keyring()
    assert await platform.tasks(erasure, Verb.ERASE) == []
    assert await platform.state(person, erasure) == "verifying"


async def test_whoever_is_signed_in_verifies_what_they_join_under_their_own_law(platform: Platform) -> None:
    """Somebody else sent a form as an agent, under California's law, before the person themselves asked."""
    person = await platform.person()
    await send_form(platform, person.email, "know", agent=AGENT)
    joined = await platform.ask(person, "access")
    assert (joined.status_code, joined.json()["state"]) == (200, "running")
    [request] = await requests_of(platform, person)
    assert (request.law, request.way, request.agent) == ("gdpr", "session", None)
    assert (request.due_on - request.verified_at.date()).days in range(27, 36)
    await export(platform, request.id)
    templates = [template for template, _, _ in await mails(platform, person)]
    assert "agent-request-completed" not in templates and "export-ready" in templates


async def test_a_form_that_joins_sends_the_link_again_and_tells_how_it_stands(platform: Platform) -> None:
    person, token, _ = await asked(platform)
    await send_form(platform, person.email)
    assert [one for one, _, _ in await mails(platform, person)] == ["confirm-request"] * 2
    assert await token_of(platform, person) == token
    await post(platform, "confirmations", token=token)
    await send_form(platform, person.email)
    written = [one for one, _, _ in await mails(platform, person)]
    assert written[-1] == "request-under-way" and len(await requests_of(platform, person)) == 1


async def test_mail_goes_to_the_one_form_of_an_address(platform: Platform) -> None:
    """Two mailboxes that are one person here must not let one of them read the other's mail."""
    person = await platform.person()
    await send_form(platform, person.email.upper())
    [request] = await requests_of(platform, person)
    async with platform.database.session(platform.store_id) as session:
        assert await session.scalar(text("SELECT count(*) FROM request")) == 1
    assert [template for template, _, _ in await mails(platform, person)] == ["confirm-request"]
    assert await addressees(platform, person) == {person.email} and request.state == "verifying"


async def test_keys_that_nothing_came_to_lie_under_are_destroyed(platform: Platform) -> None:
    person, _, request_id = await asked(platform)
    await send_form(platform, person.email)
    await send_form(platform, person.email, headers={"Idempotency-Key": "the-same-key"})
    await send_form(platform, person.email, headers={"Idempotency-Key": "the-same-key"})
    while await endings.destroy_keys(platform.work):
        pass
    [keys] = await platform.keyring.client("privacy").status([(platform.store_id, person.subject_id)])
    assert [one.bucket for one in keys] == [str(request_id)]


# --- An order's number -----------------------------------------------------------------------------------


async def test_an_order_number_is_recognised_and_is_enough(platform: Platform) -> None:
    person = await platform.person()
    await send_form(platform, person.email, order_number="1001")
    [request] = await requests_of(platform, person)
    [issued] = await platform.tasks(request.id, Verb.RECOGNISE)
    assert (issued.order_number, issued.subject_id) == ("1001", person.subject_id)
    assert await mails(platform, person) == []
    await platform.deliver(platform.answer(request.id, Verb.RECOGNISE, Outcome.DONE))
    await platform.answer_itself(request.id, Verb.RECOGNISE)
    [request] = await requests_of(platform, person)
    assert (request.state, request.order_number) == ("running", None)
    assert [one["proof"] for one in request.proofs] == ["order-number"]


async def test_a_number_nobody_knows_is_forgotten_and_the_link_is_sent(platform: Platform) -> None:
    person = await platform.person()
    await send_form(platform, person.email, order_number="9999")
    [request] = await requests_of(platform, person)
    await platform.answer_all(request.id, Verb.RECOGNISE)
    [request] = await requests_of(platform, person)
    assert (request.state, request.order_number) == ("verifying", None)
    assert [template for template, _, _ in await mails(platform, person)] == ["confirm-request"]
    # The right number, later: a round of its own, in which the old answers do not count.
    await send_form(platform, person.email, order_number="1001")
    await platform.deliver(platform.answer(request.id, Verb.RECOGNISE, Outcome.DONE, round=1))
    assert await platform.state(person, request.id) == "verifying"
    await platform.answer_all(request.id, Verb.RECOGNISE, Outcome.DONE)
    assert await platform.state(person, request.id) == "running"


async def test_a_number_is_not_asked_about_where_it_is_not_enough(platform: Platform) -> None:
    person = await platform.person()
    await send_form(platform, person.email, "erasure", order_number="1001")
    [request] = await requests_of(platform, person)
    assert request.order_number is None and await platform.tasks(request.id, Verb.RECOGNISE) == []
    assert [template for template, _, _ in await mails(platform, person)] == ["confirm-request"]


async def test_a_service_that_is_away_keeps_nobody_from_the_link(platform: Platform) -> None:
    person = await platform.person()
    await send_form(platform, person.email, order_number="1001")
    [request] = await requests_of(platform, person)
    with platform.at(datetime.now(UTC) + timedelta(minutes=11)) as work:
        while await letters.write(work):
            pass
    token = await token_of(platform, person)
    assert (await post(platform, "confirmations", token=token)).json()["state"] == "running"
    async with platform.database.session(platform.store_id) as session:
        waits = await session.scalar(
            text(
                "SELECT count(*) FROM task"
                " WHERE request_id = :id AND verb = 'recognise' AND next_issue_at IS NOT NULL"
            ),
            {"id": request.id},
        )
    assert waits == 0, "an order's number is asked about for ever"


# --- What is enough --------------------------------------------------------------------------------------


async def test_a_store_that_wants_more_than_the_link_says_so(platform: Platform) -> None:
    await platform.decides(enough={"access": ["document", "staff"]})
    person, token, _ = await asked(platform)
    assert [template for template, _, _ in await mails(platform, person)] == ["proof-wanted"]
    seen = (await post(platform, "status", token=token)).json()
    assert (seen["awaited"]["confirm"], seen["awaited"]["document"]) == (False, True)
    assert seen["enough"] == ["document", "staff"]
    # Whoever follows the link anyway has shown something, and not enough.
    followed = (await post(platform, "confirmations", token=token)).json()
    assert (followed["state"], followed["proofs"]) == ("verifying", ["email-link"])


# --- Agents ----------------------------------------------------------------------------------------------


async def test_an_agent_is_acknowledged_and_the_person_is_asked(platform: Platform) -> None:
    person = await platform.person()
    await send_form(platform, person.email, "access", agent=AGENT, order_number="1001")
    [request] = await requests_of(platform, person)
    assert (request.way, request.state) == ("agent", "verifying")
    assert await platform.tasks(request.id, Verb.RECOGNISE) == [], "an agent may know the number too"
    written = {template: body for template, _, body in await mails(platform, person)}
    assert written.keys() == {"agent-request-received", "confirm-request"}
    assert AGENT["name"] in written["confirm-request"] and AGENT["email"] in written["confirm-request"]
    assert (
        person.email not in written["agent-request-received"]
        and "#token" not in written["agent-request-received"]
    )
    await post(platform, "confirmations", token=await token_of(platform, person))
    await export(platform, request.id)
    outcome = {template: body for template, _, body in await mails(platform, person)}
    assert "agent-request-completed" in outcome and "export-ready" in outcome
    assert "#token" not in outcome["agent-request-completed"]
    assert not re.search(r"canary-(?!agent)", outcome["agent-request-completed"])
    assert await addressees(platform, person) == {person.email, AGENT["email"]}


async def test_an_agent_learns_nothing_from_being_acknowledged(platform: Platform) -> None:
    person = await platform.person()
    await platform.opened(person, "access")
    await send_form(platform, person.email, agent=AGENT)
    assert "agent-request-received" in [template for template, _, _ in await mails(platform, person)]
    [request] = await requests_of(platform, person)
    assert (request.agent, request.way) == (None, "session")


async def test_the_end_of_an_agents_request_is_told(platform: Platform) -> None:
    person = await platform.person()
    await send_form(platform, person.email, agent=AGENT)
    token = await token_of(platform, person)
    assert (await post(platform, "status/withdrawal", token=token)).json()["state"] == "cancelled"
    assert "agent-request-cancelled" in [template for template, _, _ in await mails(platform, person)]


async def send_authorised(platform: Platform, person: Person, **changes: Any) -> httpx.Response:
    form = {"right": "access", "email": person.email, "agent": AGENT} | changes.pop("form", {})
    content = changes.pop("content", PDF)
    return await platform.client.post(
        f"{platform.path}/authorised-request-forms",
        data={"form": orjson.dumps(form).decode()},
        files={"authorisation": ("a.pdf", content)},
    )


async def test_an_authorisation_that_somebody_checked_is_enough(platform: Platform) -> None:
    person = await platform.person()
    response = await send_authorised(platform, person)
    assert (response.status_code, response.json()) == (202, ACCEPTED)
    [request] = await requests_of(platform, person)
    path = f"{platform.path}/requests/{request.id}/documents"
    [waiting] = (await platform.client.get(path, headers=platform.officer())).json()["waiting"]
    checked = await platform.client.post(
        f"{path}/{waiting['id']}/checks",
        json={"accepted": True, "seen": "Signed by the person."},
        headers=platform.officer(),
    )
    assert checked.status_code == 201
    [request] = await requests_of(platform, person)
    assert (request.state, [one["proof"] for one in request.proofs]) == ("running", ["document"])


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"content": b"canary, no document"}, 422), ({"content": b""}, 422), ({"form": {"agent": None}}, 422),
        ({"form": {"right": "nonsense"}}, 422), ({"content": PDF + b"x" * 5 * 1024 * 1024}, 413),
    ],
)  # fmt: skip
async def test_a_bad_authorisation_is_refused(
    platform: Platform, changes: dict[str, Any], status: int
) -> None:
    person = await platform.person()
    refused = await send_authorised(platform, person, **changes)
    assert refused.status_code == status and "canary" not in refused.text
    assert await requests_of(platform, person) == []


async def test_only_forms_are_taken_with_authorisations(platform: Platform) -> None:
    path = f"{platform.path}/authorised-request-forms"
    assert (await platform.client.post(path, json={})).status_code == 415
    assert (await platform.client.post(path, data={"form": "{}"}, files={"other": b"x"})).status_code == 422
    broken = await platform.client.post(
        path, content=b"--x\r\nnonsense", headers={"Content-Type": "multipart/form-data; boundary=x"}
    )
    assert broken.status_code in {400, 422}
    nothing = await platform.client.post(path, data={"form": "{"}, files={"authorisation": ("a.pdf", PDF)})
    assert nothing.status_code == 400


# --- What nobody verifies --------------------------------------------------------------------------------


async def test_what_nobody_verifies_ends_with_its_boxes_and_its_key(platform: Platform) -> None:
    person, token, request_id = await asked(platform, "erasure", agent=AGENT)
    soon = datetime.now(UTC) + timedelta(days=VERIFICATION_DAYS)
    with platform.at(soon - timedelta(minutes=1)) as work:
        await endings.expire_requests(work)
        assert await platform.state(person, request_id) == "verifying"
    with platform.at(soon + timedelta(minutes=1)) as work:
        await endings.expire_requests(work)
        await endings.destroy_keys(work)
    [request] = await requests_of(platform, person)
    assert request.state == "cancelled"
    assert (request.contact, request.agent, request.status_hash, request.proposal) == (None,) * 4
    [keys] = await platform.keyring.client("privacy").status([(platform.store_id, person.subject_id)])
    assert keys == []
    for path in ("status", "confirmations", "status/withdrawal"):
        gone = await post(platform, path, token=token)
        assert (gone.status_code, gone.json()["type"]) == (404, "/problems/request-link-not-valid")
    # And they can ask again.
    await send_form(platform, person.email, "erasure")
    assert [one.state for one in await requests_of(platform, person)] == ["cancelled", "verifying"]


async def test_a_crash_before_the_keyring_was_asked_only_delays(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    person, _, _ = await asked(platform)
    later = datetime.now(UTC) + timedelta(days=VERIFICATION_DAYS + 1)
    with platform.at(later) as work:
        await endings.expire_requests(work)

        async def away(*_: Any) -> None:
            raise ConnectionError

        with monkeypatch.context() as patch:
            patch.setattr(endings.KeyringClient, "destroy_buckets", away)
            with pytest.raises(ConnectionError):
                await endings.destroy_keys(work)
        status = platform.keyring.client("privacy").status
        assert (await status([(platform.store_id, person.subject_id)]))[0] != []
    with platform.at(later + timedelta(minutes=1)) as work:
        await endings.destroy_keys(work)
    assert (await status([(platform.store_id, person.subject_id)]))[0] == []


# --- Canaries --------------------------------------------------------------------------------------------


async def test_nothing_of_a_form_is_in_the_clear_anywhere(
    platform: Platform, privacy_environment: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    person = await platform.person()
    await send_form(platform, person.email, agent=AGENT, order_number="1001")
    await mails(platform, person)
    connection: Any = await asyncpg.connect(privacy_environment["PRIVACY_MIGRATION_DATABASE_URL"])
    try:
        # Other stores have recipients, whose addresses are nobody's.
        await connection.execute(f"SET app.store = '{platform.store_id}'")
        for table in await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"):
            for secret in (person.email, AGENT["email"], AGENT["name"], "127.0.0.1"):
                for needle in (secret, secret.encode().hex()):
                    found = await connection.fetchval(
                        f'SELECT count(*) FROM "{table["tablename"]}" AS t WHERE t::text ILIKE $1',
                        f"%{needle}%",
                    )
                    assert found == 0, table["tablename"]
    finally:
        await connection.close()
    assert person.email not in caplog.text and AGENT["email"] not in caplog.text
