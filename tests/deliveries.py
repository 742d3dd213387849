"""Events handed to handlers, as a consumer would."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import orjson

from libs.common.broker import Record
from libs.common.db import Database, switch_store
from libs.common.events import Event, Received, decode, envelope_of, headers_of
from libs.common.inbox import Handlers


class HandedOver:
    """One batch of one partition, and whether it was acknowledged."""

    topic = "testing.notes"
    partition = 0

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = records
        self.committed = False

    async def commit(self) -> None:
        self.committed = True


def received(event: Event, store_id: UUID) -> Received[Any]:
    """The event as a consumer meets it: decoded from a record."""
    envelope = envelope_of(event, store_id=store_id, source="test")
    value = orjson.dumps(event.model_dump(mode="json"))
    return decode(Record(event.topic, envelope.key, value, headers_of(envelope)))


async def deliver(
    handlers: Handlers, database: Database, store_id: UUID, *events: Event, together: bool = False
) -> None:
    """Hand each event to its handler in a transaction of its own, or all of them, of one type, in one."""
    items = [received(event, store_id) for event in events]
    for batch in [items] if together else [[item] for item in items]:
        await hand_over(handlers, database, batch)


async def hand_over(handlers: Handlers, database: Database, batch: Sequence[Received[Any]]) -> None:
    """Events of one store and type, to their handler, in one transaction bound to the store."""
    handler: Any = handlers[type(batch[0].data)]
    async with database.platform_session() as session:
        await switch_store(session, batch[0].envelope.store_id)
        if handler.__dict__.get("batched"):
            await handler(session, batch)
        else:
            for item in batch:
                await handler(session, item)
