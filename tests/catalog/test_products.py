"""Products, read by anybody and changed by managers."""

import asyncio
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI

from deploy.local.postgres import PostgresServer
from libs.common.auth import Role
from libs.common.events.catalog import ProductPublished
from libs.common.http import Page
from services.catalog.schemas import Facets, Filters, ListQuery, ProductCard, ProductDocument
from tests.catalog.conftest import Shop, a_product
from tests.tokens import authorization

UNKNOWN = str(uuid4())


async def change(shop: Shop, product: dict[str, Any], etag: str | None, **changes: Any) -> httpx.Response:
    headers = shop.manager | ({"If-Match": etag} if etag else {})
    return await shop.client.patch(f"{shop.path}/products/{product['id']}", json=changes, headers=headers)


async def etag_of(shop: Shop, product: dict[str, Any]) -> str:
    answer = await shop.client.get(f"{shop.path}/products/{product['id']}", headers=shop.manager)
    return answer.headers["etag"]


# --- Reading ---------------------------------------------------------------------------------------------


async def test_a_product_is_shown_to_anybody_and_as_it_is_documented(shop: Shop) -> None:
    made = await shop.add()
    by_id = await shop.client.get(f"{shop.path}/products/{made['id']}")
    by_handle = await shop.client.get(f"{shop.path}/products/by-handle/{made['handle']}")
    assert by_id.json() == by_handle.json() == made
    document = ProductDocument.model_validate_json(by_id.content)
    assert document.model_dump(mode="json") == by_id.json()
    assert set(by_id.json()) == set(ProductDocument.model_fields)
    assert [variant.available for variant in document.variants] == [5, 0]
    assert document.description == "Fired twice.\n\nWash it by hand."
    assert (document.min_price.amount, document.max_price.amount) == (2400, 2600)


async def test_what_lists_send_validates_against_what_they_declare(shop: Shop) -> None:
    await shop.add(images=[])
    await shop.add()
    content = (await shop.client.get(f"{shop.path}/products")).content
    page = Page[ProductCard].model_validate_json(content, strict=True)
    assert page.model_dump(mode="json") == (await shop.get())
    facets = (await shop.client.get(f"{shop.path}/facets")).content
    assert Facets.model_validate_json(facets, strict=True).model_dump(mode="json") == await shop.get(
        "/facets"
    )


async def test_an_empty_store_has_an_empty_list(shop: Shop) -> None:
    assert await shop.get() == {"items": [], "next": None}
    facets = await shop.get("/facets")
    assert (facets["total"], facets["prices"]) == (0, {"min": None, "max": None, "currency": "EUR"})


async def test_words_are_found_without_accents_in_plural_and_unfinished(shop: Shop) -> None:
    await shop.add(title="Théière en grès", description="Pour le thé du matin.", vendor="A", tags=[])
    await shop.add(title="Notebooks, ruled", description="Paper from beech.", vendor="B", tags=["écriture"])

    async def titles(q: str) -> list[str]:
        return [item["title"] for item in (await shop.get(q=q))["items"]]

    for q in ("théière", "theiere", "THEIERES", "theier", "gres", '"theiere en gres"'):
        assert await titles(q) == ["Théière en grès"], q
    for q in ("notebook", "noteb", "ruled notebooks", "ecriture", "notebook -tea"):
        assert await titles(q) == ["Notebooks, ruled"], q
    for q in ("lamp", "notebook -ruled", "'", "&|!():*", "\\"):
        assert await titles(q) == [], q


async def test_the_title_weighs_more_than_the_description(shop: Shop) -> None:
    await shop.add(title="Lamp", description="Goes well with a vase, a vase or a vase.")
    await shop.add(title="Vase", description="Of glass.")
    await shop.add(title="Chair")
    assert [item["title"] for item in (await shop.get(q="vase"))["items"]] == ["Vase", "Lamp"]


async def test_filters_select_and_facets_count(shop: Shop) -> None:
    cheap = await shop.add(vendor="V1", product_type="T1", tags=["a"], options=[], variants=[{"price": 100}])
    dear = await shop.add(
        vendor="V2", product_type="T2", tags=["a", "b"], options=[], variants=[{"price": 900, "on_hand": 1}]
    )

    async def found(**query: Any) -> list[str]:
        return [item["id"] for item in (await shop.get(**query))["items"]]

    assert await found() == [dear["id"], cheap["id"]]
    assert await found(vendor="V1") == await found(type="T1") == await found(max_price=500) == [cheap["id"]]
    assert await found(tag="b") == await found(min_price=500) == await found(available=True) == [dear["id"]]
    assert await found(available=False) == [cheap["id"]]
    assert await found(vendor="V1", tag="b") == []
    facets = await shop.get("/facets")
    assert (facets["total"], facets["available"]) == (2, 1)
    assert facets["tags"] == [{"value": "a", "count": 2}, {"value": "b", "count": 1}]
    assert facets["prices"] == {"min": 100, "max": 900, "currency": "EUR"}
    assert (await shop.get("/facets", tag="b"))["vendors"] == [{"value": "V2", "count": 1}]


@pytest.mark.parametrize("sort", ["relevance", "newest", "price", "price-descending", "title"])
async def test_cursors_skip_and_repeat_nothing_while_products_are_added(shop: Shop, sort: str) -> None:
    made = [
        await shop.add(title=f"Mug {n % 3}", options=[], variants=[{"price": 100 + n % 4}]) for n in range(12)
    ]
    seen: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        page = await shop.get(q="mug", sort=sort, limit=5, **cursor)
        seen += page["items"]
        if page["next"] is None:
            break
        cursor = {"cursor": page["next"]}
        await shop.add(title="Mug 1", options=[], variants=[{"price": 101}])
    ids = [item["id"] for item in seen]
    assert len(set(ids)) == len(ids)
    assert {product["id"] for product in made} <= set(ids)
    keys = {"price": "min_price", "price-descending": "min_price", "title": "title"}
    if sort in keys:
        values = [str(item[keys[sort]]) for item in seen]
        assert values == sorted(values, reverse=sort == "price-descending")


async def test_a_cursor_belongs_to_its_order(shop: Shop) -> None:
    for _ in range(2):
        await shop.add()
    cursor = (await shop.get(sort="price", limit=1))["next"]
    for query in (
        {"sort": "newest", "cursor": cursor},
        {"cursor": "nonsense"},
        {"cursor": "W10"},
        {"sort": "title", "cursor": "WyJ0aXRsZSIsIlx1MDAwMCIsMV0"},  # a NUL in the title
        {"sort": "price", "cursor": "WyJwcmljZSIsOTk5OTk5OTk5OTk5OTk5OTk5OTk5LDFd"},  # beyond 64 bits
    ):
        answer = await shop.client.get(f"{shop.path}/products", params=query)
        assert answer.status_code == 400, query
        assert answer.json()["type"] == "/problems/invalid-cursor"


async def test_what_a_visitor_has_already_is_not_sent_again(shop: Shop) -> None:
    product = await shop.add()
    for path in ("/products", "/facets", f"/products/{product['id']}"):
        first = await shop.client.get(shop.path + path)
        again = await shop.client.get(shop.path + path, headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == first.headers["etag"]
        assert "public" in first.headers["cache-control"]
        other = await shop.client.get(shop.path + path, headers={"If-None-Match": '"something"'})
        assert other.status_code == 200


async def test_drafts_are_shown_to_staff_alone(shop: Shop) -> None:
    draft = await shop.add(status="draft")
    path = f"{shop.path}/products/{draft['id']}"
    assert (await shop.client.get(path)).status_code == 404
    customer = authorization(shop.id, Role.CUSTOMER)
    assert (await shop.client.get(path, headers=customer)).status_code == 404
    seen = await shop.client.get(path, headers=shop.manager)
    assert (seen.status_code, seen.headers["cache-control"]) == (200, "private, no-store")
    assert (await shop.get())["items"] == []
    listed = await shop.client.get(f"{shop.path}/products?status=draft", headers=shop.manager)
    assert [item["id"] for item in listed.json()["items"]] == [draft["id"]]
    for headers in ({}, customer):
        refused = await shop.client.get(f"{shop.path}/products?status=draft", headers=headers)
        assert refused.status_code == 403


# --- Changing --------------------------------------------------------------------------------------------


async def test_a_new_product_is_published_with_its_variants(shop: Shop) -> None:
    made = await shop.add()
    [event] = await shop.published(ProductPublished)
    assert (str(event.product_id), event.version, event.status) == (made["id"], 1, "active")
    assert [(v.title, v.price.amount) for v in event.variants] == [
        ("Stoneware mug – Blue", 2400),
        ("Stoneware mug – Green", 2600),
    ]
    assert [str(v.variant_id) for v in event.variants] == [variant["id"] for variant in made["variants"]]


async def test_a_product_sent_twice_with_one_key_is_made_once(shop: Shop) -> None:
    body, headers = a_product(), shop.manager | {"Idempotency-Key": uuid4().hex}
    answers = await asyncio.gather(
        *(shop.client.post(f"{shop.path}/products", json=body, headers=headers) for _ in range(4))
    )
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert len({answer.content for answer in answers if answer.status_code == 201}) == 1
    assert len(await shop.published(ProductPublished)) == 1


async def test_handles_and_skus_are_taken_once_in_a_store(shop: Shop, client: httpx.AsyncClient) -> None:
    made = await shop.add()
    sku = made["variants"][0]["sku"]
    same_handle = a_product(handle=made["handle"])
    same_sku = a_product(options=[], variants=[{"price": 1, "sku": sku}])
    for body, problem in ((same_handle, "handle-taken"), (same_sku, "sku-taken")):
        answer = await shop.client.post(f"{shop.path}/products", json=body, headers=shop.manager)
        assert (answer.status_code, answer.json()["type"]) == (409, f"/problems/{problem}")
        other = await Shop(shop.app, client).open()
        assert (
            await client.post(f"{other.path}/products", json=body, headers=other.manager)
        ).status_code == 201


@pytest.mark.parametrize(
    "changes",
    [
        {"options": ["Size", "Colour"]},
        {"options": ["Colour", "Colour"], "variants": [{"choice": ["a", "b"], "price": 1}]},
        {"variants": [{"choice": ["a"], "price": 1}, {"choice": ["a"], "price": 2}]},
        {"variants": []},
        {"variants": [{"choice": ["a"], "price": -1}]},
        {"variants": [{"choice": ["a"], "price": 1.5}]},
        {"handle": "with space"},
        {"handle": "x" * 201},
        {"title": ""},
        {"title": "nul\0"},
        {"description": "nul\0"},
        {"description": "x" * 20_001},
        {"tags": ["a,b"]},
        {"tags": ["t"] * 51},
        {"images": [{"src": "javascript:alert(1)"}]},
        {"status": "sold"},
        {"unknown": 1},
    ],
)
async def test_a_bad_product_is_refused_without_echo(shop: Shop, changes: dict[str, Any]) -> None:
    body = a_product(vendor="canary-vendor") | changes
    answer = await shop.client.post(f"{shop.path}/products", json=body, headers=shop.manager)
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert "canary" not in answer.text
    assert (await shop.get())["items"] == []


async def test_a_change_needs_the_version_that_was_read(shop: Shop) -> None:
    product = await shop.add()
    assert (await change(shop, product, None, title="A")).status_code == 428
    etag = await etag_of(shop, product)
    changed = await change(shop, product, etag, title="Bowl", tags=[], status="active")
    assert changed.status_code == 200
    assert (changed.json()["title"], changed.json()["version"], changed.json()["vendor"]) == (
        "Bowl", 2, "Terre Lente",
    )  # fmt: skip
    assert changed.headers["etag"] == await etag_of(shop, product)
    assert (await change(shop, product, etag, title="Cup")).status_code == 412
    assert [event.version for event in await shop.published(ProductPublished)] == [1, 2]


async def test_racing_changes_have_one_winner(shop: Shop) -> None:
    product = await shop.add()
    etag = await etag_of(shop, product)
    answers = await asyncio.gather(*(change(shop, product, etag, title=f"T{n}") for n in range(5)))
    assert sorted(answer.status_code for answer in answers) == [200, 412, 412, 412, 412]


async def test_stock_that_moves_is_no_conflict_of_edits_but_a_new_answer(shop: Shop) -> None:
    product = await shop.add()
    variant = product["variants"][0]["id"]
    before = await etag_of(shop, product)
    counted = await shop.client.put(
        f"{shop.path}/variants/{variant}/stock",
        json={"on_hand": 7},
        headers=shop.manager | {"If-Match": '"1"'},
    )
    assert counted.status_code == 200
    seen = await shop.client.get(f"{shop.path}/products/{product['id']}", headers={"If-None-Match": before})
    assert (seen.status_code, seen.json()["variants"][0]["available"]) == (200, 7)
    assert (await change(shop, product, before, title="Bowl")).status_code == 200


async def test_an_archived_product_is_sold_no_more(shop: Shop) -> None:
    product = await shop.add()
    assert (await change(shop, product, "*", status="archived")).status_code == 200
    event = (await shop.published(ProductPublished))[-1]
    assert (event.status, event.variants) == ("archived", [])
    assert (await shop.client.get(f"{shop.path}/products/{product['id']}")).status_code == 404


async def test_a_variant_is_priced_anew_and_published(shop: Shop) -> None:
    product = await shop.add()
    variant, other = product["variants"]
    path = f"{shop.path}/variants/{variant['id']}"
    headers = shop.manager | {"If-Match": '"1"'}
    changed = await shop.client.patch(path, json={"price": 9900, "sku": None}, headers=headers)
    assert (changed.status_code, changed.headers["etag"]) == (200, '"2"')
    assert (await shop.client.patch(path, json={"price": 1}, headers=headers)).status_code == 412
    assert (await shop.client.patch(path, json={"price": 1}, headers=shop.manager)).status_code == 428
    seen = await shop.get(f"/products/{product['id']}")
    assert (seen["max_price"]["amount"], seen["variants"][0]["sku"]) == (9900, None)
    assert (await shop.published(ProductPublished))[-1].variants[0].price.amount == 9900
    taken = await shop.add()
    answer = await shop.client.patch(
        f"{shop.path}/variants/{other['id']}",
        json={"sku": taken["variants"][0]["sku"]},
        headers=headers,
    )
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/sku-taken")


async def test_counting_needs_the_version_that_was_read(shop: Shop) -> None:
    variant = (await shop.add())["variants"][0]["id"]
    path = f"{shop.path}/variants/{variant}/stock"
    assert (await shop.client.put(path, json={"on_hand": 3}, headers=shop.manager)).status_code == 428
    stale = shop.manager | {"If-Match": '"9"'}
    assert (await shop.client.put(path, json={"on_hand": 3}, headers=stale)).status_code == 412
    fresh = shop.manager | {"If-Match": '"1"'}
    for bad in ("3", None, True, 1.5, 10**12):
        assert (await shop.client.put(path, json={"on_hand": bad}, headers=fresh)).status_code == 422, bad
    answer = await shop.client.put(path, json={"on_hand": 3}, headers=fresh)
    assert (answer.json()["on_hand"], answer.headers["etag"]) == (3, '"2"')


# --- Who may ---------------------------------------------------------------------------------------------


def requests(path: str, product: str, variant: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Every route for managers and staff, with a body that is right."""
    match = {"If-Match": "*"}
    return [
        ("POST", f"{path}/products", {"json": a_product()}),
        ("PATCH", f"{path}/products/{product}", {"json": {"title": "T"}, "headers": match}),
        ("PATCH", f"{path}/variants/{variant}", {"json": {"price": 1}, "headers": match}),
        ("PUT", f"{path}/variants/{variant}/stock", {"json": {"on_hand": 1}, "headers": match}),
        ("GET", f"{path}/variants/{variant}/stock", {}),
        (
            "POST",
            f"{path}/imports",
            {"files": {"file": ("a.csv", b"Handle,Title,Variant Price\n", "text/csv")}},
        ),
        ("GET", f"{path}/imports/{UNKNOWN}", {}),
        ("GET", f"{path}/export.csv", {}),
    ]


async def ask(
    shop: Shop, request: tuple[str, str, dict[str, Any]], headers: dict[str, str]
) -> httpx.Response:
    method, path, options = request
    return await shop.client.request(
        method, path, **options | {"headers": options.get("headers", {}) | headers}
    )


async def test_nobody_changes_anything_without_a_token_of_the_store_and_the_role(shop: Shop) -> None:
    product = await shop.add()
    customer, support = authorization(shop.id, Role.CUSTOMER), authorization(shop.id, Role.SUPPORT)
    foreign = authorization(uuid4(), Role.OWNER)
    for request in requests(shop.path, product["id"], product["variants"][0]["id"]):
        assert (await ask(shop, request, {})).status_code == 401, request
        assert (await ask(shop, request, {"Authorization": "Bearer nonsense"})).status_code == 401, request
        assert (await ask(shop, request, customer)).status_code == 403, request
        assert (await ask(shop, request, foreign)).status_code == 404, request
        for_staff = request[0] == "GET" and not request[1].endswith(UNKNOWN)
        assert (await ask(shop, request, support)).status_code == (200 if for_staff else 403), request
    assert (await shop.get(f"/products/{product['id']}"))["version"] == 1


async def test_what_belongs_to_another_store_answers_like_what_does_not_exist(shop: Shop) -> None:
    theirs = await (await Shop(shop.app, shop.client).open()).add()
    foreign = requests(shop.path, theirs["id"], theirs["variants"][0]["id"])
    absent = requests(shop.path, UNKNOWN, UNKNOWN)
    for one, other in zip(foreign, absent, strict=True):
        if theirs["id"] in one[1] or theirs["variants"][0]["id"] in one[1]:
            answers = [await ask(shop, request, shop.manager) for request in (one, other)]
            assert answers[0].status_code == answers[1].status_code == 404, one
            assert answers[0].content == answers[1].content
    for path in (f"/products/{theirs['id']}", f"/products/by-handle/{theirs['handle']}"):
        answer = await shop.client.get(shop.path + path)
        unknown = await shop.client.get(f"{shop.path}/products/{UNKNOWN}")
        assert (answer.status_code, answer.content) == (404, unknown.content)


async def test_a_store_that_does_not_exist_has_nothing(shop: Shop) -> None:
    path, manager = f"/catalog/v1/stores/{UNKNOWN}", authorization(UNKNOWN)  # pyright: ignore[reportArgumentType]
    for request in requests(path, UNKNOWN, UNKNOWN):
        assert (await ask(shop, request, manager)).status_code == 404, request
    for tail in ("/products", "/facets", f"/products/{UNKNOWN}", "/products/by-handle/x"):
        assert (await shop.client.get(path + tail)).status_code == 404
    token_of_another = await shop.client.get(f"{shop.path}/products", headers=authorization(uuid4()))
    assert token_of_another.status_code == 404


@pytest.mark.parametrize(
    "query",
    [
        {"limit": 0}, {"limit": 101}, {"limit": "x"}, {"sort": "random"}, {"q": "a\0b"}, {"q": "x" * 201}, {"q": ""},
        {"min_price": -1}, {"max_price": 10**13}, {"available": "perhaps"}, {"status": "sold"}, {"vendor": "a\0"},
    ],
)  # fmt: skip
async def test_a_bad_query_is_refused(shop: Shop, query: dict[str, Any]) -> None:
    answer = await shop.client.get(f"{shop.path}/products", params=query)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_read_is_bound_to_its_store_and_leaves_nothing_behind(app: FastAPI, shop: Shop) -> None:
    """The one statement that binds and reads: without the binding it would see nothing, and after it none is left."""
    await shop.add()
    database = shop.database
    assert await database.read(shop.id, "SELECT count(*) FROM product WHERE store_id = $1::uuid") == 1
    assert await database.read(shop.id, "SELECT count(*) FROM product") == 1
    assert await database.read(uuid4(), "SELECT count(*) FROM product") == 0
    bare = await database.engine.raw_connection()
    try:
        driver: Any = bare.driver_connection
        assert await driver.fetchval("SELECT current_setting('app.store', true)") in ("", None)
        assert await driver.fetchval("SELECT count(*) FROM product") == 0
    finally:
        bare.close()


async def test_reads_of_many_stores_are_never_mixed(shop: Shop) -> None:
    shops = [shop, *[await Shop(shop.app, shop.client).open() for _ in range(3)]]
    names = {each.id: (await each.add())["handle"] for each in shops}

    async def look(each: Shop) -> None:
        for _ in range(20):
            assert [item["handle"] for item in (await each.get())["items"]] == [names[each.id]]

    await asyncio.gather(*(look(each) for each in shops))


async def test_reads_survive_connections_that_were_cut(shop: Shop, postgres: PostgresServer) -> None:
    await shop.add()
    superuser = await postgres.connect()
    cut = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'vitrine_catalog_app'"
    )
    assert await superuser.fetchval(cut) > 0
    await superuser.close()
    answers: list[int] = []
    # A connection whose end is not noticed yet may answer 503 once; there are never more of them than the pool has.
    while not answers or answers[-1] != 200:
        assert len(answers) <= 30
        answers.append((await shop.client.get(f"{shop.path}/products")).status_code)
    assert set(answers) <= {200, 503}


def test_every_part_of_a_query_is_documented(app: FastAPI) -> None:
    paths = app.openapi()["paths"]
    for path, model in (("products", ListQuery), ("facets", Filters)):
        documented = paths[f"/catalog/v1/stores/{{store_id}}/{path}"]["get"]["parameters"]
        queries = {parameter["name"]: parameter for parameter in documented if parameter["in"] == "query"}
        assert set(queries) == set(model.model_fields)
        assert not any(parameter["required"] for parameter in queries.values())
        assert queries["min_price"]["schema"]["minimum"] == 0
    assert "relevance" in queries_of(app)["sort"]["schema"]["enum"]


def queries_of(app: FastAPI) -> dict[str, Any]:
    operation = app.openapi()["paths"]["/catalog/v1/stores/{store_id}/products"]["get"]
    return {parameter["name"]: parameter for parameter in operation["parameters"]}
