"""What a storefront asks for, at 16 clients: product list, detail, add-to-cart, whole checkout."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from bench.figures import Figure, Floor, percentile
from bench.load import Client, Run, Scenario, drive, request

CLIENTS = 16
SECONDS = 6.0
_BUYERS = 4
_BUYING_SECONDS = 10.0
_CONTACT = {
    "name": "A guest",
    "email": "guest@vitrine.example",
    "address": {"line1": "1 rue de la Mesure", "postcode": "75001", "city": "Paris", "country": "FR"},
}


async def get(client: Client, _number: int, *, path: str) -> None:
    """One page."""
    answer = await client.send(request("GET", path))
    _expect(answer.status, 200)


_carts: dict[int, dict[str, Any]] = {}


async def add_to_cart(client: Client, number: int, *, store: str, variants: list[str]) -> None:
    """One line into a cart that the client keeps."""
    if number not in _carts:
        _carts[number] = (await client.send(request("POST", f"/orders/v1/stores/{store}/carts"))).json()
    await _put_line(client, store, _carts[number], variants[number % len(variants)])


async def check_out(client: Client, number: int, *, store: str, variants: list[str]) -> None:
    """A cart, a line, an order: three requests."""
    cart = (await client.send(request("POST", f"/orders/v1/stores/{store}/carts"))).json()
    await _put_line(client, store, cart, variants[number % len(variants)])
    body = {
        "cart_id": cart["id"],
        "contact": _CONTACT | {"email": f"guest-{number}@vitrine.example"},
        "payment_method": "bank_transfer",
    }
    answer = await client.send(
        request("POST", f"/orders/v1/stores/{store}/orders", body, cart_secret=cart["secret"])
    )
    _expect(answer.status, 201, 202)


async def _put_line(client: Client, store: str, cart: dict[str, Any], variant: str) -> None:
    path = f"/orders/v1/stores/{store}/carts/{cart['id']}/lines/{variant}"
    answer = await client.send(request("PUT", path, {"quantity": 1}, cart_secret=cart["secret"]))
    _expect(answer.status, 200)


def _expect(status: int, *wanted: int) -> None:
    if status not in wanted:
        raise RuntimeError(f"the platform answered {status}")


def figures(url: str, store: str, handle: str, variants: list[str], floor: Floor) -> list[Figure]:
    """Each scenario by itself."""
    catalog = f"/catalog/v1/stores/{store}/products"
    scenarios: list[tuple[str, Any, float | None]] = [
        ("product list (20 of 200)", partial(get, path=f"{catalog}?limit=20"), 900),
        ("product detail", partial(get, path=f"{catalog}/by-handle/{handle}"), None),
        ("product search", partial(get, path=f"{catalog}?q=notebook&limit=20"), None),
        ("add to cart", partial(add_to_cart, store=store, variants=variants), None),
        ("whole checkout (3 requests)", partial(check_out, store=store, variants=variants), None),
    ]
    return [
        Figure(name, drive(url, scenario, clients=CLIENTS, seconds=SECONDS).per_second, "1/s", floor, aim)
        for name, scenario, aim in scenarios
    ]


async def buy_while(
    url: str, buying: Scenario, goes_on: Callable[[], Awaitable[bool]], *, patience: float
) -> list[Run]:
    """Checkouts for as long as something goes on. Raises RuntimeError when it does so for longer than `patience`."""
    until = time.monotonic() + patience
    meanwhile: list[Run] = []
    while await goes_on():
        if time.monotonic() > until:
            raise RuntimeError("what was measured did not end")
        meanwhile.append(await some_checkouts(url, buying))
    return meanwhile


async def some_checkouts(url: str, buying: Scenario) -> Run:
    """Of a few visitors, for ten seconds."""
    return await asyncio.to_thread(drive, url, buying, clients=_BUYERS, seconds=_BUYING_SECONDS)


def meanwhile_of_before(what: str, before: Run, meanwhile: Sequence[Run], part: float) -> Figure:
    """What a checkout takes while much else goes on, as a part of what it took before."""
    taken = [one for run in meanwhile for one in run.seconds]
    usual, now = percentile(before.seconds, part), percentile(taken, part)
    print(
        f"  a checkout at {part:.0%}: {usual * 1000:.0f} ms before, {now * 1000:.0f} ms meanwhile", flush=True
    )
    return Figure(f"checkout at {part:.0%} during {what}, of before", 100 * now / usual, "%", aim=200)
