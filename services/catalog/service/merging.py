"""What a file makes of the products that exist: what is new, what changes, what stays, and what does not fit."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from services.catalog.domain.products import Status
from services.catalog.domain.sheet import Column, Fault, Image, Reason, SheetProduct, SheetVariant
from services.catalog.models import Product, Variant
from services.catalog.service.products import OPTIONS, span_prices


@dataclass(slots=True)
class Merged:
    """One product after the file, with all its variants, also those that the file does not name."""

    product: Product
    variants: list[Variant]
    is_new: bool
    added: list[Variant] = field(default_factory=list[Variant])
    changed: bool = False

    @property
    def matters(self) -> bool:
        """Whether anything differs from before."""
        return self.is_new or self.changed or bool(self.added)


@dataclass(frozen=True, slots=True)
class Merge:
    """One file and one store. What does not fit is noted in `faults`."""

    store_id: UUID
    currency: str
    has_compare_at: bool
    faults: list[Fault] = field(default_factory=list[Fault])

    def merge(self, wanted: SheetProduct, known: tuple[Product, Sequence[Variant]] | None) -> Merged:
        """The product as the file wants it. Rows that exist are changed in place."""
        if known is None:
            product = Product(
                id=uuid4(), store_id=self.store_id, handle=wanted.handle, currency=self.currency, version=1
            )
            merged = Merged(product, [], is_new=True)
        else:
            merged = Merged(known[0], list(known[1]), is_new=False)
        _describe(merged, wanted)
        self._merge_variants(merged, wanted)
        span_prices(merged.product, merged.variants)
        return merged

    def _merge_variants(self, merged: Merged, wanted: SheetProduct) -> None:
        by_sku = {variant.sku: variant for variant in merged.variants if variant.sku is not None}
        by_choice = {variant.choice: variant for variant in merged.variants}
        left = {variant.id: variant for variant in merged.variants}
        unmatched: list[SheetVariant] = []
        for new in wanted.variants:
            found = by_sku.get(new.sku or "")
            if found is None and wanted.options is not None:
                found = by_choice.get(new.choice)
            if found is None or left.pop(found.id, None) is None:
                unmatched.append(new)
            else:
                self._update(merged, found, new, keeps_choice=wanted.options is None)
        for new in unmatched:
            self._add(merged, new)
        self._check(merged, wanted, left)

    def _update(self, merged: Merged, variant: Variant, new: SheetVariant, *, keeps_choice: bool) -> None:
        values: dict[str, Any] = {"price": new.price}
        for name in ("sku", "grams", "backorder", "on_hand"):
            if getattr(new, name) is not None:
                values[name] = getattr(new, name)
        if self.has_compare_at:
            values["compare_at"] = new.compare_at
        if not keeps_choice:
            values |= _choice(new.choice)
        recounted = new.on_hand is not None and new.on_hand != variant.on_hand
        if _set(variant, values):
            variant.version += 1
            merged.changed = True
        if recounted and variant.on_hand < variant.reserved and not variant.backorder:
            self.faults.append(Fault(new.line, Column.STOCK, Reason.BELOW_RESERVED))

    def _add(self, merged: Merged, new: SheetVariant) -> None:
        variant = Variant(
            id=uuid4(),
            store_id=self.store_id,
            product_id=merged.product.id,
            position=max((variant.position for variant in merged.variants), default=0) + 1,
            sku=new.sku,
            price=new.price,
            currency=merged.product.currency,
            compare_at=new.compare_at,
            grams=new.grams or 0,
            on_hand=new.on_hand or 0,
            reserved=0,
            backorder=bool(new.backorder),
            version=1,
            **_choice(new.choice),
        )
        merged.variants.append(variant)
        merged.added.append(variant)

    def _check(self, merged: Merged, wanted: SheetProduct, left: dict[UUID, Variant]) -> None:
        """Every variant chooses a value for every option, also those left as they were, and no two choose alike."""
        options = len(merged.product.options)
        if any(len(variant.choice) != options for variant in left.values()):
            self.faults.append(Fault(wanted.line, Column.OPTION1_NAME, Reason.OPTIONS_CHANGED))
            return
        seen = {variant.choice for variant in left.values()}
        lines = {variant.choice: variant.line for variant in wanted.variants}
        for variant in (variant for variant in merged.variants if variant.id not in left):
            if variant.choice in seen or len(variant.choice) != options:
                line = lines.get(variant.choice, wanted.line)
                self.faults.append(Fault(line, Column.OPTION1_VALUE, Reason.REPEATED_VARIANT))
            seen.add(variant.choice)


def _describe(merged: Merged, wanted: SheetProduct) -> None:
    """What the file has no column for stays, and is empty for a new product."""
    values: dict[str, Any] = {
        "title": wanted.title,
        "description": wanted.description,
        "vendor": wanted.vendor,
        "category": wanted.category,
        "product_type": wanted.product_type,
        "tags": _listed(wanted.tags),
        "options": _listed(wanted.options),
        "status": None if wanted.status is None else wanted.status.value,
        "images": _images(wanted.images),
    }
    if merged.is_new:
        values = _EMPTY | {name: value for name, value in values.items() if value is not None}
    merged.changed |= _set(
        merged.product, {name: value for name, value in values.items() if value is not None}
    )


_EMPTY: dict[str, Any] = {
    "description": "", "vendor": "", "category": "", "product_type": "", "tags": [], "options": [],
    "status": Status.ACTIVE.value, "images": [],
}  # fmt: skip


def _set(row: Product | Variant, values: dict[str, Any]) -> bool:
    """Whether that changed anything."""
    changed = {name: value for name, value in values.items() if getattr(row, name) != value}
    for name, value in changed.items():
        setattr(row, name, value)
    return bool(changed)


def _listed(values: Iterable[str] | None) -> list[str] | None:
    return None if values is None else list(values)


def _images(images: Iterable[Image] | None) -> list[dict[str, str]] | None:
    return None if images is None else [{"src": image.src, "alt": image.alt} for image in images]


def _choice(values: Sequence[str]) -> dict[str, str | None]:
    return dict(zip(OPTIONS, [*values, None, None, None], strict=False))
