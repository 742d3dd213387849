"""A store chooses how long it keeps things, within the law's bounds, and sees before what that does."""

import asyncio
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libs.common.auth import Role
from libs.common.events.identity import StoreOpened
from libs.common.personal.vocabulary import RULES, Clock, Length
from services.privacy.retention import moving
from tests.common.personal.shop import Purchase
from tests.privacy.conftest import Person
from tests.privacy.lasting import NOW, Lasting, lasting

__all__ = ["lasting"]
CANCELLED = Clock.ORDER_CANCELLED
_PARIS = ZoneInfo("Europe/Paris")


async def periods(lasting: Lasting, **params: Any) -> dict[str, Any]:
    response = await lasting.call("GET", "retention", params=params)
    assert response.status_code == 200, response.text
    return {one["clock"]: one for one in response.json()["periods"]}


# --- Choosing --------------------------------------------------------------------------------------------


async def test_every_clock_is_shown_with_its_bounds_its_kinds_and_words(lasting: Lasting) -> None:
    found = await periods(lasting, language="fr")
    assert found.keys() == {clock.value for clock in RULES}
    cancelled = found["order-cancelled"]
    assert (cancelled["length"], cancelled["default"], cancelled["chosen"]) == ("P10D", "P10D", False)
    assert cancelled["starts"] == "la commande a été annulée"
    assert "ShopContact" in cancelled["kinds"]
    accounting = found["invoice-issued"]
    assert accounting["fixed"] and accounting["from_end_of_year"] and "L123-22" in accounting["law"]
    assert (await periods(lasting, language="en"))["account-closed"]["starts"] == "the account has ended"
    assert all(one["starts"] != one["clock"] for one in found.values())


async def test_a_choice_replaces_the_one_before_and_has_a_version(lasting: Lasting) -> None:
    before = await lasting.call("GET", "retention")
    body = {"lengths": {"order-cancelled": "P30D", "account-closed": "P0D"}}
    etag = before.headers["etag"]
    chosen = await lasting.call("PUT", "retention", json=body, headers={"If-Match": etag})
    assert chosen.status_code == 204
    stale = await lasting.call("PUT", "retention", json=body, headers={"If-Match": etag})
    assert stale.status_code == 412
    assert (await lasting.call("PUT", "retention", json=body)).status_code == 428
    found = await periods(lasting)
    assert (found["order-cancelled"]["length"], found["order-cancelled"]["chosen"]) == ("P30D", True)
    assert found["account-closed"]["length"] == "P0D"
    await lasting.choose(order_cancelled="P5D")
    found = await periods(lasting)
    assert (found["order-cancelled"]["length"], found["account-closed"]["length"]) == ("P5D", "P3M")


@pytest.mark.parametrize(
    ("clock", "length"),
    [
        ("invoice-issued", "P9Y"), ("invoice-issued", "P11Y"), ("invoice-issued", "P0D"),
        ("account-closed", "P4Y"), ("order-fulfilled", "P13D"), ("order-cancelled", "P367D"),
        ("message-settled", "P29D"), ("export-ready", "P8D"), ("request-ended", "P11M"),
    ],
)  # fmt: skip
async def test_beyond_the_laws_bounds_nothing_is_chosen(lasting: Lasting, clock: str, length: str) -> None:
    body = {"lengths": {"order-cancelled": "P20D", clock: length}}
    for method, path in (("PUT", "retention"), ("POST", "retention/preview")):
        response = await lasting.call(method, path, json=body, headers={"If-Match": "*"})
        assert response.status_code == 422, response.text
        problem = response.json()
        assert problem["type"] == "/problems/period-not-allowed"
        [refused] = problem["periods"]
        assert refused["clock"] == clock and refused["law"]
        assert Length.parse(refused["least"]).nominal_days <= Length.parse(refused["most"]).nominal_days
    assert (await periods(lasting))["order-cancelled"]["length"] == "P10D"


@pytest.mark.parametrize(
    "body",
    [
        {}, {"lengths": None}, {"lengths": {"order-cancelled": "10 days"}}, {"lengths": {"order-cancelled": 10}},
        {"lengths": {"nothing": "P1D"}}, {"lengths": {"erasure-asked": "P1D"}}, {"lengths": {}, "more": 1},
        {"lengths": {"order-cancelled": "P99999D"}},
    ],
)  # fmt: skip
async def test_what_is_no_choice_is_refused(lasting: Lasting, body: Any) -> None:
    for method, path in (("PUT", "retention"), ("POST", "retention/preview")):
        response = await lasting.call(method, path, json=body, headers={"If-Match": "*"})
        assert response.status_code == 422 and response.json()["type"] != "/problems/period-not-allowed"


async def test_periods_are_for_officers_of_the_store(lasting: Lasting) -> None:
    platform, body = lasting.platform, {"lengths": {}}
    for method, path in (
        ("GET", "retention"), ("PUT", "retention"), ("POST", "retention/preview"), ("GET", "retention/forecast"),
    ):  # fmt: skip
        options: dict[str, Any] = {"json": body} if method != "GET" else {}
        anonymous = await platform.client.request(method, f"{platform.path}/{path}", **options)
        assert anonymous.status_code == 401
        for headers, status in (
            (platform.officer(role=Role.CUSTOMER), 403), (platform.officer(role=Role.MANAGER), 403),
            (platform.officer(store=str(uuid4())), 404),
        ):  # fmt: skip
            response = await lasting.call(method, path, headers=headers | {"If-Match": "*"}, **options)
            assert response.status_code == status


# --- What runs moves -------------------------------------------------------------------------------------


async def test_a_choice_moves_what_runs_already_in_batches(
    lasting: Lasting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moving, "AT_ONCE", 2)
    person, orders = await lasting.person(), [uuid4() for _ in range(5)]
    await lasting.platform.deliver(*(lasting.started(person, CANCELLED, order) for order in orders))
    await lasting.start(person, Clock.ORDER_FULFILLED, "6f9619ff-8b86-4011-b42d-00c04fc964ff")
    await lasting.choose(order_cancelled="P1M")
    assert (await lasting.call("GET", "retention")).json()["left_to_move"] == 6
    assert await moving.move(lasting.work) == 1
    assert (await lasting.call("GET", "retention")).json()["left_to_move"] < 6
    while await moving.move(lasting.work):
        pass
    assert (await lasting.call("GET", "retention")).json()["left_to_move"] == 0
    rows = [await lasting.row(person, order) for order in orders]
    assert {row.expires_on for row in rows if row} == {date(2027, 4, 10)}
    other = await lasting.row(person, "6f9619ff-8b86-4011-b42d-00c04fc964ff")
    assert other is not None and other.expires_on == date(2029, 3, 10)
    await lasting.tell()
    rows = [await lasting.row(person, order) for order in orders]
    assert all(row is not None and row.told_on == row.expires_on for row in rows)


async def test_shorter_than_it_has_run_already_goes_at_once_and_longer_brings_nothing_back(
    lasting: Lasting,
) -> None:
    person = await lasting.person()
    gone, stays = await lasting.purchase(person), await lasting.purchase(person)
    await lasting.start(person, CANCELLED, gone)
    lasting.later(days=4)
    await lasting.start(person, CANCELLED, stays)
    await lasting.choose(order_cancelled="P2D")
    await lasting.settle()
    assert await lasting.live(person) == {("order", str(stays))}
    await lasting.choose(order_cancelled="P1Y")
    await lasting.settle()
    assert await lasting.live(person) == {("order", str(stays))} and await lasting.left(Purchase) == 1
    lasting.later(days=100)
    await lasting.settle()
    assert await lasting.left(Purchase) == 1


async def test_a_choice_that_comes_while_a_clock_starts_is_not_missed(lasting: Lasting) -> None:
    person, orders = await lasting.person(), [uuid4() for _ in range(20)]
    started = (lasting.platform.deliver(lasting.started(person, CANCELLED, order)) for order in orders)
    chosen = (lasting.choose(order_cancelled=f"P{days}D") for days in range(1, 6))
    await asyncio.gather(*started, *chosen)
    while await moving.move(lasting.work):
        pass
    length = Length.parse((await periods(lasting))["order-cancelled"]["length"])
    rows = [await lasting.row(person, order) for order in orders]
    assert {row.expires_on for row in rows if row} == {length.after(NOW.date())}


async def test_a_store_that_moves_takes_its_midnight_with_it(lasting: Lasting) -> None:
    person, order = await lasting.person(), uuid4()
    lasting.now = datetime(2027, 3, 10, 23, 30, tzinfo=UTC)
    await lasting.start(person, CANCELLED, order)
    row = await lasting.row(person, order)
    assert row is not None and row.expires_on == date(2027, 3, 21), "in Paris it is the 11th already"
    moved = StoreOpened(
        store_id=lasting.store_id, slug=f"shop-{lasting.store_id}", name="Shop", country="US", currency="USD",
        version=2,
    )  # fmt: skip
    await lasting.platform.deliver(moved)
    while await moving.move(lasting.work):
        pass
    row = await lasting.row(person, order)
    assert row is not None and row.expires_on == date(2027, 3, 20)
    assert row.due_at == datetime(2027, 3, 21, 7, tzinfo=UTC)


_LENGTHS = st.one_of(
    st.integers(0, 365).map(lambda days: f"P{days}D"), st.integers(0, 12).map(lambda m: f"P{m}M")
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    started=st.lists(st.datetimes(datetime(2023, 1, 1), datetime(2027, 3, 9)), min_size=1, max_size=4),
    choices=st.lists(_LENGTHS, min_size=1, max_size=4),
)
async def test_choices_in_any_number_come_to_the_last_one(
    lasting: Lasting, started: list[datetime], choices: list[str]
) -> None:
    person, starts = await lasting.person(), {uuid4(): one.replace(tzinfo=UTC) for one in started}
    await lasting.platform.deliver(
        *(lasting.started(person, CANCELLED, order, at=at) for order, at in starts.items())
    )
    for number, choice in enumerate(choices):
        await lasting.choose(order_cancelled=choice)
        if number % 2:
            await moving.move(lasting.work)
    preview = await preview_of(lasting, order_cancelled=choices[-1])
    while await moving.move(lasting.work):
        pass
    for order, at in starts.items():
        row = await lasting.row(person, order)
        assert row is not None
        assert row.expires_on == Length.parse(choices[-1]).after(at.astimezone(_PARIS).date())
    # What PostgreSQL computed before is what was computed then.
    again = await preview_of(lasting, order_cancelled=choices[-1])
    assert (again["earlier"], again["later"], again["at_once"]) == (0, 0, 0)
    assert preview["records"] >= len(starts)


# --- Seen before -----------------------------------------------------------------------------------------


async def preview_of(lasting: Lasting, **lengths: str) -> dict[str, Any]:
    body = {"lengths": {clock.replace("_", "-"): length for clock, length in lengths.items()}}
    with lasting.on(lasting.now):
        response = await lasting.call("POST", "retention/preview", json=body)
    assert response.status_code == 200, response.text
    assert "canary" not in response.text
    [change] = [one for one in response.json()["changes"] if one["clock"] == "order-cancelled"]
    return change


async def test_a_preview_counts_what_expires_earlier_later_and_at_once(lasting: Lasting) -> None:
    one, other = await lasting.person(), await lasting.person()
    await cancelled(lasting, one, 9, 6, 0)
    await cancelled(lasting, other, 1)
    shorter = await preview_of(lasting, order_cancelled="P5D")
    assert (shorter["length"], shorter["wanted"]) == ("P10D", "P5D")
    assert (shorter["records"], shorter["persons"]) == (4, 2)
    assert (shorter["earlier"], shorter["later"], shorter["at_once"]) == (4, 0, 2)
    assert (shorter["persons_earlier"], shorter["persons_at_once"]) == (2, 1)
    longer = await preview_of(lasting, order_cancelled="P1M")
    assert (longer["earlier"], longer["later"], longer["at_once"], longer["persons_later"]) == (0, 4, 0, 2)
    assert "ShopContact" in longer["kinds"]
    assert (await periods(lasting))["order-cancelled"]["length"] == "P10D", "nothing has changed"


async def cancelled(lasting: Lasting, person: Person, *days_ago: int) -> None:
    await lasting.platform.deliver(
        *(
            lasting.started(person, CANCELLED, uuid4(), at=lasting.now - timedelta(days=days))
            for days in days_ago
        )
    )


async def test_the_forecast_says_what_expires_in_which_month(lasting: Lasting) -> None:
    one, other = await lasting.person(), await lasting.person()
    await cancelled(lasting, one, 9, 20)
    await lasting.start(one, Clock.MESSAGE_SETTLED)
    await lasting.start(other, Clock.MESSAGE_SETTLED)
    await lasting.start(other, Clock.INVOICE_ISSUED, 2027)
    hold = {
        "email": one.email,
        "ground": "litigation",
        "until": "2029-01-01",
        "retentions": ["correspondence"],
    }
    with lasting.on(lasting.now):
        assert (await lasting.call("POST", "holds", json=hold)).status_code == 201
        year = (await lasting.call("GET", "retention/forecast", params={"months": 13})).json()["months"]
        short = (await lasting.call("GET", "retention/forecast", params={"months": 1})).json()["months"]
        for wrong in (0, 121, "many"):
            response = await lasting.call("GET", "retention/forecast", params={"months": wrong})
            assert response.status_code == 422
    assert [month["month"] for month in year][::12] == ["2027-03", "2028-03"] and len(year) == 13
    [march] = short
    # What is overdue stands with the present month.
    assert [(e["retention"], e["records"], e["persons"], e["held"]) for e in march["expiring"]] == [
        ("order", 2, 1, 0)
    ]
    assert [(e["retention"], e["records"], e["persons"], e["held"]) for e in year[12]["expiring"]] == [
        ("correspondence", 2, 2, 1)
    ]
    assert all(month["expiring"] == [] for month in year[1:12])
