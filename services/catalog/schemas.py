"""What goes in and comes out of catalog's interface."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StringConstraints

from libs.common.money import MAXIMUM, Money
from libs.common.text import Text
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
    MAXIMUM_OPTIONS,
    MAXIMUM_STOCK,
    MAXIMUM_TAGS,
    MAXIMUM_VARIANTS,
    Status,
)
from services.catalog.service.listing import Selection, Sort

Name = Annotated[
    str, StringConstraints(strip_whitespace=True, max_length=LONGEST_NAME, pattern=r"^[^\x00-\x1f\x7f]*$")
]
"""One line of text."""
Title = Annotated[Name, Field(min_length=1)]
Tag = Annotated[
    str,
    StringConstraints(
        strip_whitespace=True, min_length=1, max_length=LONGEST_NAME, pattern=r"^[^\x00-\x1f\x7f,]*$"
    ),
]
Sku = Annotated[
    str,
    StringConstraints(
        strip_whitespace=True, min_length=1, max_length=LONGEST_SKU, pattern=r"^[^\x00-\x1f\x7f]*$"
    ),
]
Handle = Annotated[
    str,
    StringConstraints(min_length=1, max_length=LONGEST_HANDLE, pattern=HANDLE),
    Field(description="The product's part of an address.", examples=["stoneware-mug"]),
]
Description = Annotated[Text, Field(max_length=LONGEST_DESCRIPTION, description="Plain text.")]
Amount = Annotated[int, Field(ge=0, le=MAXIMUM, description="Minor units of the store's currency.")]
Price = Annotated[Amount, Field(strict=True)]
OnHand = Annotated[
    int, Field(strict=True, ge=-MAXIMUM_STOCK, le=MAXIMUM_STOCK, description="Pieces, promised or not.")
]
Grams = Annotated[int, Field(strict=True, ge=0, le=MAXIMUM_GRAMS)]


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Image(_In):
    """Where an image is, and what it shows to those who do not see it."""

    src: Annotated[str, StringConstraints(max_length=LONGEST_ADDRESS, pattern=IMAGE_ADDRESS)]
    alt: Name = ""


# --- What visitors see -----------------------------------------------------------------------------------


class ProductCard(BaseModel):
    """A product in a list."""

    id: UUID
    handle: str
    title: str
    vendor: str
    product_type: str
    tags: list[str]
    image: Image | None
    min_price: Money
    max_price: Money
    available: bool
    """Whether any variant can be ordered now."""


class VariantDocument(BaseModel):
    """One thing that can be put in a cart."""

    id: UUID
    position: int
    sku: str | None
    choice: list[str]
    """A value for each of the product's options."""
    price: Money
    compare_at: Money | None
    grams: int
    available: int
    """Pieces that can be ordered now."""
    backorder: bool
    """Sold past zero."""


class ProductDocument(BaseModel):
    """A product with everything a shop's page shows."""

    id: UUID
    handle: str
    title: str
    description: str
    vendor: str
    category: str
    product_type: str
    tags: list[str]
    status: Status
    options: list[str]
    images: list[Image]
    min_price: Money
    max_price: Money
    available: bool
    variants: list[VariantDocument]
    version: int
    updated_at: datetime


class Counted(BaseModel):
    """A value and how many products have it."""

    value: str
    count: int


class PriceSpan(BaseModel):
    """The lowest and the highest price, in minor units."""

    min: int | None
    max: int | None
    currency: str


class Facets(BaseModel):
    """How the selected products spread; the fifty most frequent values of each kind."""

    total: int
    available: int
    vendors: list[Counted]
    product_types: list[Counted]
    tags: list[Counted]
    prices: PriceSpan


class Filters(BaseModel):
    """All that is named must hold."""

    q: Annotated[Text, Field(min_length=1, max_length=200)] | None = Field(
        None, description='Words, beginnings of words, "phrases", -without.'
    )
    vendor: Name | None = None
    type: Name | None = Field(None, description="The product type.")
    tag: Name | None = None
    min_price: Amount | None = None
    max_price: Amount | None = None
    available: bool | None = Field(None, description="Whether any variant can be ordered now.")

    def selection(self, status: Status = Status.ACTIVE) -> Selection:
        """As the queries take it."""
        return Selection(
            q=self.q,
            vendor=self.vendor,
            product_type=self.type,
            tag=self.tag,
            min_price=self.min_price,
            max_price=self.max_price,
            available=self.available,
            status=status,
        )


class ListQuery(Filters):
    """A part of the list of products."""

    sort: Sort | None = Field(None, description="By default relevance with `q`, newest without.")
    status: Status = Field(Status.ACTIVE, description="Others than `active` are for staff.")
    cursor: Annotated[str, Field(max_length=1000)] | None = Field(
        None, description="`next` of the part before, with the same `sort`."
    )
    limit: Annotated[int, Field(ge=1, le=100)] = 24


# --- What managers send ----------------------------------------------------------------------------------


class NewVariant(_In):
    """A variant of a new product."""

    choice: Annotated[list[Title], Field(max_length=MAXIMUM_OPTIONS)] = []
    sku: Sku | None = None
    price: Price
    compare_at: Price | None = None
    on_hand: OnHand = 0
    grams: Grams = 0
    backorder: StrictBool = False


class NewProduct(_In):
    """A product and its variants, priced in the store's currency."""

    handle: Handle
    title: Title
    description: Description = ""
    vendor: Name = ""
    category: Name = ""
    product_type: Name = ""
    tags: Annotated[list[Tag], Field(max_length=MAXIMUM_TAGS)] = []
    status: Status = Status.ACTIVE
    options: Annotated[list[Title], Field(max_length=MAXIMUM_OPTIONS)] = []
    images: Annotated[list[Image], Field(max_length=MAXIMUM_IMAGES)] = []
    variants: Annotated[list[NewVariant], Field(min_length=1, max_length=MAXIMUM_VARIANTS)]


class ProductChange(_In):
    """What is named changes; the rest stays. `status: archived` takes a product off sale for good."""

    handle: Handle = ""
    title: Title = ""
    description: Description = ""
    vendor: Name = ""
    category: Name = ""
    product_type: Name = ""
    tags: Annotated[list[Tag], Field(max_length=MAXIMUM_TAGS)] = []
    status: Status = Status.ACTIVE
    images: Annotated[list[Image], Field(max_length=MAXIMUM_IMAGES)] = []


class VariantChange(_In):
    """What is named changes; the rest stays."""

    sku: Sku | None = None
    price: Price = 0
    compare_at: Price | None = None
    grams: Grams = 0
    backorder: StrictBool = False


class StockCount(_In):
    """The outcome of an inventory."""

    on_hand: OnHand


class StockDocument(BaseModel):
    """The pieces of one variant."""

    variant_id: UUID
    on_hand: int
    reserved: int
    available: int
    backorder: bool
    version: int


# --- Imports ---------------------------------------------------------------------------------------------


class ImportFault(BaseModel):
    """One thing that is wrong with a file."""

    line: int
    column: str | None
    reason: str
    detail: str


class ImportDocument(BaseModel):
    """A file that was imported or refused."""

    id: UUID
    state: Literal["imported", "refused"]
    products: int
    variants: int
    created: int
    updated: int
    """Products that the file changed; one that it repeats as it is counts nowhere."""
    errors: list[ImportFault]
    created_at: datetime
