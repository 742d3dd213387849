"""An erasure against whatever else happens to its person, in both orders: nothing left or resurrected, nobody blocked.

Each command is held at a lock of the database, once after it has passed the guard and once before; nothing sleeps, and
of the services nothing is replaced.
"""

import asyncio
import random
from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest

from libs.common.auth import Role
from libs.common.events import decode
from libs.common.events.privacy import TaskIssued, Verb
from services.privacy import key_tasks
from tests.contract.house import PASSWORD, Person
from tests.contract.lives import HANDLERS, PARTICIPANTS, Command, Lives, finished
from tests.tokens import authorization

# --- What can come between -------------------------------------------------------------------------------


async def _order(lives: Lives, person: Person, _: Any) -> int:
    return await _status(lives, lives.buy(person.email))


async def _status(lives: Lives, doing: Any) -> int:
    try:
        await doing
    except AssertionError as refused:
        return int(str(refused).split(": ", 1)[1].split(" ", 1)[0])
    return 201


async def _sign_in(lives: Lives, person: Person, _: Any) -> int:
    path = f"/identity/v1/stores/{lives.store_id}/tokens"
    body = {"grant_type": "password", "email": person.email, "password": PASSWORD}
    return (await lives.house.http.post(path, json=body)).status_code


async def _change_profile(lives: Lives, person: Person, _: Any) -> int:
    path = f"/identity/v1/stores/{lives.store_id}/me"
    headers = person.headers | {"If-Match": "*"}
    return (await lives.house.http.patch(path, json={"name": "Canary"}, headers=headers)).status_code


async def _add_email(lives: Lives, person: Person, _: Any) -> int:
    path = f"/identity/v1/stores/{lives.store_id}/me/emails"
    body = {"email": f"another.{person.email}"}
    return (await lives.house.http.post(path, json=body, headers=person.headers)).status_code


async def _pay(lives: Lives, _: Person, order: Any) -> int:
    path = f"/billing/v1/stores/{lives.store_id}/orders/{order['id']}/payments"
    seen = await lives.house.call(
        "GET",
        f"/orders/v1/stores/{lives.store_id}/orders/{order['id']}",
        headers=authorization(lives.store_id),
    )
    body = {"amount": order["total"], "method": "bank_transfer", "received_on": seen["placed_at"][:10]}
    return (await lives.house.http.post(path, json=body, headers=authorization(lives.store_id))).status_code


class Racing(NamedTuple):
    """A command, where it writes after its guard, and how it may end when an erasure came first."""

    service: str
    table: str
    command: Command
    refused: frozenset[int]


RACING: Mapping[str, Racing] = {
    "an order": Racing("orders", "orders", _order, frozenset({201, 409})),
    "a sign-in": Racing("identity", "account_session", _sign_in, frozenset({401})),
    "a change of profile": Racing("identity", "account", _change_profile, frozenset({404, 409})),
    "another address": Racing("identity", "account_email", _add_email, frozenset({404, 409})),
    "a payment": Racing("billing", "payment", _pay, frozenset({201, 409})),
}
"""`201` of a checkout is a new life: a guest may begin one while the old one ends."""

_KEPT_OF_A_SALE = {"billing.invoice"}


@pytest.fixture(params=[*RACING.values()], ids=[*RACING])
def racing(request: pytest.FixtureRequest) -> Racing:
    return request.param


async def _somebody(lives: Lives) -> tuple[Person, Any]:
    """With an account, and an order that waits for its payment."""
    person = await lives.house.person(lives.store_id)
    order = await lives.buy(person.email)
    await lives.carry()
    return person, order


# --- In both orders --------------------------------------------------------------------------------------


async def test_what_passed_the_guard_before_an_erasure_is_erased_with_the_rest(
    lives: Lives, racing: Racing
) -> None:
    person, order = await _somebody(lives)
    async with lives.locked(racing.service, racing.table):
        doing = asyncio.create_task(racing.command(lives, person, order))
        await lives.waits_for(racing.service, "relation")
        request_id = await lives.ask(person, "erasure")
        erasing = asyncio.create_task(lives.drive())
        await lives.waits_for(racing.service, "advisory")
    status, _ = await finished(doing, erasing)
    assert status < 300
    await lives.drive()
    assert await lives.state(request_id) == "completed"
    assert set(await lives.remains(person.email)) <= _KEPT_OF_A_SALE


async def test_what_meets_the_guard_after_an_erasure_changes_nothing_of_the_old_life(
    lives: Lives, racing: Racing
) -> None:
    """Its boxes were sealed while the person was there; its rows would come when they are gone."""
    person, order = await _somebody(lives)
    async with lives.held(racing.service, person.email) as session:
        doing = asyncio.create_task(racing.command(lives, person, order))
        await lives.waits_for(racing.service, "advisory")
        request_id = await lives.ask(person, "erasure")
        await key_tasks.ask_keyring(lives.work("privacy"))
        issued = await lives.published("privacy", lives.store_id)
        tasks = [
            one
            for one in map(decode, issued)
            if isinstance(one.data, TaskIssued) and one.data.verb is Verb.ERASE
        ]
        await HANDLERS[racing.service][TaskIssued](session, tasks)  # type: ignore[arg-type]
    [status] = await finished(doing)
    assert status in racing.refused
    for service in HANDLERS:
        await lives.hear(service, *issued)
    await lives.drive()
    assert await lives.state(request_id) == "completed"
    assert set(await lives.remains(person.email)) <= _KEPT_OF_A_SALE


async def test_an_event_that_waits_for_an_erasure_is_refused_after_it(lives: Lives) -> None:
    person = await lives.house.person(lives.store_id)
    await lives.drive()
    await lives.buy(person.email)
    placed = await lives.published("orders", lives.store_id)
    async with lives.held("billing", person.email) as session:
        hearing = asyncio.create_task(lives.hear("billing", *placed))
        await lives.waits_for("billing", "advisory")
        request_id = await lives.ask(person, "erasure")
        await key_tasks.ask_keyring(lives.work("privacy"))
        issued = await lives.published("privacy", lives.store_id)
        for task in map(decode, issued):
            if isinstance(task.data, TaskIssued):
                await HANDLERS["billing"][TaskIssued](session, [task])  # type: ignore[arg-type]
    await finished(hearing)
    for service in HANDLERS:
        await lives.hear(service, *issued)
    await lives.drive()
    assert await lives.state(request_id) == "completed"
    assert await lives.remains(person.email) == {}


async def test_an_export_and_an_erasure_end_both(lives: Lives) -> None:
    """The export has read everything and seals it: the keys are gone, and what it would send has no reader."""
    person, _ = await _somebody(lives)
    export = await lives.ask(person, "access")
    await lives.carry()
    async with lives.locked("orders", "participant_job"):
        exporting = asyncio.create_task(_export_orders(lives))
        await lives.waits_for("orders", "relation")
        erasure = await lives.ask(person, "erasure")
        await key_tasks.ask_keyring(lives.work("privacy"))
    await finished(exporting)
    await lives.drive()
    assert (await lives.state(export), await lives.state(erasure)) == ("cancelled", "completed")
    assert await lives.remains(person.email) == {}


async def _export_orders(lives: Lives) -> None:
    await PARTICIPANTS["orders"].export(lives.work("orders"))


# --- In any order ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [20_261_126, 20_261_127, 20_261_128])
async def test_everything_at_once_in_any_order_ends_and_leaves_nothing(lives: Lives, seed: int) -> None:
    print(f"seed {seed}")
    chance = random.Random(seed)
    person, order = await _somebody(lives)
    commands = [one.command for one in RACING.values()] * 2 + [
        _erase,
        _erase,
        _access,
        _merge,
        _drive,
        _drive,
    ]
    chance.shuffle(commands)
    gate = asyncio.Semaphore(4)

    async def one(command: Command) -> Any:
        async with gate:
            return await command(lives, person, order)

    statuses = await asyncio.wait_for(asyncio.gather(*(one(command) for command in commands)), 120)
    # Done, joined, or refused for what is going on; never an error of ours.
    assert {status for status in statuses if status} <= {200, 201, 202, 401, 404, 409, 422}, statuses
    await lives.drive()
    if (erased := await lives.signs_in(person.email)) is not None:
        await lives.erased(erased)
    assert set(await lives.remains(person.email)) <= _KEPT_OF_A_SALE


async def _erase(lives: Lives, person: Person, _: Any) -> int:
    return await _asked(lives, person, "erasure")


async def _access(lives: Lives, person: Person, _: Any) -> int:
    return await _asked(lives, person, "access")


async def _asked(lives: Lives, person: Person, right: str) -> int:
    path = f"/privacy/v1/stores/{lives.store_id}/requests"
    body = {"right": right, "email": person.email}
    return (await lives.house.http.post(path, json=body, headers=person.headers)).status_code


async def _merge(lives: Lives, person: Person, _: Any) -> int:
    other = f"guest-{person.email}"
    await lives.buy(other)
    path = f"/privacy/v1/stores/{lives.store_id}/merges"
    body = {"subjects": [{"email": person.email}, {"email": other}]}
    return (
        await lives.house.http.post(path, json=body, headers=authorization(lives.store_id, Role.OWNER))
    ).status_code


async def _drive(lives: Lives, _: Person, __: Any) -> None:
    await lives.drive()
