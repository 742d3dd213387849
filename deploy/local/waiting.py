"""Waiting for a condition, always with a bound."""

import asyncio
import time
from collections.abc import Awaitable, Callable


async def until(condition: Callable[[], Awaitable[bool]], within: float, otherwise: str) -> None:
    """Ask every 20 ms until the condition holds. Raises TimeoutError(otherwise) after `within` seconds."""
    deadline = time.monotonic() + within
    while not await condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{otherwise} within {within:g} s")
        await asyncio.sleep(0.02)
