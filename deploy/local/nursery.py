"""Processes born of one that has imported the platform already.

That takes one or two seconds of processor, most of which a dozen processes would pay each. The nursery pays once and
forks; what it bears is a process like any other, with its own session, environment and log.
"""

import asyncio
import ctypes
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from deploy.local.environment import SERVICES
from deploy.local.process import end_with_parent, spawn, stop

ROOT = Path(__file__).parents[2]
_MODULES = (
    "libs.common.http",
    "libs.common.worker",
    "libs.common.mail",
    "libs.common.broker.connect",
    "uvicorn.lifespan.on",
    "uvicorn.loops.uvloop",
    "uvicorn.protocols.http.httptools_impl",
    "deploy.local.front",
    "deploy.local.mailbox",
    "services.privacy.keyring.app",
    *(f"services.{service}.{part}" for service in SERVICES for part in ("app", "consumer")),
)
_PR_SET_NAME = 15
_BORN_WITHIN = 60


class Newborn:
    """A process that is not our child, held by a descriptor, so that its number is never mistaken."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        try:
            self._descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            self._descriptor = -1

    def poll(self) -> int | None:
        """None while it runs, 0 after."""
        if self._descriptor >= 0 and select.select([self._descriptor], [], [], 0)[0]:
            os.close(self._descriptor)
            self._descriptor = -1
        return None if self._descriptor >= 0 else 0

    def send_signal(self, wanted: int) -> None:
        """Nothing happens when it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, wanted)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def wait(self) -> int:
        """Block until it has ended."""
        if self.poll() is None:
            select.select([self._descriptor], [], [])
        return self.poll() or 0


@contextmanager
def made_to_stay() -> Generator[None]:
    """What is made in the block stays: to look for garbage among it, then or later, would take a fifth of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


class Nursery:
    """Starts Python modules as processes, quickly. It is started when the first process is wanted.

    `modules` are what it imports before, by default everything that a platform runs.
    """

    def __init__(self, log: Path, modules: Sequence[str] = _MODULES) -> None:
        self.log = log
        self._modules = modules
        self._process: subprocess.Popen[bytes] | None = None
        self._socket = socket.socket()
        self._turn = asyncio.Lock()

    def start(self) -> None:
        """Begin to import; returns at once."""
        if self._process is not None and self._process.poll() is None:
            return
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = spawn(
                [sys.executable, "-u", "-m", "deploy.local.nursery", str(theirs.fileno()), *self._modules],
                log=self.log,
                folder=ROOT,
                keep=(theirs.fileno(),),
            )
        ours.setblocking(False)
        self._socket.close()
        self._socket = ours

    async def bear(
        self, name: str, module: str, arguments: Sequence[str], environment: Mapping[str, str], log: Path
    ) -> Newborn:
        """Run a module as a process of its own, once the libraries are imported."""
        request = {"name": name, "module": module, "arguments": arguments, "log": str(log)}
        async with self._turn, asyncio.timeout(_BORN_WITHIN):
            self.start()
            line = json.dumps(request | {"environment": dict(environment)}).encode() + b"\n"
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(self._socket, line)
            answer = await loop.sock_recv(self._socket, 64)
        if not answer:
            raise RuntimeError(f"the nursery ended; see {self.log}")
        return Newborn(int(answer))

    async def stop(self) -> None:
        """End it; what it bore and still runs receives SIGTERM."""
        self._socket.close()
        if self._process is not None:
            await stop(self._process, within=5)


def main() -> None:
    """Import, then fork whenever asked, until the other end closes."""
    with socket.socket(fileno=int(sys.argv[1])) as asking:
        with made_to_stay():
            for module in sys.argv[2:]:
                # Whoever needs a library that does not import will say so in a log of its own.
                with suppress(Exception):
                    import_module(module)
        # Nobody waits for what is born here; the kernel forgets each at its end.
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        request = _serve(asking)
    if request is not None:
        sys.argv = [request["module"], *request["arguments"]]
        runpy.run_module(request["module"], run_name="__main__", alter_sys=True)


def _serve(asking: socket.socket) -> Any:
    """Fork for every request. Returns the request in the process that is born for it, None at the end."""
    for line in asking.makefile("rb"):
        if os.fork() == 0:
            request = json.loads(line)
            _become(request)
            asking.sendall(str(os.getpid()).encode())
            return request
    return None


def _become(request: Any) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    end_with_parent(signal.SIGTERM)
    ctypes.CDLL(None).prctl(_PR_SET_NAME, request["name"].encode()[:15])
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)
    os.environ.clear()
    os.environ.update(request["environment"])


if __name__ == "__main__":
    main()
