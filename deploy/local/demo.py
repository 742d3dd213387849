"""`make demo`: one person's way through the whole platform, from a merchant's first day to an erasure that is proven.

Everything happens through the public HTTP API and the mailbox. `VITRINE_URL` names a running platform; without
it one is started on free ports in a throw-away folder and stopped afterwards. Exits 1 when anything differs.
"""

import argparse
import asyncio
import csv
import io
import os
import sys
import tempfile
import time
import zipfile
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
from joserfc.jwk import ECKey

from deploy.local.afterwards import Afterwards, Backup
from deploy.local.others import Others
from deploy.local.platform import Platform
from deploy.local.proof import Proof
from deploy.local.rights import Rights
from deploy.local.shop import CATALOGUE, PASSWORD, Account, Order, Shop, Surprise, key, until
from deploy.local.sixth import variables as of_sixth
from deploy.local.told import expect, say


class Demo:
    """The thread. Each chapter prints what it saw, and raises Surprise when it saw something else."""

    def __init__(self, shop: Shop, platform: Platform | None, sixth: ECKey) -> None:
        self.shop = shop
        self.platform = platform
        self.sixth = sixth
        self.run = uuid4().hex[:8]
        self.guest = f"guest-{self.run}@vitrine.example"
        self.owner: Account
        self.order: Order
        self.person: Account
        self.variant: str
        self.sales: Any
        self.erased: str
        self.backup: Backup | None = None

    async def play(self) -> None:
        """All chapters, in order."""
        with chapter(1, "A merchant opens a store and imports a catalogue"):
            await self.merchant()
        with chapter(2, "Visitors without an account buy; two race for the last piece"):
            await self.visitors()
        with chapter(
            3, "The transfer arrives: billing books it, issues an invoice, and the order is fulfilled"
        ):
            await self.payment()
        with chapter(4, "The guest opens an account with the same e-mail and sees the order"):
            await self.account()
        with chapter(5, "The person asks for their data and downloads it"):
            await self.export()
        await self.rights()
        proof = await self.begin_proof()
        with chapter(11, "The person asks for erasure; what the law keeps is named"):
            await self.erasure()
        with chapter(12, "The proof: nothing that is left can be opened"):
            await self.aftermath(proof)
        await self.afterwards()

    # --- 1 -----------------------------------------------------------------------------------------------

    async def merchant(self) -> None:
        """Sign-up, confirmation, store, a refused import, an import."""
        merchant = await self.shop.sign_up(f"merchant-{self.run}@vitrine.example", name="Demo merchant")
        say("signed up, confirmed by the mail's link, signed in")
        self.owner = await self.shop.open_store(merchant, name="Demo papeterie", slug=f"demo-{self.run}")
        say("opened a store")
        refused = await self.shop.import_catalogue(self.owner, broken(CATALOGUE.read_bytes()), expect=422)
        lines = [entry["line"] for entry in refused["errors"]]
        expect(lines == [3], f"the malformed line 3 is reported, and only it: {lines}")
        empty = await self.products()
        expect(empty["items"] == [], "nothing of the malformed file was imported")
        done = await self.shop.import_catalogue(self.owner, CATALOGUE.read_bytes())
        expect(done["products"] == 200, f"imported {done['products']} products, {done['variants']} variants")

    async def products(self, **query: Any) -> Any:
        """A list as any visitor gets it."""
        return await self.shop.call("GET", f"/catalog/v1/stores/{self.owner.store_id}/products", params=query)

    # --- 2 -----------------------------------------------------------------------------------------------

    async def visitors(self) -> None:
        """Search, cart, guest checkout, and the race."""
        found = await self.products(q="notebook")
        expect(bool(found["items"]), f"a search without an account finds {len(found['items'])} products")
        variant = await self.variant_in_stock(found["items"])
        self.order = await self.shop.check_out(self.owner.store_id, self.guest, {variant: 2})
        await self.shop.order_settles(self.order, "awaiting_payment")
        self.variant = variant
        say(f"order {self.order.number} is placed; catalog has reserved its stock and it awaits a transfer")
        await self.race()

    async def variant_in_stock(self, items: list[dict[str, Any]]) -> str:
        """A variant with at least two pieces."""
        for item in items:
            product = await self.shop.product(self.owner.store_id, item["handle"])
            for variant in product["variants"]:
                if variant["available"] >= 2:
                    return variant["id"]
        raise Surprise("the search found nothing that is in stock")

    async def race(self) -> None:
        """Two guests want the only piece."""
        last = next(row["Handle"] for row in catalogue() if row["Handle"].startswith("last-piece"))
        [variant] = (await self.shop.product(self.owner.store_id, last))["variants"]
        racers = [f"racer-{n}-{self.run}@vitrine.example" for n in (1, 2)]
        orders = await asyncio.gather(
            *(self.shop.check_out(self.owner.store_id, racer, {variant["id"]: 1}) for racer in racers)
        )
        settled = await asyncio.gather(
            *(self.shop.order_settles(order, "awaiting_payment", "refused") for order in orders)
        )
        states = sorted(order["state"] for order in settled)
        expect(states == ["awaiting_payment", "refused"], f"one order and one clear refusal: {states}")

    # --- 3 -----------------------------------------------------------------------------------------------

    async def payment(self) -> None:
        """The merchant records the transfer; events do the rest; the merchant ships."""
        store = self.owner.store_id
        invoice = await self.pay(self.order)
        expect(bool(invoice), f"billing booked it and issued invoice {invoice}")
        answer = await self.shop.http.get(
            f"/orders/v1/stores/{store}/orders/{self.order.id}", headers=self.owner.headers
        )
        await self.shop.call(
            "POST",
            f"/orders/v1/stores/{store}/orders/{self.order.id}/fulfilments",
            headers=self.owner.headers | {"If-Match": answer.headers["etag"]},
            expect=(200, 201),
        )
        await self.shop.order_settles(self.order, "fulfilled")
        say("the order is paid and fulfilled")

    async def pay(self, order: Order) -> str:
        """The number of the invoice, once the order is paid."""
        seen = await self.shop.order(order)
        body = {
            "amount": seen["total"],
            "method": "bank_transfer",
            "received_on": str(datetime.now(UTC).date()),
        }
        path = f"/billing/v1/stores/{self.owner.store_id}/orders/{order.id}"
        await self.shop.reaches(f"{path}/receivable", 200, headers=self.owner.headers)

        async def payable() -> bool | None:
            receivable = await self.shop.call("GET", f"{path}/receivable", headers=self.owner.headers)
            return receivable["state"] == "open" or None

        await until(payable, "billing to expect the payment")
        paid = await self.shop.call(
            "POST", f"{path}/payments", json=body, headers=self.owner.headers | key(), expect=201
        )
        await self.shop.order_settles(order, "paid")
        return str(paid["invoice_number"])

    async def sales_figures(self) -> Any:
        """The store's report, which holds no personal data."""
        path = f"/orders/v1/stores/{self.owner.store_id}/reports/sales"
        today = datetime.now(UTC).date()
        days = {"from": str(today - timedelta(days=1)), "to": str(today + timedelta(days=1))}
        return await self.shop.call("GET", path, params=days, headers=self.owner.headers)

    # --- 4 -----------------------------------------------------------------------------------------------

    async def account(self) -> None:
        """One person, one subject: nobody linked anything."""
        self.person = await self.shop.sign_up(self.guest, store_id=self.owner.store_id, name="A guest")
        listed = await self.shop.call(
            "GET", f"/orders/v1/stores/{self.owner.store_id}/orders", headers=self.person.headers
        )
        numbers = [order["number"] for order in listed["items"]]
        expect(numbers == [self.order.number], f"the new account shows the guest's order: {numbers}")

    # --- 5 -----------------------------------------------------------------------------------------------

    async def ask(self, right: str) -> dict[str, Any]:
        """A request for a right, followed to its end."""
        path = f"/privacy/v1/stores/{self.owner.store_id}/requests"
        body = {"right": right, "email": self.guest}
        opened = await self.shop.call(
            "POST", path, json=body, headers=self.person.headers | key(), expect=(200, 201)
        )

        async def look() -> dict[str, Any] | None:
            seen = await self.shop.call("GET", f"{path}/{opened['id']}", headers=self.person.headers)
            return seen if seen["state"] == "completed" else None

        return await until(look, f"the request for {right} to be completed")

    async def export(self) -> None:
        """Every service answers; the archive arrives by a link in a mail."""
        done = await self.ask("access")
        outcomes = {part["participant"]: part["state"] for part in done["parts"]}
        expect(len(outcomes) >= 5, f"every service answered over the broker: {outcomes}")
        page, _, token = (await self.shop.link_in_mail(self.guest, "/download")).partition("#token=")
        await self.shop.reaches(page, 200)
        answer = await self.shop.download(token)
        expect(answer.status_code == 200, f"the mail's link gives an archive of {len(answer.content)} bytes")
        archive = zipfile.ZipFile(io.BytesIO(answer.content))
        names = archive.namelist()
        text = b"".join(archive.read(name) for name in names).decode()
        for ending in (".json", ".schema.json", ".csv", "index.html", "manifest.json.jws"):
            expect(any(name.endswith(ending) for name in names), f"it has {ending}")
        expect(
            self.order.number in text and self.guest in text, "the order and the person's e-mail are in it"
        )
        expect(PASSWORD not in text and "argon2" not in text, "no password is in it, in no form")

    # --- 6 to 10 -----------------------------------------------------------------------------------------

    async def rights(self) -> None:
        """What else a person may ask, and what a store answers."""
        rights = Rights(self.shop, owner=self.owner, person=self.person, order=self.order, run=self.run)
        with chapter(6, "Rectification: a name is wrong, and the store approves what is right"):
            await rights.rectification()
        with chapter(7, "Restriction and its lifting: on hold, and a shop like any other meanwhile"):
            await rights.restriction(self.variant)
        with chapter(
            8, "Objections: to marketing at once; another is weighed and refused on a ground of the law"
        ):
            await rights.objections()
        with chapter(9, "A request by someone without an account"):
            passer_by = await self.shop.check_out(self.owner.store_id, rights.passer_by, {self.variant: 1})
            await self.shop.order_settles(passer_by, "awaiting_payment")
            await self.pay(passer_by)
            await rights.stranger()
        with chapter(10, "An erasure that somebody must look at takes longer, and says why"):
            await rights.more_time(passer_by)

    # --- 11 ----------------------------------------------------------------------------------------------

    async def erasure(self) -> None:
        """Asked for, done everywhere, re-read, and answered with what is kept."""
        done = await self.ask("erasure")
        self.erased = done["id"]
        kept = [entry for part in done["parts"] for entry in part["retained"]]
        invoice = next(entry for entry in kept if entry["kind"] == "InvoiceContact")
        say(f"kept: {invoice['kind']}, until {invoice['until']}: {invoice['ground']}")
        mail = await self.shop.mail(self.guest, invoice["until"][:4])
        expect(bool(mail), "the answer by mail says what is kept and until when")

    # --- 12 ----------------------------------------------------------------------------------------------

    async def begin_proof(self) -> Proof | None:
        """The figures; dumps, and the person's keys, while everything still opens."""
        self.sales = await self.sales_figures()
        if self.platform is None:
            return None
        self.backup = await Backup.take(self.platform)
        return await Proof.begin(
            self.platform, store_id=self.owner.store_id, access_token=self.person.access_token
        )

    async def aftermath(self, proof: Proof | None) -> None:
        """Sign-in, order, figures; and, where the demo holds the machine, the bytes themselves."""
        store = self.owner.store_id
        body = {"grant_type": "password", "email": self.guest, "password": PASSWORD}
        answer = await self.shop.http.post(f"/identity/v1/stores/{store}/tokens", json=body)
        expect(answer.status_code in (400, 401), f"a new sign-in fails ({answer.status_code})")
        seen = await self.shop.order(self.order, self.owner.headers)
        expect(seen["contact"] is None, "the merchant still sees the order, without the person")
        expect(await self.sales_figures() == self.sales, "the store's sales figures are unchanged")
        if proof is None:
            say("a platform elsewhere: its topics, outboxes and dumps cannot be looked at from here")
            return
        findings = await proof.compare()
        expect(len(findings) > 1, f"bytes of the person still lie in {len(findings)} places")
        for found in findings:
            expect(
                found.open == 0, f"{found.place}: {found.boxes} boxes that opened before; now {found.open} do"
            )

    # --- 13 to 16 ----------------------------------------------------------------------------------------

    async def afterwards(self) -> None:
        """What is certified, what a backup brings back, who returns, and until when things are kept."""
        after = Afterwards(
            self.shop,
            owner=self.owner,
            guest=self.guest,
            order=self.order,
            erasure=self.erased,
            variant=self.variant,
        )
        with chapter(13, "A certificate of the erasure, checked offline; an altered one is refused"):
            await after.certificate()
        with chapter(14, "A backup from before the erasure is restored, and brings nobody back"):
            if self.backup is None:
                say("a platform elsewhere: its backups are not the demo's to restore")
            else:
                await after.restored(self.backup)
        with chapter(15, "The person returns with the same address, and starts anew"):
            await after.return_of_the_person()
        with chapter(16, "Everything has its day: a forecast, another period, a legal hold"):
            await after.periods()
        await self.others()

    # --- 17 to 19 ----------------------------------------------------------------------------------------

    async def others(self) -> None:
        """Who else answers: a service that is down for a while, somebody outside, a sixth."""
        if self.platform is None:
            say("a platform elsewhere: its services are not the demo's to stop, and none of ours can join it")
            return
        others = Others(self.shop, self.platform, owner=self.owner, run=self.run)
        with chapter(17, "A service is down for a while: a request waits for it, and says so"):
            await others.down_for_a_while()
        with chapter(18, "Somebody outside is told by a signed webhook, and must say that it is done"):
            await others.outside()
        with chapter(19, "A sixth participant joins while a request is open, and has its part in it"):
            await others.sixth(self.sixth)


def broken(content: bytes) -> bytes:
    """The catalogue with a price on line 3 that is none."""
    lines = content.decode("utf-8-sig").splitlines(keepends=True)
    header = next(csv.reader([lines[0]]))
    row = next(csv.reader([lines[2]]))
    row[header.index("Variant Price")] = "not a price"
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(row)
    return "".join([*lines[:2], out.getvalue(), *lines[3:]]).encode()


def catalogue() -> list[dict[str, str]]:
    """The rows of the demo catalogue."""
    return list(csv.DictReader(io.StringIO(CATALOGUE.read_text("utf-8-sig"))))


@contextmanager
def chapter(number: int, title: str) -> Generator[None]:
    """A step with its duration."""
    print(f"\n  {number}. {title}", flush=True)
    began = time.monotonic()
    yield
    print(f"     {time.monotonic() - began:.1f} s", flush=True)


def variables(data: Path, sixth: ECKey) -> dict[str, str]:
    """What the platform of a demo is set up with: who the sixth participant is, somebody outside who is on this machine
    too, and certificates that do not wait long for every process to have forgotten what it opened.
    """
    return {
        **of_sixth(data, sixth),
        "KEY_SECONDS": "15",
        "PRIVACY_OUTGOING_NETWORKS": '["127.0.0.0/8"]',
        "PRIVACY_OUTGOING_HTTP": "true",
    }


@asynccontextmanager
async def a_platform(broker: str, sixth: ECKey) -> AsyncGenerator[tuple[str, Platform | None]]:
    """The running one that VITRINE_URL names, or one of the demo's own, which knows who the sixth participant is."""
    if url := os.environ.get("VITRINE_URL"):
        yield url.rstrip("/"), None
        return
    with tempfile.TemporaryDirectory(prefix="vitrine-demo-") as folder:
        print("  Starting a platform in a throw-away folder …", flush=True)
        for name, value in variables(Path(folder), sixth).items():
            os.environ.setdefault(name, value)
        async with Platform(Path(folder), broker=broker) as platform:
            yield platform.url, platform


async def run(broker: str) -> None:
    """Play the demo against a platform."""
    sixth = ECKey.generate_key("P-256", auto_kid=True)
    async with (
        a_platform(broker, sixth) as (url, platform),
        httpx.AsyncClient(base_url=url, timeout=30) as http,
    ):
        await Demo(Shop(http), platform, sixth).play()


def main() -> None:
    """Exit 0 when everything was as it should be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "--broker", choices=["embedded", "kafka"], default=os.environ.get("BROKER", "embedded")
    )
    broker = parser.parse_args().broker
    try:
        asyncio.run(run(broker))
    except (Surprise, httpx.HTTPError) as error:
        sys.exit(f"\n  ✗ {error or type(error).__name__}")
    print("\n  Everything was as it should be.")


if __name__ == "__main__":
    main()
