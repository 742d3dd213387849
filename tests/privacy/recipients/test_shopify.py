"""An app written as Shopify's documentation describes is told by us, and notices no difference."""

import base64
import hashlib
import hmac
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest
from sqlalchemy import text
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from libs.common.events.privacy import Verb
from services.privacy.recipients.shopify import number_of
from services.privacy.recipients.words import STORE_ENDED
from tests.privacy.recipients.conftest import Outside
from tests.serving import serving

SAFE = 2**53


@dataclass
class App:
    """It knows its secret, compares the HMAC of the raw body in constant time, answers 401 or 200, and nothing more."""

    secret: str = ""
    url: str = ""
    taken: list[tuple[str, Any]] = field(default_factory=list[tuple[str, Any]])
    refused: int = 0
    headers: list[dict[str, str]] = field(default_factory=list[dict[str, str]])

    async def receive(self, request: Request) -> Response:
        raw = await request.body()
        digest = hmac.new(self.secret.encode("utf-8"), raw, hashlib.sha256).digest()
        if not hmac.compare_digest(
            base64.b64encode(digest), request.headers.get("X-Shopify-Hmac-Sha256", "").encode()
        ):
            self.refused += 1
            return Response(status_code=401)
        self.headers.append(dict(request.headers))
        self.taken.append((request.headers["X-Shopify-Topic"], orjson.loads(raw)))
        return Response("ok")


@pytest.fixture
async def shopify() -> AsyncIterator[App]:
    app = App()
    async with serving(Starlette(routes=[Route("/webhooks", app.receive, methods=["POST"])])) as url:
        app.url = f"{url}/webhooks"
        yield app


async def installed(outside: Outside, app: App, **changes: Any) -> dict[str, Any]:
    recipient = await outside.registered(protocol="shopify", url=app.url, **changes)
    app.secret = recipient["secret"]
    await outside.call("POST", f"/{recipient['id']}/tests")
    await outside.deliver()
    assert (await outside.one(recipient))["state"] == "active"
    return recipient


async def test_a_customer_is_redacted(outside: Outside, shopify: App) -> None:
    recipient = await installed(outside, shopify, role="controller")
    shopify.taken.clear()
    person = await outside.platform.person()
    request_id = await outside.erased_but_outside(person)
    await outside.deliver()
    [(topic, body)] = shopify.taken
    assert topic == "customers/redact"
    assert set(body) == {"shop_id", "shop_domain", "customer", "orders_to_redact"}
    assert set(body["customer"]) == {"id", "email", "phone"}
    assert body["customer"]["email"] == person.email
    assert 0 < body["shop_id"] < SAFE and body["shop_id"] == number_of(outside.platform.store_id)
    headers = shopify.headers[-1]
    assert headers["x-shopify-shop-domain"] == body["shop_domain"]
    assert headers["content-type"] == "application/json"
    for name in ("x-shopify-api-version", "x-shopify-webhook-id", "x-shopify-triggered-at"):
        assert headers[name], name
    assert (await outside.part(person, request_id, recipient))["state"] == "told"


async def test_a_processor_has_received_it_and_must_still_say_that_it_is_done(
    outside: Outside, shopify: App
) -> None:
    recipient = await installed(outside, shopify)
    person = await outside.platform.person()
    request_id = await outside.erased_but_outside(person)
    await outside.deliver()
    assert (await outside.part(person, request_id, recipient))["state"] == "received"


async def test_a_customer_asks_for_their_data(outside: Outside, shopify: App) -> None:
    await installed(outside, shopify)
    shopify.taken.clear()
    person = await outside.platform.person()
    request_id = await outside.platform.opened(person, "access")
    await outside.refer(request_id)
    await outside.deliver()
    [(topic, body)] = shopify.taken
    assert topic == "customers/data_request"
    assert set(body) == {"shop_id", "shop_domain", "customer", "orders_requested", "data_request"}
    assert body["data_request"] == {"id": number_of(request_id)}


async def test_every_address_of_a_person_is_named_once(outside: Outside, shopify: App) -> None:
    await installed(outside, shopify)
    shopify.taken.clear()
    platform = outside.platform
    one, other = await platform.person(), await platform.person()
    request_id = await platform.opened(one, "erasure")
    asked = (await platform.tasks(request_id, Verb.REFER))[-1]
    answer = await outside.refers(asked, emails=(other.email,), orders=(order := uuid4(),))
    await platform.deliver(answer)
    await platform.answer_all(request_id, Verb.REFER)
    await outside.deliver()
    assert [body["customer"]["email"] for _, body in shopify.taken] == [one.email, other.email]
    assert all(body["orders_to_redact"] == [number_of(order)] for _, body in shopify.taken)
    # Each under an id of its own: an app that has seen one does not skip the other.
    ids = [one["x-shopify-webhook-id"] for one in shopify.headers[-2:]]
    assert len(set(ids)) == 2


async def test_a_signature_that_does_not_fit_is_not_taken_and_tried_again(
    outside: Outside, shopify: App
) -> None:
    recipient = await installed(outside, shopify)
    person = await outside.platform.person()
    right, shopify.secret = shopify.secret, "whsec_another"
    request_id = await outside.erased_but_outside(person)
    await outside.deliver()
    assert shopify.refused == 1
    assert (await outside.part(person, request_id, recipient))["reason"] == "refused"
    shopify.secret = right
    await outside.call(
        "POST", f"/{recipient['id']}/deliveries/{(await outside.deliveries(recipient))[0]['id']}/resending"
    )
    await outside.deliver()
    assert (await outside.part(person, request_id, recipient))["state"] == "received"


async def test_an_app_keeps_its_secret_for_a_day_after_a_change(outside: Outside, shopify: App) -> None:
    recipient = await installed(outside, shopify)
    await outside.call("POST", f"/{recipient['id']}/secret-rotations", {})
    await outside.call("POST", f"/{recipient['id']}/tests")
    await outside.deliver()
    assert shopify.refused == 0


@pytest.mark.parametrize("right", ["restriction", "objection"])
async def test_it_has_no_part_in_what_shopify_has_no_topic_for(
    outside: Outside, shopify: App, right: str
) -> None:
    await installed(outside, shopify)
    person = await outside.platform.person()
    more = {"purpose": "marketing.communications.email"} if right == "objection" else {}
    asked = await outside.platform.ask(person, right, **more)
    assert asked.status_code == 201, asked.text
    parts = (await outside.platform.detail(person, UUID(asked.json()["id"])))["parts"]
    assert not [one for one in parts if one["participant"].startswith("recipient-")]


async def test_an_erasure_of_a_part_is_not_told_as_one_of_everything(outside: Outside, shopify: App) -> None:
    await installed(outside, shopify)
    ours = await outside.active()
    person = await outside.platform.person()
    asked = await outside.platform.ask(person, "erasure", purpose="marketing.communications.email")
    assert asked.status_code == 201, asked.text
    parts = (await outside.platform.detail(person, UUID(asked.json()["id"])))["parts"]
    told = [one["participant"] for one in parts if one["participant"].startswith("recipient-")]
    assert told == [f"recipient-{ours['id']}"]


async def test_an_app_is_told_once_that_a_shop_is_gone(outside: Outside, shopify: App) -> None:
    recipient = await installed(outside, shopify)
    shopify.taken.clear()
    for _ in range(2):
        await outside.store_ended()
    await outside.deliver()
    [(topic, body)] = shopify.taken
    assert topic == "shop/redact"
    assert set(body) == {"shop_id", "shop_domain"}
    async with outside.platform.database.session(outside.platform.store_id) as session:
        sent = await session.scalar(
            text("SELECT count(*) FROM delivery WHERE recipient_id = :id AND what = :what"),
            {"id": recipient["id"], "what": STORE_ENDED},
        )
    assert sent == 1


def test_numbers_are_the_same_for_ever_and_safe_for_javascript() -> None:
    assert number_of(UUID("00000000-0000-4000-8000-000000000001")) == 1169285421593306
    assert all(0 <= number_of(uuid4()) < SAFE for _ in range(1000))
