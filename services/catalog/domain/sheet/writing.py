"""Writes products as a file that `reading` reads, and so does whatever else knows the layout."""

import csv
import io
from collections.abc import Sequence

from libs.common.money import as_decimal
from services.catalog.domain.description import html_of
from services.catalog.domain.products import Status
from services.catalog.domain.sheet import (
    NO_OPTION,
    OPTION_NAMES,
    OPTION_VALUES,
    Column,
    Image,
    SheetProduct,
    SheetVariant,
)


def header() -> str:
    """The first line of a file."""
    return _csv([list(Column)])


def write(product: SheetProduct, *, currency: str) -> str:
    """The lines of a product: one a variant, and one more for every image that is left over."""
    images = product.images or ()
    lines = max(len(product.variants), len(images))
    return _csv([_cells(product, index, images, currency) for index in range(lines)])


def _cells(product: SheetProduct, index: int, images: Sequence[Image], currency: str) -> list[str]:
    cells: dict[Column, str] = {Column.HANDLE: product.handle}
    if index == 0:
        cells |= _about(product)
    if index < len(product.variants):
        cells |= _variant(product, product.variants[index], currency)
    if index < len(images):
        cells |= {
            Column.IMAGE: images[index].src,
            Column.IMAGE_POSITION: str(index + 1),
            Column.IMAGE_ALT: images[index].alt,
        }
    return [cells.get(column, "") for column in Column]


def _about(product: SheetProduct) -> dict[Column, str]:
    status = product.status or Status.ACTIVE
    names = product.options or NO_OPTION[:1]
    return {
        Column.TITLE: product.title,
        Column.BODY: html_of(product.description or ""),
        Column.VENDOR: product.vendor or "",
        Column.CATEGORY: product.category or "",
        Column.TYPE: product.product_type or "",
        Column.TAGS: ", ".join(product.tags or ()),
        Column.PUBLISHED: "true" if status is Status.ACTIVE else "false",
        Column.STATUS: status.value,
        **dict(zip(OPTION_NAMES, names, strict=False)),
    }


def _variant(product: SheetProduct, variant: SheetVariant, currency: str) -> dict[Column, str]:
    compare_at = variant.compare_at
    return {
        Column.SKU: variant.sku or "",
        Column.GRAMS: str(variant.grams or 0),
        Column.TRACKER: "vitrine",
        Column.STOCK: str(variant.on_hand or 0),
        Column.POLICY: "continue" if variant.backorder else "deny",
        Column.PRICE: as_decimal(variant.price, currency),
        Column.COMPARE_AT: "" if compare_at is None else as_decimal(compare_at, currency),
        **dict(zip(OPTION_VALUES, variant.choice if product.options else NO_OPTION[1:], strict=False)),
    }


def _csv(rows: Sequence[Sequence[str]]) -> str:
    out = io.StringIO(newline="")
    csv.writer(out).writerows(rows)
    return out.getvalue()
