"""Answers that must not tell by their time whether an account exists."""

import asyncio
import math
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager


@asynccontextmanager
async def paced(step: float) -> AsyncGenerator[None]:
    """A block that raises does so at a multiple of `step` seconds after it began; one that ends well ends at once.

    Known and unknown people cost the same hashing, but not quite the same number of round trips.
    """
    began = time.monotonic()
    try:
        yield
    except Exception:
        await until_step(began, step)
        raise


async def until_step(began: float, step: float) -> None:
    """Wait for the next multiple of `step` seconds after `began`, a time of `time.monotonic`."""
    taken = time.monotonic() - began
    await asyncio.sleep(math.ceil(taken / step) * step - taken)
