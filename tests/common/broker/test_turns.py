"""Turns under every order of offering, taking, committing, giving up and losing."""

import asyncio
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from libs.common.broker import Record
from libs.common.broker.turns import Delivery, Partition, Turns

PARTITIONS = [("t", 0), ("t", 1), ("u", 0)]


async def _never(_delivery: Delivery) -> None:
    raise AssertionError


def delivery(partition: Partition, offset: int = 0) -> Delivery:
    topic, number = partition
    return Delivery(topic, number, (Record(topic, "k", b"", {}, number, offset),), 1, _never)


def take_now(turns: Turns) -> Delivery | None:
    """What `take` gives at once, None if it would wait."""

    turns.give_up()
    return turns.hand_out()


@dataclass
class Log:
    """A partition's source: the next offset to read, and what is committed."""

    read: int = 0
    committed: int = 0
    taken: list[int] = field(default_factory=list[int])


class TurnsMachine(RuleBasedStateMachine):
    """No order of events hands out an offset while an earlier one is uncommitted, or commits past unfinished work."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.turns = Turns(clock=lambda: self.now)
        self.logs = {partition: Log() for partition in PARTITIONS}
        self.held: list[Delivery] = []
        self.released: list[Delivery] = []

    @rule(partition=st.sampled_from(PARTITIONS))
    def offer_next(self, partition: Partition) -> None:
        if not self.turns.busy(partition):
            log = self.logs[partition]
            self.turns.offer(delivery(partition, log.read))
            log.read += 1

    @rule(seconds=st.floats(0, 10))
    def take(self, seconds: float) -> None:
        self.now += seconds
        self.released += self.held
        taken = take_now(self.turns)
        self.held = [taken] if taken is not None else []
        self.all_begin_at_what_is_committed()

    @precondition(lambda self: self.held)
    @rule()
    def take_ready(self) -> None:
        self.held += self.turns.take_ready()
        self.all_begin_at_what_is_committed()

    def all_begin_at_what_is_committed(self) -> None:
        for held in self.held:
            assert held.end - 1 == self.logs[held.source].committed

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, 10))
    def commit(self, which: int) -> None:
        held = self.held.pop(which % len(self.held))
        self.turns.settle(held)
        self.logs[held.source].committed = held.end

    @precondition(lambda self: self.released)
    @rule()
    def commit_late(self) -> None:
        late = self.released.pop()
        if late not in self.held and late.end - 1 == self.logs[late.source].committed:
            self.turns.settle(late)
            self.logs[late.source].committed = late.end

    @rule(partition=st.sampled_from(PARTITIONS))
    def withdraw(self, partition: Partition) -> None:
        in_hand = self.turns.in_hand(partition)
        assert self.turns.withdraw(partition) is not in_hand
        if not in_hand:
            self.reread(partition)

    @rule(partition=st.sampled_from(PARTITIONS))
    def lose(self, partition: Partition) -> None:
        self.turns.drop(partition)
        self.held = [held for held in self.held if held.source != partition]
        self.reread(partition)

    def reread(self, partition: Partition) -> None:
        """Whoever has the partition next begins at what is committed; its older deliveries are fenced."""
        self.logs[partition].read = self.logs[partition].committed
        self.released = [old for old in self.released if old.source != partition]

    @invariant()
    def what_is_held_is_in_hand(self) -> None:
        busy = {partition for partition in PARTITIONS if self.turns.in_hand(partition)}
        assert busy == {held.source for held in self.held}


def test_offsets_never_pass_unfinished_work() -> None:
    run_state_machine_as_test(TurnsMachine)


@given(st.lists(st.sampled_from(PARTITIONS), min_size=1, max_size=3, unique=True), st.integers(1, 12))
def test_every_waiting_partition_is_served_before_one_is_served_twice(
    partitions: list[Partition], rounds: int
) -> None:
    turns = Turns()
    for partition in partitions:
        turns.offer(delivery(partition))
    served: list[Partition] = []
    for number in range(rounds * len(partitions)):
        taken = take_now(turns)
        assert taken is not None
        served.append(taken.source)
        turns.settle(taken)
        turns.offer(delivery(taken.source, number))
    assert all(
        set(served[start : start + len(partitions)]) == set(partitions)
        for start in range(0, len(served), len(partitions))
    )


def test_pauses_before_the_same_delivery_grow_up_to_a_bound() -> None:
    now = 0.0
    turns = Turns(clock=lambda: now)
    turns.offer(delivery(("t", 0)))
    first = take_now(turns)
    pauses: list[float] = []
    for _ in range(9):
        assert take_now(turns) is None
        begin = now
        while (again := take_now(turns)) is None:
            now += 0.05
        assert again is first
        pauses.append(now - begin)
    assert pauses == sorted(pauses)
    assert pauses[0] < 0.2 and 5 <= pauses[-1] < 5.2


async def test_a_rebalance_waits_for_the_delivery_in_hand_and_hands_out_nothing() -> None:
    turns = Turns()
    turns.offer(delivery(("t", 0)))
    turns.offer(delivery(("t", 1)))
    in_hand = await turns.take()
    waiting = asyncio.create_task(turns.hold_back(60))
    await asyncio.sleep(0)
    assert not waiting.done()
    turns.settle(in_hand)
    await waiting
    taking = asyncio.create_task(turns.take())
    await asyncio.sleep(0)
    assert not taking.done()
    turns.let_go()
    assert (await taking).source == ("t", 1)


async def test_whoever_waits_learns_that_nothing_more_will_come() -> None:
    turns = Turns()
    taking = asyncio.create_task(turns.take())
    await asyncio.sleep(0)
    turns.fail(ValueError("broken"))
    with pytest.raises(ValueError, match="broken"):
        await taking
