"""A person's whole life on a platform of real processes, in values that are found again wherever they lie."""

import base64
import io
import json
import shutil
import tempfile
import zipfile
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx
import pytest

from deploy.local.cluster import begin_with_copy
from deploy.local.databases import NAMES, database
from deploy.local.platform import Platform
from deploy.local.shop import PASSWORD, Account, Shop, Surprise, key, until
from tests import variables
from tests.contract.otlp import Collector

_SUPPORT = "essential.service.operations.support"
_SHEET = (
    "Handle,Title,Body (HTML),Option1 Name,Option1 Value,Variant SKU,Variant Inventory Qty,Variant Price\n"
)


@dataclass(frozen=True)
class Canaries:
    """Personal values with one rare word in each of them, so that a search for the word finds any of them."""

    word: str = field(default_factory=lambda: f"qz{uuid4().hex[:14]}")

    @property
    def email(self) -> str:
        return f"canary.{self.word}@vitrine.example"

    @property
    def name(self) -> str:
        return f"Zoe {self.word}"

    @property
    def address(self) -> dict[str, str]:
        return {
            "line1": f"7 rue {self.word}",
            "line2": f"+33 6 {self.word}",
            "postcode": f"{self.word}",
            "city": f"Ville-{self.word}",
            "country": "FR",
        }

    @property
    def contact(self) -> dict[str, Any]:
        return {"name": self.name, "email": self.email, "address": self.address}


def forms(word: str) -> dict[str, bytes]:
    """The word as it stands in a text, a dump's bytes, an address, and in base64 at any offset."""
    found = {
        "text": word.encode(),
        "hexadecimal": word.encode().hex().encode(),
        "percent": quote(word).encode(),
    }
    for offset in range(3):
        coded = base64.b64encode(b"\0" * offset + word.encode())
        # The first and last characters depend on what stands beside the word.
        middle = coded[(0, 2, 3)[offset] : len(word) // 3 * 4]
        found[f"base64, {offset} bytes in"] = middle
        found[f"hexadecimal of base64, {offset} bytes in"] = middle.hex().encode()
    return found


def lies_in(content: bytes, word: str) -> list[str]:
    """The forms in which the word is in there."""
    lowered = content.lower()
    return [
        name
        for name, form in forms(word).items()
        if form in (content if name.startswith("base64") else lowered)
    ]


@dataclass
class Life:
    """What happened, and what was left of it in places nobody should find a person in."""

    canaries: Canaries
    title: str
    """A product's: it is not personal, and must be found."""
    requests: dict[str, str] = field(default_factory=dict[str, str])
    """The id of each privacy request, by its right."""
    refusals: list[bytes] = field(default_factory=list[bytes])
    """Every answer with an error, whole."""
    late: str = "catalog"
    """The participant that was frozen for a while when it was asked for an export."""
    archive: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    """The files of what the person downloaded when they asked for everything."""
    portable: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    """And when they asked for what they had given."""
    dumps: dict[str, bytes] = field(default_factory=dict[str, bytes])
    """Every database, before the erasure and after it."""


class Person:
    """Lives it, through the public port."""

    def __init__(self, platform: Platform, http: httpx.AsyncClient, collector: Collector) -> None:
        self.platform = platform
        self.collector = collector
        self.shop = Shop(http)
        self.life = Life(Canaries(), f"Pen {uuid4().hex}")
        self.canaries = self.life.canaries
        self.links: set[str] = set()
        http.event_hooks["response"].append(self._note_refusal)

    async def _note_refusal(self, answer: httpx.Response) -> None:
        if answer.status_code >= 400:
            await answer.aread()
            self.life.refusals.append(str(answer.headers).encode() + b"\n" + answer.content)

    async def live(self) -> Life:
        owner, variant = await self._store()
        order = await self._buy(owner.store_id, variant)
        await self._pay(owner, order)
        person = await self._sign_up(owner.store_id)
        await self._be_served(owner, person, order)
        await self._exercise(person, "access", late=self.life.late)
        self.life.archive = await self._download(person)
        await self._exercise(person, "portability")
        self.life.portable = await self._download(person)
        person = await self._close_and_come_back(person)
        await self._be_answered(owner, person)
        await self._ask_without_account(owner)
        await self._have_another_address(owner, person, variant)
        await self._err(owner, person, order)
        await self._dump("before the erasure")
        await self._exercise(person, "erasure", officer=owner)
        certificate = (
            f"/privacy/v1/stores/{owner.store_id}/requests/{self.life.requests['erasure']}/certificate"
        )
        await self.shop.reaches(certificate, 200, headers=owner.headers)
        await self._dump("after the erasure")
        try:
            await until(self._nobody_is_waited_for, "the end of all requests to be measured", 120)
        except Surprise:
            print(await self._waited_for())
            raise
        return self.life

    async def _store(self) -> tuple[Account, str]:
        merchant = await self.shop.sign_up(f"merchant-{uuid4().hex}@vitrine.example", name="A merchant")
        owner = await self.shop.open_store(merchant, name="Life", slug=f"life-{uuid4().hex[:8]}")
        sheet = _SHEET + f"pen,{self.life.title},,Title,Default Title,PEN,100,2.50\n"
        await self.shop.import_catalogue(owner, sheet.encode())
        [variant] = (await self.shop.product(owner.store_id, "pen"))["variants"]
        return owner, variant["id"]

    async def _buy(self, store_id: str, variant: str, email: str = "") -> dict[str, Any]:
        orders = f"/orders/v1/stores/{store_id}"
        cart = await self.shop.call("POST", f"{orders}/carts", expect=201)
        secret = {"Cart-Secret": cart["secret"]}
        line = f"{orders}/carts/{cart['id']}/lines/{variant}"
        await self.shop.reaches(line, 200, method="PUT", json={"quantity": 2}, headers=secret)
        body = {
            "cart_id": cart["id"],
            "contact": self.canaries.contact | ({"email": email} if email else {}),
            "payment_method": "bank_transfer",
        }
        return await self.shop.call("POST", f"{orders}/orders", json=body, headers=secret | key(), expect=201)

    async def _pay(self, owner: Account, order: dict[str, Any]) -> None:
        path = f"/billing/v1/stores/{owner.store_id}/orders/{order['id']}"

        async def is_due() -> bool | None:
            answer = await self.shop.http.get(f"{path}/receivable", headers=owner.headers)
            return (answer.status_code == 200 and answer.json()["state"] == "open") or None

        await until(is_due, "the money to be due")
        view = await self.shop.call(
            "GET", f"/orders/v1/stores/{owner.store_id}/orders/{order['id']}", headers=owner.headers
        )
        body = {"amount": order["total"], "method": "bank_transfer", "received_on": view["placed_at"][:10]}
        paid = await self.shop.call(
            "POST", f"{path}/payments", json=body, headers=owner.headers | key(), expect=201
        )
        invoice = f"/billing/v1/stores/{owner.store_id}/invoices/{paid['invoice_id']}"
        shown = await self.shop.call("GET", invoice, headers=owner.headers)
        assert self.canaries.word in shown["buyer"]["name"]

    async def _sign_up(self, store_id: str) -> Account:
        person = await self.shop.sign_up(self.canaries.email, store_id=store_id, name=self.canaries.name)
        # Again, for a person who has an account: another mail.
        body = {"email": self.canaries.email, "password": f"{PASSWORD} {self.canaries.word}"}
        await self.shop.call("POST", f"/identity/v1/stores/{store_id}/accounts", json=body, expect=202)
        return person

    async def _be_served(self, owner: Account, person: Account, order: dict[str, Any]) -> None:
        me = f"/identity/v1/stores/{owner.store_id}/me"
        changes = {"name": f"{self.canaries.name} II", "addresses": [self.canaries.address]}
        await self.shop.call("PATCH", me, json=changes, headers=person.headers | {"If-Match": "*"})
        assert (await self.shop.call("GET", me, headers=person.headers))["email"] == self.canaries.email
        orders = f"/orders/v1/stores/{owner.store_id}"
        seen = await self.shop.call("GET", f"{orders}/orders/{order['id']}", headers=owner.headers)
        assert seen["contact"]["address"] == self.canaries.address
        search = {"email": self.canaries.email}
        found = await self.shop.call("POST", f"{orders}/order-searches", json=search, headers=owner.headers)
        assert [one["id"] for one in found["items"]] == [order["id"]]

    async def _have_another_address(self, owner: Account, person: Account, variant: str) -> None:
        """They bought under it as a guest, say that it is theirs, and show it; both are one person then."""
        email = f"second.{self.canaries.email}"
        store, body = f"/identity/v1/stores/{owner.store_id}", {"email": email}
        await self._buy(owner.store_id, variant, email)
        await self.shop.call("POST", f"{store}/me/emails", json=body, headers=person.headers, expect=202)
        token = (await self.shop.link_in_mail(email, "confirm-email")).rpartition("token=")[2]
        shown = {"token": token, "password": PASSWORD}
        await self.shop.call("POST", f"{store}/email-confirmations", json=shown, expect=204)
        merges = f"/privacy/v1/stores/{owner.store_id}/merges"
        both = {"subjects": [body, {"email": self.canaries.email}], "preview": True}

        async def are_one() -> bool | None:
            seen = await self.shop.call("POST", merges, json=both, headers=owner.headers)
            return seen["merged"] or None

        await until(are_one, "two addresses to be one person")

    async def _exercise(
        self, person: Account, right: str, late: str | None = None, officer: Account | None = None
    ) -> None:
        """A right, until it is done; somebody answers only when it was measured that this is waited for."""
        frozen = self.platform.processes[f"{late}-worker"] if late else None
        if frozen:
            frozen.pause()
        requests = f"/privacy/v1/stores/{person.store_id}/requests"
        body = {"right": right, "email": self.canaries.email}
        opened = await self.shop.call("POST", requests, json=body, headers=person.headers | key(), expect=201)
        self.life.requests[right] = opened["id"]
        if frozen:
            await until(self._somebody_is_waited_for, "an open request to be measured")
            frozen.resume()

        if officer is not None:
            await self._decide(officer, f"{requests}/{opened['id']}")

        async def is_done() -> bool | None:
            seen = await self.shop.call("GET", f"{requests}/{opened['id']}", headers=person.headers)
            return seen["state"] == "completed" or None

        await until(is_done, f"{right} to be completed", 60)

    async def _decide(self, officer: Account, request: str) -> None:
        """The order is paid and not sent, so somebody looks, writes that down, and says yes."""

        async def has_obligations() -> bool | None:
            seen = await self.shop.call("GET", f"{request}/preview", headers=officer.headers)
            named = [one["word"] for part in seen["parts"] for one in part["obligations"]]
            return (not seen["unanswered"] and named == ["order-under-way"]) or None

        await until(has_obligations, "everybody to have counted", 60)
        note = {"text": f"{self.canaries.word} does not want the order any more."}
        await self.shop.call("POST", f"{request}/notes", json=note, headers=officer.headers, expect=201)
        headers = officer.headers | {"If-Match": "*"}
        await self.shop.call("POST", f"{request}/decision", json={"approve": True}, headers=headers)

    async def _close_and_come_back(self, person: Account) -> Account:
        """Both are said by mail; the sessions of before are over."""
        identity = f"/identity/v1/stores/{person.store_id}"
        body = {"password": PASSWORD}
        await self.shop.call("POST", f"{identity}/me/closing", json=body, headers=person.headers)
        await self.shop.mail(person.email, "you closed your account")
        again = await self.shop.sign_in(person.email, store_id=person.store_id)
        await self.shop.mail(person.email, "It is open again")
        return again

    async def _be_answered(self, owner: Account, person: Account) -> None:
        """Rights that somebody weighs, with a question and its answer, a reason, and what is put on hold."""
        word = self.canaries.word
        correction = {"category": "user.name", "value": f"{self.canaries.name} III", "reason": f"Not {word}."}
        request = await self._to_be_weighed(owner, person, "rectification", corrections=[correction])
        shown = await self.shop.call("GET", f"{request}/proposal", headers=owner.headers)
        assert word in str(shown)
        headers = owner.headers | {"If-Match": "*"}
        question = f"Is it {word} with a z?"
        await self.shop.call("POST", f"{request}/question", json={"text": question}, headers=headers)
        await self.shop.mail(self.canaries.email, question)
        answer = {"token": await self._token(self.canaries.email), "text": f"It is {word}."}
        await self.shop.call("POST", "/privacy/v1/status/answers", json=answer, expect=204)
        notes = await self.shop.call("GET", f"{request}/notes", headers=owner.headers)
        assert {question, answer["text"]} <= {note["text"] for note in notes["items"]}
        await self.shop.call("POST", f"{request}/decision", json={"approve": True}, headers=headers)
        await self._ends(owner, request, "completed")
        objection = await self._to_be_weighed(owner, person, "objection", purpose=_SUPPORT)
        refusal = {"refuse": "compelling-grounds", "explanation": f"We answer {word}'s questions."}
        await self.shop.call("POST", f"{objection}/decision", json=refusal, headers=headers)
        await self._ends(owner, objection, "refused")
        await self.shop.mail(self.canaries.email, refusal["explanation"])
        await self._exercise(person, "restriction")
        await self._exercise(person, "restriction-lifting")

    async def _to_be_weighed(self, owner: Account, person: Account, right: str, **more: Any) -> str:
        """The path of a request to which everybody has said what they hold."""
        requests = f"/privacy/v1/stores/{person.store_id}/requests"
        body = {"right": right, "email": self.canaries.email, **more}
        opened = await self.shop.call("POST", requests, json=body, headers=person.headers | key(), expect=201)
        path = f"{requests}/{opened['id']}"

        async def is_counted() -> bool | None:
            seen = await self.shop.call("GET", f"{path}/preview", headers=owner.headers)
            return not seen["unanswered"] or None

        await until(is_counted, "everybody to have counted", 60)
        await self._ends(owner, path, "deciding")
        return path

    async def _ends(self, owner: Account, request: str, state: str) -> None:
        async def is_there() -> bool | None:
            seen = await self.shop.call("GET", request, headers=owner.headers)
            return seen["state"] == state or None

        await until(is_there, f"a request to be {state}", 60)

    async def _token(self, email: str) -> str:
        return (await self.shop.link_in_mail(email, "/privacy/request")).partition("#token=")[2]

    async def _ask_without_account(self, owner: Account) -> None:
        """A form of an agent with an authorisation, a document that shows whose it is, and a letter."""
        word, store = self.canaries.word, f"/privacy/v1/stores/{owner.store_id}"
        email, agent = f"canary.form.{word}@vitrine.example", f"canary.agent.{word}@vitrine.example"
        form = {"right": "access", "email": email, "agent": {"name": f"Agent {word}", "email": agent}}
        paper = ("paper.pdf", f"%PDF-1.7 {self.canaries.name}".encode(), "application/pdf")
        await self.shop.call(
            "POST",
            f"{store}/authorised-request-forms",
            data={"form": json.dumps(form)},
            files={"authorisation": paper},
            expect=202,
        )
        await self.shop.mail(agent, "Life")
        token = await self._token(email)
        await self.shop.call(
            "POST", "/privacy/v1/status/documents", data={"token": token}, files={"file": paper}, expect=201
        )
        [request] = [
            one
            for one in (await self.shop.call("GET", f"{store}/requests", headers=owner.headers))["items"]
            if one["state"] == "verifying"
        ]
        documents = f"{store}/requests/{request['id']}/documents"
        waiting = (await self.shop.call("GET", documents, headers=owner.headers))["waiting"]
        assert len(waiting) == 2
        for document in waiting:
            seen = await self.shop.http.get(f"{documents}/{document['id']}", headers=owner.headers)
            assert seen.content == paper[1]
            await self.shop.call(
                "POST",
                f"{documents}/{document['id']}/checks",
                json={"accepted": True, "seen": f"A paper of {word}."},
                headers=owner.headers | key(),
                expect=201,
            )
        letter = {"right": "access", "email": f"canary.letter.{word}@vitrine.example", "channel": "letter"}
        await self.shop.call(
            "POST",
            f"{store}/requests-on-behalf",
            json=letter | {"seen": f"A letter of {word}."},
            headers=owner.headers | key(),
            expect=201,
        )
        await self._token(letter["email"])

    async def _somebody_is_waited_for(self) -> bool | None:
        points = self.collector.measured().get(("vitrine-privacy-worker", "privacy.requests.age"), [])
        return any(point.as_double > 1 for point in points) or None

    async def _nobody_is_waited_for(self) -> bool | None:
        points = self.collector.measured()["vitrine-privacy-worker", "privacy.tasks.waiting"]
        last = {point.attributes[0].value.string_value: point.as_int for point in points}
        return not any(last.values()) or None

    async def _waited_for(self) -> list[Any]:
        """Every task that is issued and not answered, for whoever wonders why the life did not end."""
        connection = await self.platform.postgres.connect(database("privacy"))
        query = """
            SELECT participant, verb, task.state, task.attempts, request.claim, way, request.state AS of, round
            FROM task JOIN request ON request.id = request_id WHERE task.next_issue_at IS NOT NULL
        """
        try:
            return [dict(row) for row in await connection.fetch(query)]
        finally:
            await connection.close()

    async def _download(self, person: Account) -> Mapping[str, bytes]:
        """The files of the archive that the newest link leads to."""

        async def new_link() -> str | None:
            link = await self.shop.link_in_mail(person.email, "/download")
            return link if link not in self.links else None

        link = await until(new_link, "the mail with the link")
        self.links.add(link)
        answer = await self.shop.download(link.partition("#token=")[2])
        assert answer.status_code == 200
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            return {name: archive.read(name) for name in archive.namelist()}

    async def _err(self, owner: Account, person: Account, order: dict[str, Any]) -> None:
        """The same values where they do not belong: each of these is refused."""
        word, store = self.canaries.word, owner.store_id
        identity, orders = f"/identity/v1/stores/{store}", f"/orders/v1/stores/{store}"
        calls: list[tuple[str, str, Mapping[str, Any]]] = [
            ("POST", f"{identity}/accounts", {"json": {"email": f"{word} at home", "password": word, "name": [word]}}),
            ("POST", f"{identity}/accounts", {"json": {"email": self.canaries.email, word: self.canaries.name}}),
            ("POST", f"{identity}/accounts", {"content": f'{{"email": "{self.canaries.email}'.encode()}),
            ("POST", f"{identity}/tokens", {"json": {"grant_type": word, "email": self.canaries.email}}),
            (
                "POST",
                f"{identity}/tokens",
                {"json": {"grant_type": "password", "email": self.canaries.email, "password": word}},
            ),
            ("POST", f"{identity}/me/emails", {"json": {"email": f"{word} at work"}, "headers": person.headers}),
            ("POST", f"{identity}/email-confirmations", {"json": {"token": "a" * 43, "password": word}}),
            (
                "POST",
                f"/privacy/v1/stores/{store}/merges",
                {"json": {"subjects": [{"email": f"{word}@vitrine.example"}] * 2}, "headers": owner.headers},
            ),
            (
                "POST",
                f"/privacy/v1/stores/{store}/separations",
                {"json": {"subject": {"email": f"{word} at home"}}, "headers": owner.headers},
            ),
            ("PATCH", f"{identity}/me", {"json": {"name": word * 50}, "headers": person.headers}),
            ("POST", f"{orders}/orders", {"json": {"contact": self.canaries.contact}}),
            (
                "POST",
                f"{orders}/orders",
                {"json": {"contact": {**self.canaries.contact, "phone": word}}, "headers": {"Cart-Secret": word}},
            ),
            ("POST", f"{orders}/order-searches", {"json": {"email": word}, "headers": owner.headers}),
            ("GET", f"{orders}/orders/{order['id']}", {"headers": {"Order-Secret": word}}),
            ("GET", f"{orders}/orders/{quote(self.canaries.email)}", {"headers": owner.headers}),
            ("GET", f"{orders}/orders", {"params": {"state": word}, "headers": owner.headers}),
            ("GET", f"{orders}/{word}", {}),
            (
                "POST",
                f"/privacy/v1/stores/{store}/requests",
                {"json": {"right": word, "email": word}, "headers": person.headers},
            ),
            (
                "POST",
                f"/privacy/v1/stores/{store}/requests",
                {"json": {"right": "access", "email": f"other.{word}@vitrine.example"}, "headers": person.headers},
            ),
            ("POST", "/privacy/v1/downloads", {"data": {"token": word}}),
            (
                "POST",
                f"/billing/v1/stores/{store}/orders/{order['id']}/payments",
                {"json": {"amount": word, "external_id": self.canaries.name}, "headers": owner.headers},
            ),
            ("GET", f"/billing/v1/stores/{store}/invoices", {"headers": {"Authorization": f"Bearer {word}"}}),
        ]  # fmt: skip
        for method, path, options in calls:
            answer = await self.shop.http.request(method, path, **options)
            assert 400 <= answer.status_code < 500, f"{method} {path}: {answer.status_code}"

    async def _dump(self, when: str) -> None:
        for name in NAMES:
            content = await self.platform.postgres.run("pg_dump", "--data-only", database(name))
            self.life.dumps[f"{name} {when}"] = content


@asynccontextmanager
async def living(broker: str, collector: Collector) -> AsyncGenerator[tuple[Life, Path]]:
    """A life, lived on a platform with this broker that has stopped since, and the folder it left behind."""
    folder = Path(tempfile.mkdtemp(prefix="vitrine-life-"))
    temporary = folder / "temporary"
    temporary.mkdir()
    with variables.unset(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        patch.setenv("TMPDIR", str(temporary))
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
        patch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "1000")
        # An erasure is certified so long after its end.
        patch.setenv("KEY_SECONDS", "5")
        begin_with_copy(folder)
        async with (
            Platform(folder, broker=broker, fast=True) as platform,
            httpx.AsyncClient(base_url=platform.url, timeout=30) as http,
        ):
            life = await Person(platform, http, collector).live()
    yield life, folder
    shutil.rmtree(folder, ignore_errors=True)
