"""The chapters of the demo about who else answers: a service that is down for a while, somebody outside, a sixth."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from joserfc.jwk import ECKey
from standardwebhooks import Webhook
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from deploy.local import sixth
from deploy.local.platform import Platform
from deploy.local.ports import free_port
from deploy.local.shop import Account, Shop, key, until
from deploy.local.told import expect, say

_DONE = {"outcome": "done", "counts": {"contact": 1}}


class Others:
    """A store's owner and somebody with an account there."""

    def __init__(self, shop: Shop, platform: Platform, *, owner: Account, run: str) -> None:
        self.shop = shop
        self.platform = platform
        self.owner = owner
        self.address = f"neighbour-{run}@vitrine.example"
        self.person: Account

    # --- Down --------------------------------------------------------------------------------------------

    async def down_for_a_while(self) -> None:
        """Billing does not answer: the request says whom it waits for, and ends when billing is back."""
        self.person = await self.shop.sign_up(self.address, store_id=self.owner.store_id, name="A neighbour")
        billing = self.platform.processes["billing-worker"]
        await billing.stop()
        say("the worker of billing is stopped")
        request = await self._ask("access")
        waiting = await self._waits_for(request, "billing")
        say(f"everybody else has answered, and the request says: {waiting}")
        await billing.start()
        await self._ends(request)
        say("billing is back, and the request is completed by itself")

    # --- Outside -----------------------------------------------------------------------------------------

    async def outside(self) -> None:
        """A newsletter's server is registered, tested, and told of an erasure, which it carries out."""
        async with Newsletter.listening() as newsletter:
            made = await self.shop.call(
                "POST",
                self._path("recipients"),
                json={"name": "A newsletter", "role": "processor", "url": newsletter.url},
                headers=self.owner.headers | key(),
                expect=201,
            )
            newsletter.secret = made["secret"]
            one = self._path(f"recipients/{made['id']}")
            await self.shop.call("POST", f"{one}/tests", headers=self.owner.headers, expect=202)
            await until(lambda: self._is_active(one), "the newsletter to take a test")
            say("a newsletter's server is registered, and has taken a signed test about nobody")
            request = await self._ask("erasure")
            done = await self._ends(request)
            told = [one for one in newsletter.received if one["type"] == "privacy.erase"]
            expect(
                len(told) == 1 and self.address in str(told[0]),
                "it was told of an erasure once, by the address that it knows the person by",
            )
            [part] = [one for one in done["parts"] if one["participant"].startswith("recipient-")]
            expect(part["state"] == "done", f"it has answered, and signed for it: {part['counts']}")
            await self.shop.call("POST", f"{one}/disabling", headers=self.owner.headers)
            say("the store parts with it: nothing is sent there any more")

    async def _is_active(self, path: str) -> bool | None:
        return (await self.shop.call("GET", path, headers=self.owner.headers))["state"] == "active" or None

    # --- A sixth -----------------------------------------------------------------------------------------

    async def sixth(self, its_key: ECKey) -> None:
        """A service that nobody here knows announces itself while a request is open, and has its part in it."""
        self.person = await self.shop.sign_up(
            f"next-{self.address}", store_id=self.owner.store_id, name="Another neighbour"
        )
        billing = self.platform.processes["billing-worker"]
        await billing.stop()
        request = await self._ask("access")
        await self._waits_for(request, "billing")
        await sixth.start(self.platform, its_key)
        say("a loyalty service with a database of its own starts, and announces itself")
        await until(lambda: self._has_answered(request, "loyalty"), "the sixth to have its part")
        say("it is asked in the request that was open already, and answers")
        await billing.start()
        done = await self._ends(request)
        answered = sorted({part["participant"] for part in done["parts"] if part["task"] == "export"})
        expect("loyalty" in answered, f"{len(answered)} have answered: {', '.join(answered)}")

    async def _has_answered(self, request: dict[str, Any], who: str) -> bool | None:
        seen = await self.shop.call(
            "GET", self._path(f"requests/{request['id']}"), headers=self.owner.headers
        )
        parts = [part for part in seen["parts"] if part["participant"] == who]
        return (bool(parts) and all(part["answered_at"] for part in parts)) or None

    # --- Asking ------------------------------------------------------------------------------------------

    async def _ask(self, right: str) -> dict[str, Any]:
        body = {"right": right, "email": self.person.email}
        return await self.shop.call(
            "POST", self._path("requests"), json=body, headers=self.person.headers | key(), expect=201
        )

    async def _ends(self, request: dict[str, Any]) -> dict[str, Any]:
        async def look() -> dict[str, Any] | None:
            seen = await self.shop.call(
                "GET", self._path(f"requests/{request['id']}"), headers=self.owner.headers
            )
            return seen if seen["state"] == "completed" else None

        return await until(look, f"the request for {request['right']} to be completed", 60)

    async def _waits_for(self, request: dict[str, Any], who: str) -> str:
        """What the request says once it waits for nobody else."""

        async def look() -> str | None:
            path = self._path(f"requests/{request['id']}/waiting")
            seen = await self.shop.call("GET", path, headers=self.owner.headers)
            names = [part["participant"] for part in seen["parts"]]
            return seen["parts"][0]["words"] if names == [who] else None

        return await until(look, f"only {who} to be waited for")

    def _path(self, of: str) -> str:
        return f"/privacy/v1/stores/{self.owner.store_id}/{of}"


@dataclass
class Newsletter:
    """The server of somebody outside: it checks each signature, does what it is asked, and says so."""

    url: str
    secret: str = ""
    received: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    @classmethod
    @asynccontextmanager
    async def listening(cls) -> AsyncGenerator["Newsletter"]:
        """While the block runs, on a free port of this machine."""
        port = free_port()
        newsletter = cls(f"http://127.0.0.1:{port}/privacy")
        app = Starlette(routes=[Route("/privacy", newsletter.take, methods=["POST"])])
        server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_config=None))

        async def listens() -> bool | None:
            return server.started or None

        serving = asyncio.create_task(server.serve())
        await until(listens, "the newsletter's server to listen")
        try:
            yield newsletter
        finally:
            server.should_exit = True
            await serving

    async def take(self, request: Request) -> JSONResponse:
        """One delivery. Raises WebhookVerificationError for one that our secret has not signed."""
        told = Webhook(self.secret).verify(await request.body(), dict(request.headers))
        self.received.append(told)
        return JSONResponse(_DONE)
