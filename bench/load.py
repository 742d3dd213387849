"""Load over HTTP: keep-alive clients, each sending its next request when the last was answered.

The client is as small as can be, since it shares two cores with what it measures: bytes are written once and
answers are read by their Content-Length.
"""

import asyncio
import multiprocessing
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import uvloop


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and body."""

    status: int
    headers: bytes
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return orjson.loads(self.body)


@dataclass(frozen=True, slots=True)
class Run:
    """How many requests a second, and how long each took, in seconds."""

    per_second: float
    seconds: Sequence[float]


class TurnedAway(RuntimeError):
    """The platform is too busy, and says after how many seconds to come again."""

    def __init__(self, after: int) -> None:
        super().__init__(f"the platform answered 503, to be asked again after {after} s")
        self.after = after


class Client:
    """One keep-alive connection."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def connect(self) -> None:
        """Open the connection."""
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port)

    async def send(self, request: bytes) -> Answer:
        """Send a request, read its answer. Raises TurnedAway for a 503 and RuntimeError for any other 5xx."""
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = _number(head, b"content-length")
        body = await self._reader.readexactly(length) if length else b""
        answer = Answer(int(head[9:12]), head, body)
        if answer.status == 503:
            raise TurnedAway(_number(head, b"retry-after"))
        if answer.status >= 500:
            raise RuntimeError(f"the platform answered {answer.status}: {answer.body[:200]!r}")
        return answer

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()


def request(method: str, path: str, body: Any = None, **headers: str) -> bytes:
    """The bytes of a request; `cart_secret="x"` becomes `cart-secret: x`."""
    content = b"" if body is None else orjson.dumps(body)
    lines = [f"{method} {path} HTTP/1.1", "host: 127.0.0.1", f"content-length: {len(content)}"]
    if content:
        lines.append("content-type: application/json")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def _number(head: bytes, name: bytes) -> int:
    """The value of a header that is a number, 0 without it."""
    lowered = head.lower()
    start = lowered.find(b"\r\n" + name + b":")
    if start < 0:
        return 0
    return int(lowered[start + len(name) + 3 : lowered.index(b"\r\n", start + 2)])


Scenario = Callable[[Client, int], Any]
"""`async def scenario(client, number)`: one unit of work of one client."""


def drive(url: str, scenario: Scenario, *, clients: int, seconds: float) -> Run:
    """Run the scenario from a process of its own. `scenario` must be importable, or a partial of one that is."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_drive, (url, scenario, clients, seconds))


def _drive(url: str, scenario: Scenario, clients: int, seconds: float) -> Run:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_all(url, scenario, clients, seconds))


def pace(url: str, scenario: Scenario, *, clients: int, seconds: float, per_second: float) -> Run:
    """As `drive`, but so many a second, whatever the answers take: each is counted from when it was due.

    Who waits for the last answer before asking again would ask less of a slow server, and call it fast.
    """
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_pace, (url, scenario, clients, seconds, per_second))


def _pace(url: str, scenario: Scenario, clients: int, seconds: float, per_second: float) -> Run:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_in_pace(url, scenario, clients, seconds, per_second))


async def _in_pace(url: str, scenario: Scenario, clients: int, seconds: float, per_second: float) -> Run:
    connections = await _connected(url, clients)
    began = time.perf_counter()
    due = (began + number / per_second for number in range(int(seconds * per_second)))

    async def one(client: Client, number: int) -> list[float]:
        taken: list[float] = []
        for at in due:
            await asyncio.sleep(max(0.0, at - time.perf_counter()))
            await scenario(client, number)
            taken.append(time.perf_counter() - at)
        return taken

    taken = await asyncio.gather(*(one(client, number) for number, client in enumerate(connections)))
    for client in connections:
        client.close()
    every = [one for some in taken for one in some]
    return Run(len(every) / (time.perf_counter() - began), every)


async def _connected(url: str, clients: int) -> list[Client]:
    host, _, port = url.removeprefix("http://").partition(":")
    connections = [Client(host, int(port)) for _ in range(clients)]
    await asyncio.gather(*(client.connect() for client in connections))
    return connections


async def _all(url: str, scenario: Scenario, clients: int, seconds: float) -> Run:
    connections = await _connected(url, clients)
    warm = time.perf_counter() + min(2.0, seconds / 4)
    await asyncio.gather(*(_one(client, scenario, warm, number) for number, client in enumerate(connections)))
    began = time.perf_counter()
    taken = await asyncio.gather(
        *(_one(client, scenario, began + seconds, number) for number, client in enumerate(connections))
    )
    elapsed = time.perf_counter() - began
    for client in connections:
        client.close()
    every = [one for some in taken for one in some]
    return Run(len(every) / elapsed, every)


async def _one(client: Client, scenario: Scenario, until: float, number: int) -> list[float]:
    taken: list[float] = []
    while (began := time.perf_counter()) < until:
        await scenario(client, number)
        taken.append(time.perf_counter() - began)
    return taken
