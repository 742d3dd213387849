"""Everybody asks at once: how fast that drains, and what the shop's visitors notice of it."""

import asyncio
import time
from collections.abc import Sequence
from functools import partial

from bench.figures import Figure, Floor
from bench.load import Run, drive
from bench.office import Office
from bench.people import Person
from bench.shop import check_out, meanwhile_of_before

_CLIENTS = 4
_SECONDS = 10.0
_AT_ONCE = 64
_PATIENCE = 3_600.0


async def figures(
    url: str,
    office: Office,
    right: str,
    people: Sequence[Person],
    *,
    store: str,
    variants: list[str],
    floor: Floor,
) -> list[Figure]:
    """Requests a second from the first filing to the last end, and the latency of a checkout meanwhile."""
    buying = partial(check_out, store=store, variants=variants)
    before = await asyncio.to_thread(drive, url, buying, clients=_CLIENTS, seconds=_SECONDS)
    began = time.monotonic()
    filing = asyncio.create_task(office.file(right, people, _AT_ONCE))
    meanwhile: list[Run] = []
    while not filing.done() or await office.left(right):
        if time.monotonic() - began > _PATIENCE:
            raise RuntimeError("the requests did not end")
        meanwhile.append(await asyncio.to_thread(drive, url, buying, clients=_CLIENTS, seconds=_SECONDS))
    await filing
    what = f"{len(people):,} {right} requests at once"
    return [
        Figure(what, len(people) / (time.monotonic() - began), "1/s", floor),
        *(meanwhile_of_before(what, before, meanwhile, part) for part in (0.5, 0.95)),
    ]
