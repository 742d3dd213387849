"""While a person's data is on hold: money still arrives, invoices wait for their buyer, and nothing is rewritten."""

from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID, uuid4

import pytest

from libs.common.auth import Role
from libs.common.events.orders import OrderPlaced
from libs.common.events.privacy import Correction, Proposal, TaskIssued, Verb
from libs.common.personal.vocabulary import Category
from services.billing.consumer import PARTICIPANT
from services.billing.service import complete_invoices
from tests.billing.conftest import CONTACT, Shop, authorization
from tests.billing.test_personal import answer_to, ask, exported

BUYER = {"name": CONTACT.name, "address": CONTACT.address.model_dump()}


@pytest.fixture(autouse=True)
def participant_environment(
    billing_environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """The participant reads its signing key from the environment when it first signs."""
    for name in ("BILLING_DATABASE_URL", "BILLING_SERVICE_KEY"):
        monkeypatch.setenv(name, billing_environment[name])
    yield


async def paid_on_hold(shop: Shop) -> tuple[OrderPlaced, Any]:
    """An order whose money came while its person was on hold, and the answer to who booked it."""
    order = await shop.open_order()
    await shop.restrict(order.subject_id)
    answer = await shop.pay(order)
    assert answer.status_code == 201, answer.text
    return order, answer.json()


async def invoice_of(shop: Shop, booked: Any) -> Any:
    return await shop.get(f"invoices/{booked['invoice_id']}")


async def test_money_for_a_person_on_hold_is_booked_and_the_invoice_waits_for_its_buyer(shop: Shop) -> None:
    order, booked = await paid_on_hold(shop)
    assert await shop.state_of(order) == "paid"
    invoice = await invoice_of(shop, booked)
    assert (invoice["buyer"], invoice["on_hold"]) == (None, True)
    await complete_invoices(shop.work)
    assert (await invoice_of(shop, booked))["on_hold"] is True
    await shop.lift(order.subject_id)
    await complete_invoices(shop.work)
    invoice = await invoice_of(shop, booked)
    assert (invoice["buyer"], invoice["on_hold"]) == (BUYER, False)
    kept = [one for one in await exported(shop, order.subject_id) if one["table"] == "receivable"]
    assert [one["data"] for one in kept] == [None], "the contact is kept once"


async def test_an_invoice_that_waits_gets_no_buyer_once_they_are_erased(shop: Shop) -> None:
    order, booked = await paid_on_hold(shop)
    await shop.erase(order.subject_id)
    await ask(shop, Verb.ERASE, order.subject_id)
    await complete_invoices(shop.work)
    invoice = await invoice_of(shop, booked)
    assert (invoice["buyer"], invoice["on_hold"]) == (None, False)
    checked = await ask(shop, Verb.VERIFY_ERASED, order.subject_id)
    assert checked["outcome"] == "done"


async def test_whoever_is_on_hold_buys_again_and_is_invoiced(shop: Shop) -> None:
    old, booked = await paid_on_hold(shop)
    new = await shop.open_order(subject_id=old.subject_id)
    answer = await shop.pay(new)
    invoice = await invoice_of(shop, answer.json())
    assert (invoice["buyer"], invoice["on_hold"]) == (BUYER, False)
    assert (await invoice_of(shop, booked))["on_hold"] is True


async def test_no_route_fails_for_a_person_on_hold(shop: Shop) -> None:
    order = await shop.open_order()
    booked = (await shop.pay(order)).json()
    await shop.restrict(order.subject_id)
    customer = {"subject": str(order.subject_id), "generation": 1}
    for path in ("receivables", "ledger/balances", "ledger/entries", f"orders/{order.order_id}/receivable"):
        await shop.get(path)
    for path in ("invoices", f"invoices/{booked['invoice_id']}"):
        await shop.get(path)
        await shop.get(path, role=Role.CUSTOMER, **customer)


async def rectify(shop: Shop, subject_id: UUID, **corrections: Any) -> Any:
    return await done(shop, await asked(shop, subject_id, **corrections))


async def asked(shop: Shop, subject_id: UUID, **corrections: Any) -> TaskIssued:
    request_id = uuid4()
    proposal = Proposal(
        corrections=tuple(
            Correction(category=Category[one], value=value) for one, value in corrections.items()
        )
    )
    sealed = await shop.keyring.vault("privacy").seal(
        proposal, store_id=shop.id, subject_id=subject_id, bucket=str(request_id)
    )
    return TaskIssued(
        request_id=request_id, verb=Verb.RECTIFY, subject_id=subject_id, generation=1, proposal=sealed.box
    )


async def done(shop: Shop, task: TaskIssued) -> Any:
    await shop.hears(task)
    await PARTICIPANT.rectify(shop.work)
    return await answer_to(shop, task.request_id)


async def test_an_invoice_is_not_rewritten_and_shows_its_correction(shop: Shop) -> None:
    order = await shop.open_order()
    booked = (await shop.pay(order)).json()
    answer = await rectify(shop, order.subject_id, NAME="Canary, née Buyer")
    assert (answer["outcome"], answer["counts"], answer["beside"]) == ("done", {}, {"invoice": 1})
    invoice = await invoice_of(shop, booked)
    assert invoice["buyer"] == BUYER
    [correction] = invoice["corrections"]
    assert (correction["name"], correction["address"]) == ("Canary, née Buyer", None)
    customer = {"subject": str(order.subject_id), "generation": 1}
    own = await shop.get(f"invoices/{booked['invoice_id']}", role=Role.CUSTOMER, **customer)
    assert own["corrections"] == [correction]
    other = await shop.client.get(
        f"{shop.path}/invoices/{booked['invoice_id']}",
        headers=authorization(shop.id, Role.CUSTOMER, subject=str(uuid4()), generation=1),
    )
    assert other.status_code == 404
    tables = [one["table"] for one in await exported(shop, order.subject_id)]
    assert sorted(tables) == ["invoice", "invoice_correction", "receivable"]


async def test_of_corrections_that_are_done_again_the_last_one_is_the_last_word(shop: Shop) -> None:
    """After a restore the topics bring them back in any order, and then they are asked for in the right one."""
    order = await shop.open_order()
    booked = (await shop.pay(order)).json()
    first, last = [await asked(shop, order.subject_id, NAME=f"Canary {name}") for name in ("First", "Last")]
    await done(shop, last)
    await done(shop, first)
    for again in (first, last):
        await done(shop, again.model_copy(update={"round": 2}))
    shown = [one["name"] for one in (await invoice_of(shop, booked))["corrections"]]
    assert shown == ["Canary First", "Canary Last"]


async def test_corrections_are_kept_as_long_as_their_invoice_and_read_like_it(shop: Shop) -> None:
    order = await shop.open_order()
    booked = (await shop.pay(order)).json()
    await rectify(
        shop, order.subject_id, ADDRESS={"line1": "2 Canary Street", "city": "Lyon", "country": "FR"}
    )
    await shop.restrict(order.subject_id)
    held = await invoice_of(shop, booked)
    assert (held["buyer"], held["corrections"], held["on_hold"]) == (None, [], True)
    await shop.erase(order.subject_id)
    erased = await ask(shop, Verb.ERASE, order.subject_id)
    assert sorted(kept["kind"] for kept in erased["retained"]) == ["CorrectedInvoice", "InvoiceContact"]


async def test_what_is_not_invoiced_yet_is_corrected_itself(shop: Shop) -> None:
    order = await shop.open_order()
    answer = await rectify(shop, order.subject_id, NAME="Canary Corrected")
    assert (answer["counts"], answer["beside"]) == ({"receivable": 1}, {})
    invoice = await invoice_of(shop, (await shop.pay(order)).json())
    assert invoice["buyer"]["name"] == "Canary Corrected"
