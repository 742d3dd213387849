"""Requests of people with a session, filed over HTTP and followed to their end in all five services."""

import asyncio
import itertools
import json
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
from joserfc import jwt
from joserfc.jwk import ECKey

from bench.load import Client, TurnedAway, request
from bench.people import Person
from libs.common.auth import ALGORITHM, AUDIENCE, TOKEN_TYPE

_KEY = ECKey.generate_key("P-256", parameters={"kid": "bench"})
_PATIENCE = 120.0
_SECONDS = 20.0
"""Of filing: a machine that is slower than hoped files fewer."""


@contextmanager
def key_set(platform: str) -> Generator[str]:
    """The address of a key set with identity's keys and ours, so that nobody need sign in 10,000 times."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            keys = httpx.get(f"{platform}/identity/v1/jwks.json").raise_for_status().json()["keys"]
            body = json.dumps({"keys": [*keys, _KEY.as_dict(private=False)]}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name http.server calls
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/jwks.json"
    finally:
        server.shutdown()


class Office:
    """Files requests for people of one store and sees them end."""

    def __init__(self, *, url: str, database_url: str, store_id: UUID) -> None:
        self._url = url
        self._database_url = database_url
        self._store_id = store_id
        self._ended: dict[UUID, asyncio.Event] = {}
        self.turned_away = 0
        """How often somebody met a platform that was too busy."""

    def _token(self, person: Person) -> str:
        now = int(time.time())
        claims = {
            "iss": f"{self._url}/identity", "aud": AUDIENCE, "iat": now, "exp": now + 600, "sub": str(uuid4()),
            "sid": str(uuid4()), "store": str(self._store_id), "role": "customer",
            "subject": str(person.subject_id), "generation": 1,
        }  # fmt: skip
        return jwt.encode({"alg": ALGORITHM, "typ": TOKEN_TYPE, "kid": "bench"}, claims, _KEY)

    def _filing(self, person: Person, right: str) -> bytes:
        body = {"right": right, "email": person.email}
        path = f"/privacy/v1/stores/{self._store_id}/requests"
        return request("POST", path, body, authorization=f"Bearer {self._token(person)}")

    async def measure(
        self, right: str, people: Sequence[Person], in_flight: int
    ) -> tuple[float, list[float]]:
        """Requests a second, and for each the seconds from filing to its end."""
        filings = [self._filing(person, right) for person in people]
        waiting = _until(time.monotonic() + _SECONDS, filings)
        connection = await self._connect()
        began = time.perf_counter()
        filed: list[UUID] = []
        watching = asyncio.create_task(self._watch(connection))
        await asyncio.gather(*(self._clerk(waiting, filed) for _ in range(in_flight)))
        elapsed = time.perf_counter() - began
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        rows = await connection.fetch(
            "SELECT extract(epoch FROM completed_at - opened_at)::float8 AS took FROM request WHERE id = ANY($1)",
            filed,
        )
        await connection.close()
        return len(filed) / elapsed, [row["took"] for row in rows]

    async def file(self, right: str, people: Sequence[Person], at_once: int) -> None:
        """Of all these people, so many at once, and wait for nothing but that they are filed."""
        waiting = iter([self._filing(person, right) for person in people])

        async def clerk() -> None:
            for filing in waiting:
                await self._file(filing)

        await asyncio.gather(*(clerk() for _ in range(at_once)))

    async def left(self, right: str) -> int:
        """Requests that have not ended."""
        connection = await self._connect()
        query = "SELECT count(*) FROM request WHERE store_id = $1 AND claim = $2 AND state <> 'completed'"
        number = await connection.fetchval(query, self._store_id, right)
        await connection.close()
        return number

    async def _connect(self) -> Any:
        connection = await asyncpg.connect(self._database_url)
        await connection.execute("SELECT set_config('app.store', $1, false)", str(self._store_id))
        return connection

    async def _file(self, filing: bytes) -> UUID:
        """Whoever is turned away comes again when they were told to."""
        while True:
            # A person comes, files and goes; the server closes connections that wait.
            client = Client("127.0.0.1", int(self._url.rpartition(":")[2]))
            await client.connect()
            try:
                answer = await client.send(filing)
            except TurnedAway as turned_away:
                self.turned_away += 1
                await asyncio.sleep(turned_away.after)
                continue
            finally:
                client.close()
            if answer.status != 201:
                raise RuntimeError(f"a request was answered {answer.status}: {answer.body[:200]!r}")
            return UUID(answer.json()["id"])

    async def _clerk(self, filings: Any, filed: list[UUID]) -> None:
        for filing in filings:
            request_id = await self._file(filing)
            filed.append(request_id)
            ended = self._ended.setdefault(request_id, asyncio.Event())
            async with asyncio.timeout(_PATIENCE):
                await ended.wait()

    async def _watch(self, connection: Any) -> None:
        """One look every few milliseconds for all clerks together; what many wait for need not be seen as soon."""
        while True:
            if self._ended:
                rows = await connection.fetch(
                    "SELECT id FROM request WHERE id = ANY($1) AND state = 'completed'", list(self._ended)
                )
                for row in rows:
                    self._ended.pop(row["id"]).set()
            await asyncio.sleep(0.005 if len(self._ended) < 2 else 0.1)


def _until(end: float, filings: Iterable[bytes]) -> Iterator[bytes]:
    """For all clerks together: one after the other, none after the end."""
    return itertools.takewhile(lambda _: time.monotonic() < end, filings)
