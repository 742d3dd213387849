"""A participant cleans what is past its time, in batches, reads again, and refuses what comes late."""

from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select, text

from libs.common.events import PersonalEvent
from libs.common.events.privacy import KeysExpired, RowsCleaned
from libs.common.inbox import Consumer, batched
from libs.common.mail import Letter, WaitingLetter
from libs.common.personal import expiry
from libs.common.personal.answers import check
from libs.common.personal.data import Sealed
from libs.common.personal.vocabulary import Retention
from tests.common.personal.conftest import PUBLIC_KEY, Shop, received
from tests.common.personal.shop import Invoice, Member, Purchase, ShopProfile


def expired(subject_id: UUID, retention: Retention, bucket: Any = "", *key_ids: UUID) -> KeysExpired:
    return KeysExpired(
        subject_id=subject_id, generation=1, retention=retention, bucket=str(bucket), key_ids=list(key_ids)
    )


async def hear(shop: Shop, *events: KeysExpired) -> None:
    async with shop.database.session(shop.store_id) as session:
        await shop.participant.on_expired(session, [received(one, shop.store_id) for one in events])


async def clean(shop: Shop, *events: KeysExpired) -> list[RowsCleaned]:
    """Hear of what expired and clean it; what was answered to it."""
    before = len(await shop.published(RowsCleaned))
    await hear(shop, *events)
    while await shop.participant.clean(shop.work):
        pass
    return (await shop.published(RowsCleaned))[before:]


async def purchases(shop: Shop, subject_id: UUID) -> list[Purchase]:
    async with shop.database.session(shop.store_id) as session:
        rows = await session.scalars(select(Purchase).where(Purchase.subject_id == subject_id))
        return list(rows.all())


# --- Cleaning --------------------------------------------------------------------------------------------


async def test_one_bucket_is_emptied_and_everything_else_stays(made_shop: Shop) -> None:
    somebody, other = uuid4(), uuid4()
    gone, stays = await made_shop.purchase(somebody), await made_shop.purchase(somebody)
    await made_shop.purchase(other)
    await made_shop.invoice(somebody)
    [answer] = await clean(made_shop, expired(somebody, Retention.ORDER, gone))
    assert (answer.participant, answer.bucket, answer.counts) == ("test-shop", str(gone), {"purchase": 1})
    check(received(answer, made_shop.store_id), public_key=PUBLIC_KEY)
    rows = {row.id: row for row in await purchases(made_shop, somebody)}
    assert (rows[gone].contact, rows[gone].email_index, rows[gone].version) == (None, None, 2)
    assert rows[stays].contact is not None and rows[stays].email_index is not None
    assert [row.contact is None for row in await purchases(made_shop, other)] == [False]
    assert await made_shop.count(Invoice) == 1


async def test_what_no_column_assigns_to_the_bucket_is_found_by_its_key(made_shop: Shop) -> None:
    somebody = uuid4()
    await made_shop.purchase(somebody)
    await made_shop.member(somebody, ShopProfile(handle=f"canary-{somebody}"))
    # Both lie under the key of orders from before these had keys of their own.
    [[key]] = await made_shop.keyring.client("privacy").status([(made_shop.store_id, somebody)])
    [answer] = await clean(made_shop, expired(somebody, Retention.ORDER, "", key.key_id))
    assert answer.counts == {"purchase": 1, "member": 1}
    async with made_shop.database.session(made_shop.store_id) as session:
        members = (await session.scalars(select(Member))).all()
    assert [(one.profile, one.handle_index) for one in members] == [(None, None)]
    assert [row.contact for row in await purchases(made_shop, somebody)] == [None]


async def test_a_year_of_accounting_goes_and_the_next_stays(made_shop: Shop) -> None:
    somebody = uuid4()
    await made_shop.invoice(somebody)
    assert [one.counts for one in await clean(made_shop, expired(somebody, Retention.ACCOUNTING, 2025))] == [
        {}
    ]
    [answer] = await clean(made_shop, expired(somebody, Retention.ACCOUNTING, 2026))
    assert answer.counts == {"invoice": 1}


async def test_of_letters_those_under_the_key_go_and_newer_ones_are_sent(made_shop: Shop) -> None:
    somebody, old, new = uuid4(), uuid4(), uuid4()
    async with made_shop.database.session(made_shop.store_id) as session:
        for key_id, kind in ((old, Letter), (new, Letter)):
            box = Sealed(kind, bytes([1]) + key_id.bytes + bytes(60))
            session.add(
                WaitingLetter(
                    store_id=made_shop.store_id, subject_id=somebody, generation=1, kind=kind.__name__,
                    box=box.payload,
                )
            )  # fmt: skip
    [answer] = await clean(made_shop, expired(somebody, Retention.CORRESPONDENCE, "", old))
    assert answer.counts == {"waiting_letter": 1}
    async with made_shop.database.session(made_shop.store_id) as session:
        boxes = (await session.scalars(text("SELECT box FROM waiting_letter"))).all()
    assert [bytes(box)[1:17] for box in boxes] == [new.bytes]


async def test_a_retention_that_nothing_is_held_for_is_not_answered(made_shop: Shop) -> None:
    assert await clean(made_shop, expired(uuid4(), Retention.DESK)) == []
    assert await made_shop.count(expiry.ExpiredBucket) == 0


async def test_many_rows_go_in_many_transactions(made_shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiry, "ROWS", 3)
    somebody = uuid4()
    orders = [await made_shop.purchase(somebody) for _ in range(10)]
    batches: list[int] = []
    clean_one = expiry.Cleaning.clean

    async def counted(self: expiry.Cleaning, *arguments: Any) -> dict[int, int]:
        found = await clean_one(self, *arguments)
        if self.holding.name == "purchase":
            batches.append(sum(found.values()))
        return found

    monkeypatch.setattr(expiry.Cleaning, "clean", counted)
    answers = await clean(made_shop, *(expired(somebody, Retention.ORDER, order) for order in orders))
    assert sum(one.counts["purchase"] for one in answers) == 10
    assert batches == [3, 3, 3, 1, 0]


async def test_a_row_that_somebody_holds_is_passed_over_and_cleaned_before_it_is_answered(
    made_shop: Shop,
) -> None:
    somebody = uuid4()
    locked, free = await made_shop.purchase(somebody), await made_shop.purchase(somebody)
    asked = [expired(somebody, Retention.ORDER, order) for order in (locked, free)]
    async with made_shop.database.session(made_shop.store_id) as session:
        await session.execute(text("SELECT FROM purchase WHERE id = :id FOR UPDATE"), {"id": locked})
        answers = await clean(made_shop, *asked)
        assert [one.bucket for one in answers] == [str(free)]
    async with made_shop.database.session(made_shop.store_id) as session:
        await session.execute(text("UPDATE expired_bucket SET next_try_at = now()"))
    assert await made_shop.participant.clean(made_shop.work) == 0
    assert [one.bucket for one in await made_shop.published(RowsCleaned)] == [str(free), str(locked)]
    assert [row.contact for row in await purchases(made_shop, somebody)] == [None, None]


async def test_a_box_that_nobody_declared_is_found_when_it_is_read_again(
    made_shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    somebody = uuid4()
    order = await made_shop.purchase(somebody)
    [row] = await purchases(made_shop, somebody)
    assert row.contact is not None
    key_id = row.contact.key_id
    # Somebody keeps a copy in a column that the declarations know as something else.
    async with made_shop.database.session(made_shop.store_id) as session:
        await session.execute(text("UPDATE purchase SET email_index = contact WHERE id = :id"), {"id": order})
    monkeypatch.setattr(expiry.Cleaning, "left", nothing_left)
    monkeypatch.setattr(expiry.Cleaning, "clean", nothing_left)
    assert await clean(made_shop, expired(somebody, Retention.ORDER, order, key_id)) == []


async def nothing_left(*_: Any) -> dict[int, int]:
    return {}


# --- Again, and late -------------------------------------------------------------------------------------


async def test_what_is_told_again_is_answered_again_and_cleaned_once(made_shop: Shop) -> None:
    somebody = uuid4()
    order = await made_shop.purchase(somebody)
    told = expired(somebody, Retention.ORDER, order, uuid4())
    [first] = await clean(made_shop, told)
    [second] = await clean(made_shop, told)
    assert (second.bucket, second.counts) == (first.bucket, first.counts) == (str(order), {"purchase": 1})
    check(received(second, made_shop.store_id), public_key=PUBLIC_KEY)
    # Keys that nobody knew of are a reason to look again.
    [third] = await clean(made_shop, expired(somebody, Retention.ORDER, order, uuid4()))
    assert third.counts == {}


class Bought(PersonalEvent, type="vitrine.shop.bought.v1", topic="shop.purchases", key="order_id"):
    """Somebody bought something."""

    order_id: UUID

    @property
    def place(self) -> tuple[str, str]:
        return Retention.ORDER, str(self.order_id)


async def test_an_event_that_comes_late_for_what_is_over_is_refused(made_shop: Shop) -> None:
    somebody, over, fresh = uuid4(), uuid4(), uuid4()
    heard: list[UUID] = []

    @batched
    async def on_bought(_: Any, events: Any) -> None:
        heard.extend(event.data.order_id for event in events)

    def bought(order_id: UUID, generation: int = 1) -> Bought:
        return Bought(order_id=order_id, subject_id=somebody, generation=generation)

    await hear(made_shop, expired(somebody, Retention.ORDER, over))
    consumer = Consumer(
        service="test-shop",
        database=made_shop.database,
        broker=None,  # type: ignore[arg-type]
        handlers={Bought: on_bought},
    )
    events = [received(one, made_shop.store_id) for one in (bought(over), bought(fresh), bought(over, 2))]
    async with made_shop.database.platform_session() as session:
        await consumer._handle(session, events)  # pyright: ignore[reportPrivateUsage]
    # The same order under another generation is another's: an id is no person.
    assert heard == [fresh, over]


async def test_what_no_event_can_come_for_any_more_is_forgotten(made_shop: Shop) -> None:
    somebody = uuid4()
    await clean(made_shop, expired(somebody, Retention.ORDER, uuid4()))
    await expiry.purge(made_shop.database, kept_seconds=3600)
    assert await made_shop.count(expiry.ExpiredBucket) == 1
    async with made_shop.database.session(made_shop.store_id) as session:
        await session.execute(text("UPDATE expired_bucket SET cleaned_at = now() - interval '2 hours'"))
    await expiry.purge(made_shop.database, kept_seconds=3600)
    assert await made_shop.count(expiry.ExpiredBucket) == 0
