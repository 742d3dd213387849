"""Password hashes: argon2id off the event loop, a few at a time, and the passwords that everybody tries first.

`common_passwords.txt` has 5,000 of the most frequent ones of eight characters and more, after the list that
Django's validator ships.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TypeVar

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

from libs.common.errors import Unavailable

T = TypeVar("T")

MEMORY_KIB = 19 * 1024
TIME_COST = 2
PARALLELISM = 1
_NOBODYS_PASSWORD = "the password of nobody"  # noqa: S105 - a hash that is verified where there is none


@cache
def common_passwords() -> frozenset[str]:
    """The passwords that are refused, case folded."""
    text = (Path(__file__).parent / "common_passwords.txt").read_text("utf-8")
    return frozenset(line.casefold() for line in text.splitlines())


class Passwords:
    """Hashes and checks; one per process. Raises Unavailable when too many wait."""

    def __init__(self, *, threads: int = 2, queue: int = 64) -> None:
        self._hasher = PasswordHasher(
            time_cost=TIME_COST, memory_cost=MEMORY_KIB, parallelism=PARALLELISM, type=Type.ID
        )
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="argon2")
        self._most = threads + queue
        self._busy = 0
        self._nobody = self._hasher.hash(_NOBODYS_PASSWORD)

    async def hash(self, password: str) -> str:
        """The encoded argon2id hash of a normalised password."""
        return await self._run(lambda: self._hasher.hash(password))

    async def verify(self, encoded: str | None, password: str) -> bool:
        """Whether the password is the one; without a hash to compare with, as slow as with one."""

        def check() -> bool:
            try:
                return self._hasher.verify(encoded or self._nobody, password) and encoded is not None
            except (VerificationError, InvalidHashError):
                return False

        return await self._run(check)

    def is_outdated(self, encoded: str) -> bool:
        """Whether the hash was made with other parameters than those of today."""
        return self._hasher.check_needs_rehash(encoded)

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: Callable[[], T]) -> T:
        if self._busy >= self._most:
            raise Unavailable("Too many people sign in right now.")
        self._busy += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self._busy -= 1
