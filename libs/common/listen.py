"""LISTEN as a hint: waking early is all it does, and a lost connection only means polling."""

import asyncio
from typing import Any, Self

import asyncpg


class Listener:
    """Waits for a NOTIFY on one channel of one database, or for the poll interval, whichever comes first."""

    def __init__(self, url: str, channel: str) -> None:
        self._url = url
        self._channel = channel
        self._connection: Any = None
        self._rung = asyncio.Event()
        self._payloads: asyncio.Queue[str] = asyncio.Queue(maxsize=10_000)

    async def __aenter__(self) -> Self:
        await self._connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._connection is not None:
            self._connection.terminate()

    async def wait(self, seconds: float) -> list[str]:
        """The payloads received since the last call, after at most `seconds`."""
        if self._connection is None or self._connection.is_closed():
            await self._connect()
        try:
            async with asyncio.timeout(seconds):
                await self._rung.wait()
        except TimeoutError:
            pass
        self._rung.clear()
        return [self._payloads.get_nowait() for _ in range(self._payloads.qsize())]

    def ring(self) -> None:
        """Wake the waiter from within the process."""
        self._rung.set()

    async def _connect(self) -> None:
        try:
            self._connection = await asyncpg.connect(self._url, timeout=5)
            await self._connection.add_listener(self._channel, self._heard)
        except (OSError, TimeoutError, asyncpg.PostgresError):
            self._connection = None
        self._rung.set()

    def _heard(self, _connection: Any, _pid: int, _channel: str, payload: str) -> None:
        if payload and not self._payloads.full():
            self._payloads.put_nowait(payload)
        self._rung.set()
