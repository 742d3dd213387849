"""Whom an invoice is for goes with its year; whom money was expected from, with the order."""

from collections.abc import Iterator, Mapping
from uuid import uuid4

import pytest

from libs.common.events.orders import OrderPlaced
from libs.common.events.privacy import KeysExpired
from libs.common.inbox import Consumer
from libs.common.personal.vocabulary import Retention
from libs.common.worker import Work
from services.billing.consumer import HANDLERS, PARTICIPANT
from tests.billing.conftest import Shop
from tests.deliveries import HandedOver, received


@pytest.fixture(autouse=True)
def signs(billing_environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("BILLING_DATABASE_URL", "BILLING_SERVICE_KEY"):
        monkeypatch.setenv(name, billing_environment[name])
    yield
    PARTICIPANT.__dict__.pop("key", None)


def expired(order: OrderPlaced, retention: Retention, bucket: str) -> KeysExpired:
    return KeysExpired(
        subject_id=order.subject_id, generation=order.generation, retention=retention, bucket=bucket
    )


async def clean(work: Work) -> None:
    while await PARTICIPANT.clean(work):
        pass


async def test_an_invoice_past_its_time_is_a_figure(shop: Shop) -> None:
    order = await shop.open_order()
    paid = (await shop.pay(order)).json()
    year = paid["invoice_number"].partition("-")[0]
    await shop.hears(expired(order, Retention.ACCOUNTING, year))
    await clean(shop.work)
    invoice = await shop.get(f"invoices/{paid['invoice_id']}")
    assert (invoice["buyer"], invoice["total"]) == (None, order.total.model_dump())
    [cleaned] = [data for name, data in await shop.published() if "rows-cleaned" in name]
    assert cleaned["counts"] == {"invoice": 1}


async def test_an_order_that_expired_takes_its_contact_from_here_too(shop: Shop) -> None:
    order = await shop.open_order()
    await shop.hears(expired(order, Retention.ORDER, str(order.order_id)))
    await clean(shop.work)
    assert (await shop.pay(order)).status_code == 201, "money that comes late is booked all the same"
    [cleaned] = [data for name, data in await shop.published() if "rows-cleaned" in name]
    assert cleaned["counts"] == {"receivable": 1}
    assert not [one for one, _ in await shop.published() if "clock-started" in one], (
        "nobody is invoiced by name"
    )


async def test_an_order_that_is_heard_of_after_it_expired_is_refused(shop: Shop) -> None:
    late, other = await shop.placed(), await shop.placed()
    await shop.hears(expired(late, Retention.ORDER, str(late.order_id)))
    consumer = Consumer(
        service="billing",
        database=shop.database,
        broker=None,  # type: ignore[arg-type]
        handlers=HANDLERS,
    )
    records = [received(event, shop.id).record for event in (late, other)]
    await consumer._take([HandedOver(records)])  # pyright: ignore[reportPrivateUsage]
    known = [one["order_id"] for one in (await shop.get("receivables"))["items"]]
    assert known == [str(other.order_id)]


async def test_the_same_order_of_somebody_else_is_another(shop: Shop) -> None:
    order = await shop.open_order()
    stranger = order.model_copy(update={"subject_id": uuid4()})
    await shop.hears(expired(stranger, Retention.ORDER, str(order.order_id)))
    await clean(shop.work)
    assert not [one for one, data in await shop.published() if "rows-cleaned" in one and data["counts"]]
