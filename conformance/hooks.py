"""What is asked of whoever runs the kit: how the participant comes to hold data, and how it is started."""

import asyncio
import os
import shlex
import signal
import subprocess
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import orjson

from conformance.scene import Person, Seed
from deploy.local.process import spawn, stop

_SEED_SECONDS = 30.0
_END_SECONDS = 15.0


def seed_by_url(url: str, http: httpx.AsyncClient) -> Seed:
    """POST the person as JSON; a 2xx means that their data is held."""

    async def seed(person: Person) -> bool:
        answer = await http.post(url, json=person.as_json(), timeout=_SEED_SECONDS)
        return answer.is_success

    return seed


def seed_by_command(command: str, variables: Mapping[str, str]) -> Seed:
    """Run a command with the person as JSON on its standard input; 0 means that their data is held."""

    async def seed(person: Person) -> bool:
        process = await asyncio.create_subprocess_exec(
            *shlex.split(command),
            env={**os.environ, **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        async with asyncio.timeout(_SEED_SECONDS):
            await process.communicate(orjson.dumps(person.as_json()))
        return process.returncode == 0

    return seed


class Command:
    """The participant as a process of the kit's, its output in `log`."""

    def __init__(self, command: str, variables: Mapping[str, str], log: Path) -> None:
        # `env` gives it its variables and becomes the command, so that signals reach it.
        self._arguments = [
            "env",
            *(f"{name}={value}" for name, value in variables.items()),
            *shlex.split(command),
        ]
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; it is ready when it answers."""
        self._process = spawn(self._arguments, log=self._log)

    async def end(self, *, kill: bool = False) -> None:
        """SIGTERM, and SIGKILL when that takes too long or is what is wanted."""
        if self._process is not None:
            using = signal.SIGKILL if kill else signal.SIGTERM
            await stop(self._process, within=_END_SECONDS, using=using)


@asynccontextmanager
async def started(
    command: str | None, variables: Mapping[str, str], log: Path
) -> AsyncGenerator[Command | None]:
    """The participant, while the block runs; None where somebody else has started it."""
    if command is None:
        yield None
        return
    process = Command(command, variables, log)
    process.start()
    try:
        yield process
    finally:
        await process.end()
