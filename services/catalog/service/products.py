"""Managers change products; every change is published, so that carts know what they may hold."""

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, ColumnElement, Executable, any_, literal, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.errors import NotFound
from libs.common.events.catalog import OfferedVariant, ProductPublished
from libs.common.http import require_match
from libs.common.money import Money
from libs.common.outbox import publish_all
from libs.common.stores import known_store
from services.catalog.domain.description import tidy
from services.catalog.domain.products import HandleTaken, SkuTaken, Status, check_variants, variant_title
from services.catalog.models import Product, Variant
from services.catalog.schemas import NewProduct, NewVariant

SOURCE = "catalog"
OPTIONS = ("option1", "option2", "option3")


async def create(session: AsyncSession, *, store_id: UUID, wanted: NewProduct) -> UUID:
    """A new product. Raises NotFound for an unknown store, VariantsDoNotFit, HandleTaken, SkuTaken."""
    store = await known_store(session, store_id)
    check_variants(wanted.options, [variant.choice for variant in wanted.variants])
    fields = wanted.model_dump(exclude={"variants"})
    product = Product(
        **fields | {"description": tidy(wanted.description), "status": wanted.status.value},
        store_id=store_id,
        currency=store.currency,
        min_price=0,
        max_price=0,
    )
    session.add(product)
    await flush(session)
    variants = [_variant(product, position, new) for position, new in enumerate(wanted.variants, 1)]
    session.add_all(variants)
    span_prices(product, variants)
    await flush(session)
    await publish_products(session, store_id, [(product, variants)])
    return product.id


def _variant(product: Product, position: int, new: NewVariant) -> Variant:
    return Variant(
        store_id=product.store_id,
        product_id=product.id,
        position=position,
        currency=product.currency,
        **dict(zip(OPTIONS, new.choice, strict=False)),
        **new.model_dump(exclude={"choice"}),
    )


async def change(
    session: AsyncSession,
    *,
    store_id: UUID,
    product_id: UUID,
    if_match: str | None,
    changes: Mapping[str, Any],
) -> None:
    """Set these columns. Raises NotFound, PreconditionFailed, PreconditionRequired, HandleTaken."""
    product = await lock_product(session, store_id, product_id)
    require_match(if_match, product.version)
    for name, value in changes.items():
        setattr(product, name, value)
    if session.is_modified(product):
        await publish_changed(session, product)


async def change_variant(
    session: AsyncSession,
    *,
    store_id: UUID,
    variant_id: UUID,
    if_match: str | None,
    changes: Mapping[str, Any],
) -> Variant:
    """Set these columns. Raises NotFound, PreconditionFailed, PreconditionRequired, SkuTaken."""
    product_id = (await find_variant(session, store_id, variant_id)).product_id
    product = await lock_product(session, store_id, product_id)
    variant = await lock_variant(session, store_id, variant_id)
    require_match(if_match, variant.version)
    for name, value in changes.items():
        setattr(variant, name, value)
    variant.version += 1
    await publish_changed(session, product)
    return variant


# --- Rows ------------------------------------------------------------------------------------------------
# A product is locked before its variants, and variants in the order of their ids, by everybody: no two
# transactions wait for each other.


async def lock_product(session: AsyncSession, store_id: UUID, product_id: UUID) -> Product:
    """The product, held until the session ends. Raises NotFound."""
    product = await session.scalar(
        select(Product).where(Product.store_id == store_id, Product.id == product_id).with_for_update()
    )
    if product is None:
        raise NotFound
    return product


async def find_variant(session: AsyncSession, store_id: UUID, variant_id: UUID) -> Variant:
    """The variant. Raises NotFound."""
    variant = await session.scalar(
        select(Variant).where(Variant.store_id == store_id, Variant.id == variant_id)
    )
    if variant is None:
        raise NotFound
    return variant


async def lock_variants(session: AsyncSession, store_id: UUID, ids: Iterable[UUID]) -> Sequence[Variant]:
    """These variants, held until the session ends."""
    locked = await session.scalars(
        select(Variant)
        .where(Variant.store_id == store_id, among(Variant.id, list(ids)))
        .order_by(Variant.id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    return locked.all()


async def lock_variant(session: AsyncSession, store_id: UUID, variant_id: UUID) -> Variant:
    """The variant, held until the session ends. Raises NotFound."""
    for variant in await lock_variants(session, store_id, [variant_id]):
        return variant
    raise NotFound


def among(column: Any, values: Sequence[Any]) -> ColumnElement[bool]:
    """`column = ANY(values)`: one parameter, however many values."""
    return column == any_(literal(values, ARRAY(column.type)))


async def flush(session: AsyncSession) -> None:
    """Write what changed. Raises HandleTaken, SkuTaken."""
    with _told_apart():
        await session.flush()


async def checked(session: AsyncSession, statement: Executable) -> None:
    """Run a statement that may find a constraint violated. Raises HandleTaken, SkuTaken."""
    with _told_apart():
        await session.execute(statement)


@contextmanager
def _told_apart() -> Generator[None]:
    """A store's own rules, where PostgreSQL only knows constraints."""
    try:
        yield
    except IntegrityError as error:
        for constraint, problem in _REFUSALS.items():
            if constraint in str(error.orig):
                raise problem from error
        raise


_REFUSALS = {"uq_product_store_id_handle": HandleTaken, "uq_variant_store_id_sku": SkuTaken}


# --- What follows from a change --------------------------------------------------------------------------


def span_prices(product: Product, variants: Sequence[Variant]) -> None:
    """The product's span of prices, as its variants are now."""
    prices = [variant.price for variant in variants]
    product.min_price, product.max_price = min(prices), max(prices)


async def publish_changed(session: AsyncSession, product: Product) -> None:
    """A new version of a product that the session holds, told to everybody. Raises HandleTaken, SkuTaken."""
    await flush(session)
    variants = (
        await session.scalars(
            select(Variant)
            .where(Variant.store_id == product.store_id, Variant.product_id == product.id)
            .order_by(Variant.position)
        )
    ).all()
    span_prices(product, variants)
    product.version += 1
    product.updated_at = datetime.now(UTC)
    await flush(session)
    await publish_products(session, product.store_id, [(product, variants)])


async def publish_products(
    session: AsyncSession, store_id: UUID, changed: Iterable[tuple[Product, Sequence[Variant]]]
) -> None:
    """Tell what is on sale now. What is a draft or archived is published without variants."""
    events = [_published(product, variants) for product, variants in changed]
    await publish_all(session, events, store_id=store_id, source=SOURCE)


def _published(product: Product, variants: Sequence[Variant]) -> ProductPublished:
    on_sale = variants if product.status == Status.ACTIVE.value else ()
    return ProductPublished(
        product_id=product.id,
        handle=product.handle,
        title=product.title,
        status=Status(product.status).value,
        version=product.version,
        variants=[
            OfferedVariant(
                variant_id=variant.id,
                sku=variant.sku or "",
                title=variant_title(product.title, variant.choice),
                price=Money(amount=variant.price, currency=variant.currency),
            )
            for variant in on_sale
        ],
    )
