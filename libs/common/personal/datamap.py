"""The data map: which service keeps what about people, why, on what ground, how long, shared with whom,
from where it came, and what an export shows of it.

It is computed from the declarations that the code itself runs on, so it cannot drift from what the code does.
"""

from collections.abc import Iterable, Mapping
from inspect import getdoc
from typing import Any

from sqlalchemy import JSON, Column, DateTime, LargeBinary, Table
from sqlalchemy.types import BigInteger, Boolean, Date, Integer, Interval, Numeric, Uuid

from libs.common.personal.data import PersonalData, SealedColumn, categories
from libs.common.personal.holdings import Copy, Holding, OnErase, is_impersonal
from libs.common.personal.record_schema import record_schema
from libs.common.personal.vocabulary import Category, Purpose, Retention

_HARMLESS = (BigInteger, Boolean, Date, DateTime, Integer, Interval, Numeric, Uuid)


def data_map(service: str, holdings: Iterable[Holding], copies: Iterable[Copy]) -> list[dict[str, Any]]:
    """One entry a holding, and one for every place where a box may lie besides its own column."""
    return [
        *(_entry(service, holding) for holding in holdings),
        *(
            {"service": service, "copy": one.place, "holds": one.holds, "cleared_by": one.cleared_by}
            for one in copies
        ),
    ]


def _entry(service: str, holding: Holding) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "service": service,
        "table": holding.name,
        "column": holding.box,
        "impersonal": list(holding.describe),
        "indexes": [name for name in holding.clears if name != "subject_id"],
        "on_erase": OnErase.KEEP if holding.kept_by_law else holding.on_erase,
        "source": holding.origin,
    }
    if holding.exported:
        entry["schema"] = record_schema(holding)
    if holding.portable is not None:
        entry["portable"] = holding.portable
    return entry | (_kind(holding.kind) if holding.kind is not None else {})


def _kind(kind: type[PersonalData]) -> dict[str, Any]:
    period = kind.retention.period
    return {
        "kind": kind.__name__,
        "description": (getdoc(kind) or "").partition("\n")[0],
        "categories": {name: sorted(categories(field)) for name, field in kind.model_fields.items()},
        "purposes": list(kind.purposes),
        "legal_basis": kind.legal_basis,
        "recipients": list(kind.recipients),
        "retention": {
            "name": kind.retention,
            "period": period.name,
            "law": period.law,
            "kept_by_law": period.kept_by_law,
            "clocks": {rule.clock.value: str(rule.length) for rule in period.rules},
        },
    }


def retentions_concerned(
    entries: Iterable[Mapping[str, Any]], purpose: Purpose | None, category: Category | None
) -> list[Retention]:
    """Whose keys the erasure of a part replaces: the retentions of all that is in the scope and no law keeps."""
    found: set[Retention] = set()
    for entry in entries:
        retention = entry.get("retention")
        if retention is None or retention["kept_by_law"] or entry["on_erase"] == OnErase.KEEP:
            continue
        held = {one for field in entry["categories"].values() for one in field}
        if (purpose is None or purpose in entry["purposes"]) and (
            category is None or any(category.includes(one) for one in held)
        ):
            found.add(Retention(retention["name"]))
    return sorted(found - {Retention.REQUEST, Retention.EXPORT})


def undeclared(tables: Iterable[Table], holdings: Iterable[Holding]) -> list[str]:
    """Columns that could hold personal data in the clear: neither a box of a holding, nor emptied with one, nor
    declared impersonal. Sorted, as `table.column`; empty is what a test expects.
    """
    declared = {(holding.name, name) for holding in holdings for name in holding.emptied}
    return sorted(
        f"{table.name}.{column.name}"
        for table in tables
        for column in table.columns
        if (table.name, column.name) not in declared and not _is_harmless(column)
    )


def _is_harmless(column: Column[Any]) -> bool:
    if isinstance(column.type, (SealedColumn, LargeBinary, JSON)):
        return is_impersonal(column)
    return isinstance(column.type, _HARMLESS) or is_impersonal(column)
