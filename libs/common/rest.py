"""Whoever does what waits, again and again, rests between: what comes meanwhile is done together."""

import asyncio
import time

_LONGEST_SECONDS = 0.25
_SECONDS_EACH = 0.002


async def rest(began: float, *, done: int | None = None) -> None:
    """Pause for as long as the work took that began at `began` (`time.monotonic`), never for long, and hardly at all
    where little was `done`.

    Under load there are half as many transactions, each for twice as many events. Who comes alone does not wait for
    others that do not come.
    """
    seconds = min(_LONGEST_SECONDS, time.monotonic() - began)
    await asyncio.sleep(seconds if done is None else min(seconds, done * _SECONDS_EACH))
