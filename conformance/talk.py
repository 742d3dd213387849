"""The privacy service's end of the broker: tasks go out, and what comes back is kept in the order it was heard."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from uuid import UUID, uuid4

from libs.common.broker import Record
from libs.common.broker.kafka import KafkaBroker
from libs.common.events import Event, Received, Undecodable, decode, envelope_of, headers_of

SAID = ("privacy.tasks", "privacy.keys", "privacy.stores", "identity.stores")
"""What the platform tells a participant."""
HEARD = ("privacy.participants", "privacy.answers", "privacy.stores", "privacy.retention")
"""Where a participant answers."""

E = TypeVar("E", bound=Event)


class Talk:
    """Says and hears. `records` are all that came, understood or not."""

    def __init__(self, bootstrap_servers: str) -> None:
        self._broker = KafkaBroker(bootstrap_servers, client_id="conformance")
        self._news = asyncio.Condition()
        self.records: list[Record] = []
        self.received: list[Received[Event]] = []
        self.undecodable: list[tuple[Record, str]] = []

    @asynccontextmanager
    async def listening(self) -> AsyncGenerator[None]:
        """Hear everything from the beginning while the block runs."""
        await self._broker.start()
        await self._broker.ensure_topics(sorted({*SAID, *HEARD}))
        hearing = asyncio.create_task(self._hear())
        try:
            yield
        finally:
            hearing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await hearing
            await self._broker.stop()

    async def _hear(self) -> None:
        async with self._broker.subscribe(f"conformance-{uuid4()}", HEARD) as subscription:
            async for batch in subscription:
                async with self._news:
                    for record in batch.records:
                        self._take(record)
                    self._news.notify_all()
                await batch.commit()

    def _take(self, record: Record) -> None:
        self.records.append(record)
        try:
            self.received.append(decode(record))
        except Undecodable as error:
            self.undecodable.append((record, error.reason))

    async def say(self, event: Event, *, store_id: UUID) -> None:
        """Publish an event as the platform would."""
        envelope = envelope_of(event, store_id=store_id, source="privacy")
        value = event.model_dump_json().encode()
        await self.say_raw([Record(event.topic, envelope.key, value, headers_of(envelope))])

    async def say_raw(self, records: Sequence[Record]) -> None:
        """Publish whatever it is."""
        await self._broker.publish(records)

    def heard(self, contract: type[E], matching: Callable[[E], bool] = lambda _: True) -> list[Received[E]]:
        """All events of a type that have come so far."""
        found: list[Any] = [one for one in self.received if isinstance(one.data, contract)]
        return [one for one in found if matching(one.data)]

    async def hear(
        self, contract: type[E], matching: Callable[[E], bool], *, within: float, already: int = 0
    ) -> Received[E] | None:
        """The first such event after `already` others, or None when it does not come in time."""

        def come() -> list[Received[E]]:
            return self.heard(contract, matching)[already:]

        try:
            async with self._news, asyncio.timeout(within):
                await self._news.wait_for(lambda: bool(come()))
        except TimeoutError:
            return None
        return come()[0]
