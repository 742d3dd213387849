"""Whose turn it is: batches that were read and are not yet committed. Both adapters keep them here.

Bookkeeping without input or output: one batch of a partition at a time, partitions in turn, and a batch that
was handed out but not committed comes again, after a pause, before anything later of its partition. Whoever took
one may take what else is ready into hand with it.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from libs.common.broker import Record

Partition = tuple[str, int]
"""Topic and number."""

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0


@dataclass(frozen=True, slots=True, eq=False)
class Delivery:
    """A batch of one partition. `epoch` is the tenure in which it was read; an older one cannot commit."""

    topic: str
    partition: int
    records: Sequence[Record]
    epoch: int
    commit_delivery: Callable[["Delivery"], Awaitable[None]]

    @property
    def source(self) -> Partition:
        """Where the records come from."""
        return self.topic, self.partition

    @property
    def end(self) -> int:
        """The offset after the last record: what is committed."""
        return self.records[-1].offset + 1

    async def commit(self) -> None:
        """Acknowledge every record. Raises Fenced, BrokerUnavailable."""
        await self.commit_delivery(self)


@dataclass(slots=True)
class _Turn:
    delivery: Delivery
    due: float = 0.0
    attempts: int = 0


class Turns:
    """At most one delivery per partition, waiting or in the consumer's hand."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waiting: dict[Partition, _Turn] = {}
        self._in_hand: dict[Partition, _Turn] = {}
        self._held_back = False
        self._failure: BaseException | None = None
        self._changed = asyncio.Event()
        self._empty_handed = asyncio.Event()
        self._empty_handed.set()

    def busy(self, partition: Partition) -> bool:
        """Whether a delivery of the partition waits or is in hand."""
        return partition in self._waiting or self.in_hand(partition)

    def in_hand(self, partition: Partition) -> bool:
        """Whether the consumer is working on a delivery of the partition."""
        return partition in self._in_hand

    def offer(self, delivery: Delivery) -> None:
        """Queue the next delivery of a partition that is not busy."""
        if self.busy(delivery.source):
            raise RuntimeError("a partition has one delivery at a time")
        self._waiting[delivery.source] = _Turn(delivery)
        self._changed.set()

    async def take(self) -> Delivery:
        """Wait for the delivery whose turn it is, giving up the last one if it was not settled.

        Raises what `fail` was given.
        """
        self.give_up()
        while True:
            if self._failure is not None:
                raise self._failure
            self._changed.clear()
            if (delivery := self.hand_out()) is not None:
                return delivery
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._seconds_to_next()):
                    await self._changed.wait()

    def hand_out(self) -> Delivery | None:
        """The delivery whose turn it is, None if none is due. The hand must be empty."""
        now = self._clock()
        turn = next((turn for turn in self._waiting.values() if turn.due <= now), None)
        if turn is None or self._held_back:
            return None
        return self._into_hand(turn)

    def take_ready(self) -> list[Delivery]:
        """What else is ready now, each of another partition, into hand with what was taken before."""
        now = self._clock()
        ready = [turn for turn in self._waiting.values() if turn.due <= now and not turn.attempts]
        return [] if self._held_back else [self._into_hand(turn) for turn in ready]

    def give_up(self) -> None:
        """Put what is in hand back to the end of the queue, due after a pause that grows each time."""
        for source, turn in self._in_hand.items():
            pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**turn.attempts)
            turn.due = self._clock() + pause
            turn.attempts += 1
            self._waiting[source] = turn
        self._let_go_of(*self._in_hand)

    def settle(self, delivery: Delivery) -> None:
        """The delivery is committed; its partition is free for the next."""
        if (turn := self._in_hand.get(delivery.source)) and turn.delivery is delivery:
            self._let_go_of(delivery.source)
        elif (turn := self._waiting.get(delivery.source)) and turn.delivery is delivery:
            del self._waiting[delivery.source]

    def withdraw(self, partition: Partition) -> bool:
        """Forget what waits of a partition, unless the consumer has it in hand: then False."""
        if self.in_hand(partition):
            return False
        self._waiting.pop(partition, None)
        return True

    def drop(self, partition: Partition) -> None:
        """Forget a partition that was lost, even if the consumer has it in hand."""
        self._let_go_of(partition)
        self._waiting.pop(partition, None)

    def clear(self) -> None:
        """Forget everything."""
        self._waiting.clear()
        self._let_go_of(*self._in_hand)

    async def hold_back(self, seconds: float) -> None:
        """Hand nothing out until `let_go`, and wait at most so long for the consumer to finish what it has."""
        self._held_back = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._empty_handed.wait()

    def let_go(self) -> None:
        """Hand out again."""
        self._held_back = False
        self._changed.set()

    def fail(self, error: BaseException) -> None:
        """Nothing more will come: whoever takes gets this error."""
        self._failure = error
        self._changed.set()

    def _into_hand(self, turn: _Turn) -> Delivery:
        del self._waiting[turn.delivery.source]
        self._in_hand[turn.delivery.source] = turn
        self._empty_handed.clear()
        return turn.delivery

    def _let_go_of(self, *partitions: Partition) -> None:
        for partition in partitions:
            self._in_hand.pop(partition, None)
        if not self._in_hand:
            self._empty_handed.set()

    def _seconds_to_next(self) -> float | None:
        if self._held_back or not self._waiting:
            return None
        return max(0.0, min(turn.due for turn in self._waiting.values()) - self._clock())
