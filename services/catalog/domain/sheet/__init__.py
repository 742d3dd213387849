"""A file of products in the column layout that Shopify exports: one line a variant, further lines more of a product.

What is wrong with a file is told by line and column, and never repeats a value. Columns that are unknown are
ignored; columns that are absent leave what a product has as it is.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from libs.common.errors import Unprocessable
from services.catalog.domain.products import (
    MAXIMUM_IMAGES,
    MAXIMUM_OPTIONS,
    MAXIMUM_TAGS,
    MAXIMUM_VARIANTS,
    Status,
)

MAXIMUM_FAULTS = 100
MAXIMUM_PRODUCTS = 10_000
NO_OPTION = ("Title", "Default Title")
"""How the layout says that a product has no options."""


class Column(StrEnum):
    """The columns this platform understands, in the order of an export."""

    HANDLE = "Handle"
    TITLE = "Title"
    BODY = "Body (HTML)"
    VENDOR = "Vendor"
    CATEGORY = "Product Category"
    TYPE = "Type"
    TAGS = "Tags"
    PUBLISHED = "Published"
    OPTION1_NAME = "Option1 Name"
    OPTION1_VALUE = "Option1 Value"
    OPTION2_NAME = "Option2 Name"
    OPTION2_VALUE = "Option2 Value"
    OPTION3_NAME = "Option3 Name"
    OPTION3_VALUE = "Option3 Value"
    SKU = "Variant SKU"
    GRAMS = "Variant Grams"
    TRACKER = "Variant Inventory Tracker"
    STOCK = "Variant Inventory Qty"
    POLICY = "Variant Inventory Policy"
    PRICE = "Variant Price"
    COMPARE_AT = "Variant Compare At Price"
    IMAGE = "Image Src"
    IMAGE_POSITION = "Image Position"
    IMAGE_ALT = "Image Alt Text"
    STATUS = "Status"


REQUIRED = (Column.HANDLE, Column.TITLE, Column.PRICE)
OPTION_NAMES = (Column.OPTION1_NAME, Column.OPTION2_NAME, Column.OPTION3_NAME)
OPTION_VALUES = (Column.OPTION1_VALUE, Column.OPTION2_VALUE, Column.OPTION3_VALUE)


class Reason(StrEnum):
    """What can be wrong, and the sentence that says so."""

    detail: str

    def __new__(cls, word: str, detail: str) -> "Reason":
        """A fixed word for programs with a sentence for people."""
        member = str.__new__(cls, word)
        member._value_ = word
        member.detail = detail
        return member

    EMPTY_FILE = "empty-file", "The file has no header line."
    NOT_UTF8 = "not-utf-8", "The file must be UTF-8; this line is not."
    MISSING_COLUMN = "missing-column", "The header has no such column. Columns are separated by commas."
    REPEATED_COLUMN = "repeated-column", "The header has this column twice."
    MALFORMED = "malformed-line", "The quotes of this line do not match up, or a cell is far too long."
    WRONG_CELLS = "wrong-number-of-cells", "The line has another number of cells than the header."
    CONTROL = "control-character", "The cell has a character that cannot be shown."
    REQUIRED = "required", "The cell must not be empty."
    TOO_LONG = "too-long", "The text is too long."
    BAD_HANDLE = "bad-handle", "A handle has letters, digits and hyphens only."
    BAD_PRICE = "bad-price", "A price is a number with a point, without a currency, and not negative."
    BAD_NUMBER = "bad-number", "This is not a whole number, or it is out of range."
    BAD_CHOICE = "bad-choice", "This is not one of the words that the column allows."
    BAD_IMAGE = "bad-image", "An image is an http address or a path that begins with a slash."
    TOO_MANY_TAGS = "too-many-tags", f"A product has at most {MAXIMUM_TAGS} tags."
    TOO_MANY_IMAGES = "too-many-images", f"A product has at most {MAXIMUM_IMAGES} images."
    TOO_MANY_OPTIONS = "too-many-options", f"A product has at most {MAXIMUM_OPTIONS} options."
    TOO_MANY_VARIANTS = "too-many-variants", f"A product has at most {MAXIMUM_VARIANTS} variants."
    TOO_MANY_PRODUCTS = "too-many-products", f"A file has at most {MAXIMUM_PRODUCTS} products."
    OPTION_GAP = "option-without-the-one-before", "Options are filled from the first one on."
    REPEATED_OPTION = "repeated-option", "Two options of the product have the same name."
    VALUE_WITHOUT_OPTION = "value-without-option", "The product has no option that this value could be of."
    REPEATED_VARIANT = "repeated-variant", "The product already has a variant with these option values."
    REPEATED_SKU = "repeated-sku", "Another line of the file has the same SKU."
    NOTHING = "nothing-in-line", "The line adds neither a variant nor an image to its product."
    SKU_TAKEN = "sku-taken", "Another product of the store has this SKU."
    OPTIONS_CHANGED = (
        "options-changed",
        "The product's options change, so every variant it has must be in the file.",
    )
    BELOW_RESERVED = "below-reserved", "Orders are waiting for more pieces of this variant than that."


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One thing that is wrong with a file."""

    line: int
    """As an editor counts, the header is line 1; of a cell that spans lines, where its row begins."""
    column: str
    """Empty when the whole line is meant."""
    reason: Reason

    def document(self) -> dict[str, object]:
        """As a problem document shows it."""
        return {
            "line": self.line,
            "column": self.column or None,
            "reason": self.reason.value,
            "detail": self.reason.detail,
        }


class ImportRefused(Unprocessable):
    """The file has faults; nothing of it was imported."""

    slug = "import-refused"
    title = "The file was not imported"
    detail = "See errors for each line. Nothing was changed."

    def __init__(self, faults: Iterable[Fault]) -> None:
        ordered = sorted(set(faults))
        self.faults = ordered[:MAXIMUM_FAULTS]
        super().__init__(
            errors=[fault.document() for fault in self.faults], more=max(0, len(ordered) - MAXIMUM_FAULTS)
        )


@dataclass(frozen=True, slots=True)
class Image:
    """Where an image is, and what it shows."""

    src: str
    alt: str = ""


@dataclass(frozen=True, slots=True)
class SheetVariant:
    """A variant as a file has it. None: the file has no such column, or an empty cell for stock."""

    line: int
    choice: tuple[str, ...]
    sku: str | None
    price: int
    compare_at: int | None = None
    on_hand: int | None = None
    grams: int | None = None
    backorder: bool | None = None


@dataclass(frozen=True, slots=True)
class SheetProduct:
    """A product as a file has it. None: the file has no such column."""

    line: int
    handle: str
    title: str
    variants: tuple[SheetVariant, ...]
    options: tuple[str, ...] | None = None
    description: str | None = None
    vendor: str | None = None
    category: str | None = None
    product_type: str | None = None
    tags: tuple[str, ...] | None = None
    status: Status | None = None
    images: tuple[Image, ...] | None = None


@dataclass(frozen=True, slots=True)
class Sheet:
    """A file without faults. Without `has_compare_at` there is no such column, so former prices stay."""

    products: tuple[SheetProduct, ...]
    has_compare_at: bool = True
