"""Somebody who comes back after an erasure is somebody new: nothing of before is seen, linked or brought back."""

from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libs.common.auth import Role
from libs.common.broker import Record
from tests.contract.house import Person
from tests.contract.lives import Lives
from tests.tokens import authorization

_KEPT_OF_A_SALE = {"billing.invoice"}


async def listed(lives: Lives, person: Person, what: str) -> set[str]:
    """The ids of a person's own orders, invoices or privacy requests."""
    path = {
        "orders": f"/orders/v1/stores/{lives.store_id}/orders",
        "invoices": f"/billing/v1/stores/{lives.store_id}/invoices",
        "requests": f"/privacy/v1/stores/{lives.store_id}/requests",
        "sessions": f"/identity/v1/stores/{lives.store_id}/sessions",
        "emails": f"/identity/v1/stores/{lives.store_id}/me/emails",
    }[what]
    return {one["id"] for one in (await lives.house.call("GET", path, headers=person.headers))["items"]}


async def paid(lives: Lives, order: Any) -> str:
    """The invoice of an order."""
    manager = authorization(lives.store_id)
    seen = await lives.house.call(
        "GET", f"/orders/v1/stores/{lives.store_id}/orders/{order['id']}", headers=manager
    )
    body = {"amount": order["total"], "method": "bank_transfer", "received_on": seen["placed_at"][:10]}
    path = f"/billing/v1/stores/{lives.store_id}/orders/{order['id']}/payments"
    return (await lives.house.call("POST", path, json=body, headers=manager, expect=201))["invoice_id"]


async def test_whoever_comes_back_sees_and_is_seen_as_somebody_new(lives: Lives) -> None:
    http, store = lives.house.http, lives.store_id
    before = await lives.house.person(store)
    sold, open_still = [await lives.buy(before.email, before.headers) for _ in range(2)]
    await lives.carry()
    invoice = await paid(lives, sold)
    await lives.carry()
    keyed = {"Idempotency-Key": uuid4().hex}
    requests = f"/privacy/v1/stores/{store}/requests"
    asked = {"right": "access", "email": before.email}
    access = await lives.house.call("POST", requests, json=asked, headers=before.headers | keyed, expect=201)
    await lives.drive()
    erasure = await lives.erased(before)

    after = await lives.house.person(store, before.email)
    order = await lives.buy(after.email, after.headers)
    await lives.drive()
    assert await listed(lives, after, "orders") == {order["id"]}
    assert await listed(lives, after, "invoices") == set()
    assert await listed(lives, after, "requests") == set()
    assert len(await listed(lives, after, "sessions")) == 1
    # What was known before opens nothing that was before, and nothing that is now.
    for path in (
        f"/orders/v1/stores/{store}/orders/{sold['id']}",
        f"/orders/v1/stores/{store}/orders/{open_still['id']}",
        f"/billing/v1/stores/{store}/invoices/{invoice}",
        f"{requests}/{access['id']}",
        f"{requests}/{erasure}",
    ):
        assert (await http.get(path, headers=after.headers)).status_code == 404, path
    secret = {"Order-Secret": sold["view_secret"]}
    assert (
        await http.get(f"/orders/v1/stores/{store}/orders/{sold['id']}", headers=secret)
    ).status_code == 404
    refresh = {"grant_type": "refresh_token", "refresh_token": before.refresh_token}
    assert (await http.post(f"/identity/v1/stores/{store}/tokens", json=refresh)).status_code == 401
    old = await http.get(f"/orders/v1/stores/{store}/orders", headers=before.headers)
    assert old.json()["items"] == []
    assert (await http.get(f"/identity/v1/stores/{store}/me", headers=before.headers)).status_code == 404
    # The same command with the same key is another person's: not the reply of before.
    again = await http.post(requests, json=asked, headers=after.headers | keyed)
    assert again.status_code == 201 and again.json()["id"] != access["id"]
    await lives.drive()
    await lives.erased(after)
    assert set(await lives.remains(after.email, 2)) <= _KEPT_OF_A_SALE


async def test_an_archive_of_the_new_life_has_nothing_of_the_old(lives: Lives) -> None:
    before = await lives.house.person(lives.store_id)
    await lives.buy(before.email)
    await lives.drive()
    await lives.erased(before)
    after = await lives.house.person(lives.store_id, before.email)
    request_id = await lives.ask(after, "access")
    await lives.drive()
    path = f"/privacy/v1/stores/{lives.store_id}/requests/{request_id}"
    seen = await lives.house.call("GET", path, headers=after.headers)
    counts = {part["participant"]: part["counts"] for part in seen["parts"] if part["task"] == "export"}
    assert counts["orders"] == {} and counts["billing"] == {}
    # The request itself, and nothing of the two before it.
    assert counts["privacy"].get("request") == 1


async def test_a_late_event_of_the_earlier_life_is_refused_and_one_of_the_new_is_taken(lives: Lives) -> None:
    before = await lives.house.person(lives.store_id)
    await lives.drive()
    lost = await lives.buy(before.email)
    late = await lives.published("orders", lives.store_id)
    await lives.erased(before)
    after = await lives.house.person(lives.store_id, before.email)
    order = await lives.buy(after.email)
    await lives.drive()
    for service in ("billing", "catalog"):
        await lives.hear(service, *late)
    await lives.drive()
    assert await lives.remains(after.email) == {}
    manager, path = authorization(lives.store_id), f"/billing/v1/stores/{lives.store_id}/orders"
    seen = await lives.house.http.get(f"{path}/{lost['id']}/receivable", headers=manager)
    assert seen.status_code == 404
    assert (await lives.house.call("GET", f"{path}/{order['id']}/receivable", headers=manager))[
        "state"
    ] == "open"
    assert await listed(lives, after, "orders") == {order["id"]}


# --- Any history -----------------------------------------------------------------------------------------


@dataclass
class Somebody:
    """What a plain model knows of one address."""

    email: str = field(default_factory=lambda: f"canary-{uuid4().hex}@vitrine.example")
    life: int = 1
    account: Person | None = None
    orders: set[str] = field(default_factory=set[str])
    requests: set[str] = field(default_factory=set[str])
    late: list[Record] = field(default_factory=list[Record])


@dataclass
class Model:
    """Two addresses of what may be one person."""

    lives: Lives
    people: tuple[Somebody, Somebody] = field(default_factory=lambda: (Somebody(), Somebody()))
    one: bool = False

    async def sign_up(self, who: Somebody) -> None:
        if who.account is None:
            who.account = await self.lives.house.person(self.lives.store_id, who.email)

    async def buy(self, who: Somebody) -> None:
        who.orders.add((await self.lives.buy(who.email))["id"])
        await self.lives.carry()

    async def buy_unheard(self, who: Somebody) -> None:
        """An order whose news comes late."""
        who.orders.add((await self.lives.buy(who.email))["id"])
        who.late += await self.lives.published("orders", self.lives.store_id)

    async def hear_late(self, who: Somebody) -> None:
        for service in ("catalog", "billing"):
            await self.lives.hear(service, *who.late)
        who.late = []
        await self.lives.carry()

    async def ask(self, who: Somebody) -> None:
        if who.account is not None:
            who.requests.add(await self.lives.ask(who.account, "explanation"))
            await self.lives.drive()

    async def merge(self, who: Somebody) -> None:
        path = f"/privacy/v1/stores/{self.lives.store_id}/merges"
        body = {"subjects": [{"email": one.email} for one in self.people]}
        owner = authorization(self.lives.store_id, Role.OWNER)
        answer = await self.lives.house.http.post(path, json=body, headers=owner)
        # Nobody is merged whom nobody has met in the life that is now.
        self.one = self.one or answer.status_code == 201
        assert answer.status_code in ({200} if self.one else set()) | {201, 409, 422}, answer.text

    async def erase(self, who: Somebody) -> None:
        if who.account is None:
            return
        await self.lives.erased(who.account)
        for one in self.people if self.one else (who,):
            late = one.late
            assert set(await self.lives.remains(one.email, one.life)) <= _KEPT_OF_A_SALE
            one.life, one.account, one.orders, one.requests = one.life + 1, None, set(), set()
            one.late = late
        self.one = False

    async def check(self) -> None:
        for who in self.people:
            if who.account is not None:
                assert await listed(self.lives, who.account, "orders") == who.orders
                own = set[str]().union(*(one.requests for one in self.people)) if self.one else who.requests
                assert await listed(self.lives, who.account, "requests") == own
            if who.life > 1:
                assert set(await self.lives.remains(who.email, who.life - 1)) <= _KEPT_OF_A_SALE


_STEPS = ("sign_up", "buy", "buy_unheard", "hear_late", "ask", "merge", "erase")


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(st.sampled_from(_STEPS), st.integers(0, 1)), min_size=4, max_size=10))
async def test_any_history_is_what_a_plain_model_says(lives: Lives, steps: list[tuple[str, int]]) -> None:
    model = Model(lives)
    for who in model.people:
        await model.sign_up(who)
    for step, who in steps:
        await getattr(model, step)(model.people[who])
        await model.check()
    for who in model.people:
        await model.hear_late(who)
    await model.check()
