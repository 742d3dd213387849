"""Python's garbage collector, in a process that serves for weeks."""

import gc

_NEW_OBJECTS = 20_000
"""That are made before it looks for cycles among them. What a request makes is freed by its references alone: looking
after every 700, as Python does by itself, costs one part in twenty of all that a service computes, and finds nothing.
"""


def seldom_collect() -> None:
    """Look for cycles less often than Python does by itself: what has gone in them waits for megabytes of others."""
    gc.set_threshold(_NEW_OBJECTS, *gc.get_threshold()[1:])
