"""Tables as CSV (RFC 4180), for spreadsheets: a file a table, and one for the rows that are attached to it."""

import csv
import io
from collections.abc import AsyncIterator, Iterator
from typing import Any

import orjson

from services.privacy.archive.export import Export
from services.privacy.archive.survey import Table, flattened


def sheets(
    export: Export, service: str, name: str, table: Table
) -> Iterator[tuple[str, AsyncIterator[bytes]]]:
    """The files of a table."""
    yield f"{service}/{name}.csv", _sheet(export, service, name, table)
    for attached in table.attached:
        yield f"{service}/{name}.{attached}.csv", _attached_sheet(export, service, name, table, attached)


async def _sheet(export: Export, service: str, name: str, table: Table) -> AsyncIterator[bytes]:
    """A line a record, numbered from 1; attached rows are in files of their own and name that number."""
    yield _line(["row", *table.columns], bom=True)
    async for row, record, _ in export.entries(service, among=table.chunks):
        if record["table"] == name:
            flat = flattened(record)
            yield _line([row, *(flat.get(column) for column in table.columns)])


async def _attached_sheet(
    export: Export, service: str, name: str, table: Table, attached: str
) -> AsyncIterator[bytes]:
    columns = table.attached[attached]
    yield _line(["row", *columns], bom=True)
    async for number, record, _ in export.entries(service, among=table.chunks):
        if record["table"] == name:
            for row in record["attached"].get(attached, []):
                yield _line([number, *(row.get(column) for column in columns)])


def _line(values: list[Any], *, bom: bool = False) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer).writerow([_cell(value) for value in values])
    # Spreadsheets take a file without a mark for one of the machine's own code page.
    return buffer.getvalue().encode("utf-8-sig" if bom else "utf-8")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    # A spreadsheet would run what begins like a formula, and a person may have typed anything.
    return (
        f"'{text}" if isinstance(value, str) and text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
    )
