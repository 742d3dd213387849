"""Recipients outside: whoever does everything passes, and whoever does one thing wrong is found out."""

import asyncio
import base64
import hashlib
import hmac
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import orjson
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from conformance.checks import Check, Verdict, judge
from conformance.over_webhook import SHOPIFY, STANDARD
from conformance.over_webhook.endpoint import Endpoint
from conformance.scene import Person
from services.privacy.domain.problems import NotSigned
from services.privacy.recipients import shopify, signatures, webhooks
from services.privacy.recipients.words import Role
from tests.serving import serving

_SECRET = signatures.new_secret()
_SHOPIFYS = "hush-of-an-app"
_REFUSALS = {
    "refuses-another-signature", "refuses-another-body", "refuses-what-is-old", "refuses-what-is-to-come",
    "refuses-what-is-not-signed", "does-nothing-that-it-refuses",
}  # fmt: skip


@dataclass
class Recipient:
    """Keeps contacts by their address; honest while `fault` is empty."""

    fault: str = ""
    later: bool = False
    """Acknowledges at once, and says at `answer_url` what it has done."""
    contacts: dict[str, str] = field(default_factory=dict[str, str])
    answers: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    under_way: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])

    async def take(self, person: Person) -> bool:
        self.contacts[person.email] = person.name
        return True

    async def hook(self, request: Request) -> Response:
        content, id_ = await request.body(), request.headers.get("webhook-id", "")
        try:
            self._check(request, id_, content)
        except NotSigned:
            if self.fault not in _REFUSALS:
                return Response(status_code=401)
        if self.fault == "takes-a-test":
            return Response(status_code=500)
        message = orjson.loads(content)
        if self.fault == "ignores-unknown-fields" and "of_a_later_release" in message:
            return Response(status_code=422)
        if message["type"] == "privacy.test":
            return Response(status_code=204)
        return await self._answer(id_, message["type"].removeprefix("privacy."), message["data"])

    def _check(self, request: Request, id_: str, content: bytes) -> None:
        headers, now = dict(request.headers), datetime.now(UTC)
        if self.fault == "takes-what-either-secret-signed":
            headers["webhook-signature"] = headers["webhook-signature"].split(" ")[0]
        if self.fault == "takes-what-was-signed-a-moment-ago":
            now += timedelta(minutes=2)
        signatures.check(headers, id_, content, [_SECRET], now=now)

    async def _answer(self, id_: str, verb: str, data: dict[str, Any]) -> Response:
        verbs = {one.value for one in webhooks.VERBS}
        if verb not in verbs:
            return Response(status_code=400 if self.fault == "passes-over-an-unknown-type" else 204)
        if id_ not in self.answers or self.fault == "does-once-what-comes-twice":
            self.answers[id_] = self._do(
                verb, [one for one in data["person"]["emails"] if one in self.contacts]
            )
        if self.fault == f"silent about {verb}":
            return Response(status_code=204)
        if not self.later:
            return JSONResponse(self.answers[id_])
        task = asyncio.create_task(self._say(id_, data["answer_url"]))
        self.under_way.add(task)
        task.add_done_callback(self.under_way.discard)
        return Response(status_code=202)

    def _do(self, verb: str, known: list[str]) -> dict[str, Any]:
        if not known and self.fault != "finds-whom-it-holds":
            return {"outcome": "nothing-held"}
        if verb == "erase" and self.fault != "erases":
            for email in known:
                del self.contacts[email]
        return {"outcome": "done", "counts": {"contact": len(known)}}

    async def _say(self, id_: str, url: str) -> None:
        content = orjson.dumps(self.answers[id_])
        headers = signatures.signed(id_, content, [_SECRET], now=datetime.now(UTC))
        async with httpx.AsyncClient() as http:
            answer = await http.post(url, content=content, headers=headers)
        assert answer.status_code == 204

    async def shop(self, request: Request) -> Response:
        """As an app that was written for Shopify."""
        content = await request.body()
        mac = base64.b64encode(hmac.digest(_SHOPIFYS.encode(), content, hashlib.sha256)).decode()
        topic = request.headers["x-shopify-topic"]
        if mac != request.headers["x-shopify-hmac-sha256"]:
            return Response(status_code=400 if self.fault == "refuses-another-hmac" else 401)
        if self.fault == f"fails {topic}":
            return Response(status_code=404)
        id_ = request.headers["x-shopify-webhook-id"]
        if id_ in self.answers and self.fault == "takes-the-same-twice":
            return Response(status_code=409)
        self.answers[id_] = {}
        return Response(status_code=200)


@pytest.fixture
async def recipient() -> Recipient:
    return Recipient()


@pytest.fixture
async def url(recipient: Recipient) -> AsyncIterator[str]:
    routes = [
        Route("/hook", recipient.hook, methods=["POST"]),
        Route("/shopify", recipient.shop, methods=["POST"]),
    ]
    async with serving(Starlette(routes=routes)) as address:
        yield address


async def _seen(url: str, recipient: Recipient, check: Check[Endpoint], **more: Any) -> Verdict:
    endpoint = Endpoint(
        url=f"{url}/shopify" if check in SHOPIFY else f"{url}/hook",
        secret=_SHOPIFYS if check in SHOPIFY else _SECRET,
        protocol=shopify if check in SHOPIFY else webhooks,
        patience=5.0 if not recipient.fault else 0.5,
        **more,
    )
    endpoint.seed = recipient.take
    async with endpoint.listening():
        finding = await judge(check, endpoint)
    assert "the check broke" not in finding.seen, finding.seen
    return finding.verdict


@pytest.mark.parametrize("check", [*STANDARD, *SHOPIFY], ids=lambda check: check.name)
async def test_whoever_does_everything_passes(url: str, recipient: Recipient, check: Check[Endpoint]) -> None:
    assert await _seen(url, recipient, check) is Verdict.PASSED


@pytest.mark.parametrize("check", STANDARD, ids=lambda check: check.name)
async def test_whoever_answers_later_passes(url: str, recipient: Recipient, check: Check[Endpoint]) -> None:
    recipient.later = True

    assert await _seen(url, recipient, check) is Verdict.PASSED


_FAULTS = {
    "answers-exports": "silent about export",
    "answers-rectifications": "silent about rectify",
    "answers-erasures": "silent about erase",
    "answers-restrictions": "silent about restrict",
    "answers-lifted-restrictions": "silent about lift-restriction",
    "answers-objections": "silent about object",
    "takes-requests-for-data": "fails customers/data_request",
    "takes-redactions-of-customers": "fails customers/redact",
    "takes-redactions-of-shops": "fails shop/redact",
}
"""Of the others a fault has the name of the check that finds it."""


@pytest.mark.parametrize("check", [*STANDARD, *SHOPIFY], ids=lambda check: check.name)
async def test_whoever_does_one_thing_wrong_does_not(
    url: str, recipient: Recipient, check: Check[Endpoint]
) -> None:
    recipient.fault = _FAULTS.get(check.name, check.name)

    assert await _seen(url, recipient, check) is Verdict.MISSING


async def test_whoever_decides_for_themselves_is_told_and_need_not_answer(
    url: str, recipient: Recipient
) -> None:
    recipient.fault = "silent about erase"
    erasures = next(check for check in STANDARD if check.name == "answers-erasures")

    assert await _seen(url, recipient, erasures, role=Role.CONTROLLER) is Verdict.NOT_APPLICABLE


async def test_an_answer_that_another_signed_is_not_taken(url: str, recipient: Recipient) -> None:
    endpoint = Endpoint(url=f"{url}/hook", secret=_SECRET, protocol=webhooks, patience=0.5)
    async with endpoint.listening(), httpx.AsyncClient() as http:
        told = endpoint.told("erase", endpoint.stranger())
        content = b'{"outcome": "done"}'
        headers = signatures.signed(
            str(told.delivery_id), content, [signatures.new_secret()], now=datetime.now(UTC)
        )
        path = f"{endpoint.public_url}/privacy/v1/deliveries/{told.delivery_id}/answer"
        answer = await http.post(path, content=content, headers=headers)

    assert answer.status_code == 401
    assert not endpoint.answers
