"""A file of products goes in whole or not at all, and comes out again in the same layout.

Products are recognised by their handle, variants by their SKU, and otherwise by their option values. What the
file does not name stays. A product that the file repeats as it is keeps its version and is not published.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from uuid import UUID, uuid4

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.db import Database
from libs.common.errors import Conflict
from libs.common.stores import known_store
from services.catalog.domain.products import Status
from services.catalog.domain.sheet import (
    Column,
    Fault,
    Image,
    ImportRefused,
    Reason,
    Sheet,
    SheetProduct,
    SheetVariant,
)
from services.catalog.domain.sheet.reading import read
from services.catalog.domain.sheet.writing import header, write
from services.catalog.models import ImportRun, Product, Variant
from services.catalog.service.merging import Merge, Merged
from services.catalog.service.products import (
    among,
    checked,
    flush,
    publish_products,
)

_AT_ONCE = 100
"""Products: enough for few statements, few enough that the event loop is never long away."""


class ImportRunning(Conflict):
    """Another file of the store is being imported."""

    slug = "import-running"
    title = "Another import of this store is running"
    detail = "Send the file again when it has finished."


# --- Reading ---------------------------------------------------------------------------------------------


async def read_sheet(database: Database, store_id: UUID, content: bytes) -> Sheet:
    """The file, priced in the store's currency. Raises NotFound for an unknown store, ImportRefused."""
    async with database.session(store_id) as session:
        currency = (await known_store(session, store_id)).currency
    # Ten megabytes take a second or two, in which others are served.
    return await asyncio.to_thread(read, content, currency=currency)


async def note_refusal(database: Database, store_id: UUID, refusal: ImportRefused) -> None:
    """Keep what was wrong with a file that was refused."""
    errors = [fault.document() for fault in refusal.faults]
    async with database.session(store_id) as session:
        session.add(ImportRun(store_id=store_id, state="refused", errors=errors))


# --- Importing -------------------------------------------------------------------------------------------


async def import_sheet(session: AsyncSession, *, store_id: UUID, sheet: Sheet) -> ImportRun:
    """Everything in the file, in the session's transaction. Raises ImportRefused, ImportRunning.

    The file is worked through in parts, between which others are served. After a fault nothing more is
    written, but the rest is still looked through, so that every fault is told.
    """
    await _take_turn(session, store_id)
    await _hold(session, store_id, sheet)
    store = await known_store(session, store_id)
    merge = Merge(store_id, store.currency, sheet.has_compare_at)
    created = updated = 0
    for begin in range(0, len(sheet.products), _AT_ONCE):
        part = sheet.products[begin : begin + _AT_ONCE]
        merged = await _merge_part(session, merge, part)
        if not merge.faults:
            await _save(session, store_id, [each for each in merged if each.matters])
        created += sum(each.is_new for each in merged)
        updated += sum(each.matters and not each.is_new for each in merged)
        session.expunge_all()
        await asyncio.sleep(0)
    if merge.faults:
        raise ImportRefused(merge.faults)
    await checked(session, text("SET CONSTRAINTS uq_variant_store_id_sku, uq_variant_choice IMMEDIATE"))
    run = ImportRun(
        id=uuid4(),
        store_id=store_id,
        state="imported",
        products=len(sheet.products),
        variants=sum(len(product.variants) for product in sheet.products),
        created=created,
        updated=updated,
        errors=[],
        created_at=datetime.now(UTC),
    )
    session.add(run)
    return run


async def _take_turn(session: AsyncSession, store_id: UUID) -> None:
    """One import of a store at a time: two files could name the same products in two orders."""
    lock = text("SELECT pg_try_advisory_xact_lock(hashtextextended('import:' || :store, 0))")
    if not await session.scalar(lock, {"store": str(store_id)}):
        raise ImportRunning
    # Within a file two variants may swap their SKUs or their options.
    await session.execute(text("SET CONSTRAINTS uq_variant_store_id_sku, uq_variant_choice DEFERRED"))


async def _hold(session: AsyncSession, store_id: UUID, sheet: Sheet) -> None:
    """Lock what the file may change all at once, in the order in which everybody locks, before any of it is read."""
    handles = among(Product.handle, [product.handle for product in sheet.products])
    products = select(Product.id).where(Product.store_id == store_id, handles).order_by(Product.id)
    ids = (await session.scalars(products.with_for_update())).all()
    variants = select(Variant.id).where(Variant.store_id == store_id, among(Variant.product_id, ids))
    await session.execute(variants.order_by(Variant.id).with_for_update())


async def _merge_part(session: AsyncSession, merge: Merge, part: Sequence[SheetProduct]) -> list[Merged]:
    known = await _known(session, merge.store_id, part)
    merge.faults.extend(await _foreign_skus(session, merge.store_id, part, known))
    return [merge.merge(wanted, known.get(wanted.handle)) for wanted in part]


_Known = Mapping[str, tuple[Product, Sequence[Variant]]]
"""Products by handle, with their variants in order."""


async def _known(session: AsyncSession, store_id: UUID, part: Sequence[SheetProduct]) -> _Known:
    handles = among(Product.handle, [product.handle for product in part])
    products = (await session.scalars(select(Product).where(Product.store_id == store_id, handles))).all()
    variants = await _variants_of(session, store_id, products)
    return {product.handle: (product, variants[product.id]) for product in products}


async def _variants_of(
    session: AsyncSession, store_id: UUID, products: Sequence[Product]
) -> Mapping[UUID, list[Variant]]:
    rows = await session.scalars(
        select(Variant)
        .where(Variant.store_id == store_id, among(Variant.product_id, [product.id for product in products]))
        .order_by(Variant.position)
    )
    variants: dict[UUID, list[Variant]] = {product.id: [] for product in products}
    for variant in rows:
        variants[variant.product_id].append(variant)
    return variants


async def _foreign_skus(
    session: AsyncSession, store_id: UUID, part: Sequence[SheetProduct], known: _Known
) -> list[Fault]:
    lines = {v.sku: (product.handle, v.line) for product in part for v in product.variants if v.sku}
    owned = await session.execute(
        select(Variant.sku, Variant.product_id).where(
            Variant.store_id == store_id, among(Variant.sku, list(lines))
        )
    )
    faults: list[Fault] = []
    for sku, product_id in owned:
        handle, line = lines[str(sku)]
        if handle not in known or known[handle][0].id != product_id:
            faults.append(Fault(line, Column.SKU, Reason.SKU_TAKEN))
    return faults


async def _save(session: AsyncSession, store_id: UUID, merged: Sequence[Merged]) -> None:
    """A handful of statements, however many products; then every change is published."""
    now = datetime.now(UTC)
    for each in merged:
        each.product.updated_at = now
        if each.is_new:
            each.product.created_at = now
            session.add(each.product)
        else:
            each.product.version += 1
    await flush(session)
    session.add_all(variant for each in merged for variant in each.added)
    await flush(session)
    await publish_products(session, store_id, [(each.product, each.variants) for each in merged])


# --- Exporting -------------------------------------------------------------------------------------------


async def export_sheet(database: Database, store_id: UUID) -> AsyncIterator[str]:
    """A file of all products, in the order they were made; a few hundred are in memory at a time.

    Each part is a transaction of its own: no lock and no snapshot outlasts a slow reader.
    """
    yield header()
    after = 0
    while True:
        part, after = await _part(database, store_id, after)
        if not part:
            return
        yield part


async def _part(database: Database, store_id: UUID, after: int) -> tuple[str, int]:
    async with database.session(store_id) as session:
        products = (
            await session.scalars(
                select(Product)
                .where(Product.store_id == store_id, Product.sequence > after)
                .order_by(Product.sequence)
                .limit(_AT_ONCE)
            )
        ).all()
        variants = await _variants_of(session, store_id, products)
    text_of_part = "".join(
        write(_sheet_product(product, variants[product.id]), currency=product.currency)
        for product in products
    )
    return text_of_part, products[-1].sequence if products else after


def _sheet_product(product: Product, variants: Iterable[Variant]) -> SheetProduct:
    return SheetProduct(
        line=0,
        handle=product.handle,
        title=product.title,
        options=tuple(product.options),
        description=product.description,
        vendor=product.vendor,
        category=product.category,
        product_type=product.product_type,
        tags=tuple(product.tags),
        status=Status(product.status),
        images=tuple(Image(**image) for image in product.images),
        variants=tuple(
            SheetVariant(
                line=0,
                choice=variant.choice,
                sku=variant.sku,
                price=variant.price,
                compare_at=variant.compare_at,
                on_hand=variant.on_hand,
                grams=variant.grams,
                backorder=variant.backorder,
            )
            for variant in variants
        ),
    )
