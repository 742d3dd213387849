"""The databases under test, seen by their superuser; connections that a fault has cut are made anew."""

from typing import Any

import asyncpg

from deploy.local.databases import database
from deploy.local.postgres import PostgresServer


class Databases:
    """By the name of their service, through a few connections that are kept."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self._pools: dict[str, Any] = {}

    async def rows(self, service: str, query: str, *arguments: object) -> list[Any]:
        """What a query finds."""
        try:
            return list(await (await self._pool(service)).fetch(query, *arguments))
        except (OSError, asyncpg.InterfaceError, asyncpg.PostgresConnectionError, asyncpg.AdminShutdownError):
            # It was cut while nobody used it.
            return list(await (await self._pool(service)).fetch(query, *arguments))

    async def value(self, service: str, query: str, *arguments: object) -> Any:
        """The one value of a query."""
        [row] = await self.rows(service, query, *arguments)
        return row[0]

    async def execute(self, service: str, statements: str) -> None:
        """Change something, in one transaction."""
        await self.value(service, "SELECT 1")
        await (await self._pool(service)).execute(statements)

    async def has_recovered(self) -> bool:
        """Whether the server takes connections."""
        try:
            return bool(await self.value("broker", "SELECT 1"))
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False

    async def close(self) -> None:
        """Let every connection go. Whoever asks again makes new ones."""
        for pool in self._pools.values():
            pool.terminate()
        self._pools.clear()

    async def _pool(self, service: str) -> Any:
        if service not in self._pools:
            url = self._server.url(database(service))
            self._pools[service] = await asyncpg.create_pool(url, min_size=0, max_size=2, timeout=5)
        return self._pools[service]
