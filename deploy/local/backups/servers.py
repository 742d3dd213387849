"""Where the databases are: an operator's servers, or this machine's, whether the platform runs on it or not."""

import asyncio
import os
import subprocess
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import parse_qsl, unquote, urlsplit

import asyncpg  # pyright: ignore[reportMissingTypeStubs]

from deploy.local import environment
from deploy.local.databases import addresses, provision
from deploy.local.errors import AlreadyRunning, StartError
from deploy.local.lock import locked
from deploy.local.postgres import PostgresServer, program

_OF_LIBPQ = {
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
}


@asynccontextmanager
async def reached(data: Path, names: Iterable[str], *, alone: bool) -> AsyncGenerator[Mapping[str, str]]:
    """The environment of the platform, with the addresses of these databases; servers of this machine run meanwhile.

    `alone`: nothing else may use them. Raises AlreadyRunning then, and StartError.
    """
    missing = [name for name in names if f"{name.upper()}_DATABASE_URL" not in os.environ]
    async with AsyncExitStack() as stack:
        found: Mapping[str, str] = {}
        if missing:
            found = await _of_this_machine(stack, data, missing, alone=alone)
        yield environment.complete(found)


async def _of_this_machine(
    stack: AsyncExitStack, data: Path, missing: Sequence[str], *, alone: bool
) -> Mapping[str, str]:
    server = PostgresServer(data / "postgres")
    if not server.data.exists() and (not alone or _is_an_operators()):
        raise StartError(
            f"There is no platform in {data}. Set {', '.join(f'{name.upper()}_DATABASE_URL' for name in missing)} "
            "to reach databases elsewhere."
        )
    try:
        stack.enter_context(locked(data))
    except AlreadyRunning:
        if alone:
            raise
        return addresses(PostgresServer(data / "postgres", port=_port_of(server.data)))
    await server.start()
    stack.push_async_callback(server.stop)
    return await provision(server)


def _is_an_operators() -> bool:
    return any(name.endswith("_DATABASE_URL") for name in os.environ)


def _port_of(data: Path) -> int:
    """The fourth line of what a running server writes beside its data."""
    try:
        return int((data / "postmaster.pid").read_text().splitlines()[3])
    except (OSError, ValueError, IndexError) as error:
        raise StartError(f"The PostgreSQL of {data} is just starting or stopping. Try again.") from error


# --- One database ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Place:
    """A database of the platform, as its owner reaches it."""

    name: str
    url: str

    @classmethod
    def of(cls, variables: Mapping[str, str], name: str) -> "Place":
        """The database of this name."""
        return cls(name, variables[f"{name.upper()}_MIGRATION_DATABASE_URL"])

    @asynccontextmanager
    async def connected(self) -> AsyncGenerator[Any]:
        """A connection that sees the rows of all stores. Raises StartError when there is none."""
        try:
            connection = cast(Any, await asyncpg.connect(self.url, timeout=10))  # pyright: ignore[reportUnknownMemberType]
        except (OSError, TimeoutError, asyncpg.PostgresError) as error:
            raise StartError(
                f"The database {self.name} cannot be reached: {type(error).__name__}."
            ) from error
        try:
            await connection.execute("SET app.store = '*'")
            yield connection
        finally:
            await connection.close(timeout=10)

    async def run(
        self,
        name: str,
        *arguments: str,
        into: IO[bytes] | int = subprocess.DEVNULL,
        reading: IO[bytes] | int = subprocess.DEVNULL,
    ) -> None:
        """A program of PostgreSQL as the owner, over the rows of all stores. Raises StartError with its own words."""
        running = await asyncio.create_subprocess_exec(
            program(name),
            *arguments,
            env={**os.environ, **_libpq(self.url)},
            stdin=reading,
            stdout=into,
            stderr=subprocess.PIPE,
        )
        try:
            _, words = await running.communicate()
        except asyncio.CancelledError:
            running.kill()
            raise
        if running.returncode:
            raise StartError(f"{name} of {self.name}: {_reason(words)}")


def _libpq(url: str) -> dict[str, str]:
    """A password on a command line could be read by everybody on the machine."""
    parts = urlsplit(url)
    variables = {
        "PGHOST": parts.hostname or "",
        "PGPORT": str(parts.port or 5432),
        "PGUSER": unquote(parts.username or ""),
        "PGPASSWORD": unquote(parts.password or ""),
        "PGDATABASE": unquote(parts.path.lstrip("/")),
        # Row-level security binds owners too.
        "PGOPTIONS": "-c app.store=*",
        "PGCONNECT_TIMEOUT": "10",
    }
    asked = dict(parse_qsl(parts.query))
    return variables | {variable: asked[name] for name, variable in _OF_LIBPQ.items() if name in asked}


def _reason(words: bytes) -> str:
    """The first complaint, without the lines around it, which may quote values."""
    lines = words.decode(errors="replace").strip().splitlines()
    complaints = [line for line in lines if "error:" in line.lower() or "No space" in line]
    return (complaints or lines or ["no reason was given"])[0][:300]
