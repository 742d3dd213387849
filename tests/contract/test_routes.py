"""Every route of every service: who may call it, what another store's caller learns, and what bad input gets back.

The tables of `routes.py` are compared with those of the applications: a route that is in neither of them fails.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from uuid import uuid4

from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, iter_route_contexts

from libs.common.auth import PLATFORM_STORE, Role
from tests.contract.house import Furnished, House, Person
from tests.contract.routes import (
    BODIES,
    OF_THE_PLATFORM,
    PAGES,
    PUBLIC,
    ROLES,
    SIGNED,
    TOOLS,
    Route,
    as_role,
    call,
    is_problem,
    permitted,
    routes,
    seen,
)
from tests.tokens import authorization


def test_every_route_is_declared_and_every_declared_route_exists(house: House) -> None:
    found = {
        (method, context.path)
        for app in house.apps.values()
        for context in iter_route_contexts(app.routes)
        for method in (context.methods or set()) - {"HEAD"}
    }
    assert found == PUBLIC | SIGNED | TOOLS | ROLES.keys()
    assert len(found) == len(PUBLIC) + len(SIGNED) + len(TOOLS) + len(ROLES)


def test_nothing_that_a_request_needs_is_asked_of_another_thread(house: House) -> None:
    # FastAPI gives what is not `async` to a thread, which costs more than anything of ours that is not.
    asked = [
        needed
        for app in house.apps.values()
        for context in iter_route_contexts(app.routes)
        if isinstance(context.route, APIRoute)
        for needed in (context.route.endpoint, *_needed(context.route.dependant))
    ]
    assert [one for one in asked if not _is_async(one)] == []


def _needed(dependant: Dependant) -> Iterator[Callable[..., Any]]:
    for one in dependant.dependencies:
        if one.call is not None:
            yield one.call
        yield from _needed(one)


def _is_async(call: Callable[..., Any]) -> bool:
    ways = (call, type(call).__call__)
    return any(inspect.iscoroutinefunction(one) or inspect.isasyncgenfunction(one) for one in ways)


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


@routes(TOOLS)
async def test_only_a_tool_of_the_store_is_let_in_by_its_key(
    route: Route, house: House, ours: Furnished, theirs: Furnished
) -> None:
    for nobody in ({}, {"Authorization": "Bearer x"}, as_role(ours, Role.OWNER), ours.customer.headers):
        is_problem(await call(route, ours, nobody).made(house), 401)
    foreign = await call(route, ours, theirs.tool).made(house)
    is_problem(foreign, 404)
    missing = await call(route, ours, theirs.tool).about(store_id=str(uuid4())).made(house)
    assert seen(foreign) == seen(missing)
    assert (await call(route, ours, ours.tool).made(house)).status_code not in {401, 403}


@routes(SIGNED)
async def test_what_nobody_signed_is_not_read(route: Route, house: House, ours: Furnished) -> None:
    for body in (b"", b"{", b"{}", CANARY.encode()):
        answer = await call(route, ours).made(house, content=body)
        is_problem(answer, 403)
        assert "canary" not in answer.text.lower()


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


@routes(PUBLIC, TOOLS, ROLES, having="{store_id}")
async def test_another_stores_object_is_like_one_that_does_not_exist(
    route: Route, house: House, ours: Furnished, theirs: Furnished, merchant: Person
) -> None:
    # What is the same at both is a word, and no object of theirs.
    objects = dict(theirs.objects.items() - ours.objects.items())
    named = [name for name in objects if f"{{{name}}}" in route[1]]
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


@routes(route for route in PUBLIC | SIGNED | TOOLS | ROLES.keys() if route[0] in {"POST", "PUT", "PATCH"})
async def test_ten_megabytes_are_refused_everywhere(
    route: Route, house: House, ours: Furnished, merchant: Person
) -> None:
    headers = {**permitted(route, ours, merchant), **ours.secrets, "Content-Type": "application/json"}
    answer = await call(route, ours, headers).made(house, content=b"x" * 10 * 2**20 + b"x")
    is_problem(answer, 413)


CANARY = "Canary 7f3a9 Person"


@routes(PUBLIC - PAGES, SIGNED, TOOLS, ROLES)
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


@routes(PUBLIC - PAGES, TOOLS, ROLES)
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
