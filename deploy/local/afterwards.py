"""The chapters of the demo after an erasure: what is certified, who returns, and what a restored backup brings back."""

import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any
from uuid import uuid4

from deploy.local.databases import NAMES
from deploy.local.nursery import ROOT
from deploy.local.platform import Platform
from deploy.local.shop import Account, Order, Shop, until
from deploy.local.told import expect, say

CERTIFIED_WITHIN = 240.0
"""Seconds: every process has to forget its opened keys first, in two minutes unless KEY_SECONDS says otherwise."""
RESTORED_WITHIN = 90.0


class Afterwards:
    """An erased person, the store's owner, and the order of which the figures stayed."""

    def __init__(
        self, shop: Shop, *, owner: Account, guest: str, order: Order, erasure: str, variant: str
    ) -> None:
        self.shop = shop
        self.owner = owner
        self.guest = guest
        self.order = order
        self.erasure = erasure
        self.variant = variant
        self.returned: Account

    # --- Certified ---------------------------------------------------------------------------------------

    async def certificate(self) -> None:
        """It is fetched, checked offline with the published keys, altered, and refused."""
        document = await self._certified()
        [kept] = [one for one in document["certificate"]["kept"] if one["kind"] == "InvoiceContact"]
        expect(
            bool(kept["until"]),
            f"it names what is kept: {kept['kind']}, until {kept['until']}: {kept['ground']}",
        )
        keys = await self.shop.call("GET", "/privacy/v1/keys.json")
        with tempfile.TemporaryDirectory(prefix="vitrine-certificate-") as folder:
            file, key = Path(folder) / "certificate.json", Path(folder) / "keys.json"
            key.write_text(json.dumps(keys))
            file.write_text(json.dumps(document))
            code, words = await _verify(file, key)
            expect(code == 0, f"vitrine verify: {_last_that_matched(words)}")
            file.write_text(json.dumps(document).replace(kept["until"], "2099-12-31"))
            code, words = await _verify(file, key)
            expect(code == 1, f"with another date in it: {words.splitlines()[0]}")

    async def _certified(self) -> dict[str, Any]:
        path = f"/privacy/v1/stores/{self.owner.store_id}/requests/{self.erasure}/certificate"
        say("a certificate is issued once no process can remember a key any more …")

        async def look() -> dict[str, Any] | None:
            answer = await self.shop.http.get(path, headers=self.owner.headers)
            return answer.json() if answer.status_code == 200 else None

        return await until(look, "the erasure to be certified", CERTIFIED_WITHIN)

    # --- Restored ----------------------------------------------------------------------------------------

    async def restored(self, backup: "Backup") -> None:
        """The orders as they were before the erasure: the person does not come back with them."""
        await backup.restore("orders")
        say("the orders are as they were before the erasure, and everything runs again")

        async def nobody() -> bool | None:
            seen = await self.shop.order(self.order, self.owner.headers)
            return seen["contact"] is None or None

        await until(nobody, "the erasure to be done again", RESTORED_WITHIN)
        say("what was erased since is erased again, by itself: the order is nobody's")

    # --- Somebody returns --------------------------------------------------------------------------------

    async def return_of_the_person(self) -> None:
        """The same address buys and signs up again, and finds nothing of before."""
        order = await self.shop.check_out(self.owner.store_id, self.guest, {self.variant: 1})
        await self.shop.order_settles(order, "awaiting_payment")
        self.returned = await self.shop.sign_up(
            self.guest, store_id=self.owner.store_id, name="Somebody who returns"
        )
        numbers = await self._orders()
        expect(
            numbers == [order.number],
            f"a new account with the old address shows the new order alone: {numbers}",
        )
        seen = await self.shop.order(self.order, self.owner.headers)
        expect(seen["contact"] is None, "the old order is still nobody's")
        path = f"/privacy/v1/stores/{self.owner.store_id}/requests"
        listed = await self.shop.call("GET", path, headers=self.returned.headers)
        expect(listed["items"] == [], "and no request of an earlier life is theirs")

    async def _orders(self) -> list[str]:
        path = f"/orders/v1/stores/{self.owner.store_id}/orders"
        listed = await self.shop.call("GET", path, headers=self.returned.headers)
        return [order["number"] for order in listed["items"]]


class Backup:
    """A backup of the demo's own platform."""

    def __init__(self, platform: Platform, folder: Path) -> None:
        self._platform = platform
        self._folder = folder

    @classmethod
    async def take(cls, platform: Platform) -> "Backup":
        """`make backup`, while everything runs."""
        backup = cls(platform, platform.data / f"backup-{uuid4().hex[:8]}")
        await backup._command("backup", f"--to={backup._folder}")
        return backup

    async def restore(self, service: str) -> None:
        """`make restore ONLY=service`: what uses the database is stopped before, and started after."""
        users = [
            self._platform.processes[name] for name in ("gateway", f"{service}-worker", "privacy-worker")
        ]
        await asyncio.gather(*(process.stop() for process in users))
        await self._command("restore", f"--from={self._folder}", f"--only={service}")
        for process in users:
            await process.start()
        await self._platform.ready()

    async def _command(self, module: str, *arguments: str) -> None:
        named = {
            f"{name.upper()}_{kind}": self._platform.environment[f"{name.upper()}_{kind}"]
            for name in NAMES
            for kind in ("DATABASE_URL", "MIGRATION_DATABASE_URL")
        }
        more = {
            name: self._platform.environment[name]
            for name in ("BROKER", "KAFKA_BOOTSTRAP_SERVERS")
            if name in self._platform.environment
        }
        code, words = await _run(
            f"deploy.local.{module}", f"--data={self._platform.data}", *arguments, **named, **more
        )
        expect(code == 0, f"make {module}" if code == 0 else f"make {module} to succeed: {words[-500:]}")


def _last_that_matched(words: str) -> str:
    return [line for line in words.splitlines() if line.startswith("OK")][-1].removeprefix("OK").strip()


async def _verify(file: Path, key: Path) -> tuple[int, str]:
    return await _run("vitrine", "verify", str(file), f"--key={key}")


async def _run(module: str, *arguments: str, **variables: str) -> tuple[int, str]:
    """Its exit code, and what it said."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments),
        cwd=ROOT,
        env=os.environ | variables,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    words, _ = await process.communicate()
    return process.returncode or 0, words.decode(errors="replace").strip()
