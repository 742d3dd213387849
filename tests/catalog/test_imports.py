"""Files of products: whole or not at all, in and out."""

import asyncio
import csv
import io
import time
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select

from libs.common.auth import Role
from libs.common.events.catalog import ProductPublished
from libs.common.events.orders import OrderPlaced
from services.catalog.models import ImportRun, Product, Variant
from services.catalog.schemas import ImportDocument
from tests.catalog.conftest import Shop
from tests.catalog.test_stock import an_order
from tests.tokens import authorization

CATALOGUE = Path(__file__).parents[2] / "deploy" / "local" / "catalogue.csv"
COLUMNS = "Handle,Title,Option1 Name,Option1 Value,Variant SKU,Variant Inventory Qty,Variant Price\n"
MUG = "mug,Mug,Colour,Blue,M-1,5,10.00\nmug,,,Green,M-2,3,12.50\n"


async def rows(shop: Shop, table: type[Product | Variant | ImportRun]) -> int:
    async with shop.database.session(shop.id) as session:
        statement = select(func.count()).select_from(table).where(table.store_id == shop.id)
        return await session.scalar(statement) or 0


async def imported(shop: Shop, content: str) -> ImportDocument:
    answer = await shop.upload(content.encode())
    assert answer.status_code == 201, answer.text
    return ImportDocument.model_validate_json(answer.content)


async def test_a_file_makes_products_and_publishes_them(shop: Shop) -> None:
    done = await imported(shop, COLUMNS + MUG + "bowl,Bowl,,,,,20\n")
    assert (done.products, done.variants, done.created, done.updated) == (2, 3, 2, 0)
    mug = await shop.get("/products/by-handle/mug")
    assert [(v["choice"], v["price"]["amount"], v["available"]) for v in mug["variants"]] == [
        (["Blue"], 1000, 5),
        (["Green"], 1250, 3),
    ]
    assert {event.handle for event in await shop.published(ProductPublished)} == {"mug", "bowl"}
    answer = await shop.client.get(f"{shop.path}/imports/{done.id}", headers=shop.manager)
    assert ImportDocument.model_validate_json(answer.content) == done


async def test_the_same_file_again_changes_nothing(shop: Shop) -> None:
    await imported(shop, COLUMNS + MUG)
    again = await imported(shop, COLUMNS + MUG)
    assert (again.created, again.updated) == (0, 0)
    assert [event.version for event in await shop.published(ProductPublished)] == [1]


async def test_a_later_file_updates_what_it_names_and_leaves_the_rest(shop: Shop) -> None:
    await imported(shop, COLUMNS + MUG + "bowl,Bowl,,,,4,20\n")
    before = await shop.get("/products/by-handle/mug")
    done = await imported(shop, "Handle,Title,Variant SKU,Variant Price\nmug,Big mug,M-2,13\n")
    assert (done.created, done.updated) == (0, 1)
    after = await shop.get("/products/by-handle/mug")
    assert (after["title"], after["options"], after["version"]) == ("Big mug", ["Colour"], 2)
    assert [variant["id"] for variant in after["variants"]] == [
        variant["id"] for variant in before["variants"]
    ]
    assert [variant["price"]["amount"] for variant in after["variants"]] == [1000, 1300]
    assert [variant["available"] for variant in after["variants"]] == [5, 3]
    assert (await shop.get("/products/by-handle/bowl"))["version"] == 1


async def test_variants_are_recognised_by_sku_and_then_by_their_options(shop: Shop) -> None:
    await imported(shop, COLUMNS + MUG)
    before = {v["sku"]: v["id"] for v in (await shop.get("/products/by-handle/mug"))["variants"]}
    swapped = "mug,Mug,Colour,Green,M-1,5,10\nmug,,,Blue,M-2,3,12.5\nmug,,,Red,M-3,1,14\n"
    await imported(shop, COLUMNS + swapped)
    after = {v["sku"]: v for v in (await shop.get("/products/by-handle/mug"))["variants"]}
    assert {sku: after[sku]["id"] for sku in before} == before
    assert [after[sku]["choice"] for sku in ("M-1", "M-2", "M-3")] == [["Green"], ["Blue"], ["Red"]]
    renamed = "mug,Mug,Colour,Green,M-9,5,10\n"
    await imported(shop, COLUMNS + renamed)
    variants = {v["sku"]: v["id"] for v in (await shop.get("/products/by-handle/mug"))["variants"]}
    assert variants["M-9"] == before["M-1"]


async def test_a_malformed_line_is_reported_and_nothing_is_half_imported(shop: Shop) -> None:
    lines = [f"p{n},P{n},,,,1,{n}.00" for n in range(1, 41)]
    lines[17] = "p18,P18,,,,1,cheap"
    answer = await shop.upload((COLUMNS + "\n".join(lines)).encode())
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    [fault] = answer.json()["errors"]
    assert (fault["line"], fault["column"], fault["reason"]) == (19, "Variant Price", "bad-price")
    assert "cheap" not in answer.text
    assert await rows(shop, Product) == await rows(shop, Variant) == 0
    assert await shop.published(ProductPublished) == []
    assert await rows(shop, ImportRun) == 1


async def test_what_only_the_store_can_know_is_reported_by_line_too(shop: Shop) -> None:
    await imported(shop, COLUMNS + MUG)
    for content, expected in (
        ("a,A,,,M-1,1,1\n", (2, "Variant SKU", "sku-taken")),
        ("mug,Mug,Size,Big,M-1,1,1\nmug,,,Small,M-2,1,1\n", None),
        ("mug,Mug,,,M-1,1,1\n", (2, "Option1 Name", "options-changed")),
    ):
        answer = await shop.upload((COLUMNS + "ok,Ok,,,,1,1\n").encode() + content.encode())
        if expected is None:
            assert answer.status_code == 201, answer.text
            continue
        [fault] = answer.json()["errors"]
        assert (fault["line"] - 1, fault["column"], fault["reason"]) == expected
    without_options = "Handle,Title,Variant Price\nmug,Mug,3\nmug,,4\n"
    answer = await shop.upload(without_options.encode())
    assert {fault["reason"] for fault in answer.json()["errors"]} == {"repeated-variant"}


async def test_stock_that_is_promised_is_not_imported_away(shop: Shop) -> None:
    await imported(shop, COLUMNS + MUG)
    [blue, _] = (await shop.get("/products/by-handle/mug"))["variants"]
    placed = an_order({UUID(blue["id"]): 4})
    assert isinstance(placed, OrderPlaced)
    await shop.hears(placed)
    answer = await shop.upload((COLUMNS + MUG.replace(",5,", ",3,")).encode())
    assert [fault["reason"] for fault in answer.json()["errors"]] == ["below-reserved"]
    await imported(shop, COLUMNS + MUG.replace(",5,", ",4,"))
    assert (await shop.stock_of(blue["id"]))["available"] == 0


async def test_an_upload_sent_again_with_its_key_is_imported_once(shop: Shop) -> None:
    key = uuid4().hex
    content = (COLUMNS + MUG).encode()
    first = await shop.upload(content, Idempotency_Key=key)
    # httpx chooses a new multipart boundary: the file is what counts.
    again = await shop.upload(content, Idempotency_Key=key)
    assert first.status_code == again.status_code == 201
    assert first.content == again.content
    assert again.headers["idempotency-replayed"] == "true"
    other = await shop.upload(content + b"bowl,Bowl,,,,,20\n", Idempotency_Key=key)
    assert (other.status_code, other.json()["type"]) == (422, "/problems/idempotency-key-reused")
    assert await rows(shop, Product) == 1


async def test_racing_imports_of_one_store_end_well(shop: Shop) -> None:
    contents = [COLUMNS + "".join(f"p{i},P{i},,,,1,{n + 1}\n" for i in range(30)) for n in range(4)]
    answers = await asyncio.gather(*(shop.upload(content.encode()) for content in contents))
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert any(answer.status_code == 201 for answer in answers)
    assert await rows(shop, Product) == 30
    assert len({item["min_price"]["amount"] for item in (await shop.get(limit=100))["items"]}) == 1


async def test_the_body_may_be_the_file(shop: Shop) -> None:
    path = f"{shop.path}/imports"
    headers = shop.manager | {"Content-Type": "text/csv"}
    answer = await shop.client.post(path, content=(COLUMNS + MUG).encode(), headers=headers)
    assert answer.status_code == 201


@pytest.mark.parametrize(
    ("options", "status", "problem"),
    [
        ({"content": b"{}", "headers": {"Content-Type": "application/json"}}, 415, "unsupported-media-type"),
        ({"content": b""}, 415, "unsupported-media-type"),
        ({"files": {"other": ("a.csv", b"x", "text/csv")}}, 422, "no-file"),
        ({"data": {"file": "text"}, "files": {"x": ("a", b"")}}, 422, "no-file"),
        ({"content": b"x" * 10_000_001, "headers": {"Content-Type": "text/csv"}}, 413, "too-large"),
        ({"files": {"file": ("a.csv", b"x" * 10_020_000, "text/csv")}}, 413, "too-large"),
        ({"content": b"", "headers": {"Content-Type": "text/csv"}}, 422, "import-refused"),
    ],
)
async def test_a_bad_upload_is_refused(
    shop: Shop, options: dict[str, object], status: int, problem: str
) -> None:
    headers = shop.manager | dict(options.pop("headers", {}))  # type: ignore[call-overload]
    answer = await shop.client.post(f"{shop.path}/imports", headers=headers, **options)  # type: ignore[arg-type]
    assert answer.status_code == status, answer.text
    assert answer.json()["type"] == f"/problems/{problem}"


async def test_an_export_is_the_file_that_makes_the_same_store(shop: Shop) -> None:
    await imported(shop, COLUMNS + MUG)
    await shop.add(status="draft", tags=["a", "b"], description='Two "lines",\n\nthree < four & more.')
    exported = await shop.client.get(f"{shop.path}/export.csv", headers=shop.manager)
    assert exported.headers["content-type"].startswith("text/csv")
    again = await imported(shop, exported.text)
    assert (again.products, again.created, again.updated) == (2, 0, 0)
    twin = await Shop(shop.app, shop.client).open()
    assert (await imported(twin, exported.text)).created == 2
    copied = await twin.client.get(f"{twin.path}/export.csv", headers=twin.manager)
    assert copied.text == exported.text


async def test_the_demo_catalogue_is_imported_and_large_enough(shop: Shop) -> None:
    content = CATALOGUE.read_bytes()
    began = time.perf_counter()
    answer = await shop.upload(content)
    took = time.perf_counter() - began
    assert answer.status_code == 201, answer.text
    done = answer.json()
    assert done["products"] == done["created"] == 200
    assert done["variants"] > 300
    # A bound against a statement per row over a slow link, far above what it takes.
    assert took < 20
    lines = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"))))
    [last] = {line["Handle"] for line in lines if line["Handle"].startswith("last-piece-")}
    [variant] = (await shop.get(f"/products/by-handle/{last}"))["variants"]
    assert variant["available"] == 1
    assert (await shop.get(q="notebook"))["items"]
    exported = await shop.client.get(f"{shop.path}/export.csv", headers=authorization(shop.id, Role.SUPPORT))
    again = await shop.upload(exported.content)
    assert (again.json()["created"], again.json()["updated"]) == (0, 0)
