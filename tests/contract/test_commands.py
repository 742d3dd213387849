"""Every route that changes something: each member of its body, its idempotency key, and the ETag it asks for.

The tests are made from the OpenAPI documents: a new route is tested, or it fails for want of a body in `routes.py`.
"""

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from typing import Any
from uuid import uuid4

import httpx
import orjson
from sqlalchemy import text

from deploy.local.documents import DOCS
from deploy.local.environment import SERVICES
from libs.common.auth import Role
from tests.contract.house import Furnished, House, Person, buy
from tests.contract.routes import BODIES, SIGNED, TOOLS, Route, call, is_problem, permitted, routes

DOCUMENTS = {service: orjson.loads((DOCS / "api" / f"{service}.json").read_bytes()) for service in SERVICES}
OPERATIONS: Mapping[Route, Mapping[str, Any]] = {
    (method.upper(), path): operation
    for document in DOCUMENTS.values()
    for path, operations in document["paths"].items()
    for method, operation in operations.items()
}


def _content(route: Route) -> Mapping[str, Any]:
    return OPERATIONS[route].get("requestBody", {}).get("content", {})


def _asking_for(header: str) -> set[Route]:
    return {
        route
        for route, operation in OPERATIONS.items()
        if any(one["name"] == header for one in operation.get("parameters", []))
    }


JSON = {route for route in OPERATIONS if "application/json" in _content(route)}
KEYED = _asking_for("Idempotency-Key")
VERSIONED = _asking_for("If-Match")


def test_every_body_has_an_example() -> None:
    assert BODIES.keys() >= JSON


def test_whatever_is_created_takes_a_key() -> None:
    created = {route for route, operation in OPERATIONS.items() if "201" in operation["responses"]}
    # Of carts, and of addresses to download from, one may have as many as one likes; each has a secret of its own.
    assert created - KEYED == {
        ("POST", "/orders/v1/stores/{store_id}/carts"),
        ("POST", "/privacy/v1/downloads"),
        # The id that the tool gives is its key.
        ("POST", "/privacy/opendsr/{store_id}/v1/requests"),
        ("POST", "/privacy/opendsr/{store_id}/opengdpr_requests"),
    }


# --- Members of bodies -----------------------------------------------------------------------------------


def _resolved(schema: Mapping[str, Any], service: str) -> Mapping[str, Any]:
    if "$ref" in schema:
        return DOCUMENTS[service]["components"]["schemas"][schema["$ref"].rsplit("/", 1)[-1]]
    return schema


def _choices(schema: Mapping[str, Any], service: str) -> list[Mapping[str, Any]]:
    """The forms a value may have."""
    schema = _resolved(schema, service)
    parts = schema.get("anyOf") or schema.get("oneOf")
    return [form for part in parts for form in _choices(part, service)] if parts else [schema]


def _members(
    schema: Mapping[str, Any], service: str, example: Any, *path: str | int
) -> Iterator[tuple[tuple[str | int, ...], bool, list[Mapping[str, Any]]]]:
    """Path, whether it is required, and forms of every member that could stand in the example."""
    for form in _choices(schema, service):
        if form.get("type") == "array" and example:
            yield from _members(form["items"], service, example[0], *path, 0)
        properties: Mapping[str, Any] = form.get("properties", {})
        if not isinstance(example, dict) or not example.keys() <= properties.keys():
            continue
        for name, part in properties.items():
            yield (*path, name), name in form.get("required", ()), _choices(part, service)
            if name in example:
                yield from _members(part, service, example[name], *path, name)


_WRONG = {
    "string": "text",
    "integer": 1,
    "number": 1,
    "boolean": True,
    "array": [],
    "object": {},
    "null": None,
}
"""A value of each type. For a member only those count that are of none of its types."""
_COERCED = {("integer", "number"), ("number", "integer"), ("boolean", "integer"), ("boolean", "number")}


def _bad_values(forms: list[Mapping[str, Any]]) -> Iterator[Any]:
    types = {form.get("type", "string") for form in forms}
    for kind, value in _WRONG.items():
        if kind not in types and not any((own, kind) in _COERCED for own in types):
            yield value
    for form in forms:
        if "maxLength" in form:
            yield "x" * (form["maxLength"] + 1)
        if "maxItems" in form:
            yield ["x"] * (form["maxItems"] + 1)
        if "maximum" in form:
            yield int(form["maximum"]) + 1
        if form.get("type") == "string":
            yield "x" * 300_000


def _changed(body: Any, path: tuple[str | int, ...], change: Callable[[Any, Any], None]) -> Any:
    """A copy of the body in which `change` was done to the holder of what stands at the path."""
    copy = deepcopy(body)
    holder = copy
    for step in path[:-1]:
        holder = holder[step]
    change(holder, path[-1])
    return copy


def _bad_bodies(route: Route) -> Iterator[tuple[str, Any]]:
    service, example = route[1].split("/")[1], BODIES[route]
    schema = _content(route)["application/json"]["schema"]
    for path, required, forms in _members(schema, service, example):
        name = str(path[-1])
        if required:
            yield name, _changed(example, path, lambda holder, key: holder.pop(key))
        for value in _bad_values(forms):
            yield name, _changed(example, path, lambda holder, key, value=value: holder.update({key: value}))
    yield "", example | {"unheard_of": 1}


@routes(JSON & TOOLS)
async def test_each_member_that_a_tool_sends_wrong_is_refused_as_opendsr_says(
    route: Route, house: House, ours: Furnished
) -> None:
    right = call(route, ours, ours.tool)
    bodies = list(_bad_bodies(route))
    assert len(bodies) > 20
    for name, body in bodies:
        answer = await right.made(house, json=body)
        is_problem(answer, 400, 413)
        assert "unheard_of" not in answer.text
        if answer.status_code == 400:
            messages = [error["message"] for error in answer.json()["error"]["errors"]]
            assert name in messages[0] or messages[0].startswith("The body") or not name, (name, messages)


@routes(JSON - TOOLS - SIGNED)
async def test_each_member_is_refused_where_it_is_wrong(
    route: Route, house: House, ours: Furnished, merchant: Person
) -> None:
    right = call(route, ours, {**permitted(route, ours, merchant), **ours.secrets, "If-Match": "*"})
    bodies = list(_bad_bodies(route))
    assert len(bodies) > 4
    for name, body in bodies:
        answer = await right.made(house, json=body)
        is_problem(answer, 422)
        places = [error["at"] for error in answer.json()["errors"]]
        # A body that may have several forms is none of them without the member that tells which.
        assert "unheard_of" not in answer.text
        assert places and (name in places[0].split("/") or places == ["body"] or not name), (name, places)


# --- Keys ------------------------------------------------------------------------------------------------

Prepare = Callable[[House, Furnished, Person], Any]


async def _to_be_paid(house: House, ours: Furnished, _: Person) -> dict[str, Any]:
    email = f"canary-{uuid4().hex}@vitrine.example"
    order = await buy(house, ours.id, ours.objects["variant_id"], email)
    await house.carry(ours.id)
    day = (
        await house.call("GET", f"/orders/v1/stores/{ours.id}/orders/{order['id']}", headers=ours.staff())
    )["placed_at"][:10]
    body = {"amount": order["total"], "method": "bank_transfer", "received_on": day}
    return {"names": {"order_id": order["id"]}, "json": body}


async def _to_be_fulfilled(house: House, ours: Furnished, merchant: Person) -> dict[str, Any]:
    due = await _to_be_paid(house, ours, merchant)
    path = f"/billing/v1/stores/{ours.id}/orders/{due['names']['order_id']}/payments"
    await house.call("POST", path, json=due["json"], headers=ours.staff(), expect=201)
    await house.carry(ours.id)
    return {"names": due["names"], "headers": {"If-Match": "*"}}


async def _to_be_ordered(house: House, ours: Furnished, _: Person) -> dict[str, Any]:
    orders = f"/orders/v1/stores/{ours.id}"
    cart = await house.call("POST", f"{orders}/carts", expect=201)
    secret = {"Cart-Secret": cart["secret"]}
    line = f"{orders}/carts/{cart['id']}/lines/{ours.objects['variant_id']}"
    await house.call("PUT", line, json={"quantity": 1}, headers=secret)
    body = BODIES["POST", "/orders/v1/stores/{store_id}/orders"] | {"cart_id": cart["id"]}
    return {"json": body, "headers": secret}


async def _a_sheet(_house: House, _ours: Furnished, _: Person) -> dict[str, Any]:
    sheet = f"Handle,Title,Variant Price\npen-{uuid4().hex},Pen,2.50\n"
    return {"content": sheet.encode(), "headers": {"Content-Type": "text/csv"}}


async def _a_product(_house: House, _ours: Furnished, _: Person) -> dict[str, Any]:
    variant = {"sku": uuid4().hex, "price": 250}
    return {"json": {"handle": f"pen-{uuid4().hex}", "title": "Pen", "variants": [variant]}}


async def _a_store(_house: House, _ours: Furnished, _: Person) -> dict[str, Any]:
    return {"json": BODIES["POST", "/identity/v1/stores"] | {"slug": f"shop-{uuid4().hex[:12]}"}}


async def _a_request(house: House, ours: Furnished, _: Person) -> dict[str, Any]:
    person = await house.person(ours.id)
    return {"json": {"right": "access", "email": person.email}, "headers": person.headers}


async def _a_form(_house: House, _ours: Furnished, _: Person) -> dict[str, Any]:
    return {"json": {"right": "access", "email": f"canary-{uuid4().hex}@vitrine.example"}}


async def _an_agents_form(house: House, ours: Furnished, merchant: Person) -> dict[str, Any]:
    form = (await _a_form(house, ours, merchant))["json"] | {
        "agent": {"name": "An agent", "email": f"canary-{uuid4().hex}@vitrine.example"}
    }
    return {"data": {"form": orjson.dumps(form).decode()}, "files": {"authorisation": _PDF}}


async def _a_letter(house: House, ours: Furnished, merchant: Person) -> dict[str, Any]:
    form = (await _a_form(house, ours, merchant))["json"]
    return {"json": form | {"channel": "letter", "seen": "A letter."}}


async def _a_note(_house: House, _ours: Furnished, _: Person) -> dict[str, Any]:
    return {"json": {"text": "A note."}}


async def _asked(house: House, ours: Furnished, **wanted: Any) -> str:
    """The id of a request by somebody new."""
    person = await house.person(ours.id)
    path, body = f"/privacy/v1/stores/{ours.id}/requests", {"email": person.email, **wanted}
    return (await house.call("POST", path, json=body, headers=person.headers, expect=201))["id"]


async def _to_be_decided(house: House, ours: Furnished, _: Person) -> dict[str, Any]:
    correction = {"category": "user.name", "value": "Another name"}
    request_id = await _asked(house, ours, right="rectification", corrections=[correction])
    await house.carry(ours.id)
    return {"names": {"request_id": request_id}, "json": {"approve": True}, "headers": {"If-Match": "*"}}


async def _to_be_lifted(house: House, ours: Furnished, _: Person) -> dict[str, Any]:
    request_id = await _asked(house, ours, right="restriction")
    # By whom and how it was carried out is not the matter here.
    completed = text("UPDATE request SET state = 'completed' WHERE id = :id")
    async with house.database("privacy").session(ours.id) as session:
        await session.execute(completed, {"id": request_id})
    return {"names": {"request_id": request_id}}


async def _to_be_shown(house: House, ours: Furnished, _: Person) -> dict[str, Any]:
    _request_id, token = await house.followed(ours.id)
    return {"data": {"token": token}, "files": {"file": _PDF}}


async def _to_be_looked_at(house: House, ours: Furnished, _: Person) -> dict[str, Any]:
    request_id, token = await house.followed(ours.id)
    sent = {"data": {"token": token}, "files": {"file": _PDF}}
    await house.call("POST", "/privacy/v1/status/documents", **sent, expect=201)
    path = f"/privacy/v1/stores/{ours.id}/requests/{request_id}/documents"
    [waiting] = (await house.call("GET", path, headers=ours.staff(Role.OWNER)))["waiting"]
    names = {"request_id": request_id, "document_id": waiting["id"]}
    return {"names": names, "json": {"accepted": True, "seen": "A card."}}


async def _to_be_merged(house: House, ours: Furnished, _: Person) -> dict[str, Any]:
    both = [await house.person(ours.id) for _ in range(2)]
    return {"json": {"subjects": [{"email": one.email} for one in both]}}


async def _a_hold(_house: House, _ours: Furnished, _: Person) -> dict[str, Any]:
    body = BODIES["POST", "/privacy/v1/stores/{store_id}/holds"]
    return {"json": body | {"email": f"canary-{uuid4().hex}@vitrine.example"}}


async def _to_be_settled(house: House, ours: Furnished, _: Person) -> dict[str, Any]:
    request_id = await _asked(house, ours, right="access")
    # The platform answers for its own services, and this store for somebody else's.
    asked = text("""
        INSERT INTO task (request_id, participant, verb, store_id, asked_at)
        SELECT id, 'newsletter', 'export', store_id, now() FROM request WHERE id = :id
    """)
    async with house.database("privacy").session(ours.id) as session:
        await session.execute(asked, {"id": request_id})
    route = f"{_REQUESTS}/{{request_id}}/parts/{{participant}}/{{verb}}/settlement"
    return {"names": {"request_id": request_id}, "json": BODIES["POST", route]}


async def _a_tool(_house: House, _ours: Furnished, _: Person) -> dict[str, Any]:
    return {"json": BODIES["POST", "/privacy/v1/stores/{store_id}/opendsr-controllers"]}


async def _a_recipient(_house: House, _ours: Furnished, _: Person) -> dict[str, Any]:
    return {"json": BODIES["POST", "/privacy/v1/stores/{store_id}/recipients"]}


_PDF = ("card.pdf", b"%PDF-1.7 a card", "application/pdf")
_REQUESTS = "/privacy/v1/stores/{store_id}/requests"
FIRST: Mapping[Route, Prepare] = {
    ("POST", "/billing/v1/stores/{store_id}/orders/{order_id}/payments"): _to_be_paid,
    ("POST", "/orders/v1/stores/{store_id}/orders/{order_id}/fulfilments"): _to_be_fulfilled,
    ("POST", "/orders/v1/stores/{store_id}/orders"): _to_be_ordered,
    ("POST", "/catalog/v1/stores/{store_id}/imports"): _a_sheet,
    ("POST", "/catalog/v1/stores/{store_id}/products"): _a_product,
    ("POST", "/identity/v1/stores"): _a_store,
    ("POST", _REQUESTS): _a_request,
    ("POST", "/privacy/v1/stores/{store_id}/request-forms"): _a_form,
    ("POST", "/privacy/v1/stores/{store_id}/authorised-request-forms"): _an_agents_form,
    ("POST", "/privacy/v1/stores/{store_id}/requests-on-behalf"): _a_letter,
    ("POST", f"{_REQUESTS}/{{request_id}}/decision"): _to_be_decided,
    ("POST", f"{_REQUESTS}/{{request_id}}/lifting"): _to_be_lifted,
    ("POST", f"{_REQUESTS}/{{request_id}}/notes"): _a_note,
    ("POST", f"{_REQUESTS}/{{request_id}}/parts/{{participant}}/{{verb}}/settlement"): _to_be_settled,
    ("POST", f"{_REQUESTS}/{{request_id}}/documents/{{document_id}}/checks"): _to_be_looked_at,
    ("POST", "/privacy/v1/stores/{store_id}/merges"): _to_be_merged,
    ("POST", "/privacy/v1/stores/{store_id}/holds"): _a_hold,
    ("POST", "/privacy/v1/stores/{store_id}/recipients"): _a_recipient,
    ("POST", "/privacy/v1/stores/{store_id}/opendsr-controllers"): _a_tool,
    ("POST", "/privacy/v1/status/documents"): _to_be_shown,
}
"""How to make the first of two calls with one key."""
SHOWN_ONCE: Mapping[Route, str] = {
    ("POST", "/privacy/v1/stores/{store_id}/recipients"): "secret",
    ("POST", "/privacy/v1/stores/{store_id}/opendsr-controllers"): "key",
}
"""What a reply that is given again does not have any more."""


@routes(KEYED)
async def test_a_key_has_one_effect_one_reply_and_one_request(
    route: Route, house: House, ours: Furnished, merchant: Person
) -> None:
    options = await FIRST[route](house, ours, merchant)
    names, own = options.pop("names", {}), options.pop("headers", {})
    headers = {**permitted(route, ours, merchant), **own, "Idempotency-Key": uuid4().hex}
    right = call(route, ours, headers).about(**names)
    first, second = [await right.made(house, **options) for _ in range(2)]
    # Where 200 is documented beside 201, it is for what was there already.
    succeeded = max(int(status) for status in OPERATIONS[route]["responses"] if status < "300")
    assert first.status_code == succeeded, first.text
    assert second.status_code == succeeded
    if (name := SHOWN_ONCE.get(route)) is not None:
        assert first.json()[name] and second.json() == first.json() | {name: None}
    else:
        assert second.content == first.content
    assert second.headers["idempotency-replayed"] == "true" and "idempotency-replayed" not in first.headers
    assert second.headers.get("location") == first.headers.get("location")
    if options:
        is_problem(await _with_another_body(right.made, house, options), 422)
    for malformed in ("short", "x" * 201, "with a blank"):
        is_problem(await right.made(house, headers={"Idempotency-Key": malformed}, **options), 422)


async def _with_another_body(
    made: Callable[..., Any], house: House, options: Mapping[str, Any]
) -> httpx.Response:
    if "files" in options:
        [(field, (name, content, kind))] = options["files"].items()
        return await made(house, data=options["data"], files={field: (name, content + b" more", kind)})
    if "content" in options:
        return await made(house, content=options["content"].replace(b"Pen", b"Pencil"))
    # A member more, of no meaning, is not valid; a blank more is another request of the same meaning.
    spaced = b" " + orjson.dumps(options["json"])
    return await made(house, content=spaced, headers={"Content-Type": "application/json"})


# --- ETags -----------------------------------------------------------------------------------------------


@routes(VERSIONED)
async def test_what_somebody_else_has_changed_is_not_overwritten(
    route: Route, house: House, ours: Furnished, merchant: Person
) -> None:
    role = ours.staff(Role.OWNER) if route[1].endswith("/{store_id}") else permitted(route, ours, merchant)
    right = call(route, ours, {**role, **ours.secrets})
    for stale in ('"999999"', '"0"', "W/1", "nothing"):
        answer = await right.made(house, headers={"If-Match": stale})
        is_problem(answer, 412)
        assert answer.json()["type"] == "/problems/stale"
    if "428" in OPERATIONS[route]["responses"]:
        answer = await right.made(house)
        is_problem(answer, 428)
        assert answer.json()["type"] == "/problems/if-match-required"
