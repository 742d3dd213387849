"""Requests of people while services, keys and logs come and go: each ends once, nothing is left, nobody comes back."""

import asyncio
import random
from collections import Counter
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from deploy.local.environment import SERVICES
from deploy.local.proof import Proof
from deploy.local.shop import PASSWORD, Account, Order, key
from tests.faults.conftest import PATIENCE, Running, address, becomes
from tests.faults.outside import Peer
from tests.faults.people import Life, fingerprint, letters, remains

SEED = 20_260_103
OVER = ("completed", "cancelled", "refused")
_DONE = "Your data has been erased"
_PEOPLE = 67
_RIGHTS = ("access", "portability", "erasure")
"""What each of them asks for, one after the other."""

# --- Somebody is missing ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("passing", "waits_in", "for_its"),
    [("at-once", "running", "erase"), ("when-clear", "deciding", "preview")],
)
async def test_a_participant_that_is_down_is_waited_for(
    running: Running, passing: str, waits_in: str, for_its: str
) -> None:
    """Nothing is done without it, and nothing is clear before it has said what speaks against it."""
    await running.let_pass("erasure", passing)
    person = await running.person()
    await running.shop.order_settles(await running.buy(person.email), "awaiting_payment")
    [billing] = running.processes("billing")
    await billing.stop()
    asked = await running.ask(person, "erasure")

    async def others_are_done() -> bool:
        seen = await running.request(asked["id"])
        assert seen["state"] == waits_in
        waiting = {
            (part["participant"], part["task"]) for part in seen["parts"] if part["state"] == "waiting"
        }
        attempts = max(part["attempts"] for part in seen["parts"] if part["participant"] == "billing")
        # Asked again, and still not taken for done.
        return waiting == {("billing", for_its)} and attempts >= 1

    await becomes(others_are_done, "everybody but billing to answer")
    await billing.start()
    done = await running.ends(asked["id"])
    assert {part["participant"] for part in done["parts"]} == {*SERVICES, "keyring"}
    assert await remains(running.databases, Life.of(person)) == {}
    await running.holds()


async def test_without_the_keyring_commands_wait_and_nothing_looks_erased(running: Running) -> None:
    person = await running.person()
    order = await running.buy(person.email)
    await running.shop.order_settles(order, "awaiting_payment")
    keyring = running.platform.processes["keyring"]
    [privacy] = running.processes("privacy")
    await privacy.stop()
    asked = await running.ask(person, "erasure")
    cart = (await running.persist("POST", f"/orders/v1/stores/{order.store_id}/carts")).json()
    keyring.kill()
    await privacy.start()
    await becomes(lambda: _keyring_was_asked(running, asked["id"]), "the privacy service to ask the keyring")
    for path in ("products", "products/by-handle/plenty"):
        await running.shop.call("GET", f"/catalog/v1/stores/{order.store_id}/{path}")
    assert (await running.request(asked["id"]))["state"] == "running"
    await _nothing_looks_erased(running, person, order.id, cart)
    await keyring.start()
    await running.ends(asked["id"])
    assert await remains(running.databases, Life.of(person)) == {}
    await running.shop.order_settles(await running.buy(), "awaiting_payment")
    await running.holds()


async def _keyring_was_asked(running: Running, request_id: str) -> bool:
    parts = (await running.request(request_id))["parts"]
    asked = [part for part in parts if part["participant"] == "keyring"]
    assert all(part["state"] == "waiting" for part in asked)
    return any(part["attempts"] >= 1 for part in asked)


async def _nothing_looks_erased(
    running: Running, person: Account, order_id: str, cart: dict[str, Any]
) -> None:
    http, store = running.shop.http, running.owner.store_id
    line = f"/orders/v1/stores/{store}/carts/{cart['id']}/lines/{running.variant}"
    secret = {"Cart-Secret": cart["secret"]}
    await running.shop.call("PUT", line, json={"quantity": 1}, headers=secret)
    body = {"cart_id": cart["id"], "payment_method": "bank_transfer", "contact": _contact(person.email)}
    right = {"right": "erasure", "email": person.email}
    password = {"grant_type": "password", "email": person.email, "password": PASSWORD}
    refused = [
        await http.post(f"/orders/v1/stores/{store}/orders", json=body, headers=secret | key()),
        await http.post(f"/privacy/v1/stores/{store}/requests", json=right, headers=person.headers | key()),
    ]
    assert [answer.status_code for answer in refused] == [503, 503]
    assert {answer.headers["content-type"] for answer in refused} == {"application/problem+json"}
    # Keys that were opened a moment ago go on opening; without one the answer is 503, never that nobody is there.
    signed_in = await http.post(f"/identity/v1/stores/{store}/tokens", json=password)
    assert signed_in.status_code in (200, 503)
    seen = await http.get(f"/orders/v1/stores/{store}/orders/{order_id}", headers=running.owner.headers)
    assert seen.status_code == 503 or (seen.status_code == 200 and seen.json()["contact"] is not None)


def _contact(email: str) -> dict[str, Any]:
    where = {"line1": "1 rue de la Panne", "postcode": "75001", "city": "Paris", "country": "FR"}
    return {"name": "A person", "email": email, "address": where}


# --- Everything at once ----------------------------------------------------------------------------------


async def test_an_erasure_that_races_with_everything_leaves_and_resurrects_nothing(running: Running) -> None:
    person = await running.person()
    life = Life.of(person)
    await running.shop.order_settles(await running.buy(person.email), "awaiting_payment")
    proof = await Proof.begin(running.platform, store_id=person.store_id, access_token=person.access_token)
    requests = f"/privacy/v1/stores/{person.store_id}/requests"
    tokens = f"/identity/v1/stores/{person.store_id}/tokens"
    password = {"grant_type": "password", "email": person.email, "password": PASSWORD}

    async def ask(right: str) -> int:
        body = {"right": right, "email": person.email}
        answer = await running.shop.http.post(requests, json=body, headers=person.headers | key())
        return answer.status_code

    async def sign_in() -> int:
        return (await running.shop.http.post(tokens, json=password)).status_code

    async def orders() -> None:
        for _ in range(4):
            await running.buy(person.email)

    asked, *_, signed_in, _, _ = await asyncio.gather(
        asyncio.gather(*(ask(right) for right in ("access", "erasure", "erasure", "access", "erasure"))),
        asyncio.gather(*(sign_in() for _ in range(4))),
        orders(),
        orders(),
    )
    # Joined, opened, or refused because of what is going on; never an error.
    assert set(asked) <= {200, 201, 401, 409} and 201 in asked, asked
    assert set(signed_in) <= {200, 400, 401, 409}, signed_in
    await becomes(lambda: _all_ended(running, life), "every request of the person to end")
    await running.holds()
    assert await remains(running.databases, life) == {}
    findings = await proof.compare()
    assert len(findings) > 1 and {found.open for found in findings} == {0}, findings
    await _comes_back(running, person, life)
    await running.holds()


async def _all_ended(running: Running, life: Life) -> bool:
    states = await running.databases.rows(
        "privacy", "SELECT claim, state FROM request WHERE subject_id = $1", life.subject_id
    )
    assert Counter(row["claim"] for row in states)["erasure"] == 1
    return all(row["state"] in OVER for row in states)


async def _comes_back(running: Running, person: Account, life: Life) -> None:
    """The old password and token are worth nothing; a new account sees what was bought since, and nothing before."""
    password = {"grant_type": "password", "email": person.email, "password": PASSWORD}
    refused = await running.shop.http.post(f"/identity/v1/stores/{person.store_id}/tokens", json=password)
    assert refused.status_code in (400, 401)
    path = f"/orders/v1/stores/{person.store_id}/orders"
    old = await running.shop.http.get(path, headers=person.headers)
    assert old.status_code == 401 or old.json()["items"] == []
    order = await running.buy(person.email)
    await running.shop.order_settles(order, "awaiting_payment")
    again = await running.shop.sign_up(person.email, store_id=person.store_id, name="A person")
    assert Life.of(again).subject_id == life.subject_id
    assert Life.of(again).generation > life.generation
    listed = (await running.shop.call("GET", path, headers=again.headers))["items"]
    since = "SELECT number FROM orders WHERE subject_id = $1 AND generation > $2"
    own = {
        row["number"]
        for row in await running.databases.rows("orders", since, life.subject_id, life.generation)
    }
    assert order.number in own and {one["number"] for one in listed} == own


async def test_an_erasure_that_races_with_a_payment_came_first_or_is_looked_at(running: Running) -> None:
    """Whose goods are to leave is not erased unseen; and a payment leaves nothing but what the law keeps."""
    people = [await running.person() for _ in range(4)]
    orders = [await running.buy(person.email) for person in people]
    totals = [(await running.shop.order_settles(order, "awaiting_payment"))["total"] for order in orders]
    for order in orders:
        await becomes(lambda order=order: _is_payable(running, order), "billing to expect the payment")
    asked, paid = await asyncio.gather(
        asyncio.gather(*(running.ask(person, "erasure") for person in people)),
        asyncio.gather(*(_pay(running, order, total) for order, total in zip(orders, totals, strict=True))),
    )
    assert set(paid) <= {201, 409}, paid
    for request in asked:
        await becomes(lambda request=request: _is_done_or_looked_at(running, request), "the erasure to go on")
    await running.holds()
    for person, order, request in zip(people, orders, asked, strict=True):
        if (await running.request(request["id"]))["state"] == "deciding":
            assert (await running.shop.order(order, running.owner.headers))["state"] == "paid"
            await running.approve(request["id"])
        await running.ends(request["id"])
        assert set(await remains(running.databases, Life.of(person))) <= _KEPT_OF_A_SALE
    await running.holds()


_KEPT_OF_A_SALE = {"billing.invoice"}


async def _is_payable(running: Running, order: Order) -> bool:
    path = f"/billing/v1/stores/{order.store_id}/orders/{order.id}/receivable"
    seen = await running.shop.http.get(path, headers=running.owner.headers)
    return seen.is_success and seen.json()["state"] == "open"


async def _pay(running: Running, order: Order, total: Any) -> int:
    body = {"amount": total, "method": "bank_transfer", "received_on": str(datetime.now(UTC).date())}
    path = f"/billing/v1/stores/{order.store_id}/orders/{order.id}/payments"
    return (await running.shop.http.post(path, json=body, headers=running.owner.headers | key())).status_code


async def _is_done_or_looked_at(running: Running, request: dict[str, Any]) -> bool:
    path = f"/privacy/v1/stores/{running.owner.store_id}/requests/{request['id']}"
    if (await running.request(request["id"]))["state"] != "deciding":
        return (await running.request(request["id"]))["state"] == "completed"
    preview = await running.shop.call("GET", f"{path}/preview", headers=running.owner.headers)
    words = [one["word"] for part in preview["parts"] for one in part["obligations"]]
    return not preview["unanswered"] and words == ["order-under-way"]


async def test_an_erasure_goes_on_over_an_address_that_is_found_meanwhile(running: Running) -> None:
    """One service is down and the keys are gone already when the store finds out; nothing is left under either."""
    await running.let_pass("erasure", "at-once")
    person, other = await running.person(), address("guest")
    orders = [await running.buy(person.email), await running.buy(other)]
    for order in orders:
        await running.shop.order_settles(order, "awaiting_payment")
    lives = [Life.of(person), await _guest(running, orders[1])]
    [billing] = running.processes("billing")
    await billing.stop()
    asked = await running.ask(person, "erasure")

    async def others_are_done() -> bool:
        parts = (await running.request(asked["id"]))["parts"]
        return {part["participant"] for part in parts if part["state"] == "waiting"} == {"billing"}

    await becomes(others_are_done, "everybody but billing to answer")
    path = f"/privacy/v1/stores/{person.store_id}/merges"
    body = {"subjects": [{"email": person.email}, {"email": other}]}
    merged = await running.persist("POST", path, json=body, headers=running.owner.headers | key())
    assert merged.status_code == 201
    await billing.start()
    await running.ends(asked["id"])
    for life in lives:
        assert await remains(running.databases, life) == {}
    linked = "SELECT count(*) FROM person_subject WHERE store_id = $1"
    assert await running.databases.value("privacy", linked, lives[0].store_id) == 0
    await running.holds()


async def _guest(running: Running, order: Order) -> Life:
    query = "SELECT store_id, subject_id, generation FROM orders WHERE id = $1"
    [row] = await running.databases.rows("orders", query, UUID(order.id))
    return Life(row["store_id"], row["subject_id"], row["generation"])


async def test_replaying_everything_twice_changes_no_row_and_recreates_nobody(running: Running) -> None:
    person = await running.person()
    await running.shop.order_settles(await running.buy(person.email), "awaiting_payment")
    await running.ends((await running.ask(person, "access"))["id"])
    await running.ends((await running.ask(person, "erasure"))["id"])
    await running.holds()
    await _ring_timers(running)
    before = await _at_rest(running)
    for replay in (_rewind, _lose_the_log):
        await asyncio.gather(*(worker.stop() for worker in running.processes()))
        await replay(running)
        await asyncio.gather(*(worker.start() for worker in running.processes()))
        await becomes(lambda: _is_read_to_the_end(running), "everything to be sent and read again")
        assert await _at_rest(running) == before
        assert await remains(running.databases, Life.of(person)) == {}
    await running.holds()


async def _ring_timers(running: Running) -> None:
    """What would change rows by itself meanwhile falls due now: certificates, and participants that still join."""
    due = "UPDATE certificate_due SET due_at = now()"
    joined = "UPDATE participant SET joining_until = now() WHERE joining_until IS NOT NULL"
    for timer in (due, joined):
        await running.databases.execute("privacy", timer)
    await becomes(lambda: _has_rung(running), "every certificate to be issued, and everybody to have joined")


async def _has_rung(running: Running) -> bool:
    waiting = """SELECT (SELECT count(*) FROM certificate_due)
        + (SELECT count(*) FROM participant WHERE joining_until IS NOT NULL)"""
    return await running.databases.value("privacy", waiting) == 0


async def _at_rest(running: Running) -> dict[str, str]:
    """The rows once they do not change any more."""
    last: dict[str, str] = {}

    async def is_at_rest() -> bool:
        nonlocal last
        seen, last = last, await fingerprint(running)
        return seen == last

    await becomes(lambda: _knows_every_day(running), "the keyring to know until when each key lives")
    await becomes(lambda: _has_placed(running), "what was noted to be in the log")
    await becomes(is_at_rest, "the databases to be at rest")
    return last


async def _knows_every_day(running: Running) -> bool:
    untold = "SELECT count(*) FROM expiry WHERE told_on IS DISTINCT FROM expires_on"
    return await running.databases.value("privacy", untold) == 0


async def _has_placed(running: Running) -> bool:
    return await running.databases.value("privacy", "SELECT count(*) FROM evidence_pending") == 0


async def _rewind(running: Running) -> None:
    """Every group reads everything again."""
    await running.log.rewind()
    assert await running.log.lag() > 0


async def _lose_the_log(running: Running) -> None:
    """What relays find when the broker comes back as another: they send everything again."""
    for service in SERVICES:
        await running.databases.execute(service, "UPDATE broker_seen SET cluster_id = 'another'")


async def _is_read_to_the_end(running: Running) -> bool:
    own = "SELECT count(*) FROM broker_seen WHERE cluster_id = 'another'"
    unseen = sum([await running.databases.value(service, own) for service in SERVICES])
    return not (unseen or await running.backlog() or await running.log.lag())


# --- Chaos -----------------------------------------------------------------------------------------------


async def test_two_hundred_requests_end_once_each_while_everything_restarts(running: Running) -> None:
    """And somebody outside, who is told of every one of them, as often as it takes, and does it once."""
    print(f"seed {SEED}")
    gate = asyncio.Semaphore(4)

    async def arrive() -> Account:
        async with gate:
            return await running.person()

    async def use_rights(person: Account) -> list[str]:
        async with gate:
            return [(await running.ask(person, right))["id"] for right in _RIGHTS]

    people = await asyncio.gather(*(arrive() for _ in range(_PEOPLE)))
    async with Peer.of(running, random.Random(SEED)) as peer:
        chaos = asyncio.create_task(_restart_at_random(running, peer, random.Random(SEED)))
        requests = dict(
            zip(people, await asyncio.gather(*(use_rights(person) for person in people)), strict=True)
        )
        await chaos
        for person, ids in requests.items():
            for request_id in ids:
                _ended_once(await running.ends(request_id, *OVER, within=3 * PATIENCE))
            assert await remains(running.databases, Life.of(person)) == {}
    _told_once(peer, requests)
    await running.holds()
    await _at_rest(running)
    for person in people:
        assert len(letters(running, person.email, _DONE)) == 1


def _ended_once(request: dict[str, Any]) -> None:
    states = [step["state"] for step in request["steps"]]
    assert [state for state in states if state in OVER] == [request["state"]]
    if request["right"] == "erasure":
        assert request["state"] == "completed"
        everybody = Counter((_who(part), part["task"]) for part in request["parts"])
        assert everybody == Counter(
            (who, task) for who in (*SERVICES, "keyring") for task in ("erase", "verify-erased")
        ) + Counter((who, task) for who in SERVICES for task in ("preview", "refer")) + Counter(
            [("recipient", "erase")]
        )
    if request["state"] == "completed":
        assert {part["state"] for part in request["parts"]} <= {"done", "nothing-held", "retained"}


def _who(part: dict[str, Any]) -> str:
    return part["participant"].partition("-")[0]


def _told_once(peer: Peer, requests: dict[Account, list[str]]) -> None:
    """Of each erasure by one delivery, the same at every try, and of nobody else in it."""
    assert {len(bodies) for bodies in peer.bodies.values()} == {1}
    told = Counter(
        (one["type"], one["data"]["request_id"]) for one in peer.done.values() if "person" in one["data"]
    )
    assert set(told.values()) == {1}
    asked_by = {request_id: person.email for person, ids in requests.items() for request_id in ids}
    erasures = {("privacy.erase", erasure) for *_, erasure in requests.values()}
    exports = {("privacy.export", export) for *those, _ in requests.values() for export in those}
    assert erasures <= set(told) <= erasures | exports
    for one in peer.done.values():
        if "person" in one["data"]:
            assert one["data"]["person"]["emails"] == [asked_by[one["data"]["request_id"]]]


async def _restart_at_random(running: Running, peer: Peer, chance: random.Random) -> None:
    """One thing after the other dies and is started again, each at least once."""
    victims = ["postgresql", "broker", "keyring", "outside", *(f"{service}-worker" for service in SERVICES)]
    for victim in chance.sample(victims, len(victims)) + chance.choices(victims, k=4):
        print(victim)
        if victim == "postgresql":
            running.platform.postgres.kill()
            await running.platform.postgres.start()
        elif victim == "broker":
            await running.log.kill()
            await running.log.start()
        elif victim == "outside":
            await peer.stop()
            await peer.start()
        else:
            running.platform.processes[victim].kill()
            await running.platform.processes[victim].start()
