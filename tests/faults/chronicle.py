"""What is done to a platform and told to the model: one step after the other, each a line that a person can follow."""

import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from deploy.local.backup import Places, backup
from deploy.local.databases import NAMES
from deploy.local.environment import SERVICES
from deploy.local.shop import PASSWORD, PLATFORM_STORE, Account, Order, Surprise, key, until
from tests.faults import people
from tests.faults.conftest import PATIENCE, Running, address, becomes
from tests.faults.model import Backup, Life, Model
from tests.faults.restoring import bring_back

VICTIMS = ("postgresql", "broker", "keyring", "gateway", *(f"{service}-worker" for service in SERVICES))
_OVER = {"completed", "cancelled", "refused"}


@dataclass
class Person:
    """Somebody of the history, with the token of their last sign-in."""

    name: str
    email: str = field(default_factory=lambda: address("canary"))
    account: Account | None = None
    corrected: int = 0
    lives: dict[int, people.Life] = field(default_factory=dict[int, people.Life])
    """As the platform knows them."""
    tokens: dict[int, Account] = field(default_factory=dict[int, Account])
    """The last of each life."""

    @property
    def called(self) -> str:
        """As they wish to be called now."""
        return f"Canary {self.name} {self.corrected}"

    @property
    def signed_in(self) -> Account:
        """Their account. There must be one."""
        assert self.account is not None, f"{self.name} has no account"
        return self.account


@dataclass
class Bought:
    """An order of the history."""

    order: Order
    person: Person
    life: int
    number: int
    invoice: str = ""

    def __str__(self) -> str:
        return f"order {self.number}"


@dataclass
class Asked:
    """A request that is under way."""

    id: str
    person: Person
    right: str
    value: str = ""
    counted: int | None = None
    """How many orders of theirs everybody is to count; nobody can tell where one was restored meanwhile."""


@dataclass
class Chronicle:
    """A history, as it happens to a platform and its model."""

    running: Running
    places: Places
    chance: random.Random
    model: Model = field(default_factory=Model)
    people: list[Person] = field(default_factory=list[Person])
    bought: dict[str, Bought] = field(default_factory=dict[str, Bought])
    asked: list[Asked] = field(default_factory=list[Asked])
    backups: list[tuple[str, Backup]] = field(default_factory=list[tuple[str, Backup]])
    lines: int = 0

    def note(self, line: str) -> None:
        """What comes now."""
        self.lines += 1
        print(f"{self.lines:>4}  {line}")

    @property
    def store(self) -> str:
        return self.running.owner.store_id

    # --- People ------------------------------------------------------------------------------------------

    async def arrive(self, name: str) -> None:
        """Somebody whom nobody has met before."""
        person = Person(name)
        self.people.append(person)
        await self.chance.choice((self.sign_up, self.buy))(person)

    async def sign_up(self, person: Person) -> None:
        """For the first time, after an erasure, or since the account was lost."""
        self.note(f"{self._life(person)} signs up as {person.called}")
        accounts = f"/identity/v1/stores/{self.store}"
        before = await self._links(person)
        body = {"email": person.email, "password": PASSWORD, "name": person.called}
        await self.running.persist("POST", f"{accounts}/accounts", json=body)

        async def another() -> str | None:
            return next(iter(await self._links(person) - before), None)

        link = await until(another, "the mail with the link", PATIENCE)
        token = {"token": link.rpartition("token=")[2]}
        await self.running.persist("POST", f"{accounts}/confirmations", json=token)
        await self.sign_in(person)
        self.model.sign_up(person.name, person.called)

    async def _links(self, person: Person) -> set[str]:
        listed = await self.running.persist("GET", "/mailbox/messages", params={"to": person.email})
        links = [
            (await self.running.persist("GET", f"/mailbox/messages/{one['id']}")).json()["links"]
            for one in listed.json()
        ]
        return {link for some in links for link in some if "token=" in link}

    async def sign_in(self, person: Person) -> None:
        """A fresh token."""
        body = {"grant_type": "password", "email": person.email, "password": PASSWORD}
        path = f"/identity/v1/stores/{self.store}/tokens"
        tokens = (await self.running.persist("POST", path, json=body)).json()
        person.account = Account(person.email, self.store, tokens["access_token"], tokens["refresh_token"])
        number = self.model.life(person.name).number
        person.tokens[number] = person.account
        person.lives[number] = people.Life.of(person.account)

    async def close(self, person: Person) -> None:
        """Their account."""
        self.note(f"{self._life(person)} closes the account")
        path = f"/identity/v1/stores/{self.store}/me/closing"
        headers = person.signed_in.headers
        await self.running.persist("POST", path, json={"password": PASSWORD}, headers=headers)
        self.model.close(person.name)

    async def come_back(self, person: Person) -> None:
        """Which opens a closed account."""
        self.note(f"{self._life(person)} signs in, and the account is open again")
        await self.sign_in(person)
        self.model.come_back(person.name)

    def _life(self, person: Person) -> Life:
        return self.model.life(person.name)

    # --- Orders ------------------------------------------------------------------------------------------

    async def buy(self, person: Person) -> None:
        """As a guest, by their address."""
        one = Bought(
            await self.running.buy(person.email, name=person.called),
            person,
            self._life(person).number,
            len(self.bought) + 1,
        )
        self.note(f"{self._life(person)} buys: {one}")
        self.bought[one.order.id] = one
        self.model.buy(person.name, one.order.id, person.called)

    async def pay(self, one: Bought) -> None:
        """The manager books the money as soon as it is due."""
        self.note(f"{one} of {one.person.name} is paid")
        path = f"/billing/v1/stores/{self.store}/orders/{one.order.id}"
        due = await self._reaches(f"{path}/receivable", "open")
        today = str(datetime.now(UTC).date())
        body = {"amount": due["amount"], "method": "bank_transfer", "received_on": today}
        headers = self.running.owner.headers | key()
        paid = (await self.running.persist("POST", f"{path}/payments", json=body, headers=headers)).json()
        one.invoice = paid["invoice_id"]
        self.model.pay(one.order.id, one.invoice)

    async def cancel(self, one: Bought) -> None:
        """By its guest."""
        self.note(f"{one} of {one.person.name} is cancelled")
        await self.running.cancel(one.order)
        self.model.cancel(one.order.id)

    async def fulfil(self, one: Bought) -> None:
        """The goods leave as soon as orders knows of the money."""
        self.note(f"{one} of {one.person.name} is fulfilled")
        path = f"/orders/v1/stores/{self.store}/orders/{one.order.id}"
        await self._reaches(path, "paid")
        headers = self.running.owner.headers | key() | {"If-Match": "*"}
        await self.running.persist("POST", f"{path}/fulfilments", headers=headers)
        self.model.fulfil(one.order.id)

    async def _reaches(self, path: str, state: str) -> Any:
        async def look() -> Any:
            seen = await self.running.shop.http.get(path, headers=self.running.owner.headers)
            return seen.json() if seen.is_success and seen.json()["state"] == state else None

        return await until(look, f"{path} to be {state}", PATIENCE)

    # --- Rights ------------------------------------------------------------------------------------------

    async def ask(self, person: Person, right: str) -> None:
        """And do not wait for it."""
        more: dict[str, Any] = {}
        value = ""
        if right == "rectification":
            person.corrected += 1
            value = person.called
            more["corrections"] = [{"category": "user.name", "value": value}]
        self.note(f"{self._life(person)} asks for {right}{value and f': to be called {value}'}")
        opened = await self.running.ask(person.signed_in, right, **more)
        self.model.ask(person.name, opened["id"])
        counted = len(self.model.orders_of(self._life(person)))
        self.asked.append(Asked(opened["id"], person, right, value, counted))

    async def end(self, one: Asked) -> None:
        """Wait for a request; the officer decides what does not pass by itself."""
        path = f"/privacy/v1/stores/{self.store}/requests/{one.id}"

        async def look() -> Any:
            seen = await self.running.persist("GET", path, headers=self.running.owner.headers)
            if seen.json()["state"] == "deciding" and await self._waits_for_officer(one, path):
                headers = self.running.owner.headers | {"If-Match": seen.headers["etag"]} | key()
                # Of a state that has changed meanwhile the next look tells more.
                await self.running.shop.http.post(f"{path}/decision", json={"approve": True}, headers=headers)
            return seen.json() if seen.json()["state"] in _OVER else None

        ended = await until(look, f"the {one.right} of {one.person.name} to end", PATIENCE)
        assert ended["state"] == "completed", ended
        if one.counted is not None:
            assert _counted(ended) in (None, one.counted), ended["parts"]
        self.model.complete(one.person.name, one.id, one.right, one.value)
        if one.right == "erasure":
            one.person.account = None

    async def _waits_for_officer(self, one: Asked, path: str) -> bool:
        if one.right == "rectification":
            return True
        preview = await self.running.persist("GET", f"{path}/preview", headers=self.running.owner.headers)
        if preview.json()["unanswered"]:
            return False
        again = await self.running.persist("GET", path, headers=self.running.owner.headers)
        if again.json()["state"] == "deciding":
            assert self.model.may_be_under_way(self._life(one.person)), preview.text
            return True
        return False

    # --- What happens to the platform --------------------------------------------------------------------

    async def save(self) -> None:
        """`make backup`, once everything is at rest."""
        await self.settle()
        self.note(f"backup {len(self.backups) + 1} is taken")
        with_platform = self.running.platform
        at = await backup(
            with_platform.data, self.places, NAMES, broker=with_platform.broker, say=lambda _: None
        )
        self.backups.append((at, self.model.save()))

    async def restore(self, number: int, names: Collection[str]) -> None:
        """`make restore ONLY=…` of a backup. What is under way goes on."""
        self.note(f"{', '.join(names)} as in backup {number + 1}")
        at, saved = self.backups[number]
        for one in self.asked:
            one.counted = None
        running = self.running
        await bring_back(running.platform, running.databases, self.places, names, at)
        erasing = [one.person.name for one in self.asked if one.right == "erasure"]
        self.model.restore(saved, names, erasing)

    async def forget_topics(self) -> None:
        """As after seven days: only who asks again can bring back what was asked."""
        self.note("the topics keep nothing any more")
        await self.running.databases.execute("broker", "DELETE FROM record")

    async def crash(self, victim: str, meanwhile: Any = None) -> None:
        """SIGKILL, or for the embedded log no connection any more; something may be done before it is back."""
        self.note(f"{victim} is killed")
        running = self.running
        if victim == "postgresql":
            running.platform.postgres.kill()
        elif victim == "broker":
            await running.log.kill()
        else:
            running.platform.processes[victim].kill()
        if meanwhile is not None:
            await meanwhile()
        await running.repair()
        self.note(f"{victim} is back")

    # --- Rest --------------------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Wait until every request has ended and nothing is on its way any more."""
        await self._renew_owner()
        while self.asked:
            await self.end(self.asked[0])
            self.asked.pop(0)
        last: Mapping[str, Any] = {}

        async def is_at_rest() -> bool:
            nonlocal last
            before, last = last, await self._on_the_way()
            return last == before and not any(number for what, number in last.items() if what != "told")

        try:
            await becomes(is_at_rest, "nothing to be on its way")
        except Surprise:
            print("on the way:", last)
            raise

    async def _renew_owner(self) -> None:
        running = self.running
        path = f"/identity/v1/stores/{PLATFORM_STORE}/tokens"
        body = {"grant_type": "password", "email": running.merchant.email, "password": PASSWORD}
        tokens = (await running.persist("POST", path, json=body)).json()
        body = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"], "act_at": self.store}
        tokens = (await running.persist("POST", path, json=body)).json()
        running.owner = Account(
            running.merchant.email, self.store, tokens["access_token"], tokens["refresh_token"]
        )

    async def _on_the_way(self) -> dict[str, int]:
        value = self.running.databases.value
        found = {"lag": await self.running.log.lag(), "backlog": await self.running.backlog()}
        found["parked"] = await self.running.parked()
        # A correction whose values were lost with a keyring is tried again for good.
        undone = "SELECT count(*) FROM redo WHERE done_at IS NULL AND NOT failed"
        found["redo"] = await value("privacy", undone)
        found["returned"] = await value("privacy", "SELECT count(*) FROM returned WHERE compared_at IS NULL")
        for service in SERVICES:
            untold = "SELECT count(*) FROM restoration WHERE announced_at IS NULL"
            found[f"restored {service}"] = await value(service, untold)
        asked = "SELECT count(*) FROM restoration"
        heard = "SELECT count(DISTINCT restoration_id) FROM returned WHERE participant = 'keyring'"
        found["restored keyring"] = max(0, await value("keyring", asked) - await value("privacy", heard))
        open_ones = "SELECT count(*) FROM request WHERE state NOT IN ('completed', 'cancelled', 'refused')"
        found["requests"] = await value("privacy", open_ones)
        found["told"] = sum([await value(service, "SELECT count(*) FROM outbox") for service in SERVICES])
        return found


def _counted(request: Any) -> int | None:
    """How many orders everybody counted: in an export, or in the preview of an erasure."""
    task = {"access": "export", "erasure": "preview"}.get(request["right"])
    for part in request["parts"]:
        if (part["participant"], part["task"]) == ("orders", task) and part["state"] != "waiting":
            return part["counts"].get("orders", 0)
    return None
