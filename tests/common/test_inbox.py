"""Events arrive once, in order per key; poison is contained; nothing is acknowledged that is not done."""

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.broker import Record
from libs.common.db import Database
from libs.common.errors import Unavailable
from libs.common.events import Event, PersonalEvent, Received, envelope_of, headers_of
from libs.common.inbox import (
    BatchHandler,
    Consumer,
    Handler,
    InboxRow,
    _runs,  # pyright: ignore[reportPrivateUsage]
    batched,
)
from libs.common.personal.tombstones import bury
from tests.common.conftest import Common
from tests.deliveries import HandedOver


class Noted(Event, type="vitrine.testing.noted.v1", topic="testing.notes", key="note_id"):
    note_id: UUID
    number: int


class SomebodyNoted(
    PersonalEvent, type="vitrine.testing.somebody-noted.v1", topic="testing.notes", key="subject_id"
):
    number: int = 0


class Handled:
    """A handler that writes what it handled into the database, so that a rollback takes it back."""

    def __init__(self) -> None:
        self.failing: set[int] = set()
        self.outage = False

    async def __call__(self, session: AsyncSession, event: Received[Any]) -> None:
        await session.execute(
            text("INSERT INTO effect (subject, number) VALUES (:subject, :number)"),
            {"subject": event.envelope.subject, "number": event.data.number},
        )
        if event.data.number in self.failing:
            raise RuntimeError("poison")
        if self.outage:
            raise Unavailable


def consumer(common: Common, handler: Handler | BatchHandler) -> Consumer:
    handlers = {Noted: handler, SomebodyNoted: handler}
    return Consumer(service="testing", database=common.database, broker=None, handlers=handlers)  # type: ignore[arg-type]


def record(event: Event, store_id: UUID) -> Record:
    envelope = envelope_of(
        event, store_id=store_id, source="testing", traceparent=f"00-{'a' * 32}-{'b' * 16}-01"
    )
    return Record(event.topic, envelope.key, event.model_dump_json().encode(), headers_of(envelope), 0, 1)


async def effects(database: Database, subject: UUID) -> list[int]:
    async with database.platform_session() as session:
        found = await session.execute(
            text("SELECT number FROM effect WHERE subject = :subject ORDER BY id"), {"subject": str(subject)}
        )
        return [int(row[0]) for row in found]


async def parked(database: Database) -> list[tuple[str, str, int]]:
    async with database.platform_session() as session:
        found = await session.execute(text("SELECT key, reason, attempts FROM dead_event ORDER BY id"))
        return [(row[0], row[1], row[2]) for row in found]


@pytest.fixture
def handled() -> Handled:
    return Handled()


async def take(one: Consumer, *records: Record) -> HandedOver:
    batch = HandedOver(records)
    await one._take([batch])  # pyright: ignore[reportPrivateUsage]
    return batch


async def test_each_event_takes_effect_once(common: Common, handled: Handled) -> None:
    note = uuid4()
    one = consumer(common, handled)
    records = [record(Noted(note_id=note, number=n), common.store_id) for n in range(3)]
    assert (await take(one, *records)).committed
    assert (await take(one, *records, records[0])).committed
    assert await effects(common.database, note) == [0, 1, 2]


async def test_poison_is_parked_with_its_reason_and_other_keys_go_on(
    common: Common, handled: Handled
) -> None:
    bad, good = uuid4(), uuid4()
    handled.failing = {1}
    one = consumer(common, handled)
    batch = await take(
        one,
        record(Noted(note_id=bad, number=1), common.store_id),
        record(Noted(note_id=good, number=5), common.store_id),
        record(Noted(note_id=bad, number=2), common.store_id),
    )
    assert batch.committed
    assert await effects(common.database, good) == [5]
    assert await effects(common.database, bad) == []
    key = f"{common.store_id}:{bad}"
    assert await parked(common.database) == [(key, "RuntimeError", 3), (key, "behind-another", 0)]


async def test_parked_events_are_driven_again_in_their_order(common: Common, handled: Handled) -> None:
    note = uuid4()
    handled.failing = {1}
    one = consumer(common, handled)
    await take(one, *(record(Noted(note_id=note, number=n), common.store_id) for n in (1, 2, 3)))
    assert await one.redrive(everything=True) == 0
    assert await effects(common.database, note) == []
    handled.failing = set()
    assert await one.redrive(everything=True) == 3
    assert await effects(common.database, note) == [1, 2, 3]
    assert await parked(common.database) == []


async def test_a_later_event_of_a_parked_key_waits_in_a_later_batch_too(
    common: Common, handled: Handled
) -> None:
    note = uuid4()
    handled.failing = {1}
    one = consumer(common, handled)
    await take(one, record(Noted(note_id=note, number=1), common.store_id))
    await take(one, record(Noted(note_id=note, number=2), common.store_id))
    assert [reason for _, reason, _ in await parked(common.database)] == ["RuntimeError", "behind-another"]


async def test_a_replay_of_what_was_handled_meanwhile_changes_nothing(
    common: Common, handled: Handled
) -> None:
    note = uuid4()
    one = consumer(common, handled)
    first = record(Noted(note_id=note, number=1), common.store_id)
    await take(one, first)
    async with common.database.platform_session() as session:
        await session.execute(
            text(
                "INSERT INTO dead_event (topic, key, partition, position, headers, value, blocking, reason, attempts)"
                " VALUES ('t', :key, 0, 0, CAST(:headers AS jsonb), :value, true, 'manual', 1)"
            ),
            {"key": first.key, "headers": json.dumps(dict(first.headers)), "value": first.value},
        )
    assert await one.redrive(everything=True) == 1
    assert await effects(common.database, note) == [1]


async def test_an_outage_acknowledges_nothing_and_parks_nothing(common: Common, handled: Handled) -> None:
    handled.outage = True
    batch = HandedOver([record(Noted(note_id=uuid4(), number=1), common.store_id)])
    with pytest.raises(Unavailable):
        await consumer(common, handled)._take([batch])  # pyright: ignore[reportPrivateUsage]
    assert not batch.committed
    assert await parked(common.database) == []


@pytest.mark.parametrize(
    ("value", "changed", "reason", "blocks"),
    [
        (b"{", {}, "invalid-data", True),
        (b"\xff\xfe", {}, "invalid-data", True),
        (b'{"note_id": "no"}', {}, "invalid-data", True),
        (b"{}", {"ce_id": "no uuid"}, "invalid-envelope", True),
        (b"{}", {"ce_type": "vitrine.testing.never-heard-of.v1"}, "unknown-type", False),
        (b"{}", {"ce_type": "vitrine.testing.noted.v2"}, "unknown-type", False),
    ],
)
async def test_what_is_no_event_is_parked_and_stops_at_most_its_key(
    common: Common, handled: Handled, value: bytes, changed: dict[str, str], reason: str, blocks: bool
) -> None:
    note, other = uuid4(), uuid4()
    good = record(Noted(note_id=note, number=1), common.store_id)
    bad = Record(good.topic, good.key, value, {**good.headers, "ce_id": str(uuid4()), **changed})
    one = consumer(common, handled)
    batch = await take(one, bad, good, record(Noted(note_id=other, number=7), common.store_id))
    assert batch.committed
    assert (await parked(common.database))[0][1] == reason
    assert await effects(common.database, note) == ([] if blocks else [1])
    assert await effects(common.database, other) == [7]


async def test_a_field_a_newer_publisher_added_is_ignored(common: Common, handled: Handled) -> None:
    note = uuid4()
    plain = record(Noted(note_id=note, number=1), common.store_id)
    newer = Record(plain.topic, plain.key, plain.value.replace(b"{", b'{"added": true, ', 1), plain.headers)
    await take(consumer(common, handled), newer)
    assert await effects(common.database, note) == [1]


async def test_an_event_about_an_erased_person_is_refused_and_a_new_generation_is_not(
    common: Common, handled: Handled
) -> None:
    person = uuid4()
    async with common.database.platform_session() as session:
        await bury(session, [(common.store_id, person, 1)])
    one = consumer(common, handled)
    await take(
        one,
        record(SomebodyNoted(subject_id=person, generation=1, number=1), common.store_id),
        record(SomebodyNoted(subject_id=person, generation=2, number=2), common.store_id),
    )
    assert await effects(common.database, person) == [2]
    assert await parked(common.database) == []


async def test_a_handler_for_several_gets_runs_of_one_type_and_store(common: Common) -> None:
    runs: list[list[int]] = []

    @batched
    async def several(session: AsyncSession, events: Sequence[Received[Any]]) -> None:
        runs.append([event.data.number for event in events])

    here, there = common.store_id, uuid4()
    await take(
        consumer(common, several),
        *(record(Noted(note_id=uuid4(), number=n), here) for n in (1, 2)),
        record(Noted(note_id=uuid4(), number=3), there),
        record(Noted(note_id=uuid4(), number=4), here),
    )
    assert runs == [[1, 2, 4], [3]]


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from([Noted, SomebodyNoted]), st.booleans()), max_size=30
    )
)
def test_runs_keep_the_order_of_every_key_and_mix_neither_types_nor_stores(
    steps: list[tuple[str, type[Event], bool]],
) -> None:
    @batched
    async def several(session: AsyncSession, events: Sequence[Received[Any]]) -> None: ...

    stores = {False: UUID(int=1), True: UUID(int=2)}
    events: list[Received[Event]] = []
    for number, (key, kind, store) in enumerate(steps):
        event: Any = Noted(note_id=UUID(int=3), number=number)
        if kind is SomebodyNoted:
            event = SomebodyNoted(subject_id=UUID(int=4), generation=1, number=number)
        envelope = envelope_of(event, store_id=stores[store], source="test")
        events.append(Received(event, envelope, Record("testing.notes", f"{stores[store]}:{key}", b"")))
    runs = _runs(events, {Noted: several, SomebodyNoted: several})
    handled = [event for run in runs for event in run]
    for key in {event.record.key for event in events}:
        assert [one for one in handled if one.record.key == key] == [
            one for one in events if one.record.key == key
        ]
    assert len(handled) == len(events)
    for run in runs:
        assert len({(type(one.data), one.envelope.store_id) for one in run}) == 1


async def test_a_handler_sees_the_rows_of_the_events_store_only(common: Common) -> None:
    seen: list[str] = []

    async def look(session: AsyncSession, event: Received[Any]) -> None:
        seen.append(str((await session.execute(text("SELECT current_setting('app.store')"))).scalar_one()))

    stores = [uuid4(), uuid4()]
    await take(consumer(common, look), *(record(Noted(note_id=uuid4(), number=1), store) for store in stores))
    assert seen == [str(store) for store in stores]


async def test_what_a_handler_leaves_to_the_session_is_written_in_the_events_store(common: Common) -> None:
    notes, calls = {uuid4(): uuid4() for _ in range(2)}, list[UUID]()

    async def leave(session: AsyncSession, event: Received[Any]) -> None:
        calls.append(event.data.note_id)
        session.add(InboxRow(event_id=event.data.note_id, store_id=event.envelope.store_id))

    await take(
        consumer(common, leave), *(record(Noted(note_id=note, number=1), notes[note]) for note in notes)
    )
    async with common.database.platform_session() as session:
        left = text("SELECT event_id, store_id FROM inbox WHERE event_id = ANY(:notes)")
        rows = await session.execute(left, {"notes": list(notes)})
        assert {row.event_id: row.store_id for row in rows} == notes
    assert calls == list(notes), "the batch is not taken apart"


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    numbers=st.lists(st.integers(0, 5), min_size=1, max_size=12),
    cuts=st.lists(st.integers(1, 4), min_size=1, max_size=6),
    failing=st.sets(st.integers(0, 5), max_size=2),
)
async def test_any_batches_failures_and_redeliveries_end_in_each_effect_once_in_order(
    common: Common, numbers: list[int], cuts: list[int], failing: set[int]
) -> None:
    note, handled = uuid4(), Handled()
    handled.failing = failing
    one = consumer(common, handled)
    records = [record(Noted(note_id=note, number=n), common.store_id) for n in numbers]
    position = 0
    for cut in cuts * len(records):
        await take(one, *records[max(0, position - 1) : position + cut])
        position += cut
    handled.failing = set()
    await one.redrive(everything=True)
    assert await effects(common.database, note) == numbers
    assert await parked(common.database) == []


class Silent:
    """A broker with nothing to read."""

    async def ensure_topics(self, topics: Sequence[str]) -> None: ...

    @asynccontextmanager
    async def subscribe(self, group: str, topics: Sequence[str]) -> AsyncGenerator["Silent"]:
        yield self

    def __aiter__(self) -> "Silent":
        return self

    def ready(self) -> Sequence[HandedOver]:
        return []

    async def __anext__(self) -> HandedOver:
        await asyncio.Event().wait()
        raise AssertionError("nothing ever comes")


async def test_an_idle_consumer_stops_at_once(common: Common, handled: Handled) -> None:
    silent: Any = Silent()
    one = Consumer(service="testing", database=common.database, broker=silent, handlers={Noted: handled})
    running = asyncio.create_task(one.run())
    one.stop()
    async with asyncio.timeout(5):
        await running
