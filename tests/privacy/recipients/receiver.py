"""Somebody outside, at a port of its own: notes what comes, checks it, and answers as a test says."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.serving import serving


@dataclass(frozen=True)
class Came:
    """One request, as it came."""

    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


Answering = Callable[[Came], Response]


def taken(_: Came) -> Response:
    return Response(status_code=204)


def done(_: Came) -> Response:
    return Response(
        orjson.dumps({"outcome": "done", "counts": {"contact": 1}}), media_type="application/json"
    )


def status(number: int, **headers: str) -> Answering:
    return lambda _: Response(
        status_code=number, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )


@dataclass
class Receiver:
    """What came, and how the next one is answered."""

    url: str = ""
    came: list[Came] = field(default_factory=list[Came])
    answering: Answering = taken
    delay: float = 0.0

    async def receive(self, request: Request) -> Response:
        one = Came(dict(request.headers), await request.body())
        self.came.append(one)
        if self.delay:
            await asyncio.sleep(self.delay)
        return self.answering(one)

    def of(self, kind: str) -> list[Came]:
        """What came of one type."""
        return [one for one in self.came if one.json.get("type") == kind]


@asynccontextmanager
async def receiving() -> AsyncGenerator[Receiver]:
    """A receiver that is there while the block runs."""
    receiver = Receiver()
    app = Starlette(routes=[Route("/hook", receiver.receive, methods=["POST"])])
    async with serving(app) as url:
        receiver.url = f"{url}/hook"
        yield receiver
