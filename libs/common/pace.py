"""Answers that must not tell by their time whether an account exists."""

import math
from asyncio import sleep
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from time import monotonic


@asynccontextmanager
async def paced(step: float) -> AsyncGenerator[None]:
    """A block that raises does so at a multiple of `step` seconds after it began; one that ends well ends at once.

    Known and unknown people cost the same hashing, but not quite the same number of round trips.
    """
    began = monotonic()
    try:
        yield
    except Exception:
        await until_step(began, step)
        raise


async def until_step(began: float, step: float) -> None:
    """Wait for the next multiple of `step` seconds after `began`, a time of `monotonic`."""
    taken = monotonic() - began
    await sleep(math.ceil(taken / step) * step - taken)
