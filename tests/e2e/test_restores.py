"""Every database comes back from before an erasure, a correction, a restriction and a closing, and nobody with it."""

import asyncio
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from deploy.local.backup import Places, backup
from deploy.local.cluster import begin_with_copy
from deploy.local.databases import NAMES
from deploy.local.environment import SERVICES, for_process
from deploy.local.errors import AlreadyRunning
from deploy.local.nursery import ROOT
from deploy.local.platform import Platform
from deploy.local.proof import Proof
from deploy.local.restore import restore
from deploy.local.shop import PASSWORD, Account, Order, Shop, key, until
from tests.faults.databases import Databases
from tests.faults.people import Life, remains
from tests.faults.restoring import bring_back

_WRONG, _RIGHT = "Canary Mispelt", "Canary Correct"
_PATIENCE = 90.0


@dataclass
class Customer:
    """Somebody with an account and an order."""

    account: Account
    order: Order

    @property
    def life(self) -> Life:
        return Life.of(self.account)


@dataclass
class Town:
    """A platform with a store, what was saved of it, and whoever used a right since."""

    platform: Platform
    databases: Databases
    shop: Shop
    merchant: Account
    store_id: str
    places: Places
    erased: Customer
    corrected: Customer
    held: Customer
    other: Customer
    leaving: Customer
    proof: Proof
    variant: str
    saved: str = ""

    # --- Going back --------------------------------------------------------------------------------------

    async def go_back(self, *names: str) -> None:
        """Restore these databases from before everything, with whatever uses them stopped and started again."""
        await bring_back(self.platform, self.databases, self.places, names, self.saved)
        returned = [name for name in names if name in SERVICES or name == "keyring"]
        await until(lambda: self._has_caught_up(returned), f"{names} to have caught up", _PATIENCE)

    async def _has_caught_up(self, names: Sequence[str]) -> bool | None:
        compared = "SELECT DISTINCT participant FROM returned WHERE compared_at IS NOT NULL"
        seen = {row[0] for row in await self.databases.rows("privacy", compared)}
        undone = await self.databases.value("privacy", "SELECT count(*) FROM redo WHERE done_at IS NULL")
        untold = [
            await self.databases.value(name, "SELECT count(*) FROM restoration WHERE announced_at IS NULL")
            for name in names
            if name != "keyring"
        ]
        return (set(names) <= seen and not undone and not any(untold) and not await self._backlog()) or None

    async def _backlog(self) -> int:
        unsent = "SELECT count(*) FROM outbox WHERE sent_at IS NULL"
        lag = """
            SELECT count(*) FROM record JOIN assignment USING (topic, partition) WHERE position >= committed
        """
        waiting = sum([await self.databases.value(service, unsent) for service in SERVICES])
        return waiting + await self.databases.value("broker", lag)

    async def forget_topics(self) -> None:
        """The log keeps nothing of the past any more, as after seven days."""
        await self.databases.execute("broker", "DELETE FROM record")

    async def replay_from_0(self) -> None:
        """Every service reads every topic again from its first record."""
        workers = [self.platform.processes[f"{service}-worker"] for service in SERVICES]
        await asyncio.gather(*(worker.stop() for worker in workers))
        await self.databases.execute("broker", "UPDATE assignment SET committed = 0")
        for worker in workers:
            await worker.start()
        await until(lambda: self._has_caught_up([]), "every topic to be read again", _PATIENCE)

    # --- What holds --------------------------------------------------------------------------------------

    async def nobody_has_come_back(self) -> None:
        """Nothing of the erased person is there or opens, and nobody can sign in as them."""
        found = await remains(self.databases, self.erased.life)
        await until(self._nothing_remains, f"nothing to remain, there is {found}", _PATIENCE)
        findings = await self.proof.compare()
        assert findings and {found.open for found in findings} == {0}, findings
        body = {"grant_type": "password", "email": self.erased.account.email, "password": PASSWORD}
        refused = await self.shop.http.post(f"/identity/v1/stores/{self.store_id}/tokens", json=body)
        assert refused.status_code in (400, 401)
        for service in SERVICES:
            buried = "SELECT generation FROM erased_subject WHERE store_id = $1 AND subject_id = $2"
            life = self.erased.life
            assert await self.databases.value(service, buried, life.store_id, life.subject_id) == 1, service
        assert await self._name_of(self.other) == "Canary Neighbour"

    async def everybodys_wish_holds(self) -> None:
        """What was corrected says what is right, who is on hold is on hold, and who is leaving can still come back."""
        await until(self._is_corrected, "the name to be the right one", _PATIENCE)
        await until(self._is_held, "the restriction to hold", _PATIENCE)
        await until(self._is_closed, "the account to be closed", _PATIENCE)

    async def _nothing_remains(self) -> bool | None:
        return not await remains(self.databases, self.erased.life) or None

    async def _name_of(self, customer: Customer) -> str | None:
        """As the account and the order say it; None while they differ."""
        account = await self.shop.sign_in(customer.account.email, store_id=self.store_id)
        me = await self.shop.call("GET", f"/identity/v1/stores/{self.store_id}/me", headers=account.headers)
        seen = await self.shop.order(customer.order, await self.owner_headers())
        contact = seen["contact"] or {}
        return me["name"] if me["name"] == contact.get("name") else None

    async def _is_corrected(self) -> bool | None:
        return await self._name_of(self.corrected) == _RIGHT or None

    async def _is_held(self) -> bool | None:
        life = self.held.life
        held = "SELECT count(*) FROM restricted_subject WHERE store_id = $1 AND subject_id = $2"
        everywhere = [
            await self.databases.value(service, held, life.store_id, life.subject_id) for service in SERVICES
        ]
        seen = await self.shop.order(self.held.order, await self.owner_headers())
        return (seen["on_hold"] and seen["contact"] is None and set(everywhere) == {1}) or None

    async def _is_closed(self) -> bool | None:
        """In its grace: a sign-in would bring it back, so nobody tries."""
        closed = "SELECT count(*) FROM account WHERE subject_id = $1 AND ends_at > now() AND ended_at IS NULL"
        return await self.databases.value("identity", closed, self.leaving.life.subject_id) == 1 or None

    async def owner_headers(self) -> dict[str, str]:
        """Of the store's owner."""
        self.merchant = await self.shop.sign_in(self.merchant.email)
        return (await self.shop.act_at(self.merchant, self.store_id)).headers


@asynccontextmanager
async def platform_of(folder: Path) -> AsyncGenerator[tuple[Platform, Shop]]:
    with pytest.MonkeyPatch.context() as variables:
        # So that a secret that changes is known everywhere in moments.
        variables.setenv("STORE_SECRET_SECONDS", "1")
        begin_with_copy(folder / "platform")
        async with (
            Platform(folder / "platform", fast=True) as platform,
            httpx.AsyncClient(base_url=platform.url, timeout=30) as http,
        ):
            yield platform, Shop(http)


@pytest.fixture(scope="module")
async def town() -> AsyncIterator[Town]:
    """Saved, and then lived in: one person is erased, one corrected, one on hold, one did nothing."""
    folder = Path(tempfile.mkdtemp(prefix="vitrine-restores-"))
    try:
        async with platform_of(folder) as (platform, shop):
            town = await _founded(platform, shop, Places.of(folder / "a", folder / "b", folder / "c"))
            town.saved = await backup(platform.data, town.places, NAMES, say=lambda _: None)
            await _use_rights(town)
            yield town
            await town.databases.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _founded(platform: Platform, shop: Shop, places: Places) -> Town:
    merchant = await shop.sign_up(f"canary-merchant-{uuid4().hex}@vitrine.example")
    owner = await shop.open_store(merchant, name="Old town", slug=f"old-{uuid4().hex[:8]}")
    rows = b"Handle,Title,Variant SKU,Variant Inventory Qty,Variant Price\nplenty,Plenty,PLENTY,1000,1.00\n"
    await shop.import_catalogue(owner, rows)
    [variant] = (await shop.product(owner.store_id, "plenty"))["variants"]

    async def customer(name: str) -> Customer:
        email = f"canary-{uuid4().hex}@vitrine.example"
        account = await shop.sign_up(email, store_id=owner.store_id, name=name)
        order = await shop.check_out(owner.store_id, email, {variant["id"]: 1}, name=name)
        await shop.order_settles(order, "awaiting_payment")
        return Customer(account, order)

    names = ("Canary Forgotten", _WRONG, "Canary Held", "Canary Neighbour", "Canary Leaving")
    people = await asyncio.gather(*(customer(name) for name in names))
    erased, *_ = people
    proof = await Proof.begin(platform, store_id=owner.store_id, access_token=erased.account.access_token)
    return Town(
        platform, Databases(platform.postgres), shop, merchant, owner.store_id, places, *people,
        proof=proof, variant=variant["id"],
    )  # fmt: skip


async def _use_rights(town: Town) -> None:
    headers, path = await town.owner_headers(), f"/privacy/v1/stores/{town.store_id}/requests"

    async def ask(person: Account, right: str, **more: Any) -> None:
        body = {"right": right, "email": person.email, **more}
        asked = await town.shop.call("POST", path, json=body, headers=person.headers | key(), expect=201)
        approved = False

        async def over() -> bool | None:
            nonlocal approved
            seen = await town.shop.http.get(f"{path}/{asked['id']}", headers=headers)
            if seen.json()["state"] == "deciding" and right == "rectification" and not approved:
                again = headers | key() | {"If-Match": seen.headers["etag"]}
                decided = await town.shop.http.post(
                    f"{path}/{asked['id']}/decision", json={"approve": True}, headers=again
                )
                approved = decided.is_success
            return seen.json()["state"] == "completed" or None

        await until(over, f"the {right} to be completed", _PATIENCE)

    correction = {"category": "user.name", "value": _RIGHT, "reason": "It was misspelt."}
    await asyncio.gather(
        ask(town.erased.account, "erasure"),
        ask(town.corrected.account, "rectification", corrections=[correction]),
        ask(town.held.account, "restriction"),
    )
    leaving = town.leaving.account
    closing = f"/identity/v1/stores/{town.store_id}/me/closing"
    await town.shop.call("POST", closing, json={"password": PASSWORD}, headers=leaving.headers)
    await until(lambda: _is_heard_of(town), "the closing to be heard of", _PATIENCE)


async def _is_heard_of(town: Town) -> bool | None:
    running = (
        "SELECT count(*) FROM expiry WHERE subject_id = $1 AND clock = 'account-closed' AND state = 'running'"
    )
    return await town.databases.value("privacy", running, town.leaving.life.subject_id) == 1 or None


async def test_whatever_is_restored_nobody_comes_back_and_every_wish_holds(town: Town) -> None:
    await town.nobody_has_come_back()
    await town.everybodys_wish_holds()
    with pytest.raises(AlreadyRunning):
        await restore(town.platform.data, town.places, NAMES, town.saved, say=lambda _: None)
    for name in ("orders", "identity", "billing", "catalog", "keyring", "broker"):
        if name == "identity":
            # Until here the topics bring back what was asked as well; from here on only the privacy service does.
            await town.forget_topics()
        await town.go_back(name)
        await town.nobody_has_come_back()
        await town.everybodys_wish_holds()
    await town.replay_from_0()
    await town.nobody_has_come_back()
    await town.everybodys_wish_holds()
    # From here on nobody knows any more who asked for what; that they did has its effects all the same.
    await town.go_back("privacy")
    await town.nobody_has_come_back()
    await town.everybodys_wish_holds()
    life = town.erased.life
    asked = "SELECT way, state FROM request WHERE claim = 'erasure' AND subject_id = $1"
    assert [tuple(row) for row in await town.databases.rows("privacy", asked, life.subject_id)] == [
        ("restore", "completed")
    ]
    # The whole platform as it was: the destruction log alone is of today, and it is enough for who was erased.
    await town.go_back(*NAMES)
    await town.nobody_has_come_back()


# --- Secrets of blind indexes ----------------------------------------------------------------------------

_OF_EPOCH = """
    SELECT count(*) FROM {table}
    WHERE email_index IS NOT NULL AND store_id = $1 AND substr(email_index, 1, 2) <> $2
"""
_INDEXED = (("identity", "account"), ("identity", "sign_up"), ("orders", "orders"))


async def test_index_secrets_change_under_load_and_no_look_up_is_lost(town: Town) -> None:
    other, headers = town.other, await town.owner_headers()
    number = (await town.shop.order(other.order, headers))["number"]
    stop, done = asyncio.Event(), Counter[str]()

    async def sign_in() -> None:
        await town.shop.sign_in(other.account.email, store_id=town.store_id)

    async def search() -> None:
        path, body = f"/orders/v1/stores/{town.store_id}/order-searches", {"email": other.account.email}
        found = await town.shop.call("POST", path, json=body, headers=headers)
        assert number in {one["number"] for one in found["items"]}

    async def buy() -> None:
        await town.shop.check_out(town.store_id, f"canary-{uuid4().hex}@vitrine.example", {town.variant: 1})

    async def sign_up() -> None:
        email = f"canary-{uuid4().hex}@vitrine.example"
        await town.shop.sign_up(email, store_id=town.store_id, name="Canary New")

    async def again(name: str, work: Callable[[], Awaitable[None]]) -> None:
        while not stop.is_set():
            await work()
            done[name] += 1

    works = {"sign in": sign_in, "search": search, "buy": buy, "sign up": sign_up}
    async with asyncio.TaskGroup() as load:
        for name, work in works.items():
            load.create_task(again(name, work))
        await _rotate(town)
        await until(lambda: _is_of_epoch(town, [2]), "the secret before to be gone", _PATIENCE)
        stop.set()
    assert set(done) == set(works) and min(done.values()) >= 2, done
    for service, table in _INDEXED:
        old = _OF_EPOCH.format(table=table)
        assert not await town.databases.value(service, old, UUID(town.store_id), (2).to_bytes(2)), table
    await search()
    # A database from before has rows that no secret finds any more; what lies in their boxes does.
    await town.go_back("identity")
    await until(lambda: _can_sign_in(town, other.account), "the account to be found again", _PATIENCE)


async def _rotate(town: Town) -> None:
    rotating = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.privacy.rotate", town.store_id),
        cwd=ROOT, env=for_process(town.platform.environment, ("privacy",)), stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    words, _ = await rotating.communicate()
    assert words.startswith(b"1 stores change"), words


async def _is_of_epoch(town: Town, wanted: list[int]) -> bool | None:
    epochs = "SELECT array_agg(epoch) FROM index_secret WHERE store_id = $1"
    return await town.databases.value("keyring", epochs, UUID(town.store_id)) == wanted or None


async def _can_sign_in(town: Town, account: Account) -> bool | None:
    body = {"grant_type": "password", "email": account.email, "password": PASSWORD}
    answer = await town.shop.http.post(f"/identity/v1/stores/{town.store_id}/tokens", json=body)
    return answer.is_success or None
