"""Processors outside that lie, dawdle and vanish, and callbacks that are forged, replayed or somebody else's."""

import base64
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select, text
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from libs.common.events.privacy import TaskAnswered, Verb
from libs.common.outgoing import Answer, Outgoing
from libs.common.personal.vocabulary import Purpose
from services.privacy import consumer
from services.privacy.api import opendsr as api
from services.privacy.domain.problems import NotOpenDsr
from services.privacy.models import ExportChunk
from services.privacy.opendsr.certificates import Certificates, certificates_of
from services.privacy.opendsr.peers import Doubtful, understood
from services.privacy.opendsr.signatures import DOMAIN, SIGNATURE
from services.privacy.opendsr.wire import Accepted, Callback, Discovery, Status, read
from services.privacy.recipients import deliveries, opendsr
from services.privacy.settings import Settings
from tests.privacy.conftest import Person, Platform
from tests.privacy.opendsr.authority import Issuer, new_key, pem, root
from tests.privacy.ways import open_store
from tests.serving import serving

EXPECTED = "2027-01-01T00:00:00Z"
Change = Callable[[dict[str, Any]], Any]


def _as_it_is(answer: dict[str, Any]) -> dict[str, Any]:
    return answer


@dataclass
class Processor:
    """Somebody else's, with a certificate of a real authority, whose answers a test may change."""

    key: RSAPrivateKey
    certificate: x509.Certificate
    address: str = ""
    names: str = "v1/requests"
    discovery: dict[str, Any] = field(default_factory=dict[str, Any])
    asked: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    authorised: list[str | None] = field(default_factory=list[str | None])
    polled: int = 0
    accept: Change = _as_it_is
    status: dict[str, Any] = field(default_factory=lambda: {"request_status": "pending"})
    code: int = 201
    signs: bool = True

    @property
    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/discovery", self._v1, methods=["GET"]),
                Route("/discovery", self._former, methods=["GET"]),
                Route("/cert.pem", self._cert),
                Route("/{names:path}", self._request, methods=["POST"]),
                Route("/{names:path}", self._state, methods=["GET"]),
            ]
        )

    def signed(
        self, body: bytes, *, key: RSAPrivateKey | None = None, former: bool = False
    ) -> dict[str, str]:
        signature = (key or self.key).sign(body, PKCS1v15(), SHA256())
        return {DOMAIN[former]: "127.0.0.1", SIGNATURE[former]: base64.b64encode(signature).decode()}

    def _said(self, content: Any, code: int = 200) -> Response:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        headers = self.signed(body, former=self.names == "opengdpr_requests") if self.signs else {}
        return Response(body, status_code=code, media_type="application/json", headers=headers)

    async def _v1(self, _: Request) -> Response:
        return self._discovered() if self.names == "v1/requests" else Response(status_code=404)

    async def _former(self, _: Request) -> Response:
        return self._discovered()

    def _discovered(self) -> Response:
        return self._said(
            {
                "api_version": "2.0",
                "supported_identities": [
                    {"identity_type": "email", "identity_format": "raw"},
                    {"identity_type": "something_new", "identity_format": "raw"},
                ],
                "supported_subject_request_types": ["erasure", "access", "something-new"],
                "processor_certificate": f"{self.address}/cert.pem",
            }
            | self.discovery
        )

    async def _cert(self, _: Request) -> Response:
        return Response(pem(self.certificate))

    async def _request(self, request: Request) -> Response:
        if request.path_params["names"] != self.names:
            return Response(status_code=404)
        body = await request.body()
        self.authorised.append(request.headers.get("authorization"))
        self.asked.append(json.loads(body))
        answer = {
            "controller_id": "us",
            "subject_request_id": self.asked[-1]["subject_request_id"],
            "expected_completion_time": EXPECTED,
            "received_time": "2026-11-27T00:00:00Z",
            "encoded_request": base64.b64encode(body).decode(),
        }
        return self._said(self.accept(answer), self.code)

    async def _state(self, request: Request) -> Response:
        self.polled += 1
        id_ = request.path_params["names"].rpartition("/")[2]
        return self._said(
            {"controller_id": "us", "subject_request_id": id_, "expected_completion_time": EXPECTED}
            | self.status
        )


@dataclass
class World:
    """A store that has such a processor."""

    platform: Platform
    processor: Processor
    recipient: dict[str, Any] = field(default_factory=dict[str, Any])
    ahead: timedelta = timedelta(0)

    async def deliver(self) -> None:
        work = replace(self.platform.work, clock=lambda: datetime.now(UTC) + self.ahead)
        while await deliveries.deliver(work):
            pass

    async def registered(self, **changes: Any) -> dict[str, Any]:
        body = {
            "name": "A processor",
            "url": self.processor.address,
            "role": "processor",
            "protocol": "opendsr",
            "credential": "canary-credential",
        } | changes
        answer = await self.platform.client.post(
            f"{self.platform.path}/recipients", json=body, headers=self.platform.officer()
        )
        assert answer.status_code == 201, answer.text
        return answer.json()

    async def test(self, recipient: dict[str, Any] | None = None) -> str:
        """What came of a test: the last try's word."""
        path = f"{self.platform.path}/recipients/{(recipient or self.recipient)['id']}"
        answer = await self.platform.client.post(f"{path}/tests", headers=self.platform.officer())
        assert answer.status_code == 202, answer.text
        await self.deliver()
        return await self.word(answer.json()["id"], recipient)

    async def word(self, delivery_id: str, recipient: dict[str, Any] | None = None) -> str:
        path = f"{self.platform.path}/recipients/{(recipient or self.recipient)['id']}"
        answer = await self.platform.client.get(
            f"{path}/deliveries/{delivery_id}/attempts", headers=self.platform.officer()
        )
        return answer.json()["items"][-1]["word"]

    async def asked(self, right: str = "erasure") -> tuple[Person, UUID, str]:
        """A request that was sent to the processor: its person, and its id here and there."""
        platform, person = self.platform, await self.platform.person()
        request_id = await platform.opened(person, right)
        asked = (await platform.tasks(request_id, Verb.REFER))[-1]
        await platform.deliver(platform.answer(request_id, Verb.REFER, round=asked.round))
        before = len(await platform.published(TaskAnswered))
        await platform.deliver(asked)
        await consumer.PARTICIPANT.refer(platform.work)
        answers = (await platform.published(TaskAnswered))[before:]
        await platform.deliver(*[one for one in answers if one.request_id == request_id])
        if right == "erasure":
            await platform.ask_keyring()
            await platform.answer_all(request_id, Verb.ERASE)
        await self.deliver()
        return person, request_id, (await self.delivery())["id"]

    async def delivery(self) -> dict[str, Any]:
        path = f"{self.platform.path}/recipients/{self.recipient['id']}/deliveries"
        answer = await self.platform.client.get(path, headers=self.platform.officer())
        return answer.json()["items"][0]

    async def part(self, person: Person, request_id: UUID) -> str:
        detail = await self.platform.detail(person, request_id)
        name = f"recipient-{self.recipient['id']}"
        return next(one["state"] for one in detail["parts"] if one["participant"] == name)

    def callback(self, id_: str, **changes: Any) -> bytes:
        said = {
            "controller_id": "us",
            "status_callback_url": "http://127.0.0.1:8000/privacy/opendsr/callbacks",
            "subject_request_id": id_,
            "request_status": "completed",
            "expected_completion_time": EXPECTED,
        } | changes
        return json.dumps({name: value for name, value in said.items() if value is not None}).encode()

    async def call(
        self, body: bytes, headers: dict[str, str] | None = None, path: str = "callbacks"
    ) -> httpx.Response:
        return await self.platform.client.post(
            f"/privacy/opendsr/{path}",
            content=body,
            headers=self.processor.signed(body) if headers is None else headers,
        )


@pytest.fixture(scope="module")
def rsa_key() -> RSAPrivateKey:
    return new_key()


@pytest.fixture(scope="module")
def authority() -> Issuer:
    return root()


@pytest.fixture
async def world(
    platform: Platform,
    app: FastAPI,
    privacy_settings: Settings,
    rsa_key: RSAPrivateKey,
    authority: Issuer,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[World]:
    trusting = privacy_settings.model_copy(
        update={"opendsr_authorities": pem(authority.certificate).decode()}
    )
    monkeypatch.setattr(opendsr, "present", lambda: trusting)
    certificates = certificates_of(trusting)

    def trusted(_: Settings) -> Certificates:
        return certificates

    monkeypatch.setattr(api, "certificates_of", trusted)
    processor = Processor(rsa_key, authority.issue(("127.0.0.1",), rsa_key))
    async with serving(processor.app) as processor.address:
        await open_store(platform)
        world = World(platform, processor)
        async with platform.database.platform_session() as session:
            await session.execute(text("UPDATE delivery SET next_try_at = NULL"))
            await session.execute(text("UPDATE recipient SET state = 'disabled' WHERE protocol = 'opendsr'"))
        world.recipient = await world.registered()
        yield world


async def active(world: World) -> World:
    assert await world.test() == ""
    return world


# --- What a processor is ---------------------------------------------------------------------------------


async def test_a_test_looks_at_what_the_processor_is(world: World) -> None:
    processor = world.processor
    for changes, word in (
        ({"processor_certificate": "https://elsewhere.vitrine.example/cert.pem"}, "certificate-elsewhere"),
        ({"api_version": None}, "answer-not-understood"),
        ({"supported_identities": "all"}, "answer-not-understood"),
    ):
        processor.discovery = changes
        assert await world.test() == word
    processor.discovery = {}
    good = processor.certificate
    processor.certificate = Issuer("other", *_other()).issue(("127.0.0.1",), processor.key)
    assert await world.test() == "certificate-not-trusted"
    processor.certificate = good
    assert await world.test() == ""


def _other() -> tuple[Any, x509.Certificate]:
    other = root()
    return other.key, other.certificate


async def test_the_former_names_are_spoken_to_whoever_knows_no_others(world: World) -> None:
    world.processor.names = "opengdpr_requests"
    await active(world)
    person, request_id, id_ = await world.asked()
    assert await world.part(person, request_id) == "received"
    body = world.callback(id_, status_callback_url="http://127.0.0.1:8000/privacy/opendsr/opengdpr_callbacks")
    answer = await world.call(body, world.processor.signed(body, former=True), "opengdpr_callbacks")
    assert answer.status_code == 204, answer.text
    assert await world.part(person, request_id) == "done"


async def test_what_is_asked_is_what_the_processor_supports(world: World) -> None:
    await active(world)
    person, _, id_ = await world.asked()
    [asked] = world.processor.asked
    assert asked == {
        "regulation": "gdpr",
        "subject_request_id": id_,
        "subject_request_type": "erasure",
        "submitted_time": asked["submitted_time"],
        "subject_identities": [
            {"identity_type": "email", "identity_format": "raw", "identity_value": person.email}
        ],
        "api_version": "2.0",
        "status_callback_urls": ["http://127.0.0.1:8000/privacy/opendsr/callbacks"],
        "extensions": {},
    }
    assert UUID(id_).version == 4
    assert world.processor.authorised == ["Bearer canary-credential"]


async def test_a_hash_is_sent_where_only_hashes_are_known(world: World) -> None:
    world.processor.discovery = {
        "supported_identities": [{"identity_type": "email", "identity_format": "sha256"}]
    }
    await active(world)
    person, _, _ = await world.asked()
    [identity] = world.processor.asked[0]["subject_identities"]
    assert identity == {
        "identity_type": "email",
        "identity_format": "sha256",
        "identity_value": sha256(person.email.encode()).hexdigest(),
    }


async def test_whoever_knows_nobody_by_what_we_know_holds_nothing_that_we_gave(world: World) -> None:
    world.processor.discovery = {
        "supported_identities": [{"identity_type": "ios_vendor_id", "identity_format": "raw"}]
    }
    await active(world)
    person, request_id, _ = await world.asked()
    assert world.processor.asked == []
    assert await world.part(person, request_id) == "nothing-held"


async def test_a_right_that_it_does_not_know_is_shown(world: World) -> None:
    world.processor.discovery = {"supported_subject_request_types": ["access"]}
    await active(world)
    person, request_id, id_ = await world.asked()
    assert world.processor.asked == []
    assert await world.word(id_) == "right-not-supported"
    assert await world.part(person, request_id) == "failed"


# --- What it answers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ({"subject_request_id": str(uuid4())}, "answer-of-another-request"),
        ({"encoded_request": "e30="}, "answer-of-another-request"),
        ({"controller_id": None}, "answer-not-understood"),
        ({"expected_completion_time": "soon"}, "answer-not-understood"),
        (b"[]", "answer-not-understood"),
        (b"{", "answer-not-understood"),
        (b"x" * 100_000, "reply-too-large"),
    ],
)
async def test_an_answer_that_says_something_else_is_no_acceptance(
    world: World, said: dict[str, Any] | bytes, word: str
) -> None:
    def changed(answer: dict[str, Any]) -> Any:
        return said if isinstance(said, bytes) else answer | said

    await active(world)
    world.processor.accept = changed
    person, request_id, id_ = await world.asked()
    assert await world.word(id_) == word
    assert await world.part(person, request_id) == "failed"
    world.processor.accept = _as_it_is
    world.ahead = timedelta(hours=1)
    await world.deliver()
    assert await world.part(person, request_id) == "received"
    assert {one["subject_request_id"] for one in world.processor.asked} == {id_}


async def test_an_answer_that_nobody_signed_or_somebody_else_did_is_no_acceptance(world: World) -> None:
    await active(world)
    world.processor.signs = False
    person, request_id, id_ = await world.asked()
    assert await world.word(id_) == "signed-by-another"
    world.processor.signs, own = True, world.processor.key
    world.processor.key = new_key()
    world.ahead = timedelta(hours=1)
    await world.deliver()
    assert await world.word(id_) == "signature-not-valid"
    assert await world.part(person, request_id) == "failed"
    world.processor.key = own


@pytest.mark.parametrize(("code", "word"), [(200, "answer-not-understood"), (400, "refused"), (503, "fails")])
async def test_anything_but_created_is_no_acceptance(world: World, code: int, word: str) -> None:
    await active(world)
    world.processor.code = code
    person, request_id, id_ = await world.asked()
    assert await world.word(id_) == word
    assert await world.part(person, request_id) == "failed"


async def test_one_that_has_vanished_delays_and_never_loses(world: World) -> None:
    await active(world)
    address, world.processor.address = world.processor.address, ""
    person, request_id, id_ = await world.asked()
    assert await world.part(person, request_id) == "received"
    # Its callbacks never come and its state cannot be read: what was received stays so.
    world.processor.address = address
    world.processor.signs = False
    world.ahead = timedelta(hours=25)
    await world.deliver()
    assert await world.part(person, request_id) == "received"
    assert await world.word(id_) == "signed-by-another"
    world.processor.signs, world.processor.status = True, {"request_status": "completed"}
    world.ahead = timedelta(days=40)
    await world.deliver()
    assert await world.part(person, request_id) == "done"


async def test_results_that_are_too_large_are_listed_with_their_address(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await active(world)
    person, request_id, _ = await world.asked("access")
    where = f"{world.processor.address}/results"
    world.processor.status = {
        "request_status": "completed", "results_url": where, "results_count": 3, "padding": "x" * 60_000
    }  # fmt: skip
    monkeypatch.setattr(opendsr, "RESULT_BYTES", 1000)
    world.ahead = timedelta(hours=25)
    await world.deliver()
    assert await world.part(person, request_id) == "done"
    async with world.platform.database.session(world.platform.store_id) as session:
        box = await session.scalar(
            select(ExportChunk.box).where(
                ExportChunk.request_id == request_id, ExportChunk.participant.like("recipient-%")
            )
        )
    assert box is not None
    found = await world.platform.work.vault.open(
        box,
        store_id=world.platform.store_id,
        subject_id=person.subject_id,
        purpose=Purpose.RIGHTS_OF_THE_PERSON,
    )
    assert [one["data"] for one in found.records] == [{"address": where}]


# --- What it says later ----------------------------------------------------------------------------------


async def test_a_callback_says_that_it_is_done_and_again_changes_nothing(world: World) -> None:
    await active(world)
    person, request_id, id_ = await world.asked()
    for status in ("pending", "in_progress"):
        assert (await world.call(world.callback(id_, request_status=status))).status_code == 204
        assert await world.part(person, request_id) == "received"
    done = world.callback(id_)
    for _ in range(3):
        assert (await world.call(done)).status_code == 204
        assert await world.part(person, request_id) == "done"
    assert (await world.call(world.callback(id_, request_status="in_progress"))).status_code == 204
    assert (await world.call(world.callback(id_, request_status="cancelled"))).status_code == 409
    assert await world.part(person, request_id) == "done"


async def test_a_callback_that_it_is_cancelled_is_a_failure_that_is_shown(world: World) -> None:
    await active(world)
    person, request_id, id_ = await world.asked()
    assert (await world.call(world.callback(id_, request_status="cancelled"))).status_code == 204
    assert await world.part(person, request_id) != "done"
    assert (await world.delivery())["state"] == "stuck"


async def test_a_forged_callback_changes_nothing(world: World) -> None:
    await active(world)
    person, request_id, id_ = await world.asked()
    body, other = world.callback(id_), new_key()
    good = world.processor.signed(body)
    for forged in (
        {},
        {DOMAIN[0]: "127.0.0.1"},
        {SIGNATURE[0]: good[SIGNATURE[0]]},
        world.processor.signed(body, key=other),
        world.processor.signed(body + b" "),
        good | {DOMAIN[0]: "elsewhere.vitrine.example"},
        good | {DOMAIN[0]: ".*"},
        good | {DOMAIN[0]: "127.0.0.1" * 100},
        good | {SIGNATURE[0]: "not base64"},
        good | {SIGNATURE[1]: "bm90aGluZw=="},
    ):
        answer = await world.call(body, forged)
        assert answer.status_code == 403, forged
        assert answer.json()["type"] == "/problems/callback-not-signed"
    # The body was swapped for another behind a signature that was good.
    assert (await world.call(world.callback(id_, results_count=1), good)).status_code == 403
    assert await world.part(person, request_id) == "received"


async def test_a_revoked_certificate_ends_what_its_key_can_say(
    world: World, authority: Issuer, rsa_key: RSAPrivateKey
) -> None:
    listed = f"{world.processor.address}/list.crl"
    world.processor.certificate = authority.issue(("127.0.0.1",), rsa_key, lists=[listed])
    # Nobody serves the list: nothing can be said about the certificate, so it is not believed.
    assert await world.test() == "revocation-unknown"


async def test_a_callback_for_somebody_elses_request_is_like_one_for_none(
    world: World, rsa_key: RSAPrivateKey
) -> None:
    await active(world)
    _, _, theirs = await world.asked()
    unknown = await world.call(world.callback(str(uuid4())))
    assert unknown.status_code == 404
    # The request belongs to a recipient of another domain from now on.
    async with world.platform.database.platform_session() as session:
        await session.execute(
            text("UPDATE recipient SET url = 'https://other.vitrine.example' WHERE id = :id"),
            {"id": UUID(world.recipient["id"])},
        )
    await world.registered()
    answer = await world.call(world.callback(theirs))
    assert (answer.status_code, answer.content) == (404, unknown.content)


@pytest.mark.parametrize(
    "changes",
    [
        {"status_callback_url": "https://elsewhere.vitrine.example/callbacks"},
        {"status_callback_url": None},
        {"request_status": "finished"},
        {"subject_request_id": "17"},
        {"controller_id": None},
        {"expected_completion_time": "soon"},
        {"results_url": "javascript:alert(1)"},
        {"results_count": -1},
    ],
)
async def test_a_signed_callback_that_says_nothing_sensible_is_refused(
    world: World, changes: dict[str, Any]
) -> None:
    await active(world)
    person, request_id, id_ = await world.asked()
    answer = await world.call(world.callback(id_, **changes))
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["errors"]
    assert await world.part(person, request_id) == "received"


async def test_nobody_is_listened_to_once_nothing_is_asked_of_them(world: World) -> None:
    await active(world)
    _, _, id_ = await world.asked()
    path = f"{world.platform.path}/recipients/{world.recipient['id']}/disabling"
    assert (await world.platform.client.post(path, headers=world.platform.officer())).status_code == 200
    assert (await world.call(world.callback(id_))).status_code == 403


async def test_a_flood_of_forged_callbacks_is_no_flood_of_calls(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await active(world)
    _, _, id_ = await world.asked()
    fetched: list[str] = []
    body = world.callback(id_)
    assert (await world.call(body)).status_code == 204
    original = Outgoing.send

    async def noted(self: Outgoing, method: str, url: str, **more: Any) -> Answer:
        fetched.append(url)
        return await original(self, method, url, **more)

    monkeypatch.setattr(Outgoing, "send", noted)
    for _ in range(20):
        forged = await world.call(body, world.processor.signed(body + b" "))
        assert forged.status_code == 403
    assert fetched == []


# --- Whatever a stranger says ----------------------------------------------------------------------------

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
_RIGHT: dict[Any, dict[str, Any]] = {
    Discovery: {
        "api_version": "2.0",
        "supported_identities": [],
        "supported_subject_request_types": [],
        "processor_certificate": "https://p.example/c",
    },
    Accepted: {
        "controller_id": "a",
        "subject_request_id": "a7551968-d5d6-44b2-9831-815ac9017798",
        "expected_completion_time": EXPECTED,
        "received_time": EXPECTED,
        "encoded_request": "e30=",
    },
    Status: {
        "controller_id": "a",
        "subject_request_id": "a7551968-d5d6-44b2-9831-815ac9017798",
        "expected_completion_time": EXPECTED,
        "request_status": "pending",
    },
    Callback: {
        "controller_id": "a",
        "subject_request_id": "a7551968-d5d6-44b2-9831-815ac9017798",
        "expected_completion_time": EXPECTED,
        "request_status": "pending",
        "status_callback_url": "https://p.example/c",
    },
}


@settings(max_examples=300, deadline=None)
@given(model=st.sampled_from(list(_RIGHT)), data=st.data())
def test_what_is_read_of_a_stranger_is_whole_or_nothing(model: Any, data: st.DataObject) -> None:
    member = data.draw(st.sampled_from([None, *model.model_fields]))
    value = data.draw(_JSON)
    sent = json.dumps(value if member is None else _RIGHT[model] | {member: value}).encode()
    try:
        found = understood(model, sent)
    except Doubtful:
        with pytest.raises(NotOpenDsr):
            read(model, sent)
    else:
        assert all(getattr(found, name) is not None for name in _RIGHT[model])
    assert understood(model, json.dumps(_RIGHT[model] | {"of a later version": value}).encode())
