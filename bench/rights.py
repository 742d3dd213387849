"""Accesses and erasures: how long one takes by itself, how many a second the machine carries, and what each costs.

How long a request took is what the privacy service wrote beside it: from `opened_at` to `completed_at`.
"""

from dataclasses import dataclass

from bench.figures import Figure, Floor, percentile
from bench.processors import between
from bench.town import Town

_IN_FLIGHT = 256
_MANY = 800
"""So many at most: how many there are in fact is a matter of `office`'s time."""
_FIRST = 128
"""That are not measured: whoever is in flight at once meets connections and statements that were used before."""


@dataclass(frozen=True, slots=True)
class _Measured:
    """A right, its name in the table, and whether a request waits for a preview that finds nothing in its way."""

    right: str
    name: str
    passing: str
    alone: float
    """What we want: milliseconds of one that comes alone, how many a second, milliseconds of processor each."""
    per_second: float
    processor: float


_MEASURED = (
    _Measured("access", "accesses", "at-once", 60, 200, 10),
    _Measured("erasure", "erasures", "at-once", 100, 105, 20),
    _Measured("erasure", "erasures after a preview", "when-clear", 100, 105, 20),
)


async def figures(town: Town, where: str, floor: Floor, *, quick: bool) -> list[Figure]:
    """Each right, one request at a time and many in flight. `where` ends the names of the figures."""
    few = 10 if quick else 50
    found: list[Figure] = []
    for one in _MEASURED:
        await town.let_pass(one.right, one.passing)
        await town.office.measure(one.right, town.take(5), 1)
        _, alone = await town.office.measure(one.right, town.take(few), 1)
        what = f"{one.name} {where}"
        found += [
            Figure(f"{what}, one at a time, p50", percentile(alone, 0.5) * 1000, "ms", aim=one.alone),
            Figure(f"{what}, one at a time, p99", percentile(alone, 0.99) * 1000, "ms"),
            *await _loaded(town, one, where, floor, quick=quick),
        ]
    return found


async def loaded(town: Town, where: str, floor: Floor, *, quick: bool) -> list[Figure]:
    """Each right with many in flight only, without a preview."""
    found: list[Figure] = []
    for one in _MEASURED[:2]:
        await town.let_pass(one.right, one.passing)
        found += await _loaded(town, one, where, floor, quick=quick)
    return found


async def _loaded(town: Town, one: _Measured, where: str, floor: Floor, *, quick: bool) -> list[Figure]:
    await town.office.measure(one.right, town.take(10 if quick else _FIRST), _IN_FLIGHT)
    before, turned_away = town.used(), town.office.turned_away
    people = town.take(100 if quick else _MANY)
    rate, taken = await town.office.measure(one.right, people, _IN_FLIGHT)
    town.put_back(len(people) - len(taken))
    spent = {name: each * 1000 / len(taken) for name, each in between(before, town.used()).items()}
    what = f"{one.name} {where}, {_IN_FLIGHT} in flight"
    return [
        Figure(what, rate, "1/s", floor, one.per_second),
        Figure(f"{what}, p50", percentile(taken, 0.5) * 1000, "ms"),
        Figure(f"{what}, p99", percentile(taken, 0.99) * 1000, "ms"),
        Figure(f"{what}, turned away and come again", town.office.turned_away - turned_away, "times", aim=0),
        Figure(f"{what}, processor each", sum(spent.values()), "ms", aim=one.processor),
        *(Figure(f"{what}, processor each: {name}", each, "ms") for name, each in spent.items()),
    ]
