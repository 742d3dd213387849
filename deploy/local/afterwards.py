"""The chapters of the demo after an erasure: what is certified, what a restored backup brings back, who
returns, and until when things are kept.
"""

import asyncio
import json
import os
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from deploy.local.databases import NAMES
from deploy.local.nursery import ROOT
from deploy.local.platform import Platform
from deploy.local.shop import Account, Order, Shop, key, until
from deploy.local.told import expect, say

CERTIFIED_WITHIN = 240.0
"""Seconds: every process has to forget its opened keys first, in two minutes unless KEY_SECONDS says otherwise."""
RESTORED_WITHIN = 90.0
CLOCKS_HEARD_WITHIN = 30.0


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

    # --- Until when --------------------------------------------------------------------------------------

    async def periods(self) -> None:
        """A shorter period is looked at before it is chosen; a legal hold is seen in the forecast."""
        coming = await until(self._expiring, "an order to have its day", CLOCKS_HEARD_WITHIN)
        say(f"the forecast knows {coming[0]} orders that expire in the next months")
        periods = await self.shop.http.get(self._path("retention"), headers=self.owner.headers)
        before = {one["clock"]: one["length"] for one in periods.json()["periods"] if one["chosen"]}
        wanted = before | {"order-confirmed": "P30D"}
        body = {"lengths": wanted}
        seen = await self.shop.call(
            "POST", self._path("retention/preview"), json=body, headers=self.owner.headers
        )
        earlier = [one["earlier"] for one in seen["changes"] if one["clock"] == "order-confirmed"]
        expect(
            sum(earlier) > 0, f"with 30 days instead of a year {sum(earlier)} unpaid orders would go earlier"
        )
        await self._choose(wanted, periods.headers["etag"])
        sooner, _ = await self._expiring() or (0, 0)
        expect(sooner > coming[0], f"it is chosen, and the forecast knows {sooner}")
        await self._hold()
        changed = await self.shop.http.get(self._path("retention"), headers=self.owner.headers)
        await self._choose(before, changed.headers["etag"])
        say("the choice is taken back")

    async def _hold(self) -> None:
        """Of the person who returned, for a claim; then lifted."""
        body = {
            "email": self.guest, "retentions": ["order"], "ground": "claim-announced",
            "until": str(datetime.now(UTC).date() + timedelta(days=365)),
        }  # fmt: skip
        hold = await self.shop.call(
            "POST", self._path("holds"), json=body, headers=self.owner.headers | key(), expect=201
        )
        _, held = await self._expiring() or (0, 0)
        expect(held > 0, f"a legal hold until {hold['until']} ({hold['ground']}) keeps {held} of them")
        await self.shop.call(
            "DELETE", self._path(f"holds/{hold['id']}"), headers=self.owner.headers, expect=204
        )

    async def _choose(self, lengths: dict[str, str], version: str) -> None:
        headers = self.owner.headers | {"If-Match": version}
        body = {"lengths": lengths}
        await self.shop.call("PUT", self._path("retention"), json=body, headers=headers, expect=204)

        async def moved() -> bool | None:
            seen = await self.shop.call("GET", self._path("retention"), headers=self.owner.headers)
            return seen["left_to_move"] == 0 or None

        await until(moved, "what runs to be computed anew", CLOCKS_HEARD_WITHIN)

    async def _expiring(self) -> tuple[int, int] | None:
        """How many orders expire in the next three months, and how many of them are held; None while none has a day."""
        seen = await self.shop.call(
            "GET", self._path("retention/forecast"), params={"months": 3}, headers=self.owner.headers
        )
        orders = [one for month in seen["months"] for one in month["expiring"] if one["retention"] == "order"]
        return (sum(one["records"] for one in orders), sum(one["held"] for one in orders)) if orders else None

    def _path(self, of: str) -> str:
        return f"/privacy/v1/stores/{self.owner.store_id}/{of}"


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
