"""Reads a file of products: everything that is wrong is found at once, or all of it is right."""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

from libs.common.money import MAXIMUM, decimals
from services.catalog.domain.description import text_of
from services.catalog.domain.products import (
    HANDLE,
    IMAGE_ADDRESS,
    LONGEST_ADDRESS,
    LONGEST_DESCRIPTION,
    LONGEST_HANDLE,
    LONGEST_NAME,
    LONGEST_SKU,
    MAXIMUM_GRAMS,
    MAXIMUM_IMAGES,
    MAXIMUM_STOCK,
    MAXIMUM_TAGS,
    MAXIMUM_VARIANTS,
    Status,
)
from services.catalog.domain.sheet import (
    MAXIMUM_PRODUCTS,
    NO_OPTION,
    OPTION_NAMES,
    OPTION_VALUES,
    REQUIRED,
    Column,
    Fault,
    Image,
    ImportRefused,
    Reason,
    Sheet,
    SheetProduct,
    SheetVariant,
)

_BLANKS = re.compile(r"[ \t\r\n]+")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_FURTHER_OPTION = re.compile(r"option(?:[4-9]|[1-9][0-9]+) (?:name|value)")
_HANDLE = re.compile(HANDLE)
_IMAGE = re.compile(IMAGE_ADDRESS)
_PRICE = re.compile(r"([0-9]{1,13})(?:\.([0-9]{1,10}))?")
_WHOLE = re.compile(r"(-?[0-9]{1,12})(?:\.0+)?")

Word = TypeVar("Word", bound=StrEnum | bool)


def read(content: bytes, *, currency: str) -> Sheet:
    """The products of a file. Raises ImportRefused with everything that is wrong."""
    faults: list[Fault] = []
    rows = _rows(_decoded(content), faults)
    layout = _layout(next(rows, None), faults)
    products: dict[str, list[_Line]] = {}
    for number, cells in rows:
        line = _line(number, cells, layout, currency, faults)
        if line is not None and (handle := line.handle()):
            products.setdefault(handle, []).append(line)
    made = [_product(handle, lines) for handle, lines in products.items()]
    faults += _across(made)
    if faults:
        raise ImportRefused(faults)
    return Sheet(tuple(made), has_compare_at=Column.COMPARE_AT in layout.columns.values())


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ImportRefused([Fault(line, "", Reason.NOT_UTF8)]) from error


def _rows(text: str, faults: list[Fault]) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not empty, each with the number of the line it begins on."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        number = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error:
            # What is left of that line is dropped; reading goes on with the next one.
            faults.append(Fault(number, "", Reason.MALFORMED))
            continue
        if any(cell.strip() for cell in row):
            yield number, row


# --- The header ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Layout:
    """Which cell is which column. `further` are the cells of a fourth option: to ignore it would merge variants."""

    width: int
    columns: Mapping[int, Column]
    further: Mapping[int, str]


def _layout(first: tuple[int, list[str]] | None, faults: list[Fault]) -> _Layout:
    """Raises ImportRefused when columns are missing, since nothing else can be told without them."""
    if first is None:
        raise ImportRefused([*faults, Fault(1, "", Reason.EMPTY_FILE)])
    number, cells = first
    known = {column.casefold(): column for column in Column}
    names = [cell.strip().casefold() for cell in cells]
    columns = {index: known[name] for index, name in enumerate(names) if name in known}
    found = list(columns.values())
    faults += [Fault(number, column, Reason.MISSING_COLUMN) for column in REQUIRED if column not in found]
    faults += [Fault(number, column, Reason.REPEATED_COLUMN) for column in found if found.count(column) > 1]
    if faults:
        raise ImportRefused(faults)
    further = {index: name.title() for index, name in enumerate(names) if _FURTHER_OPTION.fullmatch(name)}
    return _Layout(len(cells), columns, further)


def _line(
    number: int, cells: Sequence[str], layout: _Layout, currency: str, faults: list[Fault]
) -> "_Line | None":
    if len(cells) < layout.width or any(cell.strip() for cell in cells[layout.width :]):
        faults.append(Fault(number, "", Reason.WRONG_CELLS))
        return None
    for index, name in layout.further.items():
        if cells[index].strip():
            faults.append(Fault(number, name, Reason.TOO_MANY_OPTIONS))
    line = _Line(number, {c: _tidied(c, cells[i]) for i, c in layout.columns.items()}, currency, faults)
    for column, cell in line.cells.items():
        if _CONTROL.search(cell):
            line.fault(Reason.CONTROL, column)
    return line


def _tidied(column: Column, cell: str) -> str:
    """Only a body spans lines."""
    return cell if column is Column.BODY else _BLANKS.sub(" ", cell).strip()


# --- One line --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Line:
    """The cells of one row, and what is noted to be wrong with them. A faulty cell reads as if it were empty."""

    number: int
    cells: Mapping[Column, str]
    currency: str
    faults: list[Fault] = field(repr=False)

    def fault(self, reason: Reason, column: Column | str = "") -> None:
        """Note what is wrong with a cell."""
        self.faults.append(Fault(self.number, str(column), reason))

    def has(self, *columns: Column) -> bool:
        """Whether any of the cells is filled."""
        return any(self.cells.get(column) for column in columns)

    def handle(self) -> str:
        """The product the line is about."""
        handle = self.required(Column.HANDLE, LONGEST_HANDLE).lower()
        if handle and not _HANDLE.fullmatch(handle):
            self.fault(Reason.BAD_HANDLE, Column.HANDLE)
        return handle

    def text(self, column: Column, longest: int) -> str | None:
        """A text, or None where the file has no such column."""
        cell = self.cells.get(column)
        if cell is not None and len(cell) > longest:
            self.fault(Reason.TOO_LONG, column)
            return ""
        return cell

    def required(self, column: Column, longest: int) -> str:
        """A text that must be there."""
        cell = self.text(column, longest)
        if not cell and not self.cells.get(column):
            self.fault(Reason.REQUIRED, column)
        return cell or ""

    def price(self, column: Column) -> int | None:
        """Minor units of the store's currency, or None for an empty cell."""
        if not (cell := self.cells.get(column)):
            return None
        digits = decimals(self.currency)
        match = _PRICE.fullmatch(cell)
        fraction = (match[2] or "").rstrip("0") if match else ""
        amount = int(match[1] + fraction.ljust(digits, "0")) if match else -1
        if len(fraction) > digits or not 0 <= amount <= MAXIMUM:
            self.fault(Reason.BAD_PRICE, column)
            return None
        return amount

    def whole(self, column: Column, least: int, most: int) -> int | None:
        """A whole number, or None for an empty cell."""
        if not (cell := self.cells.get(column)):
            return None
        match = _WHOLE.fullmatch(cell)
        if match is None or not least <= int(match[1]) <= most:
            self.fault(Reason.BAD_NUMBER, column)
            return None
        return int(match[1])

    def word(self, column: Column, words: Mapping[str, Word]) -> Word | None:
        """One of a column's words, or None for an empty cell."""
        if not (cell := self.cells.get(column)):
            return None
        if cell.lower() not in words:
            self.fault(Reason.BAD_CHOICE, column)
        return words.get(cell.lower())

    # --- What a line can be about ------------------------------------------------------------------------

    def variant(self, options: Sequence[str] | None) -> SheetVariant:
        """The line's variant."""
        price = self.price(Column.PRICE)
        if not self.cells[Column.PRICE]:
            self.fault(Reason.REQUIRED, Column.PRICE)
        return SheetVariant(
            line=self.number,
            choice=self.choice(options or ()),
            sku=self.text(Column.SKU, LONGEST_SKU) or None,
            price=price or 0,
            compare_at=self.price(Column.COMPARE_AT),
            on_hand=self.whole(Column.STOCK, -MAXIMUM_STOCK, MAXIMUM_STOCK),
            grams=self.whole(Column.GRAMS, 0, MAXIMUM_GRAMS),
            backorder=self.backorder(),
        )

    def options(self) -> tuple[str, ...] | None:
        """The names of the product's options; none where the layout says there is but one default variant."""
        if Column.OPTION1_NAME not in self.cells:
            return None
        names = [self.text(column, LONGEST_NAME) or "" for column in OPTION_NAMES]
        if (names[0], self.cells.get(Column.OPTION1_VALUE, "")) == NO_OPTION and not any(names[1:]):
            return ()
        for column, before, name in zip(OPTION_NAMES[1:], names, names[1:], strict=False):
            if name and not before:
                self.fault(Reason.OPTION_GAP, column)
        named = tuple(name for name in names if name)
        if len(set(named)) < len(named):
            self.fault(Reason.REPEATED_OPTION, Column.OPTION1_NAME)
        return named

    def choice(self, options: Sequence[str]) -> tuple[str, ...]:
        """The variant's value for each option."""
        chosen = [self.required(column, LONGEST_NAME) for column in OPTION_VALUES[: len(options)]]
        if not options and self.cells.get(Column.OPTION1_VALUE) == NO_OPTION[1]:
            return ()
        for column in OPTION_VALUES[len(options) :]:
            if self.has(column):
                self.fault(Reason.VALUE_WITHOUT_OPTION, column)
        return tuple(chosen)

    def backorder(self) -> bool | None:
        """Whether the variant is sold past zero: by its policy, or because nobody counts its stock."""
        policy = self.word(Column.POLICY, {"deny": False, "continue": True})
        if self.cells.get(Column.TRACKER) == "":
            return True
        if policy is None and (Column.POLICY in self.cells or Column.TRACKER in self.cells):
            return False
        return policy

    def tags(self) -> tuple[str, ...] | None:
        """The product's tags, each once."""
        if (cell := self.cells.get(Column.TAGS)) is None:
            return None
        tags = tuple(dict.fromkeys(tag.strip() for tag in cell.split(",") if tag.strip()))
        if len(tags) > MAXIMUM_TAGS:
            self.fault(Reason.TOO_MANY_TAGS, Column.TAGS)
        if any(len(tag) > LONGEST_NAME for tag in tags):
            self.fault(Reason.TOO_LONG, Column.TAGS)
        return tags

    def status(self) -> Status | None:
        """Whether the product is on sale; what is not published is a draft, whatever its status."""
        status = self.word(Column.STATUS, {status.value: status for status in Status})
        published = self.word(Column.PUBLISHED, {"true": True, "false": False})
        if published is False and status is not Status.ARCHIVED:
            return Status.DRAFT
        return status or (Status.ACTIVE if published else None)

    def description(self) -> str | None:
        """The body, as text."""
        if (cell := self.cells.get(Column.BODY)) is None:
            return None
        text = text_of(cell)
        if len(text) > LONGEST_DESCRIPTION:
            self.fault(Reason.TOO_LONG, Column.BODY)
        return text

    def image(self) -> tuple[int, Image] | None:
        """The line's image and its position."""
        if not (src := self.cells.get(Column.IMAGE)):
            return None
        if len(src) > LONGEST_ADDRESS or not _IMAGE.fullmatch(src):
            self.fault(Reason.BAD_IMAGE, Column.IMAGE)
        position = self.whole(Column.IMAGE_POSITION, 1, MAXIMUM_STOCK)
        alt = self.text(Column.IMAGE_ALT, LONGEST_NAME) or ""
        return (MAXIMUM_STOCK + self.number if position is None else position), Image(src, alt)


# --- One product -----------------------------------------------------------------------------------------


def _product(handle: str, lines: Sequence[_Line]) -> SheetProduct:
    """What the first line says of a product, with the variants and images of all."""
    first = lines[0]
    options = first.options()
    return SheetProduct(
        line=first.number,
        handle=handle,
        title=first.required(Column.TITLE, LONGEST_NAME),
        options=options,
        variants=tuple(_variants(lines, options)),
        description=first.description(),
        vendor=first.text(Column.VENDOR, LONGEST_NAME),
        category=first.text(Column.CATEGORY, LONGEST_NAME),
        product_type=first.text(Column.TYPE, LONGEST_NAME),
        tags=first.tags(),
        status=first.status(),
        images=_images(lines),
    )


def _variants(lines: Sequence[_Line], options: Sequence[str] | None) -> Iterator[SheetVariant]:
    seen: set[tuple[str, ...]] = set()
    for line in lines:
        if line is not lines[0] and not line.has(Column.PRICE, Column.SKU, *OPTION_VALUES):
            if not line.has(Column.IMAGE):
                line.fault(Reason.NOTHING)
            continue
        variant = line.variant(options)
        # Without option columns variants are told apart by what the store already knows of them.
        if options is not None and variant.choice in seen:
            line.fault(Reason.REPEATED_VARIANT, Column.OPTION1_VALUE)
        seen.add(variant.choice)
        yield variant


def _images(lines: Sequence[_Line]) -> tuple[Image, ...] | None:
    if Column.IMAGE not in lines[0].cells:
        return None
    found = sorted((image for line in lines if (image := line.image())), key=lambda image: image[0])
    if len(found) > MAXIMUM_IMAGES:
        lines[0].fault(Reason.TOO_MANY_IMAGES, Column.IMAGE)
    return tuple(image for _, image in found)


def _across(products: Sequence[SheetProduct]) -> Iterator[Fault]:
    """What only the whole file shows."""
    for product in products[MAXIMUM_PRODUCTS : MAXIMUM_PRODUCTS + 1]:
        yield Fault(product.line, "", Reason.TOO_MANY_PRODUCTS)
    seen: set[str] = set()
    for product in products:
        for variant in product.variants[MAXIMUM_VARIANTS : MAXIMUM_VARIANTS + 1]:
            yield Fault(variant.line, "", Reason.TOO_MANY_VARIANTS)
        for variant in product.variants:
            if variant.sku is not None and variant.sku in seen:
                yield Fault(variant.line, Column.SKU, Reason.REPEATED_SKU)
            seen.add(variant.sku or "")
