import asyncio
from email.utils import parseaddr
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from libs.common.auth import Role
from libs.common.db import Database
from libs.common.mail import Letter, render
from libs.common.personal.data import Sealed
from libs.common.personal.keys import Erasure
from libs.common.personal.tombstones import bury
from libs.common.personal.vocabulary import Purpose
from tests.orders.conftest import ADDRESS, Shop, contact, new_email
from tests.privacy.keyring.conftest import RunningKeyring
from tests.tokens import authorization


async def test_a_guest_checks_out(shop: Shop) -> None:
    email = new_email()
    cart = await shop.cart({shop.tea: 2, shop.cup: 1})
    answer = await shop.check_out(cart, email)
    assert answer.status_code == 201
    receipt = answer.json()
    assert answer.headers["Location"] == f"{shop.path}/orders/{receipt['id']}"
    assert answer.headers["Cache-Control"] == "no-store"
    assert receipt["number"] == "1001"
    assert receipt["state"] == "placed"
    assert receipt["total"] == {"amount": 2100, "currency": "EUR"}
    seen = await shop.client.get(answer.headers["Location"], headers={"Order-Secret": receipt["view_secret"]})
    assert seen.status_code == 200
    assert seen.json()["contact"]["email"] == email
    assert [line["quantity"] for line in seen.json()["lines"]] == [2, 1]


async def test_what_is_told_of_an_order(shop: Shop) -> None:
    order = await shop.order(lines={shop.tea: 2})
    [(name, placed)] = await shop.told(order)
    assert name == "order-placed"
    assert placed["subject_id"] == str(await shop.vault.subject_id(shop.id, order.email))
    assert (placed["generation"], placed["version"], placed["number"]) == (1, 1, "1001")
    assert placed["lines"] == [
        {
            "variant_id": str(shop.tea), "sku": "Gre", "title": "Green tea", "quantity": 2,
            "unit_price": {"amount": 450, "currency": "EUR"},
        }
    ]  # fmt: skip
    assert order.email not in str(placed)


async def test_the_received_order_is_confirmed_by_mail(shop: Shop, keyring: RunningKeyring) -> None:
    order = await shop.order(lines={shop.tea: 2}, language="fr", payment_method="payment_on_delivery")
    box = await shop.scalar("SELECT box FROM waiting_letter")
    assert order.email.encode() not in box
    letter = await shop.vault.open(
        Sealed(Letter, box),
        store_id=shop.id,
        subject_id=await shop.vault.subject_id(shop.id, order.email),
        purpose=Purpose.SERVICE_MAIL,
    )
    assert parseaddr(letter.to)[1] == order.email
    subject, body = render("orders", letter.template, letter.language, letter.values)
    assert subject == "Nous avons bien reçu votre commande 1001"
    assert "2 × Green tea: 9,00\xa0€" in body
    assert "Vous payez à la livraison." in body


async def test_the_mail_speaks_the_language_of_the_store(
    app: Any, client: Any, keyring: RunningKeyring
) -> None:
    shop = await Shop(app, client, keyring).open(language="fr-BE")
    order = await shop.order()
    letter = await shop.vault.open(
        Sealed(Letter, await shop.scalar("SELECT box FROM waiting_letter")),
        store_id=shop.id,
        subject_id=await shop.vault.subject_id(shop.id, order.email),
        purpose=Purpose.SERVICE_MAIL,
    )
    assert letter.language == "fr"
    _, english = render("orders", letter.template, "en", letter.values)
    assert "bank transfer" in english
    assert "give 1001 as its reference" in english


async def test_numbers_count_per_store(shop: Shop) -> None:
    baskets = [await shop.cart({shop.tea: 1}) for _ in range(10)]
    answers = await asyncio.gather(*(shop.check_out(cart, new_email()) for cart in baskets))
    assert sorted(answer.json()["number"] for answer in answers) == [str(n) for n in range(1001, 1011)]
    other = await Shop(shop.app, shop.client, shop.keyring).open()
    assert (await other.order()).receipt["number"] == "1001"


# --- Once ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keys", ["none", "same", "different"])
async def test_one_order_however_often_the_button_is_pressed(shop: Shop, keys: str) -> None:
    cart, email, same = await shop.cart({shop.tea: 1}), new_email(), uuid4().hex
    given = {"none": lambda: None, "same": lambda: same, "different": lambda: uuid4().hex}[keys]
    answers = await asyncio.gather(*(shop.check_out(cart, email, key=given()) for _ in range(20)))
    assert {answer.status_code for answer in answers} <= {201, 409}
    created = [answer for answer in answers if answer.status_code == 201]
    assert created
    assert len({answer.content for answer in created}) == 1
    assert await shop.scalar("SELECT count(*) FROM orders") == 1
    assert [name for name, _ in await shop.told()] == ["order-placed"]
    assert await shop.scalar("SELECT count(*) FROM waiting_letter") == 1


async def test_the_same_key_for_another_order_is_refused(shop: Shop) -> None:
    cart, key = await shop.cart({shop.tea: 1}), uuid4().hex
    assert (await shop.check_out(cart, new_email(), key=key)).status_code == 201
    reused = await shop.check_out(cart, new_email(), key=key)
    assert reused.status_code == 422
    assert reused.json()["type"] == "/problems/idempotency-key-reused"


async def test_no_secret_is_kept_with_the_reply(shop: Shop) -> None:
    order = await shop.order()
    cart = await shop.cart({shop.tea: 1})
    answer = await shop.check_out(cart, new_email(), key=uuid4().hex)
    reply = await shop.scalar("SELECT convert_from(reply, 'UTF8') FROM idempotency_record")
    assert answer.json()["view_secret"] not in reply
    assert cart.secret not in reply
    stored = await shop.scalar("SELECT orders::text FROM orders WHERE id = :id", id=order.id)
    assert order.receipt["view_secret"].encode().hex() not in stored


async def test_a_checked_out_cart_is_closed(shop: Shop) -> None:
    cart = await shop.cart({shop.tea: 1})
    order = (await shop.check_out(cart, new_email())).json()
    for quantity in (0, 3):
        closed = await shop.put(cart, shop.tea, quantity)
        assert closed.status_code == 409
        assert closed.json()["type"] == "/problems/cart-closed"
    view = await shop.client.get(f"{shop.path}/carts/{cart.id}", headers=cart.headers)
    assert view.json()["order_id"] == order["id"]


async def test_a_press_during_a_change_orders_one_or_the_other(shop: Shop) -> None:
    for _ in range(10):
        cart = await shop.cart({shop.tea: 1})
        placed, changed = await asyncio.gather(shop.check_out(cart, new_email()), shop.put(cart, shop.tea, 7))
        assert placed.status_code == 201
        seen = await shop.client.get(
            placed.headers["Location"], headers={"Order-Secret": placed.json()["view_secret"]}
        )
        assert seen.json()["lines"][0]["quantity"] == (7 if changed.status_code == 200 else 1)


# --- What is refused -------------------------------------------------------------------------------------


async def test_an_empty_cart_is_no_order(shop: Shop) -> None:
    answer = await shop.check_out(await shop.cart(), new_email())
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/cart-empty")


async def test_what_is_no_longer_for_sale_is_not_ordered(shop: Shop) -> None:
    cart = await shop.cart({shop.tea: 1, shop.cup: 1})
    await shop.hears(shop.product(version=2, cup=None))
    answer = await shop.check_out(cart, new_email())
    assert answer.status_code == 422
    assert answer.json()["variant_ids"] == [str(shop.cup)]
    await shop.put(cart, shop.cup, 0)
    assert (await shop.check_out(cart, new_email())).status_code == 201


async def test_a_price_that_changed_is_agreed_on_again(shop: Shop) -> None:
    cart = await shop.cart({shop.tea: 1})
    shown = {"amount": 450, "currency": "EUR"}
    await shop.hears(shop.product(version=2, tea=500))
    refused = await shop.check_out(cart, new_email(), expected_total=shown)
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/price-changed")
    agreed = await shop.check_out(cart, new_email(), expected_total=shown | {"amount": 500})
    assert agreed.status_code == 201


@pytest.mark.parametrize(
    "changes",
    [
        {"contact": None},
        {"contact": contact("not-an-address")},
        {"contact": contact("a@vitrine.example") | {"name": ""}},
        {"contact": contact("a@vitrine.example") | {"name": "x" * 201}},
        {"contact": contact("a@vitrine.example") | {"address": ADDRESS | {"country": "France"}}},
        {"contact": contact("a@vitrine.example") | {"phone": "1"}},
        {"payment_method": "card"},
        {"language": "de"},
        {"cart_id": "1"},
        {"subject_id": str(uuid4())},
    ],
)
async def test_a_bad_checkout_repeats_nothing(shop: Shop, changes: dict[str, Any]) -> None:
    answer = await shop.check_out(await shop.cart({shop.tea: 1}), "canary@vitrine.example", **changes)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert "Canary" not in answer.text
    assert "not-an-address" not in answer.text


async def test_a_refused_checkout_names_nobody(shop: Shop, keyring: RunningKeyring) -> None:
    """A stranger cannot fill the keyring with stores and people that do not exist."""
    before = await _people(keyring.database)
    cart = await shop.cart()
    stranger = {"cart_id": str(uuid4()), "contact": contact(new_email()), "payment_method": "bank_transfer"}
    answer = await shop.client.post(
        f"/orders/v1/stores/{uuid4()}/orders", json=stranger, headers=cart.headers
    )
    assert answer.status_code == 404
    assert await _people(keyring.database) == before


async def _people(database: Database) -> int:
    async with database.platform_session() as session:
        return await session.scalar(text("SELECT count(*) FROM subject")) or 0


async def test_the_keyring_away_means_later_and_nothing_changed(shop: Shop, keyring: RunningKeyring) -> None:
    placed_cart, cart = await shop.cart({shop.tea: 1}), await shop.cart({shop.tea: 1})
    placed = await shop.check_out(placed_cart, new_email())
    await keyring.stop()
    try:
        refused = await shop.check_out(cart, new_email())
        again = await shop.check_out(placed_cart, new_email())
        browsing = await shop.put(cart, shop.tea, 3)
    finally:
        await keyring.start()
    assert refused.status_code == 503
    assert refused.headers["Retry-After"]
    assert (again.status_code, again.content) == (201, placed.content)
    assert browsing.status_code == 200
    assert await shop.scalar("SELECT count(*) FROM orders") == 1
    assert (await shop.check_out(cart, new_email())).status_code == 201


# --- Who orders ------------------------------------------------------------------------------------------


async def test_guest_and_account_are_one_person(shop: Shop) -> None:
    email = new_email()
    guest = await shop.order(email=email.upper().replace("@VITRINE.EXAMPLE", "@vitrine.example"))
    customer = await shop.customer(email)
    signed_in = await shop.order(email=new_email(), headers=customer)
    listed = await shop.client.get(f"{shop.path}/orders", headers=customer)
    assert [order["id"] for order in listed.json()["items"]] == [str(signed_in.id), str(guest.id)]


async def test_staff_may_order_for_somebody(shop: Shop) -> None:
    order = await shop.order(headers=authorization(shop.id, Role.SUPPORT))
    listed = await shop.client.get(f"{shop.path}/orders", headers=await shop.customer(order.email))
    assert [one["id"] for one in listed.json()["items"]] == [str(order.id)]


async def test_tokens_of_other_stores_and_bad_ones_are_refused(shop: Shop) -> None:
    cart = await shop.cart({shop.tea: 1})
    foreign = await shop.check_out(cart, new_email(), headers=authorization(uuid4(), Role.CUSTOMER))
    assert (foreign.status_code, foreign.json()["type"]) == (404, "/problems/not-found")
    bad = await shop.check_out(cart, new_email(), headers={"Authorization": "Bearer nonsense"})
    assert bad.status_code == 401
    expired = authorization(shop.id, Role.CUSTOMER, subject=str(uuid4()), exp=1)
    assert (await shop.check_out(cart, new_email(), headers=expired)).status_code == 401


# --- Erasures --------------------------------------------------------------------------------------------


async def test_a_guest_who_returns_after_an_erasure_is_a_new_generation(shop: Shop) -> None:
    first = await shop.order()
    subject_id = await shop.vault.subject_id(shop.id, first.email)
    await _erase(shop, subject_id)
    second = await shop.order(email=first.email)
    [(_, placed)] = await shop.told(second)
    assert placed["generation"] == 2
    listed = await shop.client.get(f"{shop.path}/orders", headers=await shop.customer(first.email, 2))
    assert [order["id"] for order in listed.json()["items"]] == [str(second.id)]


async def test_a_token_from_before_an_erasure_orders_nothing(shop: Shop) -> None:
    first = await shop.order()
    customer = await shop.customer(first.email)
    await _erase(shop, await shop.vault.subject_id(shop.id, first.email))
    cart = await shop.cart({shop.tea: 1})
    erased = await shop.check_out(cart, first.email, headers=customer)
    assert (erased.status_code, erased.json()["type"]) == (409, "/problems/subject-erased")
    await shop.order(email=first.email)
    assert (await shop.check_out(cart, first.email, headers=customer)).status_code == 409


async def test_an_erasure_between_key_and_order_begins_the_person_anew(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    email = new_email()
    subject_id = await shop.vault.subject_id(shop.id, email)
    sealer, calls = shop.vault.sealer, 0

    async def erased_right_after(*retentions: Any, **options: Any) -> Any:
        nonlocal calls
        made = await sealer(*retentions, **options)
        if not calls:
            await _erase(shop, subject_id)
        calls += 1
        return made

    monkeypatch.setattr(shop.vault, "sealer", erased_right_after)
    order = await shop.order(email=email)
    assert calls == 2
    [(_, placed)] = await shop.told(order)
    assert placed["generation"] == 2
    assert (await shop.see(order))["contact"]["email"] == email


async def _erase(shop: Shop, subject_id: UUID, generation: int = 1) -> None:
    """What an erasure does here: keys destroyed, the person's generation refused from now on."""
    client = shop.keyring.client("privacy")
    await client.destroy([Erasure(shop.id, subject_id, generation, uuid4())])
    async with shop.database.session(shop.id) as session:
        await bury(session, [(shop.id, subject_id, generation)])
    shop.vault.drop(shop.id, [subject_id])
