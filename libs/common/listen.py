"""LISTEN as a hint: waking early is all it does, and a lost connection only means polling.

A worker waits for many things at once, and PostgreSQL has few connections: all that is listened for in one database
is heard over one of them.
"""

import asyncio
from typing import Any, Self

import asyncpg

GONE = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What a database that cannot be reached raises; the last, a connection that is lost in the midst of a statement."""


class Listener:
    """Waits for a NOTIFY on one channel of one database, or for the poll interval, whichever comes first."""

    def __init__(self, url: str, channel: str) -> None:
        self.channel = channel
        self._url = url
        self._rung = asyncio.Event()
        self._payloads: asyncio.Queue[str] = asyncio.Queue(maxsize=10_000)

    async def __aenter__(self) -> Self:
        self._line = _line_to(self._url)
        await self._line.join(self)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._line.leave(self)

    async def wait(self, seconds: float) -> list[str]:
        """The payloads received since the last call, after at most `seconds`."""
        await self._line.mend()
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

    def hear(self, payload: str) -> None:
        """What came on the channel."""
        if payload and not self._payloads.full():
            self._payloads.put_nowait(payload)
        self._rung.set()


class _Line:
    """The connection that all listeners of one database share."""

    def __init__(self, place: tuple[object, str]) -> None:
        self._place = place
        self._listeners: set[Listener] = set()
        self._connection: Any = None
        self._turn = asyncio.Lock()
        self._tries = 0

    async def join(self, listener: Listener) -> None:
        """Hear what comes on its channel from now on; it is rung, since what came before was not heard."""
        self._listeners.add(listener)
        await self.mend()
        async with self._turn:
            try:
                if self._is_open():
                    await self._connection.add_listener(listener.channel, self._heard)
            except GONE:
                self._hang_up()
        listener.ring()

    def leave(self, listener: Listener) -> None:
        """Whoever leaves last hangs up."""
        self._listeners.discard(listener)
        if not self._listeners:
            self._hang_up()
            _lines.pop(self._place, None)

    async def mend(self) -> None:
        """Connect where nobody is. Of all who want that at once one tries, and all are rung whatever comes of it."""
        tries = self._tries
        async with self._turn:
            if self._is_open() or self._tries != tries:
                return
            self._tries += 1
            try:
                self._connection = await self._connected()
            except GONE:
                self._connection = None
            for listener in self._listeners:
                listener.ring()

    async def _connected(self) -> Any:
        connection = await asyncpg.connect(self._place[1], timeout=5)
        try:
            for channel in {listener.channel for listener in self._listeners}:
                await connection.add_listener(channel, self._heard)
        except BaseException:
            connection.terminate()
            raise
        return connection

    def _is_open(self) -> bool:
        return self._connection is not None and not self._connection.is_closed()

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    def _heard(self, _connection: Any, _pid: int, channel: str, payload: object) -> None:
        for listener in self._listeners:
            if listener.channel == channel:
                listener.hear(str(payload))


_lines: dict[tuple[object, str], _Line] = {}
"""By event loop and address."""


def _line_to(url: str) -> _Line:
    place = (asyncio.get_running_loop(), url)
    return _lines.setdefault(place, _Line(place))
