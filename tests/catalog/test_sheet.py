"""The file of products: what is read is what was written, and what is wrong is told by line and column."""

import csv
import io
import string
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.money import as_decimal
from services.catalog.domain.description import html_of, text_of, tidy
from services.catalog.domain.products import Status
from services.catalog.domain.sheet import (
    REQUIRED,
    Column,
    Image,
    ImportRefused,
    Reason,
    SheetProduct,
    SheetVariant,
)
from services.catalog.domain.sheet.reading import read
from services.catalog.domain.sheet.writing import header, write

HEADER = "Handle,Title,Option1 Name,Option1 Value,Variant SKU,Variant Inventory Qty,Variant Price\n"


def faults(content: bytes | str, currency: str = "EUR") -> list[tuple[int, str, str]]:
    with pytest.raises(ImportRefused) as refused:
        read(content.encode() if isinstance(content, str) else content, currency=currency)
    return [(fault.line, fault.column, fault.reason.value) for fault in refused.value.faults]


# --- Round trips -----------------------------------------------------------------------------------------

LETTERS = st.characters(blacklist_categories=["C", "Z"], blacklist_characters=",")
WORD = st.text(LETTERS, min_size=1, max_size=12)
NAME = st.lists(WORD, min_size=1, max_size=3).map(" ".join)
TEXT = st.text(st.one_of(LETTERS, st.sampled_from(' \n,"<>&')), max_size=80).map(tidy)
HANDLES = st.text(string.ascii_lowercase + string.digits + "é", min_size=1, max_size=12)


@st.composite
def variants(draw: Any, options: int) -> tuple[SheetVariant, ...]:
    chosen = draw(
        st.lists(st.tuples(*[NAME] * options), min_size=1, max_size=4 if options else 1, unique=True)
    )
    return tuple(
        SheetVariant(
            line=0,
            choice=choice,
            sku=draw(st.none() | WORD),
            price=draw(st.integers(0, 10**9)),
            compare_at=draw(st.none() | st.integers(0, 10**9)),
            on_hand=draw(st.integers(-5, 1000)),
            grams=draw(st.integers(0, 10_000)),
            backorder=draw(st.booleans()),
        )
        for choice in chosen
    )


@st.composite
def products(draw: Any) -> SheetProduct:
    options = draw(st.lists(NAME.filter(lambda name: name != "Title"), max_size=3, unique=True))
    images = draw(
        st.lists(st.builds(Image, st.sampled_from(["/a.jpg", "https://x.example/b"]), NAME), max_size=6)
    )
    return SheetProduct(
        line=0,
        handle=draw(HANDLES),
        title=draw(NAME),
        options=tuple(options),
        variants=draw(variants(len(options))),
        description=draw(TEXT),
        vendor=draw(NAME),
        category=draw(NAME),
        product_type=draw(NAME),
        tags=tuple(draw(st.lists(WORD, max_size=4, unique=True))),
        status=draw(st.sampled_from(Status)),
        images=tuple(images),
    )


def without_lines(product: SheetProduct) -> tuple[Any, ...]:
    fields = [getattr(product, name) for name in SheetProduct.__slots__ if name not in ("line", "variants")]
    rows = [[getattr(v, name) for name in SheetVariant.__slots__ if name != "line"] for v in product.variants]
    return fields, rows


def distinct(products: list[SheetProduct]) -> bool:
    skus = [variant.sku for product in products for variant in product.variants if variant.sku is not None]
    return len(set(skus)) == len(skus)


@settings(max_examples=60, deadline=None)
@given(
    wanted=st.lists(products(), max_size=4, unique_by=lambda product: product.handle).filter(distinct),
    currency=st.sampled_from(["EUR", "JPY", "TND"]),
    mark=st.sampled_from([b"", b"\xef\xbb\xbf"]),
)
def test_what_is_written_is_read_again(wanted: list[SheetProduct], currency: str, mark: bytes) -> None:
    content = header() + "".join(write(product, currency=currency) for product in wanted)
    sheet = read(mark + content.encode(), currency=currency)
    assert [without_lines(product) for product in sheet.products] == [without_lines(p) for p in wanted]
    assert sheet.has_compare_at


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=300) | st.text(max_size=300).map(lambda text: (HEADER + text).encode()))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    try:
        read(content, currency="EUR")
    except ImportRefused as refused:
        lines = content.count(b"\n") + content.count(b"\r") + 1
        assert refused.faults
        assert all(1 <= fault.line <= lines for fault in refused.faults)
        assert all(
            set(fault.document()) == {"line", "column", "reason", "detail"} for fault in refused.faults
        )


@given(text=TEXT)
def test_a_description_survives_as_html(text: str) -> None:
    assert text_of(html_of(text)) == text


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>One</p>\n<p>Two &amp; three</p>", "One\n\nTwo & three"),
        ("a<br>b<br/>c", "a\nb\nc"),
        ("<ul><li>x</li><li>y</li></ul>", "- x\n- y"),
        ("<script>alert(1)</script>safe<style>p{}</style>", "safe"),
        ("<img src=x onerror=alert(1)>text", "text"),
        ("plain  text\nof a page", "plain text of a page"),
        ("a < b", "a < b"),
    ],
)
def test_html_becomes_text(html: str, text: str) -> None:
    assert text_of(html) == text


@given(amount=st.integers(0, 10**12), currency=st.sampled_from(["EUR", "JPY", "TND"]))
def test_prices_are_read_as_written(amount: int, currency: str) -> None:
    row = f"a,A,,,,,{as_decimal(amount, currency)}\n"
    assert read((HEADER + row).encode(), currency=currency).products[0].variants[0].price == amount


# --- What a good file says -------------------------------------------------------------------------------


def test_further_lines_of_a_handle_add_variants_and_images() -> None:
    columns = "Handle,Title,Option1 Name,Option1 Value,Variant Price,Image Src,Image Position,Unknown\n"
    rows = (
        'mug,"A mug,\nfor tea",Size,Small,9.5,/2.jpg,2,x\n'
        "mug,,,Large,12,/1.jpg,1,\n"
        "mug,,,,,/3.jpg,3,\n"
        "bowl,Bowl,Title,Default Title,20,,,\n"
    )
    mug, bowl = read((columns + rows).encode(), currency="EUR").products
    assert (mug.title, mug.options) == ("A mug, for tea", ("Size",))
    assert [(v.choice, v.price, v.line) for v in mug.variants] == [
        (("Small",), 950, 2),
        (("Large",), 1200, 4),
    ]
    assert [image.src for image in mug.images or ()] == ["/1.jpg", "/2.jpg", "/3.jpg"]
    assert (bowl.options, bowl.variants[0].choice, bowl.line) == ((), (), 6)


def test_absent_columns_say_nothing() -> None:
    [product] = read(b"Handle,Title,Variant Price\na,A,1\n", currency="EUR").products
    assert (product.vendor, product.tags, product.status, product.images, product.options) == (None,) * 5
    assert product.variants[0].on_hand is None
    assert product.variants[0].backorder is None


@pytest.mark.parametrize(
    ("published", "status", "expected"),
    [
        ("true", "active", Status.ACTIVE),
        ("TRUE", "", Status.ACTIVE),
        ("false", "active", Status.DRAFT),
        ("false", "archived", Status.ARCHIVED),
        ("", "draft", Status.DRAFT),
        ("", "", None),
    ],
)
def test_what_is_not_published_is_a_draft(published: str, status: str, expected: Status | None) -> None:
    content = f"Handle,Title,Variant Price,Published,Status\na,A,1,{published},{status}\n"
    assert read(content.encode(), currency="EUR").products[0].status is expected


@pytest.mark.parametrize(
    ("tracker", "policy", "backorder"),
    [("shop", "deny", False), ("shop", "continue", True), ("", "deny", True), ("shop", "", False)],
)
def test_uncounted_stock_and_policy_continue_sell_past_zero(
    tracker: str, policy: str, backorder: bool
) -> None:
    columns = "Handle,Title,Variant Price,Variant Inventory Tracker,Variant Inventory Policy\n"
    [product] = read(f"{columns}a,A,1,{tracker},{policy}\n".encode(), currency="EUR").products
    assert product.variants[0].backorder is backorder


# --- What a bad file is told -----------------------------------------------------------------------------


def test_everything_wrong_is_told_at_once_with_its_line() -> None:
    rows = (
        'a,"A\ntwo lines",Size,S,SKU-1,5,9.99\n'  # lines 2 and 3
        "a,,,M,SKU-1,x,cheap\n"  # 4
        ",Nameless,,,,,1\n"  # 5
        "b,,,,,1,1\n"  # 6
        'c,"unclosed "quote" here,,,,1,1\n'  # 7
        "d,D,,,,1\n"  # 8
        "e,E,Size,,,1,1\n"  # 9
    )
    assert faults(HEADER + rows) == [
        (4, Column.STOCK, "bad-number"),
        (4, Column.PRICE, "bad-price"),
        (4, Column.SKU, "repeated-sku"),
        (5, Column.HANDLE, "required"),
        (6, Column.TITLE, "required"),
        (7, "", "malformed-line"),
        (8, "", "wrong-number-of-cells"),
        (9, Column.OPTION1_VALUE, "required"),
    ]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("a,A,,,,,", (2, Column.PRICE, "required")),
        ("a,A,,,,,-1", (2, Column.PRICE, "bad-price")),
        ("a,A,,,,,1.999", (2, Column.PRICE, "bad-price")),
        ("a,A,,,,,€5", (2, Column.PRICE, "bad-price")),
        ("a,A,,,,,99999999999999", (2, Column.PRICE, "bad-price")),
        ("a,A,,,,1.5,1", (2, Column.STOCK, "bad-number")),
        ("a,A,,,,99999999999,1", (2, Column.STOCK, "bad-number")),
        ("a b,A,,,,,1", (2, Column.HANDLE, "bad-handle")),
        ("a/../b,A,,,,,1", (2, Column.HANDLE, "bad-handle")),
        (f"a,{'x' * 256},,,,,1", (2, Column.TITLE, "too-long")),
        ("a,A\x07,,,,,1", (2, Column.TITLE, "control-character")),
        ("a,A\x00,,,,,1", (2, Column.TITLE, "control-character")),
        ("a,A,,Blue,,,1", (2, Column.OPTION1_VALUE, "value-without-option")),
        ("a,A,Size,S,,,1\na,,,S,,,1", (3, Column.OPTION1_VALUE, "repeated-variant")),
        ("a,A,,,,,1\na,,,,,,", (3, "", "nothing-in-line")),
        ("a,A,,,,,1,extra", (2, "", "wrong-number-of-cells")),
        ('a,"A,,,,,1', (2, "", "malformed-line")),
    ],
)  # fmt: skip
def test_a_fault_has_its_place_and_its_reason(row: str, expected: tuple[int, str, str]) -> None:
    assert faults(HEADER + row + "\n") == [expected]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", [(1, "", "empty-file")]),
        (b"\n\n", [(1, "", "empty-file")]),
        (b"Handle;Title;Variant Price\n", [(1, name, "missing-column") for name in REQUIRED]),
        (b"Handle,Title\na,A\n", [(1, "Variant Price", "missing-column")]),
        (b"Handle,Title,Title,Variant Price\n", [(1, "Title", "repeated-column")]),
        (b"Handle,Title,Variant Price\na,A,1\nb,\xff,2\n", [(3, "", "not-utf-8")]),
        (b"Handle,Title,Variant Price,Status\na,A,1,sold\n", [(2, "Status", "bad-choice")]),
        (b"Handle,Title,Variant Price,Image Src\na,A,1,javascript:alert(1)\n", [(2, "Image Src", "bad-image")]),
        (b"Handle,Title,Variant Price,Option4 Name\na,A,1,Depth\n", [(2, "Option4 Name", "too-many-options")]),
        (
            b"Handle,Title,Variant Price,Option1 Name,Option2 Name,Option2 Value\na,A,1,,Size,S\n",
            [(2, "Option2 Name", "option-without-the-one-before")],
        ),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_told_apart(content: bytes, expected: list[tuple[int, str, str]]) -> None:
    found = faults(content)
    assert all(fault in found for fault in expected)


def test_at_most_a_hundred_faults_are_told_and_the_rest_counted() -> None:
    with pytest.raises(ImportRefused) as refused:
        read((HEADER + "".join(f"a {n},A,,,,,1\n" for n in range(250))).encode(), currency="EUR")
    assert len(refused.value.faults) == 100
    assert refused.value.extensions["more"] == 150


def test_no_value_of_the_file_is_repeated() -> None:
    canary = "canary-7f3a"
    rows = f"{canary} x,{canary},{canary},,{canary},{canary},{canary}\n"
    with pytest.raises(ImportRefused) as refused:
        read((HEADER + rows).encode(), currency="EUR")
    assert canary not in str(refused.value.document())


def test_every_reason_is_explained() -> None:
    assert all(reason.detail.endswith(".") for reason in Reason)
    assert set(Column) >= set(next(csv.reader(io.StringIO(header()))))
