"""What a recipient says in its own time: signed by it, taken once, and never taken for somebody else's."""

from collections.abc import Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Any
from uuid import UUID, uuid4

import httpx
import orjson
import pytest

from services.privacy.recipients.signatures import signed
from tests.privacy.conftest import Person
from tests.privacy.recipients.conftest import Outside
from tests.privacy.recipients.receiver import Came, done, status

JSON = {"Content-Type": "application/json"}
DONE: dict[str, Any] = {"outcome": "done", "counts": {"contact": 2}}


class Waiting:
    """An erasure that a recipient has received and not done."""

    def __init__(self, outside: Outside, recipient: dict[str, Any], person: Person, request_id: UUID) -> None:
        self.outside = outside
        self.recipient = recipient
        self.person = person
        self.request_id = request_id

    @property
    def came(self) -> Came:
        return self.outside.receiver.came[-1]

    async def say(
        self, body: Any, *, secret: str | None = None, id_: str | None = None, shift: timedelta = timedelta(0),
        more: Mapping[str, str] = MappingProxyType({}),
    ) -> httpx.Response:  # fmt: skip
        content = body if isinstance(body, bytes) else orjson.dumps(body)
        url = httpx.URL(self.came.json["data"]["answer_url"])
        delivery_id = self.came.headers["webhook-id"]
        made = signed(
            id_ or delivery_id, content, [secret or self.recipient["secret"]], now=self.outside.now + shift
        )
        with self.outside.platform.at(self.outside.now):
            return await self.outside.platform.client.post(
                url.path, content=content, headers=JSON | made | dict(more)
            )

    async def state(self) -> str:
        return (await self.outside.part(self.person, self.request_id, self.recipient))["state"]


@pytest.fixture
async def waiting(outside: Outside) -> Waiting:
    recipient = await outside.active()
    person = await outside.platform.person()
    request_id = await outside.erased_but_outside(person)
    await outside.deliver()
    made = Waiting(outside, recipient, person, request_id)
    assert await made.state() == "received"
    return made


async def test_a_signed_answer_ends_its_part(waiting: Waiting) -> None:
    assert (await waiting.say(DONE)).status_code == 204
    part = await waiting.outside.part(waiting.person, waiting.request_id, waiting.recipient)
    assert (part["state"], part["counts"]) == ("done", {"contact": 2})
    assert await waiting.outside.platform.state(waiting.person, waiting.request_id) == "checking"


async def test_the_same_answer_may_come_again_and_another_may_not(waiting: Waiting) -> None:
    for _ in range(3):
        assert (await waiting.say(DONE)).status_code == 204
    refused = await waiting.say({"outcome": "nothing-held"})
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/already-answered")
    assert await waiting.state() == "done"


async def test_whoever_failed_may_say_later_that_it_is_done(waiting: Waiting) -> None:
    assert (await waiting.say({"outcome": "failed", "reason": "locked"})).status_code == 204
    part = await waiting.outside.part(waiting.person, waiting.request_id, waiting.recipient)
    assert part["reason"] == "locked" and part["state"] in {"failed", "received"}
    assert (await waiting.say(DONE)).status_code == 204
    assert await waiting.state() == "done"


async def test_nobody_but_the_recipient_can_answer(waiting: Waiting) -> None:
    other = await waiting.outside.registered()
    for attempt in (
        waiting.say(DONE, secret=other["secret"]),
        waiting.say(DONE, id_=str(uuid4())),
        waiting.say(DONE, shift=timedelta(minutes=6)),
        waiting.say(DONE, shift=-timedelta(minutes=6)),
        waiting.say(DONE, more={"webhook-signature": ""}),
        waiting.say(DONE, more={"webhook-signature": "v1,AAAA nonsense v2,"}),
        waiting.say(DONE, more={"webhook-timestamp": "yesterday"}),
        waiting.say(DONE, more={"webhook-timestamp": "9" * 30}),
    ):
        refused = await attempt
        assert (refused.status_code, refused.json()["type"]) == (403, "/problems/not-signed")
    assert await waiting.state() == "received"
    # A few minutes between two clocks are none of anybody's fault.
    assert (await waiting.say(DONE, shift=timedelta(minutes=4))).status_code == 204


async def test_a_signature_of_one_body_is_none_of_another(waiting: Waiting) -> None:
    delivery_id = waiting.came.headers["webhook-id"]
    headers = signed(delivery_id, orjson.dumps(DONE), [waiting.recipient["secret"]], now=waiting.outside.now)
    path = f"/privacy/v1/deliveries/{delivery_id}/answer"
    body = orjson.dumps({"outcome": "nothing-held"})
    refused = await waiting.outside.platform.client.post(path, content=body, headers=JSON | headers)
    assert refused.status_code == 403


async def test_an_answer_without_a_signature_is_refused(waiting: Waiting) -> None:
    delivery_id = waiting.came.headers["webhook-id"]
    path = f"/privacy/v1/deliveries/{delivery_id}/answer"
    post = waiting.outside.platform.client.post
    assert (await post(path, json=DONE)).status_code == 403


async def test_an_answer_to_nothing_is_not_found(waiting: Waiting) -> None:
    unknown = uuid4()
    headers = signed(str(unknown), orjson.dumps(DONE), [waiting.recipient["secret"]], now=waiting.outside.now)
    path = f"/privacy/v1/deliveries/{unknown}/answer"
    refused = await waiting.outside.platform.client.post(
        path, content=orjson.dumps(DONE), headers=JSON | headers
    )
    assert refused.status_code == 404
    [_, test] = await waiting.outside.deliveries(waiting.recipient)
    assert test["what"] == "test"
    headers = signed(test["id"], orjson.dumps(DONE), [waiting.recipient["secret"]], now=waiting.outside.now)
    path = f"/privacy/v1/deliveries/{test['id']}/answer"
    assert (
        await waiting.outside.platform.client.post(path, content=orjson.dumps(DONE), headers=JSON | headers)
    ).status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", {}, {"outcome": "maybe"}, {"outcome": "done", "counts": {"A b": 1}},
        {"outcome": "done", "counts": {"a": -1}}, {"outcome": "done", "surprise": 1},
        {"outcome": "retained", "retained": [{"kind": "x", "ground": "a@vitrine.example"}]},
        {"outcome": "done", "counts": {f"a{n}": 1 for n in range(21)}},
    ],
)  # fmt: skip
async def test_an_answer_that_is_none_changes_nothing(waiting: Waiting, body: Any) -> None:
    refused = await waiting.say(body)
    assert refused.status_code in {400, 422}, refused.text
    assert "vitrine.example" not in refused.text
    assert await waiting.state() == "received"


async def test_either_secret_answers_while_it_changes(waiting: Waiting) -> None:
    rotated = await waiting.outside.call("POST", f"/{waiting.recipient['id']}/secret-rotations", {})
    assert (await waiting.say(DONE)).status_code == 204
    assert (await waiting.say(DONE, secret=rotated.json()["secret"])).status_code == 204
    waiting.outside.later(timedelta(days=2))
    assert (await waiting.say(DONE)).status_code == 403


async def test_an_answer_may_come_before_its_delivery_was_acknowledged(outside: Outside) -> None:
    recipient = await outside.active()
    outside.receiver.answering = status(500)
    person = await outside.platform.person()
    request_id = await outside.erased_but_outside(person)
    await outside.deliver()
    early = Waiting(outside, recipient, person, request_id)
    assert (await early.say(DONE)).status_code == 204
    assert await early.state() == "done"
    outside.later(timedelta(days=1))
    await outside.deliver()
    assert len(outside.receiver.came) == 1


async def test_whoever_was_answered_for_cannot_say_otherwise(waiting: Waiting) -> None:
    platform = waiting.outside.platform
    path = f"{platform.path}/requests/{waiting.request_id}/parts/recipient-{waiting.recipient['id']}/erase"
    body = {"outcome": "done", "ground": "done-by-hand", "reason": "They phoned."}
    settled = await platform.client.post(f"{path}/settlement", json=body, headers=platform.officer())
    assert settled.status_code == 200, settled.text
    assert (await waiting.say(DONE)).status_code == 409
    assert await waiting.state() == "settled"


async def test_done_in_the_reply_and_said_again_later_is_once(outside: Outside) -> None:
    recipient = await outside.active()
    outside.receiver.answering = done
    person = await outside.platform.person()
    request_id = await outside.erased_but_outside(person)
    await outside.deliver()
    again = Waiting(outside, recipient, person, request_id)
    assert (await again.say({"outcome": "done", "counts": {"contact": 1}})).status_code == 204
    assert (await again.say({"outcome": "done", "counts": {"contact": 9}})).status_code == 409
