"""What is listened for in a database: over one connection, each channel by itself, and again after it was lost."""

import time

import asyncpg  # pyright: ignore[reportMissingTypeStubs]
import pytest

from deploy.local.postgres import PostgresServer
from libs.common.listen import Listener
from tests.common.conftest import Common

_LONG = 30.0
"""Seconds: a wait that ends before is one that was ended by a hint."""


class _Listening:
    """Two channels of one database, and the connections that they take."""

    def __init__(self, common: Common, superuser: PostgresServer) -> None:
        self.common = common
        self._server = superuser
        self.orders = Listener(common.url, "orders")
        self.stock = Listener(common.url, "stock")

    async def notify(self, channel: str, payload: str) -> None:
        connection = await self._server.connect(self.common.name)
        await connection.execute("SELECT pg_notify($1, $2)", channel, payload)
        await connection.close()

    async def connections(self, then: str = "pid") -> int:
        """How many listen; `then` is done with each."""
        connection = await self._server.connect(self.common.name)
        listening = f"SELECT {then} FROM pg_stat_activity WHERE datname = $1 AND query LIKE 'LISTEN%'"
        found = await connection.fetch(listening, self.common.name)
        await connection.close()
        return len(found)

    async def hears(self, listener: Listener) -> list[str]:
        """The next payloads, after any ring that says only that something may have been missed."""
        while not (heard := await listener.wait(_LONG)):
            pass
        return heard


@pytest.fixture
def listening(common: Common, postgres: PostgresServer) -> _Listening:
    return _Listening(common, postgres)


async def test_all_channels_are_heard_over_one_connection_each_by_itself(listening: _Listening) -> None:
    async with listening.orders, listening.stock:
        assert await listening.connections() == 1
        await listening.notify("orders", "an order")
        await listening.notify("stock", "a piece")
        assert await listening.hears(listening.orders) == ["an order"]
        assert await listening.hears(listening.stock) == ["a piece"]


async def test_whoever_leaves_takes_no_connection_from_those_who_stay(listening: _Listening) -> None:
    async with listening.orders:
        async with listening.stock:
            pass
        await listening.notify("orders", "an order")
        assert await listening.hears(listening.orders) == ["an order"]
    async with listening.stock:
        await listening.notify("stock", "a piece")
        assert await listening.hears(listening.stock) == ["a piece"]


async def test_a_lost_connection_is_made_again_and_everybody_looks_what_they_missed(
    listening: _Listening,
) -> None:
    async with listening.orders, listening.stock:
        for one in (listening.orders, listening.stock):
            await one.wait(_LONG)
        assert await listening.connections(then="pg_terminate_backend(pid, 5000)") == 1
        while not await listening.connections():
            await listening.orders.wait(0.05)
        began = time.monotonic()
        assert await listening.stock.wait(_LONG) == []
        assert time.monotonic() - began < _LONG / 2
        await listening.notify("stock", "a piece")
        assert await listening.hears(listening.stock) == ["a piece"]
        assert await listening.connections() == 1


async def test_a_connection_that_is_lost_while_somebody_joins_is_made_again(
    listening: _Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the driver then raises is no error of the database, and ended the worker."""
    async with listening.orders:
        with monkeypatch.context() as lost:

            async def add_listener(*_: object) -> None:
                raise asyncpg.InternalClientError("another operation is in progress")

            lost.setattr(asyncpg.Connection, "add_listener", add_listener)
            await listening.stock.__aenter__()
        await listening.stock.wait(_LONG)
        for channel, listener in (("orders", listening.orders), ("stock", listening.stock)):
            await listening.notify(channel, "heard")
            assert await listening.hears(listener) == ["heard"]
        await listening.stock.__aexit__()
