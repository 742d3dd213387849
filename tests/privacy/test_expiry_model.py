"""Random histories of people, orders, choices, holds and erasures, against a plain model of what is left."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from libs.common.personal.keys import KeyringClient, Life
from libs.common.personal.restrictions import lift, restrict
from libs.common.personal.vocabulary import Clock, Length
from tests.common.personal.shop import Purchase
from tests.privacy.conftest import Person
from tests.privacy.lasting import Lasting, lasting

__all__ = ["lasting"]
_PARIS = ZoneInfo("Europe/Paris")


@dataclass
class Ordered:
    """One order as the model knows it."""

    person: int
    id: UUID
    clock: Clock | None = None
    since: date | None = None
    version: int = 0


@dataclass
class Model:
    """What should be there: an order is, until its last day is over and nothing holds it."""

    lengths: dict[Clock, Length]
    orders: list[Ordered] = field(default_factory=list[Ordered])
    on_hold: dict[int, UUID] = field(default_factory=dict[int, UUID])
    restricted: set[int] = field(default_factory=set[int])
    erased: set[int] = field(default_factory=set[int])

    def settle(self, now: datetime) -> None:
        today = now.astimezone(_PARIS).date()
        self.orders = [one for one in self.orders if not self._is_over(one, today)]

    def _is_over(self, one: Ordered, today: date) -> bool:
        if one.person in self.on_hold or one.person in self.restricted:
            return False
        if one.person in self.erased:
            return True
        if one.clock is None or one.since is None:
            return False
        return self.lengths[one.clock].after(one.since) < today

    def erase(self, person: int) -> None:
        self.erased.add(person)
        self.restricted.discard(person)
        if person not in self.on_hold:
            self.orders = [one for one in self.orders if one.person != person]


class World:
    """The same history, for the platform and for the model."""

    def __init__(self, lasting: Lasting, people: Sequence[Person]) -> None:
        self.lasting = lasting
        self.people = people
        self.model = Model({Clock.ORDER_CANCELLED: Length(10, "D"), Clock.ORDER_FULFILLED: Length(2, "Y")})

    async def buy(self, who: int) -> None:
        if who not in self.model.erased:
            self.model.orders.append(Ordered(who, await self.lasting.purchase(self.people[who])))

    async def start(self, number: int, clock: Clock) -> None:
        """Something happens to one of the orders that are there."""
        living = [one for one in self.model.orders if one.person not in self.model.erased]
        if living:
            one = living[number % len(living)]
            one.clock, one.since, one.version = clock, self._today(), one.version + 1
            await self.lasting.start(self.people[one.person], clock, one.id, version=one.version)

    def _today(self) -> date:
        return self.lasting.now.astimezone(_PARIS).date()

    async def choose(self, days: int) -> None:
        self.model.lengths[Clock.ORDER_CANCELLED] = Length(days, "D")
        assert (await self.lasting.choose(order_cancelled=f"P{days}D")).status_code == 204

    async def hold(self, who: int) -> None:
        """Place a hold, or lift the one that is there."""
        with self.lasting.on(self.lasting.now):
            if who in self.model.on_hold:
                answer = await self.lasting.call("DELETE", f"holds/{self.model.on_hold.pop(who)}")
                assert answer.status_code == 204
            else:
                until = self.lasting.now.date() + timedelta(days=1500)
                body = {"email": self.people[who].email, "ground": "litigation", "until": str(until)}
                answer = await self.lasting.call("POST", "holds", json=body)
                assert answer.status_code == 201
                self.model.on_hold[who] = UUID(answer.json()["id"])

    async def restrict(self, who: int) -> None:
        """Restrict somebody, or lift it: in the keyring, and in the service that counts."""
        if who in self.model.erased:
            return
        subject_id = self.people[who].subject_id
        keyring = self.lasting.platform.keyring.client("privacy")
        releases = who in self.model.restricted
        life = Life(self.lasting.store_id, subject_id, 1)
        await (keyring.lift([life]) if releases else keyring.restrict([life]))
        async with self.lasting.platform.database.session(self.lasting.store_id) as session:
            await (lift if releases else restrict)(session, [(self.lasting.store_id, subject_id, 1)])
        self.model.restricted ^= {who}

    async def erase(self, who: int) -> None:
        if who not in self.model.erased and who not in self.model.restricted:
            await self.lasting.erase(self.people[who])
            self.model.erase(who)

    async def wait(self, days: int) -> None:
        self.lasting.later(days=days)
        await self.lasting.settle()
        self.model.settle(self.lasting.now)
        await self.compare()

    async def compare(self) -> None:
        expected = {(one.person, one.id) for one in self.model.orders}
        rows: set[tuple[int, UUID]] = set()
        keys: set[tuple[int, UUID]] = set()
        for who, person in enumerate(self.people):
            live = await self.lasting.live(person)
            keys |= {(who, UUID(bucket)) for retention, bucket in live if retention == "order"}
        async with self.lasting.shop.database.session(self.lasting.store_id) as session:
            subjects = {person.subject_id: who for who, person in enumerate(self.people)}
            statement = select(Purchase).where(
                Purchase.subject_id.in_(subjects), Purchase.contact.is_not(None)
            )
            rows = {(subjects[row.subject_id], row.id) for row in await session.scalars(statement)}
        assert keys == expected, "what opens"
        assert rows == expected, "what is stored"


_WHO = st.integers(0, 1)
_STEPS = st.one_of(
    st.tuples(st.just("buy"), _WHO),
    st.tuples(st.just("start"), st.integers(0, 5), st.just(Clock.ORDER_CANCELLED)),
    st.tuples(st.just("start"), st.integers(0, 5), st.just(Clock.ORDER_FULFILLED)),
    st.tuples(st.just("choose"), st.integers(0, 60)),
    st.tuples(st.just("hold"), _WHO),
    st.tuples(st.just("restrict"), _WHO),
    st.tuples(st.just("erase"), _WHO),
    st.tuples(st.just("wait"), st.sampled_from([1, 5, 15, 70])),
)


class _Dies(Exception):
    """What a crash looks like from within."""


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    steps=st.lists(_STEPS, min_size=4, max_size=16),
    crash=st.sampled_from([None, "status", "destroy_expired"]),
)
async def test_what_is_left_is_what_the_model_says(
    lasting: Lasting, steps: list[tuple[Any, ...]], crash: str | None
) -> None:
    world = World(lasting, [await lasting.person() for _ in range(2)])
    await world.choose(10)
    for name, *arguments in steps:
        if name == "wait" and crash is not None:
            await _crash(lasting, arguments[0], crash)
        await getattr(world, name)(*arguments)
    for days in (1, 800):
        await world.wait(days)


async def _crash(lasting: Lasting, days: int, where: str) -> None:
    """A worker dies in the middle of its first expiry of the day; its lease runs out."""

    async def dies(*_: Any, **__: Any) -> Any:
        raise _Dies

    lasting.later(days=days)
    await lasting.tell()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(KeyringClient, where, dies)
        try:
            await lasting.expire()
        except _Dies:
            lasting.later(minutes=2)
