"""Whoever does what waits, again and again, rests between: what comes meanwhile is done together."""

import asyncio
import time

_LONGEST_SECONDS = 0.25


async def rest(began: float) -> None:
    """Pause for as long as the work took that began at `began` (`time.monotonic`), and never for long.

    Under load there are half as many transactions, each for twice as many events. Who comes alone does not
    notice, since what follows from the work takes longer than the rest from it.
    """
    await asyncio.sleep(min(_LONGEST_SECONDS, time.monotonic() - began))
