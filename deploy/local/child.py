"""A process of the platform: started, stopped, and for fault tests killed or frozen."""

import asyncio
import signal
from collections.abc import Mapping
from pathlib import Path

from deploy.local.nursery import Nursery
from deploy.local.process import Process, stop

DRAIN_WITHIN = 10
"""Seconds between SIGTERM and SIGKILL; what is killed loses nothing that was acknowledged."""
_LARGEST_LOG = 20 * 2**20


class Child:
    """A named Python module that runs as a process of its own, its output in `log`."""

    def __init__(
        self,
        nursery: Nursery,
        name: str,
        module: str,
        *arguments: str,
        environment: Mapping[str, str],
        log: Path,
    ) -> None:
        self._nursery = nursery
        self.name = name
        self.module = module
        self.arguments = arguments
        self.environment = environment
        self.log = log
        self._process: Process | None = None
        self._spawning = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        """None when the process does not run."""
        if self._process is None or self._process.poll() is not None:
            return None
        return self._process.pid

    async def start(self) -> None:
        """Start the process unless it runs. It is ready when what it serves answers, not when this returns."""
        async with self._spawning:
            if self.pid is not None:
                return
            if self.log.exists() and self.log.stat().st_size > _LARGEST_LOG:
                self.log.rename(self.log.with_suffix(".old.log"))
            self._process = await self._nursery.bear(
                self.name, self.module, self.arguments, self.environment, self.log
            )

    async def stop(self) -> None:
        """SIGTERM, so that it drains; SIGKILL when it takes too long."""
        if self._process is not None:
            self.resume()
            await stop(self._process, within=DRAIN_WITHIN)

    async def restart(self) -> None:
        """Stop it if it runs, and start it again."""
        await self.stop()
        await self.start()

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def pause(self) -> None:
        """SIGSTOP: it holds its connections and answers nobody."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def last_words(self) -> str:
        """The last line of the log, for a message about an unexpected end."""
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - 4000))
            lines = log.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:400] if lines else "no output"

    def _signal(self, wanted: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(wanted)
