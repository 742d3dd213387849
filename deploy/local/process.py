"""Child processes that outlive neither their parent nor their log."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from deploy.local.waiting import until

_PR_SET_PDEATHSIG = 1
_prctl: Callable[..., int] | None = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


class Account(NamedTuple):
    """A system user, for a program that refuses to run as root."""

    user: int
    group: int


class Process(Protocol):
    """What `subprocess.Popen` and `nursery.Newborn` have in common."""

    @property
    def pid(self) -> int:
        """Its number."""
        ...

    def poll(self) -> int | None:
        """None while it runs."""
        ...

    def send_signal(self, wanted: int, /) -> None:
        """Nothing happens when it has ended."""

    def kill(self) -> None:
        """SIGKILL."""

    def wait(self) -> int:
        """Block until it has ended."""
        ...


def end_with_parent(wanted: signal.Signals) -> None:
    """On Linux: receive this signal when the thread that started this process ends, however it ends."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, int(wanted))


def spawn(
    arguments: Sequence[str],
    *,
    log: Path,
    folder: Path | None = None,
    account: Account | None = None,
    keep: Sequence[int] = (),
    when_parent_dies: signal.Signals = signal.SIGTERM,
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, so that Ctrl-C reaches the parent alone, its output in `log`.

    `keep` are descriptors the program inherits.
    """
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        return subprocess.Popen(
            list(arguments),
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=subprocess.STDOUT,
            cwd=folder,
            user=account and account.user,
            group=account and account.group,
            extra_groups=account and [],
            pass_fds=keep,
            start_new_session=True,
            preexec_fn=lambda: end_with_parent(when_parent_dies),  # noqa: PLW1509 (one system call, no lock taken)
        )
    finally:
        os.close(descriptor)


async def ended(process: Process, within: float) -> bool:
    """Wait for the process to end, at most `within` seconds."""

    async def has_ended() -> bool:
        return process.poll() is not None

    try:
        await until(has_ended, within, f"process {process.pid} did not end")
    except TimeoutError:
        return False
    return True


async def stop(process: Process, within: float, using: signal.Signals = signal.SIGTERM) -> bool:
    """Ask the process to end and kill it after `within` seconds. True when it ended by itself."""
    if process.poll() is None:
        process.send_signal(using)
    if await ended(process, within):
        return True
    process.kill()
    process.wait()
    return False
