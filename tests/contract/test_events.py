"""Every event that any service hears: unknown, undecodable, from a newer version, twice, late, about the erased.

The tests are made from the HANDLERS of the services and from one sample of each contract: a contract that somebody
handles and nobody has a sample of fails.
"""

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import import_module
from itertools import permutations
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest
from joserfc.jwk import ECKey
from sqlalchemy import text

from deploy.local.environment import SERVICES
from libs.common.auth import PLATFORM_STORE, Role
from libs.common.broker import Record
from libs.common.db import Database
from libs.common.events import Event, PersonalEvent, decode, envelope_of, headers_of
from libs.common.events.billing import PaymentReceived
from libs.common.events.catalog import OfferedVariant, ProductPublished, StockRefused, StockReserved
from libs.common.events.identity import (
    AccountContact,
    AccountEnded,
    EmailConfirmed,
    EmailRemoved,
    StoreClosed,
    StoreEnded,
    StoreOpened,
    StoreReopened,
)
from libs.common.events.orders import (
    OrderCancelled,
    OrderConfirmed,
    OrderFulfilled,
    OrderPlaced,
    OrderRefused,
)
from libs.common.events.privacy import (
    ClockStarted,
    ClockStopped,
    ClosingRemembered,
    DatabaseRestored,
    ExportChunk,
    ExportedRecords,
    KeysChanged,
    KeysDestroyed,
    KeysExpired,
    Outcome,
    ParticipantAnnounced,
    RowsCleaned,
    StoreCleaned,
    StoreErased,
    StoreKeysDestroyed,
    TaskAnswered,
    TaskIssued,
    Verb,
)
from libs.common.inbox import Consumer, Handlers
from libs.common.personal.answers import sign
from libs.common.personal.data import Sealed
from libs.common.personal.vocabulary import Clock, Retention
from libs.common.stores import keep
from services.identity.models import Store
from tests.contract.house import Furnished, House, Person, buy, furnish
from tests.deliveries import HandedOver, deliver
from tests.tokens import authorization

HANDLERS: Mapping[str, Handlers] = {
    service: import_module(f"services.{service}.consumer").HANDLERS for service in SERVICES
}


@dataclass(frozen=True)
class Story:
    """Somebody new who has just ordered, and asked for their data; no event of either has arrived anywhere."""

    store_id: UUID
    placed: OrderPlaced
    request_id: UUID
    catalog_key: ECKey
    closing_id: UUID
    """Another store, which may end without ending the one where everybody is."""

    @property
    def order_id(self) -> UUID:
        return self.placed.order_id

    @property
    def subject_id(self) -> UUID:
        return self.placed.subject_id

    @property
    def variant_id(self) -> UUID:
        return self.placed.lines[0].variant_id


def _address(story: Story) -> dict[str, Any]:
    """Of an account of the story's person; whoever had it before is named by another id."""
    return {
        "account_id": story.order_id,
        "alias_id": story.request_id,
        "subject_id": story.subject_id,
        "generation": 1,
        "alias_subject_id": story.request_id,
        "alias_generation": 1,
    }


def _published(story: Story) -> ProductPublished:
    variant = OfferedVariant(
        variant_id=story.variant_id, sku="PEN-2", title="Another pen", price=story.placed.total
    )
    return ProductPublished(product_id=story.order_id, handle="pen", title="Pen", variants=[variant])


def _answered(story: Story) -> TaskAnswered:
    answer = TaskAnswered(
        request_id=story.request_id,
        verb=Verb.EXPORT,
        participant="catalog",
        outcome=Outcome.NOTHING_HELD,
        version=2,
    )
    return sign(answer, store_id=story.store_id, key=story.catalog_key)


def _chunk(story: Story) -> ExportChunk:
    box = Sealed(ExportedRecords, story.placed.contact.payload)
    return ExportChunk(request_id=story.request_id, participant="catalog", sequence=0, box=box)


_AT = datetime(2026, 3, 1, tzinfo=UTC)


def _counted(story: Story) -> dict[str, Any]:
    return {
        "subject_id": story.subject_id,
        "generation": 1,
        "retention": Retention.ORDER,
        "bucket": str(story.order_id),
        "clock": Clock.ORDER_CANCELLED,
    }


def _cleaned(story: Story) -> RowsCleaned:
    answer = RowsCleaned(
        subject_id=story.subject_id,
        generation=1,
        retention=Retention.ORDER,
        bucket=str(story.order_id),
        participant="catalog",
    )
    return sign(answer, store_id=story.store_id, key=story.catalog_key)


SAMPLES: Mapping[type[Event], Callable[[Story], Event]] = {
    StoreOpened: lambda story: StoreOpened(
        store_id=story.store_id,
        slug=f"shop-{story.order_id}",
        name="Shop",
        country="FR",
        currency="EUR",
        version=2,
    ),
    EmailConfirmed: lambda story: EmailConfirmed(**_address(story)),
    EmailRemoved: lambda story: EmailRemoved(**_address(story)),
    ProductPublished: _published,
    OrderPlaced: lambda story: story.placed,
    OrderConfirmed: lambda story: OrderConfirmed(order_id=story.order_id),
    OrderRefused: lambda story: OrderRefused(order_id=story.order_id),
    OrderCancelled: lambda story: OrderCancelled(order_id=story.order_id),
    OrderFulfilled: lambda story: OrderFulfilled(order_id=story.order_id),
    StockReserved: lambda story: StockReserved(order_id=story.order_id),
    StockRefused: lambda story: StockRefused(order_id=story.order_id, short_variant_ids=[story.variant_id]),
    PaymentReceived: lambda story: PaymentReceived(
        order_id=story.order_id, payment_id=uuid4(), amount=story.placed.total
    ),
    # An erasure, since it changes most.
    TaskIssued: lambda story: TaskIssued(
        request_id=story.request_id, verb=Verb.ERASE, subject_id=story.subject_id, generation=1
    ),
    TaskAnswered: _answered,
    ExportChunk: _chunk,
    KeysDestroyed: lambda story: KeysDestroyed(subject_id=story.subject_id, generation=1),
    KeysChanged: lambda story: KeysChanged(subject_id=story.subject_id, generation=1),
    ClockStarted: lambda story: ClockStarted(**_counted(story), started_at=_AT),
    ClockStopped: lambda story: ClockStopped(**_counted(story), stopped_at=_AT + timedelta(days=1)),
    ClosingRemembered: lambda story: ClosingRemembered(
        subject_id=story.subject_id, generation=1, ends_at=_AT, version=2
    ),
    # Every service may have a letter for somebody.
    KeysExpired: lambda story: KeysExpired(
        subject_id=story.subject_id,
        generation=1,
        retention=Retention.CORRESPONDENCE,
        key_ids=[story.order_id],
    ),
    RowsCleaned: _cleaned,
    ParticipantAnnounced: lambda story: ParticipantAnnounced(
        participant="catalog", public_key=story.catalog_key.as_dict(private=False), data_map=[]
    ),
    DatabaseRestored: lambda story: DatabaseRestored(
        restoration_id=story.request_id, participant="catalog", taken_at=datetime.now(UTC)
    ),
    StoreClosed: lambda story: StoreClosed(store_id=story.closing_id, version=2),
    StoreReopened: lambda story: StoreReopened(store_id=story.closing_id, version=2),
    StoreEnded: lambda story: StoreEnded(store_id=story.closing_id, version=2),
    StoreKeysDestroyed: lambda story: StoreKeysDestroyed(store_id=story.closing_id),
    StoreCleaned: lambda story: sign(
        StoreCleaned(store_id=story.closing_id, participant="catalog"),
        store_id=story.closing_id,
        key=story.catalog_key,
    ),
    StoreErased: lambda story: StoreErased(store_id=story.closing_id),
    AccountEnded: lambda story: AccountEnded(
        account_id=story.order_id,
        subject_id=story.subject_id,
        generation=1,
        contact=Sealed(AccountContact, story.placed.contact.payload),
    ),
}
IN_MEMORY = frozenset({KeysDestroyed, KeysChanged})
"""What changes no row: opened keys are dropped where they are held, or asked for again."""
UNASKED = frozenset({RowsCleaned, ClosingRemembered})
"""An answer to what nobody has asked, and news of an account that is not there."""


def heard(*, by_contract: Callable[[type[Event]], bool] = lambda _: True) -> Any:
    """A test of its own for every event of every service's HANDLERS."""
    pairs = [(service, one) for service in SERVICES for one in HANDLERS[service] if by_contract(one)]
    return pytest.mark.parametrize(
        ("service", "contract"), pairs, ids=[f"{s}-{c.__name__}" for s, c in pairs]
    )


# --- A store, somebody in it, and a consumer -------------------------------------------------------------


@pytest.fixture(scope="module")
async def shop(house: House, merchant: Person, platform_environment: Mapping[str, str]) -> Furnished:
    """A store where catalog has announced itself, so that its answers are believed."""
    shop = await furnish(house, merchant)
    announced = ParticipantAnnounced(
        participant="catalog",
        public_key=_catalog_key(platform_environment).as_dict(private=False),
        data_map=[],
    )
    await deliver(HANDLERS["privacy"], house.database("privacy"), PLATFORM_STORE, announced)
    return shop


def _catalog_key(environment: Mapping[str, str]) -> ECKey:
    return ECKey.import_key(json.loads(environment["CATALOG_SERVICE_KEY"]))


@pytest.fixture
async def story(
    service: str, house: House, shop: Furnished, platform_environment: Mapping[str, str]
) -> Story:
    email, request_id = f"canary-{uuid4().hex}@vitrine.example", uuid4()
    if service == "privacy":
        subject_id = await house.apps["privacy"].state.vault.subject_id(shop.id, email)
        customer = authorization(shop.id, Role.CUSTOMER, subject=str(subject_id), generation=1)
        path, asked = f"/privacy/v1/stores/{shop.id}/requests", {"right": "access", "email": email}
        opened = await house.call("POST", path, json=asked, headers=customer, expect=201)
        request_id = UUID(opened["id"])
    order = await buy(house, shop.id, shop.objects["variant_id"], email)
    async with house.database("orders").session(shop.id) as session:
        row = (
            await session.execute(
                text("SELECT * FROM outbox WHERE key = :key"), {"key": f"{shop.id}:{order['id']}"}
            )
        ).one()
    placed = decode(Record(row.topic, row.key, row.payload, row.headers)).data
    assert isinstance(placed, OrderPlaced)
    closing_id = await _closing(house, service)
    return Story(shop.id, placed, request_id, _catalog_key(platform_environment), closing_id)


async def _closing(house: House, service: str) -> UUID:
    """A store that the service knows, and that identity has ended."""
    store_id = uuid4()
    facts = {"name": "Shop", "slug": f"closing-{store_id}", "country": "FR", "currency": "EUR", "version": 1}
    opened = StoreOpened.model_validate(facts | {"store_id": store_id})
    async with house.database(service).session(store_id) as session:
        await keep(session, opened)
        if service == "identity":
            session.add(Store(store_id=store_id, language="en", state="ended", **facts))
    return store_id


@dataclass(frozen=True)
class Hearer:
    """A service's consumer over its real database."""

    service: str
    database: Database

    async def hears(self, *records: Record) -> None:
        """Take one batch, to the end: it is always acknowledged."""
        batch = HandedOver(records)
        consumer = Consumer(
            service=self.service,
            database=self.database,
            broker=None,  # type: ignore[arg-type]
            handlers=HANDLERS[self.service],
        )
        await consumer._take([batch])  # pyright: ignore[reportPrivateUsage]
        assert batch.committed

    async def parked(self) -> list[tuple[str, bool]]:
        """Reason, and whether the key waits, of all that was set aside."""
        return [
            (row.reason, row.blocking)
            for row in await self._rows("SELECT reason, blocking FROM dead_event ORDER BY id")
        ]

    async def has_dealt_with(self, record: Record) -> bool:
        known = await self._rows(f"SELECT 1 FROM inbox WHERE event_id = '{record.headers['ce_id']}'")
        return len(known) == 1

    async def state(self, *, but: tuple[str, ...] = ()) -> dict[str, str]:
        """What every table holds, but for the inbox, which grows with every event."""
        found = await self._of_every_table("md5(coalesce(string_agg(row::text, '' ORDER BY row::text), ''))")
        return {table: held for table, held in found.items() if table not in {"inbox", "dead_event", *but}}

    async def mentions(self, subject_id: UUID) -> dict[str, int]:
        """How many rows of each table name the person."""
        return await self._of_every_table(f"count(*) FILTER (WHERE row::text LIKE '%{subject_id}%')")

    async def _of_every_table(self, what: str) -> dict[str, Any]:
        tables = await self._rows("SELECT relname FROM pg_stat_user_tables")
        queries = [f"SELECT '{name}' AS name, {what} AS value FROM {name} AS row" for (name,) in tables]
        return {row.name: row.value for row in await self._rows(" UNION ALL ".join(queries))}

    async def _rows(self, query: str) -> list[Any]:
        async with self.database.platform_session() as session:
            return list(await session.execute(text(query)))


@pytest.fixture
async def hearer(house: House, service: str) -> AsyncIterator[Hearer]:
    database = house.database(service)
    yield Hearer(service, database)
    async with database.platform_session() as session:
        await session.execute(text("DELETE FROM dead_event"))


def at(event: Event, story: Story) -> UUID:
    """The store that an event is of: of one that says how a store ends, that one."""
    is_closing = str(story.closing_id) == event.aggregate
    return story.closing_id if is_closing else story.store_id


def record(event: Event, store_id: UUID, value: bytes | None = None, **headers: str | None) -> Record:
    """A new record of the event, with a value or headers of another kind; None takes a header away."""
    envelope = envelope_of(event, store_id=store_id, source="test")
    changed = headers_of(envelope) | headers
    kept = {name: value for name, value in changed.items() if value is not None}
    content = orjson.dumps(event.model_dump(mode="json")) if value is None else value
    return Record(event.topic, envelope.key, content, kept)


def sample(contract: type[Event], story: Story) -> Record:
    event = SAMPLES[contract](story)
    return record(event, at(event, story))


def of_another_key(story: Story) -> Record:
    """An event that every service understands."""
    return record(KeysDestroyed(subject_id=uuid4(), generation=1), story.store_id)


# --- What is understood ----------------------------------------------------------------------------------


def test_every_contract_that_is_handled_has_a_sample() -> None:
    assert {contract for handlers in HANDLERS.values() for contract in handlers} == SAMPLES.keys()


@heard(by_contract=lambda contract: contract not in IN_MEMORY | UNASKED)
async def test_an_event_takes_effect_once(
    service: str, contract: type[Event], hearer: Hearer, story: Story
) -> None:
    before = await hearer.state()
    once = sample(contract, story)
    await hearer.hears(once)
    after = await hearer.state()
    assert after != before
    await hearer.hears(once, of_another_key(story), once)
    assert await hearer.state() == after
    assert await hearer.has_dealt_with(once) and await hearer.parked() == []


@heard()
async def test_what_a_newer_version_added_is_passed_over(
    service: str, contract: type[Event], hearer: Hearer, story: Story
) -> None:
    event = SAMPLES[contract](story)
    added = {"added_later": {"by": ["a newer version"]}}
    newer = record(event, at(event, story), orjson.dumps(event.model_dump(mode="json") | added))
    await hearer.hears(newer)
    assert await hearer.has_dealt_with(newer) and await hearer.parked() == []


@heard()
async def test_a_type_that_is_not_known_yet_is_set_aside_and_stops_nothing(
    service: str, contract: type[Event], hearer: Hearer, story: Story
) -> None:
    event, before = SAMPLES[contract](story), await hearer.state()
    for unknown in (contract.type.replace(".v1", ".v2"), "vitrine.nobody.never-heard-of.v1", "no type", ""):
        await hearer.hears(record(event, at(event, story), ce_type=unknown))
    assert await hearer.parked() == [("unknown-type", False)] * 4
    assert await hearer.state() == before
    known = sample(contract, story)
    await hearer.hears(known)
    assert await hearer.has_dealt_with(known)


def _undecodable(event: Event) -> Iterator[tuple[bytes | None, dict[str, str | None]]]:
    """Values and headers that make no event, the event's own fields and headers among them."""
    whole = event.model_dump(mode="json")
    for value in (b"", b"{", b"\xff\xfe", b"null", b"[]", b'"text"', b"{}", b"[" * 10_000):
        yield value, {}
    for name, field in type(event).model_fields.items():
        yield orjson.dumps(whole | {name: 3.7}), {}
        if field.is_required():
            yield orjson.dumps({other: value for other, value in whole.items() if other != name}), {}
            yield orjson.dumps(whole | {name: None}), {}
    for name in ("ce_id", "ce_source", "ce_type", "ce_time", "ce_store", "ce_subject"):
        yield None, {name: None}
    for name in ("ce_id", "ce_time", "ce_store"):
        yield None, {name: "no such thing"}


@heard()
async def test_what_cannot_be_decoded_is_set_aside_with_its_key_and_nothing_else_waits(
    service: str, contract: type[Event], hearer: Hearer, story: Story
) -> None:
    event, before = SAMPLES[contract](story), await hearer.state()
    broken = [record(event, at(event, story), value, **headers) for value, headers in _undecodable(event)]
    behind, other = sample(contract, story), of_another_key(story)
    await hearer.hears(*broken, behind, other)
    *undecodable, last = await hearer.parked()
    assert {reason for reason, _ in undecodable} == {"invalid-data", "invalid-envelope"}
    # What two publishers have in common is nobody's to block: whoever sends nonsense must not silence the other.
    blocks = {"invalid-envelope": True, "invalid-data": not contract.stands_alone}
    assert len(undecodable) == len(broken) and all(blocking is blocks[why] for why, blocking in undecodable)
    assert last == ("behind-another", True)
    assert await hearer.has_dealt_with(other) and not await hearer.has_dealt_with(behind)
    assert await hearer.state() == before


# --- Late, out of order, and about somebody who is gone --------------------------------------------------


def _pairs() -> list[tuple[str, type[Event], type[Event]]]:
    """Two events about one thing, in either order."""
    return [
        (service, first, second)
        for service in SERVICES
        for first, second in permutations(HANDLERS[service], 2)
        if first.key == second.key
    ]


@pytest.mark.parametrize(
    ("service", "first", "second"), _pairs(), ids=[f"{s}-{a.__name__}-{b.__name__}" for s, a, b in _pairs()]
)
async def test_events_in_any_order_stop_nothing_and_the_first_comes_to_nothing_the_second_time(
    service: str, first: type[Event], second: type[Event], hearer: Hearer, story: Story
) -> None:
    await hearer.hears(sample(first, story))
    await hearer.hears(sample(second, story))
    after = await hearer.state(but=("outbox",))
    # The same news under another id, as after a publisher's repair. Who asks again may be answered again.
    again = sample(first, story)
    await hearer.hears(again)
    assert await hearer.state(but=("outbox",)) == after
    assert await hearer.has_dealt_with(again) and await hearer.parked() == []


@heard()
async def test_a_step_back_changes_nothing(
    service: str, contract: type[Event], hearer: Hearer, story: Story
) -> None:
    event = SAMPLES[contract](story).model_copy(update={"version": 5})
    await hearer.hears(record(event, at(event, story)))
    after = await hearer.state(but=("outbox",))
    older = event.model_copy(
        update={"version": 4} | {name: "Older" for name in ("name", "title") if hasattr(event, name)}
    )
    late = record(older, at(event, story), ce_time="2026-01-01T00:00:00+00:00")
    await hearer.hears(late)
    assert await hearer.state(but=("outbox",)) == after
    assert await hearer.has_dealt_with(late) and await hearer.parked() == []


@heard()
async def test_nothing_about_an_erased_person_comes_back(
    service: str, contract: type[Event], hearer: Hearer, story: Story
) -> None:
    await hearer.hears(sample(TaskIssued, story))
    before, known = await hearer.state(), await hearer.mentions(story.subject_id)
    late = sample(contract, story)
    await hearer.hears(late)
    assert await hearer.has_dealt_with(late) and await hearer.parked() == []
    now_known = await hearer.mentions(story.subject_id)
    # What law keeps of somebody who is erased expires later, and what comes late for it is refused as well.
    assert {table for table, rows in now_known.items() if rows > known[table]} <= {"outbox", "expired_bucket"}
    if issubclass(contract, PersonalEvent):
        assert await hearer.state() == before
