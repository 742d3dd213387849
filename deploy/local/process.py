"""Child processes that outlive neither their parent nor their log."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from deploy.local.waiting import until

_PR_SET_PDEATHSIG = 1
_prctl: Callable[..., int] | None = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


class Account(NamedTuple):
    """A system user, for a program that refuses to run as root."""

    user: int
    group: int


def spawn(
    arguments: Sequence[str],
    *,
    log: Path,
    environment: Mapping[str, str] | None = None,
    account: Account | None = None,
    folder: Path | None = None,
    when_parent_dies: signal.Signals = signal.SIGTERM,
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, so that Ctrl-C reaches the parent alone, its output in `log`.

    On Linux the child receives `when_parent_dies` when the calling thread ends, however it ends.
    """
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        return subprocess.Popen(
            list(arguments),
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=folder,
            user=account and account.user,
            group=account and account.group,
            extra_groups=account and [],
            start_new_session=True,
            preexec_fn=_follow_parent(when_parent_dies),  # noqa: PLW1509 (one system call, no lock taken)
        )
    finally:
        os.close(descriptor)


def _follow_parent(wanted: signal.Signals) -> Callable[[], None] | None:
    if (prctl := _prctl) is None:
        return None

    def follow() -> None:
        prctl(_PR_SET_PDEATHSIG, int(wanted))

    return follow


async def ended(process: subprocess.Popen[bytes], within: float) -> bool:
    """Wait for the process to end, at most `within` seconds."""

    async def has_ended() -> bool:
        return process.poll() is not None

    try:
        await until(has_ended, within, f"process {process.pid} did not end")
    except TimeoutError:
        return False
    return True


async def stop(
    process: subprocess.Popen[bytes], within: float, using: signal.Signals = signal.SIGTERM
) -> bool:
    """Ask the process to end and kill it after `within` seconds. True when it ended by itself."""
    if process.poll() is None:
        process.send_signal(using)
    if await ended(process, within):
        return True
    process.kill()
    process.wait()
    return False
