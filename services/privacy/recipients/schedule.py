"""When a delivery that was not taken is tried again."""

import random
from collections.abc import Sequence
from datetime import timedelta

PAUSES: Sequence[timedelta] = (
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    timedelta(hours=14),
    timedelta(hours=20),
    timedelta(hours=24),
)
"""Between ten tries, over three days: the schedule that Standard Webhooks recommends."""
_SPREAD = 0.1


def pause_after(failures: int, *, asked: timedelta | None = None) -> timedelta | None:
    """Until the next try, after so many that failed; None when it was the last. Whoever asks for longer is left alone.

    A tenth more or less by chance: what failed together is not all tried again together.
    """
    if failures > len(PAUSES):
        return None
    pause = PAUSES[failures - 1] * random.uniform(1 - _SPREAD, 1 + _SPREAD)  # noqa: S311 - no secret
    return max(pause, asked) if asked is not None else pause
