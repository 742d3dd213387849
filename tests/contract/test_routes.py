"""Every route of every service: who may call it, what another store's caller learns, and what bad input gets back.

The tables below are compared with the route tables of the applications: a route that is in neither of them fails.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx
import pytest
from fastapi.routing import iter_route_contexts

from deploy.local.environment import SERVICES
from libs.common.auth import MANAGERS, PLATFORM_STORE, STAFF, Role
from tests.contract.house import ADDRESS, Furnished, House, Person
from tests.tokens import authorization

Route = tuple[str, str]
"""Method and path."""

PAGES: frozenset[Route] = frozenset(
    ("GET", f"/{service}/{page}")
    for service in SERVICES
    for page in (
        *("docs", "docs/swagger-ui.css", "docs/swagger-ui-bundle.js", "docs/favicon-32x32.png"),
        *("openapi.json", "healthz/live", "healthz/ready"),
    )
)
PUBLIC: frozenset[Route] = PAGES | {
    ("GET", "/catalog/v1/stores/{store_id}/products"),
    ("GET", "/catalog/v1/stores/{store_id}/facets"),
    ("GET", "/catalog/v1/stores/{store_id}/products/by-handle/{handle}"),
    ("GET", "/catalog/v1/stores/{store_id}/products/{product_id}"),
    ("POST", "/orders/v1/stores/{store_id}/carts"),
    # Whoever holds a cart's secret holds the cart.
    ("GET", "/orders/v1/stores/{store_id}/carts/{cart_id}"),
    ("PUT", "/orders/v1/stores/{store_id}/carts/{cart_id}/lines/{variant_id}"),
    ("POST", "/orders/v1/stores/{store_id}/orders"),
    ("POST", "/identity/v1/stores/{store_id}/accounts"),
    ("POST", "/identity/v1/stores/{store_id}/confirmations"),
    ("POST", "/identity/v1/stores/{store_id}/tokens"),
    ("GET", "/identity/v1/stores/by-slug/{slug}"),
    ("GET", "/identity/v1/stores/{store_id}"),
    ("GET", "/identity/v1/jwks.json"),
    ("GET", "/identity/confirm"),
    ("GET", "/privacy/v1/stores/{store_id}/data-map"),
    ("GET", "/privacy/download"),
    # The token of the link, in the body, is what opens an export.
    ("POST", "/privacy/v1/downloads"),
}
"""What anybody may call. Every other route answers an anonymous caller with 401."""

CUSTOMER = frozenset({Role.CUSTOMER})
ANYBODY = frozenset(Role)
ROLES: Mapping[Route, frozenset[Role]] = {
    ("POST", "/catalog/v1/stores/{store_id}/products"): MANAGERS,
    ("PATCH", "/catalog/v1/stores/{store_id}/products/{product_id}"): MANAGERS,
    ("PATCH", "/catalog/v1/stores/{store_id}/variants/{variant_id}"): MANAGERS,
    ("GET", "/catalog/v1/stores/{store_id}/variants/{variant_id}/stock"): STAFF,
    ("PUT", "/catalog/v1/stores/{store_id}/variants/{variant_id}/stock"): MANAGERS,
    ("POST", "/catalog/v1/stores/{store_id}/imports"): MANAGERS,
    ("GET", "/catalog/v1/stores/{store_id}/imports/{import_id}"): MANAGERS,
    ("GET", "/catalog/v1/stores/{store_id}/export.csv"): STAFF,
    ("GET", "/orders/v1/stores/{store_id}/orders"): ANYBODY,
    ("POST", "/orders/v1/stores/{store_id}/order-searches"): STAFF,
    ("GET", "/orders/v1/stores/{store_id}/orders/{order_id}"): ANYBODY,
    ("POST", "/orders/v1/stores/{store_id}/orders/{order_id}/cancel"): MANAGERS | CUSTOMER,
    ("POST", "/orders/v1/stores/{store_id}/orders/{order_id}/fulfilments"): MANAGERS,
    ("GET", "/orders/v1/stores/{store_id}/reports/sales"): STAFF,
    ("GET", "/identity/v1/stores/{store_id}/me"): CUSTOMER,
    ("PATCH", "/identity/v1/stores/{store_id}/me"): CUSTOMER,
    ("GET", "/identity/v1/stores/{store_id}/sessions"): CUSTOMER,
    ("DELETE", "/identity/v1/stores/{store_id}/sessions/current"): CUSTOMER,
    ("DELETE", "/identity/v1/stores/{store_id}/sessions/{session_id}"): CUSTOMER,
    ("PATCH", "/identity/v1/stores/{store_id}"): frozenset({Role.OWNER}),
    ("POST", "/billing/v1/stores/{store_id}/orders/{order_id}/payments"): MANAGERS,
    ("GET", "/billing/v1/stores/{store_id}/orders/{order_id}/receivable"): STAFF,
    ("GET", "/billing/v1/stores/{store_id}/receivables"): STAFF,
    ("GET", "/billing/v1/stores/{store_id}/invoices"): ANYBODY,
    ("GET", "/billing/v1/stores/{store_id}/invoices/{invoice_id}"): ANYBODY,
    ("GET", "/billing/v1/stores/{store_id}/ledger/balances"): STAFF,
    ("GET", "/billing/v1/stores/{store_id}/ledger/entries"): STAFF,
    ("POST", "/privacy/v1/stores/{store_id}/requests"): CUSTOMER,
    ("GET", "/privacy/v1/stores/{store_id}/requests"): CUSTOMER | {Role.OWNER, Role.PRIVACY_OFFICER},
    ("GET", "/privacy/v1/stores/{store_id}/requests/{request_id}"): CUSTOMER
    | {Role.OWNER, Role.PRIVACY_OFFICER},
    # These two are for merchants, who are customers of the platform's own store.
    ("POST", "/identity/v1/stores"): CUSTOMER,
    ("GET", "/identity/v1/stores"): CUSTOMER,
    ("GET", "/privacy/v1/participants"): STAFF,
}
"""Who may call what is not public."""
OF_THE_PLATFORM = frozenset({("POST", "/identity/v1/stores"), ("GET", "/identity/v1/stores")})

# What a call needs besides its path to get as far as the object it names.
BODIES: Mapping[Route, Any] = {
    ("PATCH", "/catalog/v1/stores/{store_id}/products/{product_id}"): {"title": "Another pen"},
    ("PATCH", "/catalog/v1/stores/{store_id}/variants/{variant_id}"): {"price": 300},
    ("PUT", "/catalog/v1/stores/{store_id}/variants/{variant_id}/stock"): {"on_hand": 5},
    ("PUT", "/orders/v1/stores/{store_id}/carts/{cart_id}/lines/{variant_id}"): {"quantity": 1},
    ("POST", "/billing/v1/stores/{store_id}/orders/{order_id}/payments"): {
        "amount": {"amount": 500, "currency": "EUR"},
        "method": "bank_transfer",
        "received_on": "2026-01-02",
    },
    ("POST", "/orders/v1/stores/{store_id}/orders"): {
        "cart_id": "00000000-0000-4000-8000-00000000000c",
        "contact": {"name": "A person", "email": "person@vitrine.example", "address": ADDRESS},
        "payment_method": "bank_transfer",
    },
    ("POST", "/identity/v1/stores/{store_id}/accounts"): {
        "email": "person@vitrine.example",
        "password": "correct horse battery staple",
    },
    ("POST", "/identity/v1/stores/{store_id}/confirmations"): {"token": "a" * 43},
    ("POST", "/identity/v1/stores/{store_id}/tokens"): {
        "grant_type": "password",
        "email": "person@vitrine.example",
        "password": "correct horse battery staple",
    },
}
QUERIES: Mapping[Route, Mapping[str, str]] = {
    ("GET", "/orders/v1/stores/{store_id}/reports/sales"): {"from": "2026-01-01", "to": "2026-12-31"}
}


def routes(*tables: Iterable[Route], having: str = "") -> Any:
    """A test of its own for every route of these tables whose path has the parameter."""
    chosen = sorted(
        {route for table in tables for route in table if having in route[1]}, key=lambda r: r[::-1]
    )
    return pytest.mark.parametrize("route", chosen, ids=[" ".join(route) for route in chosen])


@dataclass(frozen=True)
class Call:
    """A request to a route, as somebody, about some objects."""

    route: Route
    names: Mapping[str, str]
    headers: Mapping[str, str]

    def about(self, **names: str) -> "Call":
        return replace(self, names={**self.names, **names})

    async def made(self, house: House, **options: Any) -> httpx.Response:
        method, path = self.route
        if "json" not in options and "content" not in options and self.route in BODIES:
            options["json"] = BODIES[self.route]
        return await house.http.request(
            method,
            path.format_map({name: quote(value, safe="") for name, value in self.names.items()}),
            headers={**self.headers, **options.pop("headers", {})},
            params=options.pop("params", QUERIES.get(self.route)),
            **options,
        )


def as_role(store: Furnished, role: Role) -> dict[str, str]:
    """The store's real customer, or a member of its staff."""
    return store.customer.headers if role is Role.CUSTOMER else authorization(store.id, role)


def call(route: Route, store: Furnished, headers: Mapping[str, str] | None = None) -> Call:
    return Call(route, {"store_id": str(store.id), **store.objects}, headers or {})


def permitted(route: Route, store: Furnished, merchant: Person) -> Mapping[str, str]:
    """The header of somebody who may call the route; nobody's where it is public."""
    if route in PUBLIC:
        return {}
    if route in OF_THE_PLATFORM:
        return merchant.headers
    return as_role(store, min(ROLES[route]))


def is_problem(answer: httpx.Response, *statuses: int) -> None:
    assert answer.status_code in statuses, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == answer.status_code


def seen(answer: httpx.Response) -> tuple[int, dict[str, str], bytes]:
    """All that a caller can tell two answers apart by."""
    return answer.status_code, dict(answer.headers), answer.content


def test_every_route_is_declared_and_every_declared_route_exists(house: House) -> None:
    found = {
        (method, context.path)
        for app in house.apps.values()
        for context in iter_route_contexts(app.routes)
        for method in (context.methods or set()) - {"HEAD"}
    }
    assert found == PUBLIC | ROLES.keys()
    assert not PUBLIC & ROLES.keys()


# --- Who may call ----------------------------------------------------------------------------------------


@routes(PUBLIC)
async def test_a_public_route_asks_nobody_who_they_are(route: Route, house: House, ours: Furnished) -> None:
    # A sign-in that failed would be a 401 too.
    answer = await call(route, ours).made(house, headers=ours.secrets, json={"nothing": "of this route"})
    assert answer.status_code not in {401, 403}


@routes(ROLES)
async def test_nobody_is_let_in_without_a_valid_token(route: Route, house: House, ours: Furnished) -> None:
    headers = authorization(ours.id, min(ROLES[route]), exp=1_000_000_000)
    unsigned = {"Authorization": headers["Authorization"].rpartition(".")[0] + "."}
    for anonymous in ({}, headers, unsigned, {"Authorization": "Bearer x"}, {"Authorization": "Basic eDp4"}):
        answer = await call(route, ours, anonymous).made(house)
        is_problem(answer, 401)
        assert answer.headers["www-authenticate"].startswith("Bearer")


@routes(ROLES)
async def test_only_the_named_roles_are_let_in(
    route: Route, house: House, ours: Furnished, merchant: Person
) -> None:
    for role in Role:
        headers = as_role(ours, role)
        if route in OF_THE_PLATFORM:
            headers = merchant.headers if role is Role.CUSTOMER else authorization(PLATFORM_STORE, role)
        # The route is not to succeed here, only to say who is let in.
        answer = await call(route, ours, headers).made(house, json={"nothing": "of this route"})
        if role in ROLES[route]:
            assert answer.status_code not in {401, 403}, (role, answer.text)
        else:
            is_problem(answer, 403)


@routes(OF_THE_PLATFORM)
async def test_what_is_for_merchants_is_not_for_people_of_a_store(
    route: Route, house: House, ours: Furnished
) -> None:
    for role in Role:
        is_problem(await call(route, ours, as_role(ours, role)).made(house), 403)


# --- Other stores ----------------------------------------------------------------------------------------


@routes(PUBLIC, having="{store_id}")
async def test_a_store_that_does_not_exist_is_404_for_everybody(
    route: Route, house: House, ours: Furnished
) -> None:
    is_problem(await call(route, ours, ours.secrets).about(store_id=str(uuid4())).made(house), 404)


@routes(ROLES, having="{store_id}")
async def test_another_store_is_like_one_that_does_not_exist(
    route: Route, house: House, ours: Furnished, theirs: Furnished
) -> None:
    for role in Role:
        headers = {**as_role(ours, role), **theirs.secrets, "If-Match": "*"}
        foreign = await call(route, theirs, headers).made(house)
        is_problem(foreign, 404)
        missing = await call(route, theirs, headers).about(store_id=str(uuid4())).made(house)
        assert seen(foreign) == seen(missing), role


@routes(PUBLIC, ROLES, having="{store_id}")
async def test_another_stores_object_is_like_one_that_does_not_exist(
    route: Route, house: House, ours: Furnished, theirs: Furnished, merchant: Person
) -> None:
    named = [name for name in theirs.objects if f"{{{name}}}" in route[1]]
    role = [ours.customer.headers] if Role.CUSTOMER in ROLES.get(route, ()) else []
    for who in [permitted(route, ours, merchant), *role]:
        for secrets in (ours.secrets, theirs.secrets):
            mine = call(route, ours, {**who, **secrets, "If-Match": "*"})
            for name in named:
                foreign = await mine.about(**{name: theirs.objects[name]}).made(house)
                missing = await mine.about(**{name: str(uuid4())}).made(house)
                assert seen(foreign) == seen(missing), name
                is_problem(foreign, 404, 422)


async def test_another_stores_cart_is_like_one_that_does_not_exist(
    house: House, ours: Furnished, theirs: Furnished
) -> None:
    route = ("POST", "/orders/v1/stores/{store_id}/orders")
    ordering = call(route, ours, {**ours.customer.headers, **theirs.secrets})
    foreign, missing = [
        await ordering.made(house, json={**BODIES[route], "cart_id": cart_id})
        for cart_id in (theirs.objects["cart_id"], str(uuid4()))
    ]
    is_problem(foreign, 404)
    assert seen(foreign) == seen(missing)


async def test_a_store_one_does_not_work_at_is_like_one_that_does_not_exist(
    house: House, ours: Furnished
) -> None:
    stranger = await house.person(PLATFORM_STORE)
    body = {"grant_type": "refresh_token", "refresh_token": stranger.refresh_token}
    path = f"/identity/v1/stores/{PLATFORM_STORE}/tokens"
    foreign, missing = [
        await house.http.post(path, json=body | {"act_at": store}) for store in (str(ours.id), str(uuid4()))
    ]
    is_problem(foreign, 403, 404)
    assert seen(foreign) == seen(missing)


# --- What is sent ----------------------------------------------------------------------------------------


@routes(route for route in PUBLIC | ROLES.keys() if route[0] in {"POST", "PUT", "PATCH"})
async def test_ten_megabytes_are_refused_everywhere(
    route: Route, house: House, ours: Furnished, merchant: Person
) -> None:
    headers = {**permitted(route, ours, merchant), **ours.secrets, "Content-Type": "application/json"}
    answer = await call(route, ours, headers).made(house, content=b"x" * 10 * 2**20 + b"x")
    is_problem(answer, 413)


CANARY = "Canary 7f3a9 Person"


@routes(PUBLIC - PAGES, ROLES)
async def test_bad_input_is_refused_and_never_repeated(
    route: Route, house: House, ours: Furnished, merchant: Person
) -> None:
    operation, document = _operation(house, route)
    right = call(route, ours, {**permitted(route, ours, merchant), **ours.secrets})
    for options in [*_bad_parameters(operation), *_bad_bodies(operation, document)]:
        answer = await right.made(house, **options)
        assert answer.status_code < 500, (options, answer.text)
        if answer.status_code >= 400:
            is_problem(answer, answer.status_code)
            assert "canary" not in (answer.text + str(answer.headers)).lower(), options
    for name in [name for name in right.names if f"{{{name}}}" in route[1]]:
        answer = await right.about(**{name: CANARY}).made(house)
        is_problem(answer, 404, 415, 422)
        assert "canary" not in (answer.text + str(answer.headers)).lower()


@routes(PUBLIC - PAGES, ROLES)
async def test_a_body_of_another_form_is_refused(
    route: Route, house: House, ours: Furnished, merchant: Person
) -> None:
    operation, _ = _operation(house, route)
    if "application/json" not in operation.get("requestBody", {}).get("content", {}):
        return
    right = call(route, ours, {**permitted(route, ours, merchant), **ours.secrets, "If-Match": "*"})
    json = {"Content-Type": "application/json"}
    for body in (b"", b"null", b"[]", b'"x"', b'{"x": 1}', b"{", b"\xff", b'{"a": 1' + b"[" * 100_000):
        is_problem(await right.made(house, content=body, headers=json), 400, 422)
    is_problem(await right.made(house, content=b"{}", headers={"Content-Type": "text/plain"}), 400, 415, 422)


def _operation(house: House, route: Route) -> tuple[dict[str, Any], dict[str, Any]]:
    """The route as its document describes it; pages are not described."""
    document = house.apps[route[1].split("/")[1]].openapi()
    return document["paths"].get(route[1], {}).get(route[0].lower(), {}), document


def _bad_parameters(operation: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    for parameter in operation.get("parameters", []):
        for value in (CANARY, CANARY * 300, "\0" + CANARY, ""):
            if parameter["in"] == "query":
                yield {"params": {parameter["name"]: value}}
            elif parameter["in"] == "header" and "\0" not in value:
                yield {"headers": {parameter["name"]: value}}


def _bad_bodies(operation: Mapping[str, Any], document: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    content = operation.get("requestBody", {}).get("content", {})
    if "application/json" in content:
        schema = content["application/json"]["schema"]
        for leaf in _LEAVES:
            yield {"json": _filled(schema, document, leaf)}
        yield {"json": _filled(schema, document, lambda kind: kind) | {CANARY: CANARY}}
        yield {
            "content": f'{{"{CANARY}": "{CANARY}'.encode(),
            "headers": {"Content-Type": "application/json"},
        }
        yield {"json": {CANARY: {CANARY: [CANARY]}}}
        yield {"json": [CANARY]}
    if "multipart/form-data" in content:
        yield {"files": {"file": (CANARY, CANARY.encode(), CANARY)}}
        yield {"files": {CANARY: (CANARY, b"x")}}
        yield {"content": CANARY.encode(), "headers": {"Content-Type": "text/csv"}}
        yield {
            "content": CANARY.encode(),
            "headers": {"Content-Type": "multipart/form-data; boundary=" + "c" * 80},
        }
    if "application/x-www-form-urlencoded" in content:
        yield {"data": {"token": CANARY * 10}}
        yield {"data": {CANARY: CANARY}}
    yield {"content": CANARY.encode(), "headers": {"Content-Type": "application/json"}}


_LEAVES: tuple[Callable[[str], Any], ...] = (
    lambda kind: CANARY if kind == "string" else 1,
    lambda _: CANARY,
    lambda kind: f"\0{CANARY}" if kind == "string" else 10**30,
    lambda kind: CANARY * 2000 if kind == "string" else -1,
    lambda kind: 1 if kind == "string" else CANARY,
    lambda _: {CANARY: CANARY},
    lambda _: [CANARY],
    lambda _: None,
)


def _filled(schema: Mapping[str, Any], document: Mapping[str, Any], leaf: Callable[[str], Any]) -> Any:
    """A body with every member the schema has, where every value is what `leaf` gives for its type."""
    if "$ref" in schema:
        return _filled(document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[-1]], document, leaf)
    for choice in ("anyOf", "oneOf"):
        if choice in schema:
            return _filled(schema[choice][0], document, leaf)
    if "const" in schema:
        return schema["const"]
    if schema.get("type") == "object" and "properties" in schema:
        return {name: _filled(part, document, leaf) for name, part in schema["properties"].items()}
    if schema.get("type") == "array":
        return [_filled(schema["items"], document, leaf)]
    return leaf(schema.get("type", "string"))
