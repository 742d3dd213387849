"""Somebody outside: down at times, and at others out of order, slow, without an answer, or only answering later."""

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
import orjson
from standardwebhooks import Webhook
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from deploy.local.ports import free_port
from deploy.local.shop import key, until
from tests.faults.conftest import PATIENCE, Running, becomes
from tests.serving import serving

_OUTCOME = {"outcome": "done", "counts": {"contact": 1}}


@dataclass
class Peer:
    """A processor of the store, and what it has taken: `done` by the id of a delivery, `bodies` whatever came by it."""

    chance: random.Random
    port: int = field(default_factory=free_port)
    secret: str = ""
    path: str = ""
    done: dict[str, Any] = field(default_factory=dict[str, Any])
    bodies: dict[str, set[bytes]] = field(default_factory=lambda: defaultdict(set))
    _up: AsyncExitStack | None = None
    _answering: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])

    @classmethod
    @asynccontextmanager
    async def of(cls, running: Running, chance: random.Random) -> AsyncGenerator["Peer"]:
        """Registered at the store while the block runs, and disabled after it."""
        peer = cls(chance)
        await peer.start()
        store = f"/privacy/v1/stores/{running.owner.store_id}/recipients"
        body = {"name": "A processor", "role": "processor", "url": f"http://127.0.0.1:{peer.port}/hook"}
        made = await running.persist("POST", store, json=body, headers=running.owner.headers | key())
        peer.secret, peer.path = made.json()["secret"], f"{store}/{made.json()['id']}"
        await running.persist("POST", f"{peer.path}/tests", headers=running.owner.headers)
        await becomes(lambda: peer._is_active(running), "the processor to take a test")
        try:
            yield peer
        finally:
            await running.persist("POST", f"{peer.path}/disabling", headers=running.owner.headers)
            await peer.stop()
            await asyncio.gather(*peer._answering)

    async def _is_active(self, running: Running) -> bool:
        seen = await running.persist("GET", self.path, headers=running.owner.headers)
        return seen.json()["state"] == "active"

    async def start(self) -> None:
        """At the same address as before."""
        self._up = AsyncExitStack()
        app = Starlette(routes=[Route("/hook", self.take, methods=["POST"])])
        await self._up.enter_async_context(serving(app, port=self.port))

    async def stop(self) -> None:
        """Nobody is there."""
        if self._up is not None:
            await self._up.aclose()

    async def take(self, request: Request) -> Response:
        """Raises WebhookVerificationError for what the platform has not signed."""
        body = await request.body()
        told = Webhook(self.secret).verify(body, dict(request.headers))
        id_ = request.headers["webhook-id"]
        self.bodies[id_].add(body)
        turn = "done" if told["type"] == "privacy.test" else self._turn()
        if turn == "out of order":
            return Response(status_code=503)
        self.done.setdefault(id_, told)
        if turn == "no answer":
            return Response(status_code=500)
        if turn == "later":
            answering = asyncio.create_task(self._answer(id_, told["data"]["answer_url"]))
            self._answering.add(answering)
            return Response(status_code=202)
        return JSONResponse(_OUTCOME)

    def _turn(self) -> str:
        return self.chance.choices(["out of order", "no answer", "later", "done"], [2, 2, 3, 6])[0]

    async def _answer(self, id_: str, url: str) -> None:
        content = orjson.dumps(_OUTCOME)
        async with httpx.AsyncClient(timeout=10) as http:

            async def taken() -> bool | None:
                now = datetime.now(UTC)
                headers = {
                    "content-type": "application/json",
                    "webhook-id": id_,
                    "webhook-timestamp": str(int(now.timestamp())),
                    "webhook-signature": Webhook(self.secret).sign(id_, now, content.decode()),
                }
                try:
                    return (await http.post(url, content=content, headers=headers)).is_success or None
                except httpx.TransportError:
                    return None

            await until(taken, "the platform to take an answer", PATIENCE)
