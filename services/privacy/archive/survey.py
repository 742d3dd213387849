"""What the first pass learns of the tables, and how a record is laid flat into their columns."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from services.privacy.archive.export import Export, Record


@dataclass(slots=True)
class Table:
    """Its columns and those of the rows attached to it, and where its records are."""

    columns: dict[str, None] = field(default_factory=dict[str, None])
    attached: dict[str, dict[str, None]] = field(default_factory=dict[str, dict[str, None]])
    chunks: set[int] = field(default_factory=set[int])
    rows: int = 0
    """That say something: of a password for instance there is nothing to show."""
    files: int = 0


Tables = Mapping[str, Mapping[str, Table]]
"""By service and name."""


async def survey(export: Export) -> Tables:
    """Read everything once."""
    tables: dict[str, dict[str, Table]] = defaultdict(dict)
    for service, chunks in export.chunks.items():
        for sequence in range(chunks):
            async for entry in export.entries(service, among=(sequence,)):
                record = entry.record
                table = tables[service].setdefault(record["table"], Table())
                table.rows += says_something(record)
                table.chunks.add(sequence)
                flat = flattened(record)
                table.columns.update(dict.fromkeys(flat))
                table.files += entry.files
                for name, rows in record["attached"].items():
                    columns = table.attached.setdefault(name, {})
                    for row in rows:
                        columns.update(dict.fromkeys(row))
    return tables


def says_something(record: Record) -> bool:
    """Whether anything of it is shown to a reader."""
    return bool(
        record["facts"] or record["data"] or "unreadable" in record or any(record["attached"].values())
    )


def flattened(record: Record) -> dict[str, Any]:
    """The facts, and the content of the box with a column for each of its innermost members (`address.city`)."""
    flat: dict[str, Any] = dict(record["facts"])
    _flatten(record["data"] or {}, "", flat)
    if "unreadable" in record:
        flat["unreadable"] = record["unreadable"]
    return flat


def _flatten(value: Mapping[str, Any], prefix: str, flat: dict[str, Any]) -> None:
    for name, part in value.items():
        if isinstance(part, dict):
            _flatten(part, f"{prefix}{name}.", flat)
        else:
            flat[f"{prefix}{name}"] = part
