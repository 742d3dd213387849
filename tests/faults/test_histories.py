"""Random histories of people, orders, rights, closings, crashes and restores, and a plain model of what can be read.

`VITRINE_HISTORY_SEED=7 pytest tests/faults/test_histories.py` plays history 7. What happens is printed, line by line.
"""

import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from deploy.local.backup import Places
from deploy.local.databases import NAMES
from deploy.local.environment import SERVICES
from deploy.local.shop import until
from tests.faults.chronicle import VICTIMS, Bought, Chronicle, Person
from tests.faults.conftest import Running, running_on
from tests.faults.model import ABSENT, ANYTHING, UNREADABLE
from tests.faults.people import remains

SEED = 20_260_105
FOLK = ("Ada", "Ben", "Cleo", "Dan", "Eve", "Finn", "Gus", "Hana", "Ida", "Jo", "Kim", "Lou", "Mia", "Noa")
TOGETHER = 4
"""People at a time; whose keys were lost with a keyring is not counted."""
_DISASTERS_ON = {
    "embedded": ("crash", "restore", "crash", "restore", "restore"),
    "kafka": ("crash", "restore", "restore"),
}
"""Between two backups and after them. To find out that Kafka is at rest takes a while."""
_SPARED = 0.5
_FORGETS = 0.5
_KEPT_OF_A_SALE = {"billing.invoice", "billing.invoice_correction"}
_CATCHES_UP = 30.0
"""Seconds within which a process that missed that a key was closed has asked again."""


@pytest.fixture(params=["embedded", "kafka"])
async def alone(request: pytest.FixtureRequest) -> AsyncIterator[Running]:
    """A platform of this test's own, since databases of it are restored."""
    with pytest.MonkeyPatch.context() as variables:
        variables.setenv("KEY_SECONDS", "10")
        async with running_on(request.param) as running:
            yield running


async def test_any_history_reads_as_a_plain_model_says(alone: Running, tmp_path: Path) -> None:
    seed = int(os.environ.get("VITRINE_HISTORY_SEED", SEED))
    print(f"VITRINE_HISTORY_SEED={seed}")
    chance = random.Random(seed)
    places = Places.of(tmp_path / "a", tmp_path / "b", tmp_path / "c")
    history = Chronicle(alone, places, chance)
    for name in FOLK[:TOGETHER]:
        await history.arrive(name)
    disasters = _DISASTERS_ON[alone.platform.broker]
    disasters = chance.sample(disasters, len(disasters))
    for disaster in ["save", *disasters[:2], "save", *disasters[2:]]:
        for _ in range(chance.randint(3, 5)):
            await step(history)
        await _DISASTERS[disaster](history)
        await compare(history)


# --- What comes next -------------------------------------------------------------------------------------


async def step(history: Chronicle) -> None:
    """One thing that somebody can do now."""
    present = [one for one in history.people if one.name not in history.model.lost | history.model.vague]
    if len(present) < TOGETHER and len(history.people) < len(FOLK):
        await history.arrive(FOLK[len(history.people)])
        return
    possible = [*_of_people(history), *_of_orders(history)]
    weights = [weight for weight, _, _ in possible]
    [(_, what, whom)] = history.chance.choices(possible, weights)
    await what(whom)


_Possible = tuple[float, Callable[[Any], Awaitable[None]], Any]


def _of_people(history: Chronicle) -> list[_Possible]:
    model, found = history.model, list[_Possible]()
    for person in _free(history):
        life = model.life(person.name)
        account = model.now.identity.get(life)
        if account is not None and account.closed:
            found.append((3, history.come_back, person))
            continue
        found.append((2, history.buy, person))
        if account is None:
            found.append((4, history.sign_up, person))
            continue
        is_held = life in model.now.holds["privacy"]
        if not is_held:
            found.append((0.7, history.close, person))
        rights = {"access": 0.5, "rectification": 1.5, "erasure": 1.5}
        rights |= {"restriction-lifting": 2} if is_held else {"restriction": 1.5}
        for right, weight in rights.items():
            found.append((weight, _asking(history, right), person))
    return found


def _asking(history: Chronicle, right: str) -> Callable[[Person], Awaitable[None]]:
    async def ask(person: Person) -> None:
        await history.ask(person, right)

    return ask


def _of_orders(history: Chronicle) -> list[_Possible]:
    free, found = _free(history), list[_Possible]()
    for order, one in history.bought.items():
        row = history.model.now.orders.get(order)
        if row is None or row.life is None or order in history.model.unsure or one.person not in free:
            continue
        if row.state == "awaiting_payment":
            found += [(2.0, history.pay, one), (0.5, history.cancel, one)]
        elif row.state == "paid":
            found.append((1.5, history.fulfil, one))
    return found


def _free(history: Chronicle) -> list[Person]:
    """Who waits for nothing, and of whom all keys are there."""
    busy = {one.person.name for one in history.asked}
    busy |= history.model.lost | history.model.vague
    return [one for one in history.people if one.name not in busy]


# --- Disasters -------------------------------------------------------------------------------------------


async def _crash(history: Chronicle) -> None:
    """With something under way; who buys or asks while a worker or the broker is down is served all the same."""
    victim = history.chance.choice(VICTIMS)
    asking = [one for one in _of_people(history) if getattr(one[1], "__name__", "") == "ask"]
    for _, ask, person in _some(history, asking):
        await ask(person)

    async def meanwhile() -> None:
        for person in _some(history, _buyers(history)):
            await history.buy(person)

    serves_on = victim == "broker" or victim.endswith("-worker")
    await history.crash(victim, meanwhile if serves_on else None)


async def _restore(history: Chronicle) -> None:
    """One or several databases from the last backup or an earlier one, in the midst of an erasure if need be."""
    chance = history.chance
    await history.settle()
    there = [
        name
        for name in NAMES
        if name != "destructions" and (name != "broker" or history.running.platform.broker == "embedded")
    ]
    names = sorted(chance.sample(there, chance.choice((1, 1, 2, 3))))
    if chance.random() < _SPARED:
        # Whoever has a key since the backup is lost with a keyring, and a history is to go on.
        names = [name for name in names if name != "keyring"] or ["orders"]
    erasing = [
        one
        for one in _free(history)
        if (account := history.model.now.identity.get(history.model.life(one.name))) and not account.closed
    ]
    if history.running.platform.broker == "embedded" and chance.random() < _FORGETS:
        await history.forget_topics()
    if not {"keyring", "privacy"} & set(names):
        for person in _some(history, erasing):
            await history.ask(person, "erasure")
    await history.restore(chance.randrange(len(history.backups)), names)


def _some(history: Chronicle, candidates: Sequence[Any]) -> list[Any]:
    """One of them, if there is any, or nobody."""
    return history.chance.sample(list(candidates), min(len(candidates), history.chance.choice((0, 1))))


def _buyers(history: Chronicle) -> list[Person]:
    found: list[Person] = []
    for one in _free(history):
        account = history.model.now.identity.get(history.model.life(one.name))
        if account is None or not account.closed:
            found.append(one)
    return found


_DISASTERS: dict[str, Callable[[Chronicle], Awaitable[None]]] = {
    "save": Chronicle.save,
    "crash": _crash,
    "restore": _restore,
}

# --- What can be read ------------------------------------------------------------------------------------


async def compare(history: Chronicle) -> None:
    """The model and the platform, at rest: what must never be at once, all else within moments."""
    await history.settle()
    assert await _never(history) == []
    different: list[str] = []

    async def is_same() -> bool | None:
        different[:] = [
            f"{what}: the model says {told}, and it is {found}"
            for what, told, found in await _read(history)
            if not _agree(told, found)
        ]
        return not different or None

    try:
        await until(is_same, "the platform to say what the model says", _CATCHES_UP)
    finally:
        for difference in different:
            print("      ", difference)
    history.note("all is as the model says")


def _agree(told: Any, found: Any) -> bool:
    if isinstance(told, tuple) and isinstance(found, tuple):
        return all(_agree(*pair) for pair in zip(told, found, strict=True))  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return told in (ANYTHING, found)


async def _never(history: Chronicle) -> list[str]:
    """An erased life has left nothing, opens nothing, and nobody sees anybody else's name."""
    found: list[str] = []
    model, http, store = history.model, history.running.shop.http, history.store
    owners = history.running.owner.headers
    for one in history.bought.values():
        path = f"/orders/v1/stores/{store}/orders/{one.order.id}"
        seen = (await http.get(path, headers=owners)).json()
        contact = seen.get("contact")
        is_erased = one.life < model.life(one.person.name).number
        if contact and (is_erased or contact["email"] != one.person.email):
            found.append(f"{one} shows {contact}")
        if is_erased:
            secret = await http.get(path, headers={"Order-Secret": one.order.secret})
            if secret.status_code != 404:
                found.append(f"{one} opens by its secret: {secret.text}")
    for life in model.destroyed:
        person = next(one for one in history.people if one.name == life.person)
        left = await remains(history.running.databases, person.lives[life.number])
        if set(left) - _KEPT_OF_A_SALE:
            found.append(f"of {life} remain {left}")
        headers = person.tokens[life.number].headers
        me = await http.get(f"/identity/v1/stores/{store}/me", headers=headers)
        listed = await http.get(f"/orders/v1/stores/{store}/orders", headers=headers)
        if me.status_code not in (401, 404) or listed.json().get("items"):
            found.append(f"the token of {life} still opens {me.text} {listed.text}")
    return found


async def _read(history: Chronicle) -> list[tuple[str, Any, Any]]:
    """What is read, what the model says of it, and what the platform says."""
    found: list[tuple[str, Any, Any]] = []
    for one in history.bought.values():
        found.append((str(one), *await _order(history, one)))
        if one.invoice:
            found.append((f"the invoice of {one}", *await _invoice(history, one)))
    for person in history.people:
        if person.name not in history.model.lost | history.model.vague:
            found += await _person(history, person)
    return found


async def _order(history: Chronicle, one: Bought) -> tuple[Any, Any]:
    model, path = history.model, f"/orders/v1/stores/{history.store}/orders/{one.order.id}"
    told = model.order(one.order.id)
    if isinstance(told, tuple):
        told = (*told, model.shows_hold(model.now.orders[one.order.id]))
    seen = await _seen(history, path, history.running.owner.headers)
    if isinstance(seen, str):
        return told, seen
    return told, (seen["state"], (seen["contact"] or {}).get("name"), seen["on_hold"])


async def _invoice(history: Chronicle, one: Bought) -> tuple[Any, Any]:
    model, path = history.model, f"/billing/v1/stores/{history.store}/invoices/{one.invoice}"
    told: Any = model.invoice(one.invoice)
    if told not in (ABSENT, UNREADABLE):
        told = (told, model.shows_hold(model.now.billing.invoices[one.invoice]))
    seen = await _seen(history, path, history.running.owner.headers)
    if isinstance(seen, str):
        return told, seen
    corrected = [entry["name"] for entry in seen["corrections"] if entry["name"]]
    name = corrected[-1] if corrected else (seen["buyer"] or {}).get("name")
    return told, (name, seen["on_hold"])


async def _person(history: Chronicle, person: Person) -> list[tuple[str, Any, Any]]:
    model, store, name = history.model, history.store, person.name
    life = model.life(name)
    found: list[tuple[str, Any, Any]] = []
    search = {"email": person.email}
    path = f"/orders/v1/stores/{store}/order-searches"
    listed = await history.running.persist("POST", path, json=search, headers=history.running.owner.headers)
    found.append(_listed(f"what staff find by the address of {name}", model.orders_of(life), listed.json()))
    held = "SELECT count(*) FROM restricted_subject WHERE (store_id, subject_id, generation) = ($1, $2, $3)"
    if (real := person.lives.get(life.number)) is not None:
        for service in SERVICES:
            found.append(
                (
                    f"whether {name} is on hold in {service}",
                    life in model.now.holds[service],
                    await history.running.databases.value(
                        service, held, real.store_id, real.subject_id, real.generation
                    )
                    == 1,
                )
            )
    account = model.now.identity.get(life)
    if account is None or account.closed:
        return found
    await history.sign_in(person)
    headers = person.signed_in.headers
    me = await _seen(history, f"/identity/v1/stores/{store}/me", headers)
    told = (model.account(life), model.shows_hold(account))
    found.append((f"the account of {name}", told, (me["name"], me["on_hold"])))
    for what, path, ids in (
        ("orders", f"/orders/v1/stores/{store}/orders", model.orders_of(life)),
        ("invoices", f"/billing/v1/stores/{store}/invoices", model.invoices_of(life)),
        ("requests", f"/privacy/v1/stores/{store}/requests", model.requests_of(life)),
    ):
        found.append(_listed(f"the {what} of {name}", ids, await _seen(history, path, headers)))
    return found


def _listed(what: str, told: Sequence[str], page: Any) -> tuple[str, Any, Any]:
    return what, sorted(told), sorted(one["id"] for one in page["items"])


async def _seen(history: Chronicle, path: str, headers: dict[str, str]) -> Any:
    """What is answered, or that nothing is there, or that its key was lost."""
    answer = await history.running.shop.http.get(path, headers=headers, params=None)
    if answer.status_code == 404:
        return ABSENT
    if answer.status_code == 500 and answer.json()["type"] == "/problems/key-unknown":
        return UNREADABLE
    assert answer.is_success, f"{path} answered {answer.status_code}: {answer.text}"
    return answer.json()
