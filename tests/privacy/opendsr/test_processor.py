"""A store's own tool asks us over OpenDSR, and is answered as its specification says."""

import asyncio
import base64
import io
import json
import zipfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import orjson
import pytest
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from libs.common.events.privacy import Outcome, Verb
from services.privacy.domain.problems import NotOpenDsr
from services.privacy.opendsr import following
from services.privacy.opendsr.controllers import Controller
from services.privacy.opendsr.processor import check
from services.privacy.opendsr.signatures import DOMAIN, SIGNATURE, is_signed
from services.privacy.opendsr.wire import NewRequest, read, written
from tests.privacy.conftest import Person, Platform
from tests.privacy.ways import mails, open_store

HOST = "tool.vitrine.example"


@dataclass
class Tool:
    """A merchant's own privacy tool."""

    platform: Platform
    id: str
    key: str

    @property
    def base(self) -> str:
        return f"/privacy/opendsr/{self.platform.store_id}"

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    def body(self, email: str, kind: str = "erasure", /, **changes: Any) -> dict[str, Any]:
        wanted = {
            "regulation": "gdpr",
            "subject_request_id": str(uuid4()),
            "subject_request_type": kind,
            "submitted_time": datetime.now(UTC).isoformat(),
            "subject_identities": [
                {"identity_type": "email", "identity_value": email, "identity_format": "raw"}
            ],
        } | changes
        return {name: value for name, value in wanted.items() if value is not None}

    async def send(self, body: Any, path: str = "/v1/requests", **options: Any) -> httpx.Response:
        content = body if isinstance(body, bytes) else orjson.dumps(body)
        headers = self.headers | {"Content-Type": "application/json"} | options.pop("headers", {})
        return await self.platform.client.post(self.base + path, content=content, headers=headers, **options)

    async def asked(self, person: Person, kind: str = "erasure", **changes: Any) -> str:
        body = self.body(person.email, kind, **changes)
        answer = await self.send(body)
        assert answer.status_code == 201, answer.text
        return body["subject_request_id"]

    async def get(self, id_: str, names: str = "v1/requests") -> httpx.Response:
        return await self.platform.client.get(f"{self.base}/{names}/{id_}", headers=self.headers)

    async def delete(self, id_: str, names: str = "v1/requests") -> httpx.Response:
        return await self.platform.client.delete(f"{self.base}/{names}/{id_}", headers=self.headers)

    async def status(self, id_: str) -> dict[str, Any]:
        await following.watch(self.platform.work)
        answer = await self.get(id_)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def requests(self, id_: str) -> list[Any]:
        """The engine's own."""
        async with self.platform.database.session(self.platform.store_id) as session:
            rows = await session.execute(
                text("""
                    SELECT request.* FROM request JOIN opendsr_part AS part ON part.request_id = request.id
                    JOIN opendsr_request AS asked ON asked.id = part.opendsr_id
                    WHERE asked.subject_request_id = :id ORDER BY request.id
                """),
                {"id": UUID(id_)},
            )
            return list(rows.all())


async def registered(platform: Platform, **changes: Any) -> Tool:
    body = {"name": "Our privacy tool", "callback_hosts": [HOST]} | changes
    answer = await platform.client.post(
        f"{platform.path}/opendsr-controllers", json=body, headers=platform.officer()
    )
    assert answer.status_code == 201, answer.text
    return Tool(platform, answer.json()["id"], answer.json()["key"])


@pytest.fixture
async def tool(platform: Platform) -> AsyncIterator[Tool]:
    await open_store(platform)
    yield await registered(platform)


async def certificate(platform: Platform) -> x509.Certificate:
    answer = await platform.client.get("/privacy/opendsr/certificate.pem")
    return x509.load_pem_x509_certificates(answer.content)[0]


async def shows_who_we_are(platform: Platform, answer: httpx.Response) -> None:
    signing = await certificate(platform)
    for domain, signature in zip(DOMAIN, SIGNATURE, strict=True):
        assert answer.headers[domain] == "127.0.0.1"
        assert is_signed(answer.content, answer.headers[signature], signing)
        assert not is_signed(answer.content + b" ", answer.headers[signature], signing)


# --- Discovery -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/discovery", "/discovery"])
async def test_discovery_says_exactly_what_is_supported(tool: Tool, path: str) -> None:
    answer = await tool.platform.client.get(tool.base + path)
    assert answer.status_code == 200
    assert answer.json() == {
        "api_version": "2.0",
        "supported_identities": [
            {"identity_type": "email", "identity_format": "raw"},
            {"identity_type": "controller_customer_id", "identity_format": "raw"},
        ],
        "supported_subject_request_types": ["access", "portability", "erasure"],
        "processor_certificate": "http://127.0.0.1:8000/privacy/opendsr/certificate.pem",
    }
    await shows_who_we_are(tool.platform, answer)


# --- Asking ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/requests", "/opengdpr_requests"])
async def test_a_request_is_accepted_with_all_that_the_specification_wants(tool: Tool, path: str) -> None:
    person = await tool.platform.person()
    body = tool.body(person.email)
    sent = orjson.dumps(body)
    answer = await tool.send(sent, path)
    assert answer.status_code == 201, answer.text
    accepted = answer.json()
    assert accepted.keys() == {
        *("controller_id", "expected_completion_time", "received_time", "encoded_request"),
        "subject_request_id",
    }
    assert accepted["controller_id"] == tool.id
    assert accepted["subject_request_id"] == body["subject_request_id"]
    assert base64.b64decode(accepted["encoded_request"]) == sent
    received = datetime.fromisoformat(accepted["received_time"])
    expected = datetime.fromisoformat(accepted["expected_completion_time"])
    assert timedelta(days=27) < expected - received < timedelta(days=40)
    await shows_who_we_are(tool.platform, answer)


async def test_an_erasure_goes_its_way_and_nobody_is_written_to(tool: Tool) -> None:
    platform, person = tool.platform, await tool.platform.person()
    id_ = await tool.asked(person)
    assert (await tool.status(id_))["request_status"] == "pending"
    [request] = await tool.requests(id_)
    assert (request.way, request.state, request.contact) == ("opendsr", "deciding", None)
    await platform.answer_all(request.id, Verb.PREVIEW)
    assert (await tool.status(id_))["request_status"] == "in_progress"
    await platform.ask_keyring()
    await platform.answer_all(request.id, Verb.ERASE)
    await platform.ask_keyring()
    await platform.answer_all(request.id, Verb.VERIFY_ERASED)
    done = await tool.status(id_)
    assert done["request_status"] == "completed"
    assert "results_url" not in done
    assert done["extensions"]["127.0.0.1"]["requests"][0]["state"] == "completed"
    assert await mails(platform, person) == []


async def test_an_erasure_that_a_service_speaks_against_waits_for_the_store(tool: Tool) -> None:
    platform, person = tool.platform, await tool.platform.person()
    id_ = await tool.asked(person)
    [request] = await tool.requests(id_)
    await platform.deliver(
        platform.answer(request.id, Verb.PREVIEW, Outcome.DONE, obligations=["open-order"])
    )
    await platform.answer_itself(request.id, Verb.PREVIEW)
    shown = await tool.status(id_)
    assert shown["request_status"] == "pending"
    assert shown["extensions"]["127.0.0.1"]["requests"][0]["state"] == "deciding"
    refusal = {"refuse": "legal-claims", "explanation": "A claim is under way."}
    assert (await platform.do(request.id, "decision", refusal)).status_code == 200
    shown = await tool.status(id_)
    assert shown["request_status"] == "cancelled"
    assert shown["extensions"]["127.0.0.1"]["requests"][0] == {
        "id": str(request.id), "state": "refused", "ground": "legal-claims", "due_on": str(request.due_on)
    }  # fmt: skip


async def test_whoever_is_not_known_is_answered_alike(tool: Tool) -> None:
    known, unknown = await tool.platform.person(), f"canary-{uuid4().hex}@vitrine.example"
    await tool.asked(known, "access")
    for identity in (
        {"identity_type": "email", "identity_value": known.email, "identity_format": "raw"},
        {"identity_type": "email", "identity_value": unknown, "identity_format": "raw"},
        {"identity_type": "controller_customer_id", "identity_value": str(uuid4()), "identity_format": "raw"},
    ):
        body = tool.body("", subject_identities=[identity])
        answer = await tool.send(body)
        assert (answer.status_code, set(answer.json())) == (
            201,
            {
                *("controller_id", "expected_completion_time", "received_time", "encoded_request"),
                "subject_request_id",
            },
        )
        shown = await tool.status(body["subject_request_id"])
        del shown["extensions"], shown["subject_request_id"], shown["expected_completion_time"]
        assert shown == {"controller_id": tool.id, "request_status": "pending", "api_version": "2.0"}


async def test_one_who_is_named_twice_has_one_request_and_two_people_have_two(tool: Tool) -> None:
    one, other = await tool.platform.person(), await tool.platform.person()

    def email(person: Person) -> dict[str, str]:
        return {"identity_type": "email", "identity_value": person.email.upper(), "identity_format": "raw"}

    named = {
        "identity_type": "controller_customer_id",
        "identity_value": str(one.subject_id),
        "identity_format": "raw",
    }
    alone = await tool.asked(one, subject_identities=[email(one), named])
    assert [row.subject_id for row in await tool.requests(alone)] == [one.subject_id]
    both = await tool.asked(one, subject_identities=[email(one), email(other)])
    assert {row.subject_id for row in await tool.requests(both)} == {one.subject_id, other.subject_id}


async def test_the_law_s_time_runs_from_the_day_on_which_the_store_was_asked(tool: Tool) -> None:
    person = await tool.platform.person()
    asked = datetime.now(UTC) - timedelta(days=20)
    [request] = await tool.requests(await tool.asked(person, submitted_time=asked.isoformat()))
    assert asked.date() - timedelta(days=1) <= request.received_at.date() <= asked.date()
    california = await tool.asked(person, regulation="ccpa", submitted_time="2026-11-01T00:00:00-08:00")
    assert [row.law for row in await tool.requests(california)] == ["ccpa"]


async def test_the_same_again_is_done_once_and_something_else_under_its_id_is_refused(tool: Tool) -> None:
    person, other = await tool.platform.person(), await tool.platform.person()
    body = tool.body(person.email)
    answers = await asyncio.gather(*(tool.send(body) for _ in range(5)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert len(await tool.requests(body["subject_request_id"])) == 1
    for changes in (
        {"subject_request_type": "access"},
        {"regulation": "ccpa"},
        {"subject_identities": tool.body(other.email)["subject_identities"]},
    ):
        is_refused(await tool.send(body | changes), "used")
    assert len(await tool.requests(body["subject_request_id"])) == 1


async def test_another_tool_may_use_the_same_id(tool: Tool) -> None:
    another = await registered(tool.platform)
    person = await tool.platform.person()
    body = tool.body(person.email, "access")
    assert (await tool.send(body)).status_code == (await another.send(body)).status_code == 201
    assert len(await tool.requests(body["subject_request_id"])) == 2


async def test_what_a_person_asks_is_their_own_and_not_the_tool_s(tool: Tool) -> None:
    platform, person = tool.platform, await tool.platform.person()
    id_ = await tool.asked(person, "access")
    own = await platform.opened(person, "access")
    [request] = await tool.requests(id_)
    assert own != request.id
    assert (await tool.asked(person, "access")) != id_


async def test_an_erasure_by_another_request_does_not_take_the_tool_s_back(tool: Tool) -> None:
    platform, person = tool.platform, await tool.platform.person()
    id_ = await tool.asked(person)
    [request] = await tool.requests(id_)
    own = await platform.opened(person, "erasure")
    await platform.ask_keyring()
    await platform.deliver(platform.answer(own, Verb.ERASE))
    await platform.answer_itself(own, Verb.ERASE)
    assert (await tool.status(id_))["request_status"] == "pending"
    await platform.answer_all(request.id, Verb.PREVIEW)
    await platform.ask_keyring()
    await platform.answer_all(request.id, Verb.ERASE)
    await platform.ask_keyring()
    await platform.answer_all(request.id, Verb.VERIFY_ERASED)
    assert (await tool.status(id_))["request_status"] == "completed"


# --- What is refused -------------------------------------------------------------------------------------


def is_refused(answer: httpx.Response, *reasons: str) -> None:
    """In the form of the specification, and as any problem."""
    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    error = answer.json()["error"]
    assert error["code"] == answer.json()["status"] == 400
    assert error["message"]
    assert all(one.keys() == {"domain", "reason", "message"} for one in error["errors"])
    assert {one["reason"] for one in error["errors"]} == set(reasons)


@pytest.mark.parametrize(
    "left_out",
    [
        "regulation",
        "subject_request_id",
        "subject_request_type",
        "submitted_time",
        "subject_identities",
    ],
)
async def test_every_member_that_is_required_is_required(tool: Tool, left_out: str) -> None:
    answer = await tool.send(tool.body("canary@vitrine.example") | {"extensions": {}} | {left_out: None})
    is_refused(answer, "invalid")
    body = tool.body("canary@vitrine.example")
    del body[left_out]
    answer = await tool.send(body)
    is_refused(answer, "missing")
    assert answer.json()["error"]["errors"][0]["message"] == f"{left_out} is required."


def _identity(**changes: str) -> dict[str, Any]:
    one = {"identity_type": "email", "identity_value": "canary@vitrine.example", "identity_format": "raw"}
    return {"subject_identities": [one | changes]}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"subject_request_id": "A7551968-D5D6-44B2-9831-815AC9017798"}, "invalid"),
        ({"subject_request_id": "a7551968-d5d6-14b2-9831-815ac9017798"}, "invalid"),
        ({"subject_request_type": "rectification"}, "invalid"),
        ({"regulation": "lgpd"}, "invalid"),
        ({"submitted_time": "2026-11-01"}, "invalid"),
        ({"submitted_time": "2026-11-01T10:00:00"}, "invalid"),
        ({"submitted_time": "2036-11-01T10:00:00Z"}, "invalid"),
        ({"submitted_time": "0001-01-01T00:00:00Z"}, "invalid"),
        ({"submitted_time": "9999-12-31T23:59:59Z"}, "invalid"),
        ({"subject_identities": []}, "invalid"),
        (_identity(identity_type="passport"), "invalid"),
        (_identity(identity_value="canary"), "invalid"),
        (_identity(identity_type="controller_customer_id", identity_value="17"), "invalid"),
        (_identity(identity_format="sha256", identity_value="ab" * 32), "unsupported"),
        (_identity(identity_format="md5", identity_value="ab" * 16), "unsupported"),
        (_identity(identity_type="ios_vendor_id", identity_value="x"), "unsupported"),
        ({"canary": 1}, "unknown"),
        ({"status_callback_url": "https://tool.vitrine.example/"}, "unknown"),
        ({"extensions": {"127.0.0.1": {"canary": 1}}}, "unsupported"),
        ({"status_callback_urls": ["https://canary.vitrine.example/"]}, "host"),
        ({"status_callback_urls": [f"https://{HOST}:8443/"]}, "host"),
        ({"status_callback_urls": [f"https://canary@{HOST}/"]}, "invalid"),
        ({"status_callback_urls": [f"https://{HOST}/canary%40vitrine.example"]}, "personal"),
        ({"status_callback_urls": ["file:///etc/passwd"]}, "invalid"),
    ],
)
async def test_what_cannot_be_done_is_refused_with_its_reason(
    tool: Tool, changes: dict[str, Any], reason: str
) -> None:
    body = tool.body("canary@vitrine.example", **changes)
    answer = await tool.send(body)
    is_refused(answer, reason)
    assert "canary" not in answer.text.lower()
    async with tool.platform.database.session(tool.platform.store_id) as session:
        assert await session.scalar(text("SELECT count(*) FROM opendsr_request")) == 0


def test_an_address_without_tls_is_refused_unless_the_operator_allows_it() -> None:
    asking = Tool(None, "", "")  # type: ignore[arg-type]
    wanted = NewRequest.model_validate(
        asking.body("canary@vitrine.example", status_callback_urls=[f"http://{HOST}/"])
    )
    tool, now = Controller(uuid4(), uuid4(), frozenset({HOST})), datetime.now(UTC)
    check(wanted, tool, domain="127.0.0.1", plain=True, now=now)
    with pytest.raises(NotOpenDsr):
        check(wanted, tool, domain="127.0.0.1", plain=False, now=now)


async def test_extensions_for_others_are_not_ours_to_read(tool: Tool) -> None:
    person = await tool.platform.person()
    await tool.asked(person, extensions={"other.example": {"any": [1]}}, api_version="2.0")


async def test_a_regulation_is_not_needed_by_the_former_name(tool: Tool) -> None:
    body = tool.body("canary@vitrine.example", "access", regulation=None)
    is_refused(await tool.send(body), "missing")
    assert (await tool.send(body, "/opengdpr_requests")).status_code == 201
    assert [row.law for row in await tool.requests(body["subject_request_id"])] == ["gdpr"]


@settings(max_examples=150, deadline=None)
@given(
    document=st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(sorted(NewRequest.model_fields)) | st.text(max_size=10), inner, max_size=4
            )
        ),
        max_leaves=8,
    ),
    member=st.sampled_from([None, *sorted(NewRequest.model_fields)]),
)
def test_whatever_is_sent_is_read_or_refused(document: Any, member: str | None) -> None:
    right = Tool(None, "", "").body("canary@vitrine.example")  # type: ignore[arg-type]
    sent = json.dumps(document if member is None else right | {member: document}).encode()
    try:
        wanted = read(NewRequest, sent)
    except NotOpenDsr as problem:
        assert problem.document()["error"]["errors"]  # type: ignore[index]
    else:
        assert read(NewRequest, written(wanted)) == wanted


# --- Taking it back --------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", ["v1/requests", "opengdpr_requests"])
async def test_a_request_is_taken_back_while_it_is_pending(tool: Tool, names: str) -> None:
    id_ = await tool.asked(await tool.platform.person())
    for _ in range(2):
        answer = await tool.delete(id_, names)
        assert answer.status_code == 202, answer.text
        assert answer.json().keys() == {"controller_id", "subject_request_id", "received_time", "api_version"}
        await shows_who_we_are(tool.platform, answer)
    shown = await tool.get(id_, names)
    assert shown.json()["request_status"] == "cancelled"
    await shows_who_we_are(tool.platform, shown)
    assert [row.state for row in await tool.requests(id_)] == ["cancelled"]


async def test_one_that_has_begun_is_not_taken_back(tool: Tool) -> None:
    one, other = await tool.platform.person(), await tool.platform.person()
    identities = [*tool.body(one.email)["subject_identities"], *tool.body(other.email)["subject_identities"]]
    id_ = await tool.asked(one, subject_identities=identities)
    first, second = await tool.requests(id_)
    await tool.platform.answer_all(first.id, Verb.PREVIEW)
    is_refused(await tool.delete(id_), "not-pending")
    assert [row.state for row in await tool.requests(id_)] == ["running", "deciding"]
    assert second.state == "deciding"


# --- Who may ask -----------------------------------------------------------------------------------------


async def test_nobody_is_let_in_without_a_key_that_counts(tool: Tool) -> None:
    id_ = await tool.asked(await tool.platform.person())
    for headers in ({}, {"Authorization": "Bearer x"}, tool.platform.officer()):
        for method, path in (
            *(("POST", "/v1/requests"), ("POST", "/opengdpr_requests")),
            *(("GET", f"/v1/requests/{id_}"), ("DELETE", f"/v1/requests/{id_}")),
            *(("GET", f"/v1/requests/{id_}/results"), ("GET", f"/v1/requests/{id_}/results/1")),
        ):
            answer = await tool.platform.client.request(method, tool.base + path, headers=headers)
            assert answer.status_code == 401, (method, path)


async def test_another_tool_s_request_and_another_store_s_tool_are_nothing(tool: Tool) -> None:
    id_ = await tool.asked(await tool.platform.person())
    another = await registered(tool.platform)
    unknown = await another.get(str(uuid4()))
    assert unknown.status_code == 404
    for method in ("GET", "DELETE"):
        answer = await another.platform.client.request(
            method, f"{tool.base}/v1/requests/{id_}", headers=another.headers
        )
        assert (answer.status_code, answer.content) == (404, unknown.content)
    elsewhere = f"/privacy/opendsr/{uuid4()}/v1/requests/{id_}"
    answer = await tool.platform.client.get(elsewhere, headers=tool.headers)
    assert (answer.status_code, answer.content) == (404, unknown.content)


async def test_a_key_is_replaced_and_a_tool_is_revoked(tool: Tool) -> None:
    platform = tool.platform
    id_ = await tool.asked(await platform.person(), status_callback_urls=[f"https://{HOST}/"])
    path = f"{platform.path}/opendsr-controllers/{tool.id}"
    answer = await platform.client.post(f"{path}/keys", json={"overlap_hours": 1}, headers=platform.officer())
    assert answer.status_code == 200
    newer = Tool(platform, tool.id, answer.json()["key"])
    assert (await tool.get(id_)).status_code == (await newer.get(id_)).status_code == 200
    with platform.at(datetime.now(UTC) + timedelta(hours=2)):
        assert (await tool.get(id_)).status_code == 401
        assert (await newer.get(id_)).status_code == 200
    for _ in range(2):
        assert (await platform.client.delete(path, headers=platform.officer())).status_code == 204
    assert (await newer.get(id_)).status_code == 401
    assert (
        await platform.client.post(f"{path}/keys", json={}, headers=platform.officer())
    ).status_code == 404
    shown = (await platform.client.get(path, headers=platform.officer())).json()
    assert shown["revoked_at"] is not None
    assert "key" not in shown
    [request] = await tool.requests(id_)
    await platform.answer_all(request.id, Verb.PREVIEW)
    await following.watch(platform.work)
    assert (await callbacks_of(newer)) == []


async def callbacks_of(tool: Tool) -> list[dict[str, Any]]:
    answer = await tool.platform.client.get(
        f"{tool.platform.path}/opendsr-controllers/{tool.id}/callbacks", headers=tool.platform.officer()
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize(
    "host", ["https://tool.example", "tool.example/", "tool_example:x", "", "a b", "é.example"]
)
async def test_a_host_is_a_host(platform: Platform, host: str) -> None:
    body = {"name": "A tool", "callback_hosts": [host]}
    answer = await platform.client.post(
        f"{platform.path}/opendsr-controllers", json=body, headers=platform.officer()
    )
    assert answer.status_code == 422


# --- Results ---------------------------------------------------------------------------------------------


async def test_the_results_of_an_access_are_fetched_with_the_tool_s_key(tool: Tool) -> None:
    platform, person = tool.platform, await tool.platform.person()
    id_ = await tool.asked(person, "access")
    [request] = await tool.requests(id_)
    await platform.answer_all(request.id, Verb.PREVIEW)
    await platform.answer_all(request.id, Verb.EXPORT)
    await platform.assemble()
    shown = await tool.status(id_)
    assert (shown["request_status"], shown["results_count"]) == ("completed", 1)
    path = shown["results_url"].removeprefix("http://127.0.0.1:8000")
    archive = await platform.client.get(path, headers=tool.headers)
    assert archive.status_code == 200
    with zipfile.ZipFile(io.BytesIO(archive.content)) as opened:
        assert "index.html" in opened.namelist()
    another = await registered(platform)
    for headers, status in ((another.headers, 404), ({}, 401)):
        assert (await platform.client.get(path, headers=headers)).status_code == status
    assert (await platform.client.get(path[:-1] + "2", headers=tool.headers)).status_code == 404
    assert await mails(platform, person) == []
    with platform.at(datetime.now(UTC) + timedelta(days=8)):
        assert (await platform.client.get(path, headers=tool.headers)).status_code == 404
        assert "results_url" not in (await tool.get(id_)).json()


async def test_the_results_about_two_people_are_two(tool: Tool) -> None:
    platform = tool.platform
    one, other = await platform.person(), await platform.person()
    identities = [*tool.body(one.email)["subject_identities"], *tool.body(other.email)["subject_identities"]]
    id_ = await tool.asked(one, "portability", subject_identities=identities)
    for request in await tool.requests(id_):
        await platform.answer_all(request.id, Verb.PREVIEW)
        await platform.answer_all(request.id, Verb.EXPORT)
    await platform.assemble()
    shown = await tool.status(id_)
    listed = await platform.client.get(
        shown["results_url"].removeprefix("http://127.0.0.1:8000"), headers=tool.headers
    )
    assert listed.json()["results_count"] == shown["results_count"] == 2
    for address in listed.json()["results"]:
        path = address.removeprefix("http://127.0.0.1:8000")
        assert (await platform.client.get(path, headers=tool.headers)).status_code == 200
    erasure = await platform.opened(one, "erasure")
    await platform.ask_keyring()
    await platform.answer_itself(erasure, Verb.ERASE)
    assert (await tool.get(id_)).json()["results_count"] == 1
