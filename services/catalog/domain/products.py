"""What a product is, and what may not be done to it."""

from collections.abc import Sequence
from enum import StrEnum

from libs.common.errors import Conflict, Unprocessable

MAXIMUM_OPTIONS = 3
MAXIMUM_VARIANTS = 100
MAXIMUM_TAGS = 50
MAXIMUM_IMAGES = 50
MAXIMUM_STOCK = 10**9
MAXIMUM_GRAMS = 10**7
LONGEST_NAME = 255
LONGEST_DESCRIPTION = 20_000
LONGEST_HANDLE = 200
LONGEST_SKU = 100
LONGEST_ADDRESS = 2_000

HANDLE = r"^\w[\w-]*$"
"""A product's part of an address: words and hyphens."""
IMAGE_ADDRESS = r"^(?:https?://|/)[^\s\x00-\x1f\x7f<>\"]*$"
"""An image elsewhere, or a path of the shop's own; never a script."""


class Status(StrEnum):
    """Whether a product is on sale."""

    ACTIVE = "active"
    DRAFT = "draft"
    ARCHIVED = "archived"


class HandleTaken(Conflict):
    """Another product of the store has the handle."""

    slug = "handle-taken"
    title = "Another product has this handle"
    detail = "A handle names one product of a store. Choose another."


class SkuTaken(Conflict):
    """Another variant of the store has the SKU."""

    slug = "sku-taken"
    title = "Another variant has this SKU"
    detail = "A SKU names one variant of a store. Choose another."


class VariantsDoNotFit(Unprocessable):
    """Variants and options do not belong together."""

    slug = "variants-do-not-fit"
    title = "The variants do not fit the options"


def check_variants(options: Sequence[str], choices: Sequence[Sequence[str]]) -> None:
    """Every variant chooses a value for every option, and no two choose alike. Raises VariantsDoNotFit."""
    if len(set(options)) < len(options):
        raise VariantsDoNotFit("Two options have the same name.")
    if any(len(choice) != len(options) for choice in choices):
        raise VariantsDoNotFit("Every variant needs one value for each option.")
    if len({tuple(choice) for choice in choices}) < len(choices):
        raise VariantsDoNotFit("Two variants have the same option values.")


def variant_title(product: str, choice: Sequence[str]) -> str:
    """What an order line or an invoice calls a variant: `Stoneware mug – blue / large`."""
    return f"{product} – {' / '.join(choice)}" if choice else product
