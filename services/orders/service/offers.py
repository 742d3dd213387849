"""What is on sale: the copy of the catalogue that carts are priced by."""

from collections.abc import Collection, Iterable
from typing import Any
from uuid import UUID

from sqlalchemy import update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.events.catalog import OfferedVariant, ProductPublished
from services.orders.models import Offer, OfferedProduct


async def follow_catalogue(
    session: AsyncSession, *, store_id: UUID, products: Iterable[ProductPublished]
) -> None:
    """Offer what these products say. Older versions change nothing; a variant left out is no longer sold."""
    newest = {
        product.product_id: product for product in sorted(products, key=lambda product: product.version)
    }
    accepted = [newest[id_] for id_ in await _newer(session, store_id, newest.values())]
    await session.execute(
        update(Offer)
        .where(Offer.store_id == store_id, Offer.product_id.in_([product.product_id for product in accepted]))
        .values(active=False)
    )
    offers = {
        variant.variant_id: _offer(store_id, product, variant)
        for product in accepted
        for variant in product.variants
    }
    if offers:
        await session.execute(_OFFER, list(offers.values()))


async def _newer(session: AsyncSession, store_id: UUID, products: Collection[ProductPublished]) -> list[UUID]:
    """The products that are newer than what is known; their rows stay locked until the session ends."""
    known = upsert(OfferedProduct)
    statement = known.on_conflict_do_update(
        index_elements=[OfferedProduct.store_id, OfferedProduct.product_id],
        set_={"version": known.excluded.version},
        where=OfferedProduct.version < known.excluded.version,
    ).returning(OfferedProduct.product_id)
    rows = [
        {"store_id": store_id, "product_id": product.product_id, "version": product.version}
        for product in sorted(products, key=lambda product: product.product_id)
    ]
    return list((await session.scalars(statement, rows)).all())


def _offer(store_id: UUID, product: ProductPublished, variant: OfferedVariant) -> dict[str, Any]:
    return {
        "store_id": store_id,
        "variant_id": variant.variant_id,
        "product_id": product.product_id,
        "sku": variant.sku,
        "title": variant.title,
        "price": variant.price.amount,
        "currency": variant.price.currency,
        "active": product.status == "active",
    }


_NEW = upsert(Offer)
_OFFER = _NEW.on_conflict_do_update(
    index_elements=[Offer.store_id, Offer.variant_id],
    set_={
        name: _NEW.excluded[name] for name in ("product_id", "sku", "title", "price", "currency", "active")
    },
)
