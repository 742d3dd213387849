"""One platform per data folder."""

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from deploy.local.errors import AlreadyRunning


@contextmanager
def locked(data: Path) -> Generator[None]:
    """Hold `<data>/lock`, which names our process, while the block runs.

    The lock is the kernel's and ends with its holder, so a file left by a killed process locks nothing and is
    taken over. Raises AlreadyRunning when its holder lives.
    """
    data.mkdir(mode=0o711, parents=True, exist_ok=True)
    with (data / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise AlreadyRunning(
                f"Vitrine already runs on {data} (process {file.read().strip()}). "
                "Stop it there with Ctrl-C, or choose another folder with --data."
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
        file.truncate(0)
