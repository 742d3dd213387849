"""Events arrive once: the inbox row, the handler's effect and what it publishes commit together.

A batch is one transaction. If any of it fails, its events are taken one by one, and one that keeps failing
is parked in `dead_event` together with later events of its key, so that order per key holds and no other
key waits. Parked events are driven again with growing pauses, and by `make replay` after that.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from opentelemetry import trace
from sqlalchemy import Identity, Index, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from libs.common.broker import Batch, Broker, BrokerError, Fenced, Record, Subscription
from libs.common.db import ALL_STORES, Base, Database, fetch, impersonal, switch_store
from libs.common.errors import Unavailable
from libs.common.events import Event, PersonalEvent, Received, Undecodable, decode, topics_of
from libs.common.personal.expiry import Place, over_among
from libs.common.personal.tombstones import erased_among
from libs.common.rest import rest
from libs.common.telemetry import consumer_span, continuing

logger = logging.getLogger(__name__)

Handler = Callable[[AsyncSession, Received[Any]], Awaitable[None]]
"""Changes rows and publishes events within the session it is given; calls no network, commits nothing."""
BatchHandler = Callable[[AsyncSession, Sequence[Received[Any]]], Awaitable[None]]
"""As Handler, for consecutive events of one type and one store."""
Handlers = Mapping[type[Event], Handler | BatchHandler]

KEPT_FOR = timedelta(days=30)
"""Longer than a topic's retention (7 days) and the longest manual replay together."""
_ATTEMPTS_AT_ONCE = 3
_ATTEMPTS_IN_ALL = 10
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = timedelta(minutes=5)


def batched(handler: BatchHandler) -> BatchHandler:
    """Mark a handler that takes a run of events at once."""
    handler.__dict__["batched"] = True
    return handler


class InboxRow(Base):
    """An event this service has dealt with."""

    __tablename__ = "inbox"
    __table_args__ = (Index("ix_inbox_handled_at", "handled_at"),)

    event_id: Mapped[UUID] = mapped_column(primary_key=True)
    store_id: Mapped[UUID]
    handled_at: Mapped[datetime] = mapped_column(server_default=func.now())


class DeadEvent(Base):
    """A record that could not be handled, kept whole until it can be."""

    __tablename__ = "dead_event"
    __table_args__ = (Index("ix_dead_event_key", "key", "id"),)

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    topic: Mapped[str] = mapped_column(info=impersonal("name of a topic"))
    key: Mapped[str] = mapped_column(info=impersonal("store and aggregate id"))
    partition: Mapped[int]
    position: Mapped[int]
    headers: Mapped[dict[str, str]] = mapped_column(JSONB, info=impersonal("attributes of CloudEvents"))
    value: Mapped[bytes] = mapped_column(info=impersonal("ids and sealed boxes"))
    blocking: Mapped[bool]
    """Whether later events of the key wait behind it."""
    reason: Mapped[str] = mapped_column(info=impersonal("a fixed word or the name of an error class"))
    trace_id: Mapped[str | None] = mapped_column(info=impersonal("W3C trace id"))
    attempts: Mapped[int]
    next_try_at: Mapped[datetime | None]
    """None: only `make replay` drives it again."""
    parked_at: Mapped[datetime] = mapped_column(server_default=func.now())


@dataclass(frozen=True, slots=True)
class _Poison:
    """A record that is no event of ours."""

    record: Record
    reason: str
    blocking: bool


class Consumer:
    """One member of a service's consumer group, with the handlers of that service."""

    def __init__(self, *, service: str, database: Database, broker: Broker, handlers: Handlers) -> None:
        self._service = service
        self._database = database
        self._broker = broker
        self._handlers = handlers
        self._stopping = asyncio.Event()
        self._subscription: Subscription | None = None
        self._progress_at = time.monotonic()

    async def run(self) -> None:
        """Consume until stopped; an outage of the broker or of PostgreSQL is waited for, never skipped over."""
        topics = topics_of(self._handlers)
        failures = 0
        while not self._stopping.is_set():
            try:
                await self._broker.ensure_topics(topics)
                async with self._broker.subscribe(self._service, topics) as subscription:
                    self._subscription = subscription
                    while (batch := await self._next(subscription)) is not None:
                        # What waits in other partitions costs no transaction of its own.
                        began, batches = time.monotonic(), [batch, *subscription.ready()]
                        await self._take(batches)
                        failures = 0
                        await rest(began, done=sum(len(one.records) for one in batches))
            except (BrokerError, Unavailable) as error:
                failures += 1
                logger.warning("consumer waits", extra={"error": type(error).__name__, "failures": failures})
                await asyncio.sleep(min(5.0, 0.1 * 2**failures))
            finally:
                self._subscription = None

    async def _next(self, subscription: Subscription) -> Batch | None:
        """The next batch, or None as soon as the consumer is told to stop."""
        waiting = asyncio.ensure_future(anext(aiter(subscription)))
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({waiting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            return None if self._stopping.is_set() else await waiting
        finally:
            waiting.cancel()
            stopping.cancel()
            await asyncio.gather(waiting, stopping, return_exceptions=True)

    def stop(self) -> None:
        """Finish and commit the batch in hand, then leave the group."""
        self._stopping.set()

    async def stalled_for(self) -> float:
        """Seconds without progress while records wait; 0 when none do. The watchdog asks this."""
        subscription = self._subscription
        if subscription is not None and await subscription.lag() == 0:
            self._progress_at = time.monotonic()
        return time.monotonic() - self._progress_at

    async def lag(self) -> int:
        """Records waiting in the partitions this member holds."""
        return await self._subscription.lag() if self._subscription is not None else 0

    async def _take(self, batches: Sequence[Batch]) -> None:
        items = [self._decoded(record) for batch in batches for record in batch.records]
        try:
            await self._together(items)
        except Unavailable:
            raise
        except Exception as error:
            logger.info("batch is taken apart", extra={"error": type(error).__name__, "batch": len(items)})
            for item in items:
                await self._alone(item)
        self._progress_at = time.monotonic()
        # All at once, so that a broker may take them as one.
        outcomes = await asyncio.gather(*(batch.commit() for batch in batches), return_exceptions=True)
        for batch, outcome in zip(batches, outcomes, strict=True):
            if isinstance(outcome, Fenced):
                # Another member has the partition now and will meet our inbox rows.
                logger.info(
                    "partition was taken over", extra={"topic": batch.topic, "partition": batch.partition}
                )
            elif outcome is not None:
                raise outcome

    def _decoded(self, record: Record) -> Received[Event] | _Poison:
        try:
            return decode(record)
        except Undecodable as error:
            # A newer publisher may send what this release does not know; it must not stop the key.
            return _Poison(record, error.reason, blocking=error.blocking)

    async def _together(self, items: Sequence[Received[Event] | _Poison]) -> None:
        async with self._database.session(_scope(items)) as session:
            blocked = await _blocked_keys(session, [_record(item).key for item in items])
            events: list[Received[Event]] = []
            for item in items:
                if isinstance(item, _Poison):
                    await _park(session, item.record, reason=item.reason, blocking=item.blocking, attempts=1)
                    if item.blocking:
                        blocked.add(item.record.key)
                elif item.record.key in blocked:
                    await _park(session, item.record, reason="behind-another", blocking=True, attempts=0)
                else:
                    events.append(item)
            await self._handle(session, events)

    async def _alone(self, item: Received[Event] | _Poison) -> None:
        pause = _FIRST_PAUSE
        for attempt in range(1, _ATTEMPTS_AT_ONCE + 1):
            try:
                return await self._together([item])
            except Unavailable:
                raise
            except Exception as error:
                if attempt == _ATTEMPTS_AT_ONCE:
                    await self._park_failed(_record(item), error)
                    return None
            await asyncio.sleep(pause)
            pause *= 4
        return None

    async def _park_failed(self, record: Record, error: Exception) -> None:
        logger.error(
            "event is parked", extra={"error": type(error).__name__, "topic": record.topic}, exc_info=error
        )
        async with self._database.platform_session() as session:
            await _park(
                session, record, reason=type(error).__name__, blocking=True, attempts=_ATTEMPTS_AT_ONCE,
                next_try_in=timedelta(seconds=2),
            )  # fmt: skip

    async def _handle(self, session: AsyncSession, events: Sequence[Received[Event]]) -> None:
        events = [event for event in events if type(event.data) in self._handlers]
        fresh = await _claim(session, events)
        fresh = await _refuse_erased(session, fresh)
        for run in _runs(fresh, self._handlers):
            handler = self._handlers[type(run[0].data)]
            await switch_store(session, run[0].envelope.store_id)
            with (
                consumer_span(
                    f"handle {run[0].envelope.type}",
                    run[0].envelope.traceparent,
                    service=self._service,
                    batch=len(run),
                ),
                continuing(_other_traces(run)),
            ):
                if _is_batched(handler):
                    await handler(session, run)  # pyright: ignore[reportArgumentType]
                else:
                    await handler(session, run[0])  # pyright: ignore[reportArgumentType]

    async def redrive(self, *, everything: bool = False) -> int:
        """Drive parked events again whose time has come, oldest of each key first. Returns how many succeeded.

        `everything` also takes those that were given up, as `make replay` does.
        """
        succeeded = 0
        for key in await self._keys_to_redrive(everything=everything):
            while await self._redrive_first(key, everything=everything):
                succeeded += 1
        return succeeded

    async def _keys_to_redrive(self, *, everything: bool) -> list[str]:
        async with self._database.transaction(ALL_STORES) as transaction:
            return [row.key for row in await fetch(transaction, _TO_REDRIVE, everything)]

    async def _redrive_first(self, key: str, *, everything: bool) -> bool:
        failed: Exception | None = None
        dead_id = 0
        try:
            async with self._database.platform_session() as session:
                dead = await session.scalar(_first_of(key, everything=everything))
                if dead is None:
                    return False
                dead_id = dead.id
                record = Record(dead.topic, dead.key, dead.value, dead.headers, dead.partition, dead.position)
                await session.delete(dead)
                await session.flush()
                await self._handle(session, [decode(record)])
                await self._wake_next(session, key)
                return True
        except Unavailable:
            raise
        except Exception as error:
            failed = error
        await self._record_failure(dead_id, failed)
        return False

    @staticmethod
    async def _wake_next(session: AsyncSession, key: str) -> None:
        """What waited behind an event that succeeded may go now."""
        await session.execute(
            update(DeadEvent)
            .where(DeadEvent.key == key, DeadEvent.reason == "behind-another")
            .values(next_try_at=func.now())
        )

    async def _record_failure(self, dead_id: int, error: Exception) -> None:
        async with self._database.platform_session() as session:
            dead = await session.get(DeadEvent, dead_id, with_for_update=True)
            if dead is None:
                return
            dead.attempts += 1
            dead.reason = error.reason if isinstance(error, Undecodable) else type(error).__name__
            if dead.attempts >= _ATTEMPTS_IN_ALL or isinstance(error, Undecodable):
                dead.next_try_at = None
                logger.error(
                    "event is given up until replayed", extra={"topic": dead.topic, "attempts": dead.attempts}
                )
            else:
                pause = min(_LONGEST_PAUSE, timedelta(seconds=2**dead.attempts))
                dead.next_try_at = func.now() + pause


def _first_of(key: str, *, everything: bool) -> Any:
    """The oldest parked event of a key, if it is due; a later one never overtakes it."""
    oldest = select(func.min(DeadEvent.id)).where(DeadEvent.key == key, DeadEvent.blocking)
    statement = (
        select(DeadEvent)
        .where(DeadEvent.key == key, (DeadEvent.id == oldest.scalar_subquery()) | ~DeadEvent.blocking)
        .order_by(DeadEvent.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    return statement if everything else statement.where(DeadEvent.next_try_at <= func.now())


def _other_traces(run: Sequence[Received[Event]]) -> dict[str, str | None]:
    """The traces of a run besides that of its first event, which is the current one."""
    first = run[0].data.aggregate
    return {
        event.data.aggregate: event.envelope.traceparent for event in run[1:] if event.data.aggregate != first
    }


def _scope(items: Sequence[Received[Event] | _Poison]) -> UUID | str:
    """The store that all of a batch are of, mostly: so nothing need be bound anew for a run of them."""
    stores = {item.envelope.store_id for item in items if isinstance(item, Received)}
    return stores.pop() if len(stores) == 1 else ALL_STORES


def _record(item: Received[Event] | _Poison) -> Record:
    return item.record


def _is_batched(handler: Handler | BatchHandler) -> bool:
    return bool(getattr(handler, "batched", False))


def _runs(events: Sequence[Received[Event]], handlers: Handlers) -> list[list[Received[Event]]]:
    """Events of one type and store belong to one call, where the handler takes several.

    Only events of one key have an order among them. A layer holds what comes after the same number of changes
    of type in its key, so that those of different keys are put together whatever came between them.
    """
    places: dict[tuple[str, str], tuple[type[Event], int]] = {}
    together: dict[tuple[int, UUID, type[Event]], list[Received[Event]]] = defaultdict(list)
    for event in events:
        kind, key = type(event.data), (event.record.topic, event.record.key)
        before, layer = places.get(key, (kind, 0))
        layer += before is not kind
        places[key] = kind, layer
        together[layer, event.envelope.store_id, kind].append(event)
    runs: list[list[Received[Event]]] = []
    for (_, _, kind), run in sorted(together.items(), key=lambda item: item[0][0]):
        runs += [run] if _is_batched(handlers[kind]) else [[event] for event in run]
    return runs


_TO_REDRIVE = "SELECT DISTINCT key FROM dead_event WHERE $1 OR next_try_at <= now() LIMIT 1000"
_BLOCKED = "SELECT DISTINCT key FROM dead_event WHERE blocking AND key = ANY($1::text[])"
# A store that has ended has no more history, but for what is said about stores and people's requests themselves.
_CLAIM = """
    INSERT INTO inbox (event_id, store_id)
    SELECT event_id, store_id FROM unnest($1::uuid[], $2::uuid[], $3::boolean[]) AS event (event_id, store_id, lasting)
    WHERE lasting OR NOT EXISTS (
        SELECT FROM known_store WHERE known_store.store_id = event.store_id AND state = 'ended')
    ON CONFLICT DO NOTHING RETURNING event_id
"""
_LASTING = ("identity.stores", "privacy.")


async def _blocked_keys(session: AsyncSession, keys: Iterable[str]) -> set[str]:
    return {row["key"] for row in await fetch(session, _BLOCKED, list(set(keys)))}


async def _claim(session: AsyncSession, events: Sequence[Received[Event]]) -> list[Received[Event]]:
    """The events that were not handled before and are not of a store that has ended, each once, in order."""
    if not events:
        return []
    # Claims are made in one order everywhere, so that two members never wait for each other.
    by_id = {event.envelope.id: event for event in sorted(events, key=lambda event: event.envelope.id)}
    stores = [event.envelope.store_id for event in by_id.values()]
    lasting = [event.data.topic.startswith(_LASTING) for event in by_id.values()]
    new = {row["event_id"] for row in await fetch(session, _CLAIM, list(by_id), stores, lasting)}
    return [event for event in _once_each(events) if event.envelope.id in new]


def _once_each(events: Iterable[Received[Event]]) -> Iterable[Received[Event]]:
    return {event.envelope.id: event for event in events}.values()


async def _refuse_erased(session: AsyncSession, events: Sequence[Received[Event]]) -> list[Received[Event]]:
    """Late and replayed events bring neither a person back nor what is past its time: their inbox row stays, their
    effect does not happen.
    """
    personal = {
        (event.envelope.store_id, event.data.subject_id, event.data.generation)
        for event in events
        if isinstance(event.data, PersonalEvent)
    }
    if not personal:
        return list(events)
    erased = await erased_among(session, personal)
    over = await over_among(session, {place for event in events if (place := _place(event)) is not None})
    return [
        event
        for event in events
        if not isinstance(event.data, PersonalEvent)
        or (
            (event.envelope.store_id, event.data.subject_id, event.data.generation) not in erased
            and _place(event) not in over
        )
    ]


def _place(event: Received[Event]) -> Place | None:
    """The bucket of what an event brings, where that ends alone."""
    data = event.data
    if not isinstance(data, PersonalEvent) or data.place is None:
        return None
    return event.envelope.store_id, data.subject_id, data.generation, *data.place


async def _park(
    session: AsyncSession,
    record: Record,
    *,
    reason: str,
    blocking: bool,
    attempts: int,
    next_try_in: timedelta | None = None,
) -> None:
    span = trace.get_current_span().get_span_context()
    await session.execute(
        insert(DeadEvent).values(
            topic=record.topic,
            key=record.key,
            partition=record.partition,
            position=record.offset,
            headers=dict(record.headers),
            value=record.value,
            blocking=blocking,
            reason=reason,
            trace_id=format(span.trace_id, "032x") if span.is_valid else _trace_of(record),
            attempts=attempts,
            next_try_at=func.now() + next_try_in if next_try_in is not None else None,
        )
    )


def _trace_of(record: Record) -> str | None:
    parts = record.headers.get("traceparent", "").split("-")
    return parts[1] if len(parts) == 4 else None


async def parked(database: Database) -> int:
    """Events that could not be handled and wait to be driven again, or for somebody to mend their cause."""
    async with database.platform_session() as session:
        return int((await session.execute(text("SELECT count(*) FROM dead_event"))).scalar_one())


async def purge(database: Database) -> int:
    """Forget events so old that no topic, retry or replay can bring them again."""
    async with database.platform_session() as session:
        result: Any = await session.execute(
            text("DELETE FROM inbox WHERE handled_at < now() - make_interval(secs => :seconds)"),
            {"seconds": KEPT_FOR.total_seconds()},
        )
        return int(result.rowcount)
