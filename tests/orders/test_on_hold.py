"""While a person's data is on hold: their orders say so, and they can buy as anyone else."""

from typing import Any
from uuid import UUID, uuid4

import pytest

from libs.common.auth import Role
from libs.common.events.billing import PaymentReceived
from libs.common.events.privacy import Correction, Proposal, TaskIssued, Verb
from libs.common.money import Money
from libs.common.personal.keys import Life, Objection
from libs.common.personal.vocabulary import Category, Purpose
from libs.common.worker import Work
from services.orders.consumer import PARTICIPANT
from tests.orders.conftest import Ordered, Shop, authorization, new_email

pytestmark = pytest.mark.usefixtures("signs")


async def restrict(shop: Shop, email: str) -> UUID:
    subject_id = await shop.vault.subject_id(shop.id, email)
    await shop.keyring.client("privacy").restrict([Life(shop.id, subject_id, 1)])
    shop.vault.drop(shop.id, [subject_id])
    return subject_id


async def lift(shop: Shop, email: str) -> None:
    subject_id = await shop.vault.subject_id(shop.id, email)
    await shop.keyring.client("privacy").lift([Life(shop.id, subject_id, 1)])
    shop.vault.drop(shop.id, [subject_id])


async def pay(shop: Shop, order: Ordered) -> None:
    total = Money.model_validate(order.receipt["total"])
    await shop.hears(PaymentReceived(order_id=order.id, payment_id=uuid4(), amount=total))


async def ask(shop: Shop, task: TaskIssued) -> Any:
    await shop.hears(task)
    state = shop.app.state
    work = Work("orders", state.settings, state.database, None, state.vault, state.http)  # type: ignore[arg-type]
    await PARTICIPANT.rectify(work)
    answers = [data for name, data in await shop.told() if name == "task-answered"]
    return next((one for one in answers if one["request_id"] == str(task.request_id)), None)


def asked(verb: Verb, subject_id: UUID, **more: Any) -> TaskIssued:
    return TaskIssued(request_id=uuid4(), verb=verb, subject_id=subject_id, generation=1, **more)


async def test_whoever_is_on_hold_buys_again_and_gets_it_and_a_lift_shows_everything(shop: Shop) -> None:
    email = new_email()
    old = await shop.confirmed(email=email)
    await restrict(shop, email)
    new = await shop.confirmed(email=email)
    await pay(shop, new)
    assert (await shop.fulfil(new)).status_code == 201
    seen, held = await shop.see(new), await shop.see(old)
    assert (seen["state"], seen["on_hold"], seen["contact"]["email"]) == ("fulfilled", False, email)
    assert (held["on_hold"], held["contact"]) == (True, None)
    await lift(shop, email)
    for order in (old, new):
        seen = await shop.see(order)
        assert (seen["on_hold"], seen["contact"]["email"]) == (False, email)


async def test_no_route_fails_for_an_order_on_hold(shop: Shop) -> None:
    email = new_email()
    on_delivery = await shop.confirmed(email=email, payment_method="payment_on_delivery")
    open_order, paid = await shop.order(email=email), await shop.confirmed(email=email)
    await restrict(shop, email)
    customer = await shop.customer(email)
    staff = authorization(shop.id, Role.SUPPORT)
    for headers in (customer, staff, on_delivery.headers):
        held = await shop.client.get(f"{shop.path}/orders/{on_delivery.id}", headers=headers)
        assert (held.status_code, held.json()["on_hold"]) == (200, True)
    for headers in (customer, staff):
        assert (await shop.client.get(f"{shop.path}/orders", headers=headers)).status_code == 200
    cancelled = await shop.client.post(
        f"{shop.path}/orders/{open_order.id}/cancel", headers=open_order.headers
    )
    assert cancelled.status_code == 200
    await pay(shop, paid)
    for order in (on_delivery, paid):
        assert (await shop.fulfil(order)).status_code == 201


async def test_an_objection_to_the_use_itself_shows_as_on_hold(shop: Shop) -> None:
    order = await shop.order()
    subject_id = await shop.vault.subject_id(shop.id, order.email)
    objection = Objection(shop.id, subject_id, 1, Purpose.FULFIL_ORDER)
    await shop.keyring.client("privacy").object([objection])
    shop.vault.drop(shop.id, [subject_id])
    seen = await shop.see(order)
    assert (seen["on_hold"], seen["contact"]) == (True, None)


@pytest.mark.parametrize(
    ("payment_method", "step", "says"),
    [
        ("bank_transfer", "placed", False),
        ("bank_transfer", "confirmed", False),
        ("bank_transfer", "paid", True),
        ("payment_on_delivery", "placed", False),
        ("payment_on_delivery", "confirmed", True),
        ("bank_transfer", "fulfilled", False),
    ],
)
async def test_a_preview_says_that_goods_are_still_to_leave(
    shop: Shop, payment_method: str, step: str, says: bool
) -> None:
    order = await (shop.order if step == "placed" else shop.confirmed)(payment_method=payment_method)
    if step in {"paid", "fulfilled"}:
        await pay(shop, order)
    if step == "fulfilled":
        assert (await shop.fulfil(order)).status_code == 201
    subject_id = await shop.vault.subject_id(shop.id, order.email)
    answer = await ask(shop, asked(Verb.PREVIEW, subject_id))
    assert (answer["outcome"], answer["counts"]) == ("done", {"orders": 1})
    assert answer["obligations"] == (["order-under-way"] if says else [])


async def test_an_order_is_recognised_by_its_number(shop: Shop) -> None:
    order, other = await shop.order(), await shop.order()
    subject_id = await shop.vault.subject_id(shop.id, order.email)
    for number, outcome in ((order.receipt["number"], "done"), (other.receipt["number"], "nothing-held")):
        answer = await ask(shop, asked(Verb.RECOGNISE, subject_id, order_number=number))
        assert (answer["outcome"], answer["counts"]) == (outcome, {})


async def test_a_correction_reaches_every_order_and_the_search_of_the_staff(shop: Shop) -> None:
    old, new = new_email(), new_email()
    order = await shop.order(email=old)
    await restrict(shop, old)
    subject_id = await shop.vault.subject_id(shop.id, old)
    task = asked(Verb.RECTIFY, subject_id)
    proposal = Proposal(corrections=(Correction(category=Category.EMAIL, value=new),))
    sealed = await shop.keyring.vault("privacy").seal(
        proposal, store_id=shop.id, subject_id=subject_id, bucket=str(task.request_id)
    )
    answer = await ask(shop, task.model_copy(update={"proposal": sealed.box}))
    assert (answer["outcome"], answer["counts"]) == ("done", {"orders": 1})
    assert (await shop.see(order))["on_hold"] is True
    await lift(shop, old)
    assert (await shop.see(order))["contact"]["email"] == new
    index = await shop.vault.blind_index(shop.id, "email", new)
    assert await shop.scalar(
        "SELECT email_index = :index FROM orders WHERE id = :id", index=index, id=order.id
    )
