"""Who is told outside is a merchant's business: registered, changed, tested, paused, disabled, and their secrets."""

from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text
from standardwebhooks import Webhook

from libs.common.auth import Role
from services.privacy.recipients.speaking import PROTOCOLS
from tests.privacy.recipients.conftest import Outside
from tests.privacy.recipients.receiver import status

NOBODY = str(uuid4())


async def test_a_recipient_is_registered_and_read_and_its_secret_is_shown_once(outside: Outside) -> None:
    made = await outside.registered(
        category="carrier", country="FR", contract="2026-17", contract_on="2026-01-02", safeguards=""
    )
    assert made["secret"].startswith("whsec_")
    assert (made["state"], made["protocol"], made["reached_at"]) == ("testing", "webhook", None)
    assert {"erase", "rectify", "restrict", "lift-restriction", "object", "export"} == set(made["verbs"])
    read = await outside.one(made)
    assert read == {name: value for name, value in made.items() if name != "secret"}
    [listed] = (await outside.call("GET")).json()["items"]
    assert listed == read


async def test_the_secret_lies_encrypted_and_no_reply_is_kept_with_it(outside: Outside) -> None:
    key = {"Idempotency-Key": uuid4().hex}
    body = {"name": "Parcel & Co", "url": outside.receiver.url, "role": "processor"}
    headers = outside.platform.officer(sub=str(uuid4()))
    post = outside.platform.client.post
    first = await post(outside.path, json=body, headers=headers | key)
    again = await post(outside.path, json=body, headers=headers | key)
    assert first.json()["secret"] and first.headers["Cache-Control"] == "no-store"
    assert again.json() == first.json() | {"secret": None}
    assert again.headers["Idempotency-Replayed"] == "true"
    secret = first.json()["secret"].removeprefix("whsec_").encode()
    async with outside.platform.database.session(outside.platform.store_id) as session:
        kept = (await session.scalars(text("SELECT reply FROM idempotency_record"))).all()
        wrapped = (await session.scalars(text("SELECT wrapped FROM recipient_secret"))).all()
    assert kept and wrapped and not any(secret in bytes(one) for one in [*kept, *wrapped])


async def test_a_controller_is_told_and_not_asked_for_copies(outside: Outside) -> None:
    made = await outside.registered(role="controller")
    assert "export" not in made["verbs"] and "erase" in made["verbs"]


async def test_an_app_for_shopify_says_what_it_has_no_words_for(outside: Outside) -> None:
    made = await outside.registered(protocol="shopify")
    assert set(made["verbs"]) == {"erase", "export"}


@pytest.mark.parametrize(
    "url",
    [
        "ftp://recipient.example/hook",
        "https://user@recipient.example/hook",
        "https://user:pass@recipient.example/hook",
        "https://recipient.example/hook#part",
        "https://recipient.example/#",
        "/hook",
        "recipient.example",
        "https://",
        "https://[::1",
        "javascript:alert(1)",
    ],
)
async def test_an_address_that_nothing_is_ever_sent_to_is_refused(outside: Outside, url: str) -> None:
    body = {"name": "Parcel & Co", "url": url, "role": "processor"}
    refused = await outside.call("POST", body=body)
    assert refused.status_code == 422, refused.text
    assert refused.json()["type"] == "/problems/address-not-allowed"
    assert url not in refused.text
    assert (await outside.call("GET")).json()["items"] == []


@pytest.mark.parametrize(
    "change",
    [
        {"name": ""}, {"name": "x" * 101}, {"name": "two\nlines"}, {"role": "friend"}, {"role": None},
        {"protocol": "fax"}, {"country": "France"}, {"contract_on": "soon"}, {"surprise": 1},
        {"url": "https://x.example/" + "a" * 2000},
    ],
)  # fmt: skip
async def test_a_registration_that_breaks_a_rule_changes_nothing(
    outside: Outside, change: dict[str, Any]
) -> None:
    body = {"name": "Parcel & Co", "url": outside.receiver.url, "role": "processor"} | change
    refused = await outside.call(
        "POST", body={name: value for name, value in body.items() if value is not None}
    )
    assert refused.status_code == 422, refused.text
    assert (await outside.call("GET")).json()["items"] == []


async def test_what_is_changed_names_the_version_that_was_read(outside: Outside) -> None:
    made = await outside.registered()
    path = f"/{made['id']}"
    assert (await outside.call("PATCH", path, {"name": "Other"})).status_code == 428
    etag = (await outside.call("GET", path)).headers["ETag"]
    changed = await outside.call("PATCH", path, {"name": "Other", "country": "DE"}, **{"If-Match": etag})
    assert changed.status_code == 200, changed.text
    assert (changed.json()["name"], changed.json()["country"]) == ("Other", "DE")
    assert (await outside.call("PATCH", path, {"name": "Third"}, **{"If-Match": etag})).status_code == 412
    emptied = await outside.call("PATCH", path, {"country": None}, **{"If-Match": changed.headers["ETag"]})
    assert (emptied.json()["name"], emptied.json()["country"]) == ("Other", None)


async def test_at_another_address_it_takes_a_test_before_anything_else(outside: Outside) -> None:
    recipient = await outside.active()
    etag = (await outside.call("GET", f"/{recipient['id']}")).headers["ETag"]
    other = outside.receiver.url + "?to=elsewhere"
    changed = await outside.call("PATCH", f"/{recipient['id']}", {"url": other}, **{"If-Match": etag})
    assert changed.json()["state"] == "testing"
    assert (await outside.call("POST", f"/{recipient['id']}/resumption")).status_code == 409
    person = await outside.platform.person()
    await outside.erased_but_outside(person)
    await outside.deliver()
    assert outside.receiver.came == []


async def test_a_test_says_how_it_went(outside: Outside) -> None:
    recipient = await outside.registered()
    outside.receiver.answering = status(500)
    sent = await outside.call("POST", f"/{recipient['id']}/tests")
    assert sent.status_code == 202
    await outside.deliver()
    delivery = (
        await outside.platform.client.get(sent.headers["Location"], headers=outside.platform.officer())
    ).json()
    assert (delivery["what"], delivery["state"], delivery["next_try_at"]) == ("test", "stuck", None)
    [attempt] = await outside.attempts(recipient, delivery)
    assert (attempt["number"], attempt["status"], attempt["word"]) == (1, 500, "fails")
    assert (await outside.one(recipient))["state"] == "testing"
    outside.receiver.answering = status(200)
    await outside.call("POST", f"/{recipient['id']}/tests")
    await outside.deliver()
    assert (await outside.one(recipient))["state"] == "active"
    [first, second] = outside.receiver.came
    assert first.json["type"] == second.json["type"] == "privacy.test"
    Webhook(recipient["secret"]).verify(second.body, dict(second.headers))


async def test_what_nobody_took_a_test_at_cannot_be_resumed(outside: Outside) -> None:
    recipient = await outside.registered()
    assert (await outside.call("POST", f"/{recipient['id']}/pausing")).json()["state"] == "paused"
    refused = await outside.call("POST", f"/{recipient['id']}/resumption")
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/recipient-not-tested")


async def test_a_disabled_recipient_is_neither_tested_nor_changed_nor_resumed(outside: Outside) -> None:
    recipient = await outside.active()
    path = f"/{recipient['id']}"
    disabled = await outside.call("POST", f"{path}/disabling")
    assert (disabled.json()["state"], disabled.json()["why"]) == ("disabled", "by-merchant")
    assert (await outside.call("POST", f"{path}/disabling")).status_code == 200
    for what, body in (("tests", None), ("pausing", None), ("resumption", None), ("secret-rotations", {})):
        refused = await outside.call("POST", f"{path}/{what}", body)
        assert (refused.status_code, refused.json()["type"]) == (409, "/problems/recipient-disabled"), what
    etag = (await outside.call("GET", path)).headers["ETag"]
    assert (await outside.call("PATCH", path, {"name": "Other"}, **{"If-Match": etag})).status_code == 409
    [listed] = (await outside.call("GET", "?state=disabled")).json()["items"]
    assert listed["id"] == recipient["id"]
    assert (await outside.call("GET", "?state=active")).json()["items"] == []


async def test_a_store_has_only_so_many(outside: Outside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.privacy.recipients.registry.MOST", 2)
    first, _ = await outside.registered(), await outside.registered()
    body = {"name": "Third", "url": outside.receiver.url, "role": "controller"}
    refused = await outside.call("POST", body=body)
    assert (refused.status_code, refused.json()["most"]) == (409, 2)
    await outside.call("POST", f"/{first['id']}/disabling")
    assert (await outside.call("POST", body=body)).status_code == 201


# --- Who may ---------------------------------------------------------------------------------------------

ROUTES = (
    ("POST", ""), ("GET", ""), ("GET", "/{id}"), ("PATCH", "/{id}"), ("POST", "/{id}/tests"),
    ("POST", "/{id}/pausing"), ("POST", "/{id}/resumption"), ("POST", "/{id}/disabling"),
    ("POST", "/{id}/secret-rotations"), ("GET", "/{id}/deliveries"), ("GET", "/{id}/deliveries/{delivery}"),
    ("GET", "/{id}/deliveries/{delivery}/attempts"), ("POST", "/{id}/deliveries/{delivery}/resending"),
)  # fmt: skip
BODIES: dict[tuple[str, str], Any] = {
    ("POST", ""): {"name": "Parcel & Co", "url": "https://recipient.example/hook", "role": "processor"},
    ("PATCH", "/{id}"): {"name": "Other"},
    ("POST", "/{id}/secret-rotations"): {},
}


@pytest.mark.parametrize("route", ROUTES, ids=" ".join)
async def test_only_officers_of_the_store_have_to_do_with_its_recipients(
    outside: Outside, route: tuple[str, str]
) -> None:
    recipient = await outside.active()
    [delivery] = await outside.deliveries(recipient)
    platform = outside.platform
    method, path = route
    ours = outside.path + path.format(id=recipient["id"], delivery=delivery["id"])
    body = BODIES.get(route)

    async def call(url: str, headers: dict[str, str]) -> int:
        reply = await platform.client.request(method, url, json=body, headers=headers | {"If-Match": "*"})
        return reply.status_code

    assert await call(ours, {}) == 401
    person = await platform.person()
    assert await call(ours, person.token()) == 403
    for role in (Role.MANAGER, Role.SUPPORT):
        assert await call(ours, platform.officer(role=role)) == 403
    assert await call(ours, platform.officer(store=str(uuid4()))) == 404
    if "{id}" in path:
        theirs = platform.path.replace(str(platform.store_id), NOBODY)
        elsewhere = f"{theirs}/recipients{path.format(id=recipient['id'], delivery=delivery['id'])}"
        assert await call(elsewhere, platform.officer(store=NOBODY)) == 404
        assert (
            await call(outside.path + path.format(id=NOBODY, delivery=delivery["id"]), platform.officer())
            == 404
        )
    if "{delivery}" in path:
        unknown = outside.path + path.format(id=recipient["id"], delivery=NOBODY)
        assert await call(unknown, platform.officer()) == 404


async def test_lists_skip_and_repeat_nothing(outside: Outside) -> None:
    recipient = await outside.registered()
    for _ in range(5):
        await outside.call("POST", f"/{recipient['id']}/tests")
    everything = [one["id"] for one in await outside.deliveries(recipient)]
    assert len(everything) == 5
    seen: list[str] = []
    path = f"/{recipient['id']}/deliveries?limit=2"
    cursor = ""
    while True:
        page = (await outside.call("GET", path + cursor)).json()
        seen += [one["id"] for one in page["items"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert seen == everything
    for place in ("", f"/{recipient['id']}/deliveries", f"/{recipient['id']}/deliveries/{seen[0]}/attempts"):
        assert (await outside.call("GET", f"{place}?cursor=nonsense")).status_code == 400


def test_every_protocol_says_what_it_can_say() -> None:
    for protocol, spoken in PROTOCOLS.items():
        assert spoken.VERBS, protocol
