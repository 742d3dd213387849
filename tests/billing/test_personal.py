"""A person's rights: what billing exports, what it erases, what the law makes it keep."""

import asyncio
from base64 import b64decode
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select

from deploy.local.waiting import until
from libs.common.events.orders import OrderCancelled, OrderPlaced
from libs.common.events.privacy import ExportedRecords, TaskIssued, Verb
from libs.common.personal.data import Sealed
from libs.common.personal.vocabulary import Purpose
from libs.common.worker import Work
from services.billing.consumer import PARTICIPANT
from services.billing.models import Invoice, Receivable
from tests.billing.conftest import CONTACT, TODAY, Shop

LAW = "Code de commerce, art. L123-22; GDPR, Art. 17(3)(b)"


@pytest.fixture(autouse=True)
def participant_environment(
    billing_environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """The participant reads its signing key from the environment when it first signs."""
    for name in ("BILLING_DATABASE_URL", "BILLING_SERVICE_KEY"):
        monkeypatch.setenv(name, billing_environment[name])
    yield


async def ask(shop: Shop, verb: Verb, subject_id: UUID) -> Any:
    """Issue a task and return the answer, if there is one yet."""
    request_id = uuid4()
    await shop.hears(TaskIssued(request_id=request_id, verb=verb, subject_id=subject_id, generation=1))
    return await answer_to(shop, request_id)


async def answer_to(shop: Shop, request_id: UUID) -> Any:
    return next(
        (
            data
            for type_, data in await shop.published()
            if type_.endswith("task-answered.v1") and data["request_id"] == str(request_id)
        ),
        None,
    )


async def rows_of(shop: Shop, order: OrderPlaced) -> tuple[Receivable, Invoice | None]:
    async with shop.database.session(shop.id) as session:
        receivable = await session.get_one(Receivable, order.order_id)
        return receivable, await session.scalar(select(Invoice).where(Invoice.order_id == order.order_id))


async def test_an_erasure_keeps_the_invoice_and_says_why_and_until_when(shop: Shop) -> None:
    paid = await shop.open_order()
    await shop.pay(paid)
    waiting = await shop.open_order(subject_id=paid.subject_id)
    answer = await ask(shop, Verb.ERASE, paid.subject_id)
    assert answer["outcome"] == "retained"
    assert answer["retained"] == [
        {
            "kind": "InvoiceContact",
            "retention": "accounting",
            "bucket": str(TODAY.year),
            "count": 1,
            "ground": LAW,
            "until": f"{TODAY.year + 10}-12-31",
        }
    ]
    receivable, _ = await rows_of(shop, waiting)
    assert (receivable.contact, receivable.subject_id, receivable.amount) == (None, None, 2500)
    _, invoice = await rows_of(shop, paid)
    assert invoice is not None
    assert invoice.contact is not None
    assert (await ask(shop, Verb.VERIFY_ERASED, paid.subject_id))["outcome"] == "done"


async def test_without_an_invoice_nothing_is_kept(shop: Shop) -> None:
    order = await shop.open_order()
    answer = await ask(shop, Verb.ERASE, order.subject_id)
    assert (answer["outcome"], answer["counts"], answer["retained"]) == ("done", {"receivable": 1}, [])
    assert (await ask(shop, Verb.ERASE, uuid4()))["outcome"] == "nothing-held"


async def test_an_order_can_still_be_paid_after_the_erasure(shop: Shop) -> None:
    order = await shop.open_order()
    await ask(shop, Verb.ERASE, order.subject_id)
    assert (await shop.pay(order)).status_code == 201
    _, invoice = await rows_of(shop, order)
    assert invoice is not None
    assert (invoice.contact, invoice.subject_id, invoice.total) == (None, None, order.total)
    assert (await ask(shop, Verb.VERIFY_ERASED, order.subject_id))["outcome"] == "done"


async def test_an_order_that_is_cancelled_after_the_erasure_is_void(shop: Shop) -> None:
    order = await shop.open_order()
    await ask(shop, Verb.ERASE, order.subject_id)
    await shop.hears(OrderCancelled(order_id=order.order_id))
    assert await shop.state_of(order) == "void"


async def test_an_erasure_racing_a_payment_leaves_an_invoice_it_knows_of_or_no_contact(shop: Shop) -> None:
    async def race() -> None:
        order = await shop.open_order()
        answer, paid = await asyncio.gather(ask(shop, Verb.ERASE, order.subject_id), shop.pay(order))
        assert paid.status_code == 201
        receivable, invoice = await rows_of(shop, order)
        assert invoice is not None
        assert (receivable.contact, receivable.subject_id) == (None, None)
        assert [one["count"] for one in answer["retained"]] == ([1] if invoice.contact is not None else [])
        assert (await ask(shop, Verb.VERIFY_ERASED, order.subject_id))["outcome"] == "done"

    await asyncio.gather(*(race() for _ in range(6)))


async def test_an_export_shows_invoices_with_their_lines(shop: Shop) -> None:
    paid = await shop.open_order()
    number = (await shop.pay(paid)).json()["invoice_number"]
    waiting = await shop.open_order(subject_id=paid.subject_id)
    records = await exported(shop, paid.subject_id)
    [invoice] = [record for record in records if record["table"] == "invoice"]
    assert (invoice["facts"]["number"], invoice["facts"]["total_amount"]) == (number, 2500)
    assert [line["title"] for line in invoice["facts"]["lines"]] == ["Green tea"]
    assert invoice["data"] == {"name": CONTACT.name, "address": CONTACT.address.model_dump()}
    contacts = [record["data"] for record in records if record["table"] == "receivable"]
    assert len(contacts) == 2
    assert [contact for contact in contacts if contact] == [CONTACT.model_dump()], (
        f"only what is not invoiced yet ({waiting.number}) has the contact of its order"
    )


async def exported(shop: Shop, subject_id: UUID) -> list[Any]:
    """What the privacy service finds in the chunks of an export."""
    request_id = uuid4()
    await shop.hears(TaskIssued(request_id=request_id, verb=Verb.EXPORT, subject_id=subject_id, generation=1))
    state = shop.app.state
    work = Work("billing", state.settings, state.database, None, state.vault, state.http)  # type: ignore[arg-type]

    async def answered() -> bool:
        await PARTICIPANT.export(work)
        return await answer_to(shop, request_id) is not None

    await until(answered, 10, "an export waits and nobody takes it up")
    vault = shop.keyring.vault("privacy")
    records: list[Any] = []
    for type_, chunk in await shop.published():
        if type_.endswith("export-chunk.v1") and chunk["request_id"] == str(request_id):
            opened = await vault.open(
                Sealed(ExportedRecords, b64decode(chunk["box"])),
                store_id=shop.id, subject_id=subject_id, purpose=Purpose.RIGHTS_OF_THE_PERSON,
            )  # fmt: skip
            records += opened.records
    return records
