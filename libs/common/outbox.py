"""Events leave in the transaction that made them true, and a relay carries them to the broker.

Rows of one aggregate share a bucket; a relay holds a bucket while it sends, so order per key survives any
number of relays. `docs/adr/0003-outbox.md` says why neither ids, `xid8` nor `SKIP LOCKED` would do.
"""

import asyncio
import logging
import time
import zlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Identity, Index, SmallInteger, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from libs.common.broker import Broker, BrokerError, Record
from libs.common.db import ALL_STORES, Base, Database, fetch, impersonal, ring_after_commit
from libs.common.errors import Unavailable
from libs.common.events import MAXIMUM_BYTES, Event, envelope_of, headers_of
from libs.common.listen import Listener
from libs.common.rest import rest
from libs.common.telemetry import traceparent_of

logger = logging.getLogger(__name__)

BUCKETS = 16
CHANNEL = "outbox"
"""NOTIFY channel, rung after the commit of a command that published."""
KEPT_FOR = timedelta(days=7)
"""The longest loss of the broker that can be made good by publishing again."""
_BATCH = 500
_POLL_SECONDS = 1.0
_LOCK_CLASS = 7_001
_LOOK_AT_CLUSTER_EVERY = 30.0
"""Seconds; after a failure it is looked at once."""


class OutboxRow(Base):
    """One event on its way. The payload holds ids and sealed boxes only."""

    __tablename__ = "outbox"
    __table_args__ = (
        Index("ix_outbox_unsent", "bucket", "id", postgresql_where=text("sent_at IS NULL")),
        Index("ix_outbox_sent_at", "sent_at", postgresql_where=text("sent_at IS NOT NULL")),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    store_id: Mapped[UUID]
    bucket: Mapped[int] = mapped_column(SmallInteger)
    topic: Mapped[str] = mapped_column(info=impersonal("name of a topic"))
    key: Mapped[str] = mapped_column(info=impersonal("store and aggregate id"))
    headers: Mapped[dict[str, str]] = mapped_column(JSONB, info=impersonal("attributes of CloudEvents"))
    payload: Mapped[bytes] = mapped_column(info=impersonal("ids and sealed boxes"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    sent_at: Mapped[datetime | None]


class BrokerSeen(Base):
    """The identity of the log this outbox was last sent to: one row."""

    __tablename__ = "broker_seen"

    id: Mapped[int] = mapped_column(SmallInteger, primary_key=True, default=1)
    cluster_id: Mapped[str] = mapped_column(info=impersonal("identity of a broker"))


async def publish(session: AsyncSession, event: Event, *, store_id: UUID, source: str) -> None:
    """Send an event when, and only when, the session commits.

    The caller has locked or versioned the aggregate's row before, in this transaction: that is what makes
    the order of ids the order of the aggregate's changes.
    """
    await publish_all(session, [event], store_id=store_id, source=source)


async def publish_all(session: AsyncSession, events: Sequence[Event], *, store_id: UUID, source: str) -> None:
    """As `publish`, several at once in their order."""
    if not events:
        return
    # The unit of work may write rows in another order than they were added; the aggregate goes first.
    await session.flush()
    rows = [_row(event, store_id, source) for event in events]
    await fetch(session, _INSERT, store_id, *map(list, zip(*rows, strict=True)))
    ring_after_commit(session, CHANNEL)


_INSERT = """
    INSERT INTO outbox (store_id, bucket, topic, key, headers, payload)
    SELECT $1, bucket, topic, key, headers, payload
    FROM unnest($2::smallint[], $3::text[], $4::text[], $5::jsonb[], $6::bytea[])
        WITH ORDINALITY AS event (bucket, topic, key, headers, payload, position)
    ORDER BY position
"""


def _row(event: Event, store_id: UUID, source: str) -> tuple[int, str, str, str, bytes]:
    trace = traceparent_of(event.aggregate)
    envelope = envelope_of(event, store_id=store_id, source=source, traceparent=trace)
    payload = orjson.dumps(event.model_dump(mode="json"))
    if len(payload) > MAXIMUM_BYTES:
        # A record that no broker accepts would stop its bucket for ever; better to fail the command.
        raise ValueError(f"{event.type} is larger than a record may be")
    bucket = zlib.crc32(envelope.key.encode()) % BUCKETS
    return bucket, event.topic, envelope.key, orjson.dumps(headers_of(envelope)).decode(), payload


# The snapshot that reads the rows must be younger than the lock, so these are two statements.
_TAKE_BUCKETS = f"""
    WITH waiting AS MATERIALIZED (SELECT DISTINCT bucket FROM outbox WHERE sent_at IS NULL)
    SELECT bucket FROM waiting WHERE pg_try_advisory_xact_lock({_LOCK_CLASS}, bucket)
"""  # noqa: S608 - constants of this module
_UNSENT = """
    SELECT id, topic, key, headers, payload FROM outbox
    WHERE sent_at IS NULL AND bucket = ANY($1::smallint[]) ORDER BY id LIMIT $2
"""
# A mark that a crash of the server forgets is a record sent again, so nobody waits for the disk.
_MARK = """
    UPDATE outbox SET sent_at = now() FROM (SELECT set_config('synchronous_commit', 'off', true)) AS no_wait
    WHERE id = ANY($1::bigint[])
"""


class Relay:
    """Carries committed rows to the broker until it is cancelled; any number may run."""

    def __init__(self, database: Database, broker: Broker) -> None:
        self._database = database
        self._broker = broker
        self._known_cluster: str | None = None
        self._look_at_cluster_at = float("-inf")
        self._known_topics: set[str] = set()
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Sweep at every hint and at least once a second."""
        failures = 0
        async with Listener(self._database.url, CHANNEL) as hints:
            while not self._stopping.is_set():
                began, sent = time.monotonic(), 0
                try:
                    await self._notice_a_lost_broker()
                    sent = await self._sweep_all()
                    failures = 0
                except (BrokerError, Unavailable) as error:
                    failures += 1
                    self._look_at_cluster_at = float("-inf")
                    logger.warning("relay waits", extra={"error": type(error).__name__, "failures": failures})
                    await asyncio.sleep(min(5.0, 0.1 * 2**failures))
                await rest(began, done=sent)
                await hints.wait(_POLL_SECONDS)

    async def _sweep_all(self) -> int:
        sent = 0
        while batch := await self.sweep():
            sent += batch
            if batch < _BATCH:
                break
        return sent

    def stop(self) -> None:
        """Finish the batch in hand and return from `run`."""
        self._stopping.set()

    async def sweep(self) -> int:
        """Send one batch from every bucket nobody else holds. Returns how many events were sent."""
        async with self._database.transaction(ALL_STORES) as transaction:
            buckets = [row["bucket"] for row in await fetch(transaction, _TAKE_BUCKETS)]
            if not buckets:
                return 0
            rows = await fetch(transaction, _UNSENT, buckets, _BATCH)
            if rows:
                await self._ensure_topics({row["topic"] for row in rows})
                await self._broker.publish([_record(row) for row in rows])
                await fetch(transaction, _MARK, [row["id"] for row in rows])
            return len(rows)

    async def _ensure_topics(self, topics: set[str]) -> None:
        """A topic that nobody reads yet must not stop its bucket."""
        if missing := topics - self._known_topics:
            await self._broker.ensure_topics(sorted(missing))
            self._known_topics |= missing

    async def _notice_a_lost_broker(self) -> None:
        """A new cluster id means that the log lost everything: send again what is still kept."""
        if time.monotonic() < self._look_at_cluster_at:
            return
        cluster = await self._broker.cluster_id()
        self._look_at_cluster_at = time.monotonic() + _LOOK_AT_CLUSTER_EVERY
        if cluster == self._known_cluster:
            return
        self._known_topics.clear()
        async with self._database.platform_session() as session:
            seen = await session.get(BrokerSeen, 1, with_for_update=True)
            if seen is None:
                session.add(BrokerSeen(id=1, cluster_id=cluster))
            elif seen.cluster_id != cluster:
                seen.cluster_id = cluster
                again = await session.execute(
                    text("UPDATE outbox SET sent_at = NULL WHERE sent_at IS NOT NULL")
                )
                logger.error("the broker lost its log; publishing again", extra={"events": _count(again)})
        self._known_cluster = cluster


def _record(row: Any) -> Record:
    return Record(row["topic"], row["key"], row["payload"], row["headers"])


def _count(result: Any) -> int:
    return int(result.rowcount)


async def purge(database: Database) -> int:
    """Forget what was sent longer ago than any loss of the broker could need."""
    async with database.platform_session() as session:
        gone = await session.execute(
            text("DELETE FROM outbox WHERE sent_at < now() - make_interval(secs => :seconds)"),
            {"seconds": KEPT_FOR.total_seconds()},
        )
        return _count(gone)


async def backlog(database: Database) -> tuple[int, float]:
    """Events not yet sent, and the age of the oldest in seconds."""
    async with database.platform_session() as session:
        row = (
            await session.execute(
                text(
                    "SELECT count(*), coalesce(extract(epoch FROM now() - min(created_at)), 0) "
                    "FROM outbox WHERE sent_at IS NULL"
                )
            )
        ).one()
        return int(row[0]), float(row[1])
