"""On its day what was kept goes: keys, then rows, then somebody reads again; and nothing goes before."""

from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from libs.common.events.privacy import DatabaseRestored, KeysExpired, RowsCleaned
from libs.common.personal.errors import KeyDestroyed, PeriodOver
from libs.common.personal.keys import KeyringClient, Life
from libs.common.personal.participant import expiries
from libs.common.personal.restrictions import lift, restrict
from libs.common.personal.vocabulary import Clock, Length, Purpose
from services.privacy import redoing
from services.privacy.retention import expiring
from services.privacy.retention.periods import Choice
from tests.common.personal.shop import Invoice, Purchase, ShopContact
from tests.privacy.lasting import NOW, Lasting, kept_of, lasting

__all__ = ["lasting"]


# --- The day ---------------------------------------------------------------------------------------------


async def test_the_contact_of_a_cancelled_order_goes_after_ten_days_and_anothers_stays(
    lasting: Lasting,
) -> None:
    person = await lasting.person()
    cancelled, fulfilled = await lasting.purchase(person), await lasting.purchase(person)
    await lasting.start(person, Clock.ORDER_CANCELLED, cancelled)
    await lasting.start(person, Clock.ORDER_FULFILLED, fulfilled)
    lasting.now = datetime(2027, 3, 20, 22, 30, tzinfo=UTC)
    await lasting.settle()
    assert await lasting.live(person) == {("order", str(cancelled)), ("order", str(fulfilled))}
    # Midnight in Paris is an hour before midnight in UTC.
    lasting.now = datetime(2027, 3, 20, 23, 10, tzinfo=UTC)
    await lasting.settle()
    assert await lasting.live(person) == {("order", str(fulfilled))}
    assert await lasting.left(Purchase) == 1
    row = await lasting.row(person, cancelled)
    assert row is not None and row.state == "over" and row.over_at is not None
    [told] = await lasting.platform.published(KeysExpired)
    assert (told.retention, told.bucket, len(told.key_ids)) == ("order", str(cancelled), 1)


async def test_nothing_opens_and_nothing_is_sealed_any_more(lasting: Lasting) -> None:
    person = await lasting.person()
    order = await lasting.purchase(person)
    async with lasting.shop.database.session(lasting.store_id) as session:
        box = (await session.get_one(Purchase, order)).contact
    assert box is not None
    await lasting.start(person, Clock.ORDER_CANCELLED, order)
    lasting.later(days=12)
    await lasting.settle()
    lasting.shop.vault.drop(lasting.store_id, [person.subject_id])
    place: dict[str, Any] = {"store_id": lasting.store_id, "subject_id": person.subject_id}
    with pytest.raises(KeyDestroyed):
        await lasting.shop.vault.open(box, purpose=Purpose.FULFIL_ORDER, **place)
    contact = ShopContact(name="Canary", email=person.email)
    with pytest.raises(PeriodOver):
        await lasting.shop.vault.seal(contact, bucket=str(order), **place)
    assert (await lasting.shop.vault.seal(contact, bucket=str(uuid4()), **place)).generation == 1


async def test_an_invoice_goes_when_its_ten_years_are_over_though_its_person_was_erased(
    lasting: Lasting,
) -> None:
    person = await lasting.person()
    order = await lasting.purchase(person)
    await lasting.start(person, Clock.ORDER_FULFILLED, order)
    await lasting.invoice(person, 2027)
    await lasting.start(person, Clock.INVOICE_ISSUED, 2027)
    detail = await lasting.erase(person)
    law = "Code de commerce, art. L123-22; GDPR, Art. 17(3)(b)"
    kept = {(one["retention"], one["bucket"], one["until"], one["ground"]) for one in kept_of(detail)}
    assert ("accounting", "2027", "2037-12-31", law) in kept
    assert await lasting.left(Purchase) == 0 and await lasting.left(Invoice) == 1
    # Of what is gone nothing is counted any more.
    assert await lasting.row(person, order) is None
    for year in (2037, 2038):
        lasting.now = (
            datetime(year, 12, 31, 12, tzinfo=UTC) if year == 2037 else datetime(2038, 1, 1, 9, tzinfo=UTC)
        )
        await lasting.settle()
        assert await lasting.left(Invoice) == (1 if year == 2037 else 0), "on its last day it is kept"
    # The request itself could be disputed for three years.
    assert await lasting.live(person) == set()
    row = await lasting.row(person, 2027)
    assert row is not None and row.state == "over"


async def test_an_invoice_whose_clock_nobody_heard_goes_all_the_same(lasting: Lasting) -> None:
    person = await lasting.person()
    await lasting.invoice(person, 2020)
    await lasting.erase(person)
    lasting.now = datetime(2031, 1, 1, 9, tzinfo=UTC)
    await lasting.settle()
    assert await lasting.left(Invoice) == 0


# --- Clocks ----------------------------------------------------------------------------------------------


async def test_the_last_event_counts_and_an_older_version_changes_nothing(lasting: Lasting) -> None:
    person, order = await lasting.person(), uuid4()
    await lasting.start(person, Clock.ORDER_PAID, order, version=4)
    await lasting.start(person, Clock.ORDER_FULFILLED, order, version=5)
    await lasting.start(person, Clock.ORDER_PAID, order, at=lasting.now + timedelta(days=50), version=3)
    row = await lasting.row(person, order)
    assert row is not None and (row.clock, row.expires_on) == ("order-fulfilled", date(2029, 3, 10))


async def test_a_batch_of_events_in_any_order_comes_to_the_same(lasting: Lasting) -> None:
    person, orders = await lasting.person(), [uuid4(), uuid4()]
    for order, step in zip(orders, (1, -1), strict=True):
        events = [
            lasting.started(person, clock, order, version=version)
            for version, clock in enumerate((Clock.ORDER_CONFIRMED, Clock.ORDER_PAID, Clock.ORDER_FULFILLED))
        ]
        await lasting.platform.deliver(*events[::step])
        row = await lasting.row(person, order)
        assert row is not None and row.clock == "order-fulfilled"


async def test_an_account_that_is_opened_again_is_kept(lasting: Lasting) -> None:
    person = await lasting.person()
    await lasting.start(person, Clock.ACCOUNT_CLOSED, version=2)
    await lasting.platform.deliver(
        lasting.stopped(person, Clock.ACCOUNT_CLOSED, at=lasting.now + timedelta(days=1), version=3)
    )
    # A late one from before does not start it again.
    await lasting.start(person, Clock.ACCOUNT_CLOSED, version=2)
    lasting.later(days=400)
    await lasting.settle()
    row = await lasting.row(person)
    assert row is not None and (row.state, row.expires_on, row.due_at) == ("stopped", None, None)
    await lasting.start(person, Clock.ACCOUNT_CLOSED, version=4)
    row = await lasting.row(person)
    assert row is not None and row.state == "running"


async def test_what_is_written_after_an_expiry_has_a_period_of_its_own(lasting: Lasting) -> None:
    person = await lasting.person()
    await lasting.start(person, Clock.MESSAGE_SETTLED)
    lasting.later(days=367)
    await lasting.settle()
    row = await lasting.row(person)
    assert row is not None and row.state == "over"
    await lasting.start(person, Clock.MESSAGE_SETTLED)
    row = await lasting.row(person)
    assert row is not None and (row.state, row.expires_on) == (
        "running",
        lasting.now.date().replace(year=2029),
    )


async def test_what_is_written_while_keys_go_and_after_has_the_period_of_the_last(lasting: Lasting) -> None:
    person = await lasting.person()
    await lasting.start(person, Clock.MESSAGE_SETTLED)
    lasting.later(days=367)
    await lasting.tell()
    await lasting.expire()
    await lasting.start(person, Clock.MESSAGE_SETTLED)
    await lasting.settle()
    lasting.later(days=300)
    await lasting.start(person, Clock.MESSAGE_SETTLED)
    row = await lasting.row(person)
    assert row is not None and row.state == "running"
    assert row.expires_on == lasting.now.date().replace(year=2030), "a later letter, a later day"


async def test_an_event_for_what_is_over_changes_nothing(lasting: Lasting) -> None:
    person = await lasting.person()
    order = await lasting.purchase(person)
    await lasting.start(person, Clock.ORDER_CANCELLED, order, version=2)
    lasting.later(days=12)
    await lasting.settle()
    await lasting.start(person, Clock.ORDER_FULFILLED, order, version=9)
    row = await lasting.row(person, order)
    assert row is not None and row.state == "over"


INSTANTS = st.datetimes(datetime(2020, 1, 1), datetime(2060, 1, 1), timezones=st.just(UTC))
ZONES = st.sampled_from(
    ["UTC", "Europe/Paris", "Pacific/Kiritimati", "America/Los_Angeles", "America/Havana"]
)
_CHOSEN = st.dictionaries(
    st.just(Clock.ORDER_CANCELLED), st.builds(Length, st.integers(0, 12), st.sampled_from("DM"))
)


@given(INSTANTS, ZONES, _CHOSEN)
def test_the_day_is_the_stores_and_it_is_over_at_its_end(
    at: datetime, zone: str, lengths: dict[Clock, Length]
) -> None:
    choice = Choice(lengths, zone)
    day = choice.last_day(Clock.ORDER_CANCELLED, at)
    due = choice.due_at(day)
    assert choice.today(due - timedelta(microseconds=1)) == day
    assert choice.today(due) == day + timedelta(days=1)
    assert day == choice.length(Clock.ORDER_CANCELLED).after(choice.today(at))
    # Whatever the keyring's day is, in UTC, it is not before the last one.
    assert due.date() >= day


# --- What stops it ---------------------------------------------------------------------------------------


async def test_while_somebody_is_on_hold_no_timer_takes_anything(lasting: Lasting) -> None:
    person = await lasting.person()
    order = await lasting.purchase(person)
    await lasting.start(person, Clock.ORDER_CANCELLED, order)
    life = (lasting.store_id, person.subject_id, 1)
    async with lasting.platform.database.session(lasting.store_id) as session:
        await restrict(session, [life])
    lasting.later(days=100)
    await lasting.settle()
    assert await lasting.left(Purchase) == 1
    async with lasting.platform.database.session(lasting.store_id) as session:
        await lift(session, [life])
    await lasting.settle()
    assert await lasting.left(Purchase) == 0


async def test_a_restriction_that_only_the_keyring_knows_of_stops_it_too(lasting: Lasting) -> None:
    person = await lasting.person()
    order = await lasting.purchase(person)
    await lasting.start(person, Clock.ORDER_CANCELLED, order)
    keyring = lasting.platform.keyring.client("privacy")
    await keyring.restrict([Life(lasting.store_id, person.subject_id, 1)])
    lasting.later(days=12)
    await lasting.settle()
    row = await lasting.row(person, order)
    assert row is not None and row.state == "running" and await lasting.left(Purchase) == 1
    await keyring.lift([Life(lasting.store_id, person.subject_id, 1)])
    lasting.later(minutes=11)
    await lasting.settle()
    assert await lasting.left(Purchase) == 0


async def test_a_clock_that_is_ahead_of_the_keyrings_waits_for_it(lasting: Lasting) -> None:
    person = await lasting.person()
    order = await lasting.purchase(person)
    await lasting.start(person, Clock.ORDER_CANCELLED, order)
    lasting.later(days=12)
    keyring = lasting.platform.keyring
    real, keyring.today = keyring.today, NOW.date
    await lasting.settle()
    assert await lasting.left(Purchase) == 1
    keyring.today = real
    lasting.later(minutes=11)
    await lasting.settle()
    assert await lasting.left(Purchase) == 0


# --- Crashes ---------------------------------------------------------------------------------------------


class Dies(Exception):
    """What a crash looks like from within."""


async def dies(*_: Any, **__: Any) -> Any:
    raise Dies


@pytest.mark.parametrize(
    ("where", "what"),
    [
        (KeyringClient, "expire"),
        (KeyringClient, "status"),
        (KeyringClient, "destroy_expired"),
        (expiring, "_destroyed"),
        (expiring, "publish_all"),
        (expiries, "_conclude"),
        (expiries, "publish_all"),
    ],
)
async def test_a_crash_at_any_step_only_delays(
    lasting: Lasting, monkeypatch: pytest.MonkeyPatch, where: Any, what: str
) -> None:
    person = await lasting.person()
    gone, stays = await lasting.purchase(person), await lasting.purchase(person)
    await lasting.start(person, Clock.ORDER_CANCELLED, gone)
    lasting.later(days=12)
    with monkeypatch.context() as patch:
        patch.setattr(where, what, dies)
        with pytest.raises(Dies):
            await lasting.settle()
    row = await lasting.row(person, gone)
    assert row is not None and row.state != "over"
    # The leases of whoever died run out.
    lasting.later(minutes=2)
    await run_out(lasting)
    await lasting.settle()
    row = await lasting.row(person, gone)
    assert row is not None and row.state == "over" and len(row.key_ids) == 1
    assert await lasting.live(person) == {("order", str(stays))}
    assert await lasting.left(Purchase) == 1
    [answer] = await lasting.of_shop(RowsCleaned)
    assert answer.bucket == str(gone)


async def run_out(lasting: Lasting) -> None:
    async with lasting.shop.database.platform_session() as session:
        await session.execute(text("UPDATE expired_bucket SET next_try_at = now() - interval '1 hour'"))


async def test_a_destruction_whose_answer_was_lost_is_not_asked_for_in_vain(
    lasting: Lasting, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = await lasting.person()
    order = await lasting.purchase(person)
    await lasting.start(person, Clock.ORDER_CANCELLED, order)
    lasting.later(days=12)
    destroy = KeyringClient.destroy_expired

    async def and_dies(self: KeyringClient, expiries: Any) -> Any:
        await destroy(self, expiries)
        raise Dies

    with monkeypatch.context() as patch:
        patch.setattr(KeyringClient, "destroy_expired", and_dies)
        with pytest.raises(Dies):
            await lasting.settle()
    assert await lasting.live(person) == set()
    lasting.later(minutes=2)
    await lasting.settle()
    row = await lasting.row(person, order)
    assert row is not None and row.state == "over"
    assert len(row.key_ids) == 1, "what was destroyed is looked for, whoever heard of it"


async def test_who_does_not_answer_is_told_again_until_they_do(lasting: Lasting) -> None:
    person = await lasting.person()
    order = await lasting.purchase(person)
    await lasting.start(person, Clock.ORDER_CANCELLED, order)
    lasting.later(days=12)
    await lasting.tell()
    await lasting.expire()
    for _ in range(4):
        lasting.later(hours=1)
        await lasting.remind()
        await expiring.finish(lasting.work)
    assert len(await lasting.platform.published(KeysExpired)) == 5
    row = await lasting.row(person, order)
    assert row is not None and (row.state, row.waiting) == ("cleaning", ["test-shop"])
    await lasting.settle()
    row = await lasting.row(person, order)
    assert row is not None and row.state == "over"


async def test_an_answer_that_somebody_else_signed_is_not_believed(lasting: Lasting) -> None:
    person = await lasting.person()
    order = await lasting.purchase(person)
    await lasting.start(person, Clock.ORDER_CANCELLED, order)
    lasting.later(days=12)
    await lasting.tell()
    await lasting.expire()
    forged = RowsCleaned(
        subject_id=person.subject_id, generation=1, retention="order", bucket=str(order),  # type: ignore[arg-type]
        participant="test-shop", signature="e30..e30",
    )  # fmt: skip
    await lasting.platform.deliver(forged)
    row = await lasting.row(person, order)
    assert row is not None and row.waiting == ["test-shop"]


async def test_after_a_restored_backup_rows_are_cleaned_again(lasting: Lasting) -> None:
    person = await lasting.person()
    order = await lasting.purchase(person)
    async with lasting.shop.database.session(lasting.store_id) as session:
        box = (await session.get_one(Purchase, order)).contact
    await lasting.start(person, Clock.ORDER_CANCELLED, order)
    lasting.later(days=12)
    await lasting.settle()
    async with lasting.shop.database.session(lasting.store_id) as session:
        (await session.get_one(Purchase, order)).contact = box
        await session.execute(text("DELETE FROM expired_bucket"))
    assert await lasting.left(Purchase) == 1
    told = DatabaseRestored(
        restoration_id=uuid4(), participant="test-shop", taken_at=lasting.now - timedelta(days=1)
    )
    await lasting.platform.deliver(told)
    await redoing.compare(lasting.work)
    lasting.later(minutes=1)
    await lasting.remind()
    await lasting.settle()
    assert await lasting.left(Purchase) == 0


async def test_what_is_long_over_is_forgotten(lasting: Lasting) -> None:
    person = await lasting.person()
    order = await lasting.purchase(person)
    await lasting.start(person, Clock.ORDER_CANCELLED, order)
    lasting.later(days=12)
    await lasting.settle()
    lasting.later(days=31)
    await expiring.purge(lasting.work)
    assert await lasting.row(person, order) is None
