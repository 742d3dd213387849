"""Everybody asks at once: how fast that drains, and what the shop's visitors notice of it."""

import asyncio
import time
from collections.abc import Sequence
from functools import partial

from bench.figures import Figure, Floor
from bench.office import Office
from bench.people import Person
from bench.shop import buy_while, check_out, meanwhile_of_before, some_checkouts

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
    before = await some_checkouts(url, buying)
    began = time.monotonic()
    filing = asyncio.create_task(office.file(right, people, _AT_ONCE))

    async def goes_on() -> bool:
        return not filing.done() or bool(await office.left(right))

    meanwhile = await buy_while(url, buying, goes_on, patience=_PATIENCE)
    await filing
    what = f"{len(people):,} {right} requests at once"
    return [
        Figure(what, len(people) / (time.monotonic() - began), "1/s", floor),
        *(meanwhile_of_before(what, before, meanwhile, part) for part in (0.5, 0.95)),
    ]
