"""The archive a person gets: a page to read, the same as JSON and CSV, and a list of hashes; written as a stream.

Nothing of it is stored: it is made from sealed chunks while it is sent, a chunk in memory at a time, and comes
out the same every time. A file is read through once, so the tables' columns are gathered in a first pass.
"""

import csv
import hashlib
import io
import stat
from collections import defaultdict
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any

import orjson
from babel.dates import format_date
from jinja2 import Environment, FunctionLoader, StrictUndefined
from stream_zip import ZIP_64, AsyncMemberFile, async_stream_zip

from services.privacy.downloads import Export, Record

_MODE = stat.S_IFREG | 0o600
_WRITTEN_AT_ONCE = 64 * 1024


@dataclass(slots=True)
class _Table:
    """What the first pass learns of one table: its columns, and those of the rows attached to it."""

    columns: dict[str, None] = field(default_factory=dict[str, None])
    attached: dict[str, dict[str, None]] = field(default_factory=dict[str, dict[str, None]])
    rows: int = 0


_Tables = Mapping[str, Mapping[str, _Table]]
"""By service and name."""


async def archive(export: Export) -> AsyncIterator[bytes]:
    """A ZIP: `index.html`, a JSON file a service, a CSV file a table, and `manifest.json` last."""
    tables = await _survey(export)
    async for piece in async_stream_zip(_members(export, tables)):
        yield piece


async def _survey(export: Export) -> _Tables:
    tables: dict[str, dict[str, _Table]] = defaultdict(dict)
    for service in export.chunks:
        async for record in export.records(service):
            table = tables[service].setdefault(record["table"], _Table())
            table.rows += 1
            table.columns.update(dict.fromkeys(_flat(record)))
            for name, rows in record["attached"].items():
                columns = table.attached.setdefault(name, {})
                for row in rows:
                    columns.update(dict.fromkeys(row))
    return tables


async def _members(export: Export, tables: _Tables) -> AsyncIterator[AsyncMemberFile]:
    hashes: dict[str, str] = {}
    for name, content in _contents(export, tables):
        yield _member(name, export.completed_at, _hashed(name, content, hashes))
    yield _member("manifest.json", export.completed_at, _manifest(export, hashes))


def _contents(export: Export, tables: _Tables) -> list[tuple[str, AsyncIterable[bytes]]]:
    contents: list[tuple[str, AsyncIterable[bytes]]] = [("index.html", _page(export, tables))]
    for service, by_name in tables.items():
        contents.append((f"{service}.json", _json(export, service)))
        for name, table in by_name.items():
            contents.append((f"{service}/{name}.csv", _csv(export, service, name, table)))
            for attached, columns in table.attached.items():
                path = f"{service}/{name}.{attached}.csv"
                contents.append((path, _attached_csv(export, service, name, attached, columns)))
    return contents


def _member(name: str, at: datetime, content: AsyncIterable[bytes]) -> AsyncMemberFile:
    return name, at, _MODE, ZIP_64, content


async def _hashed(name: str, content: AsyncIterable[bytes], hashes: dict[str, str]) -> AsyncIterator[bytes]:
    """The content in larger pieces, since each of them crosses a thread on its way into the archive."""
    digest = hashlib.sha256()
    gathered = bytearray()
    async for piece in content:
        gathered += piece
        if len(gathered) >= _WRITTEN_AT_ONCE:
            digest.update(gathered)
            yield bytes(gathered)
            gathered.clear()
    digest.update(gathered)
    yield bytes(gathered)
    hashes[name] = digest.hexdigest()


async def _manifest(export: Export, hashes: Mapping[str, str]) -> AsyncIterator[bytes]:
    manifest = {
        "request": str(export.request_id),
        "completed_at": export.completed_at.isoformat(),
        "services": {name: dict(answer["counts"]) for name, answer in export.answers.items()},
        "sha256": dict(hashes),
    }
    yield orjson.dumps(manifest, option=orjson.OPT_INDENT_2)


# --- JSON ------------------------------------------------------------------------------------------------


async def _json(export: Export, service: str) -> AsyncIterator[bytes]:
    separator = b'{"service":' + orjson.dumps(service) + b',"records":[\n'
    async for record in export.records(service):
        yield separator + orjson.dumps(record)
        separator = b",\n"
    yield b"\n]}\n"


# --- CSV -------------------------------------------------------------------------------------------------


async def _csv(export: Export, service: str, name: str, table: _Table) -> AsyncIterator[bytes]:
    """A line a record, numbered from 1; attached rows are in files of their own and name that number."""
    number = 0
    yield _line(["row", *table.columns], bom=True)
    async for record in export.records(service):
        if record["table"] == name:
            number += 1
            flat = _flat(record)
            yield _line([number, *(flat.get(column) for column in table.columns)])


async def _attached_csv(
    export: Export, service: str, name: str, attached: str, columns: Mapping[str, None]
) -> AsyncIterator[bytes]:
    number = 0
    yield _line(["row", *columns], bom=True)
    async for record in export.records(service):
        if record["table"] == name:
            number += 1
            for row in record["attached"].get(attached, []):
                yield _line([number, *(row.get(column) for column in columns)])


def _flat(record: Record) -> dict[str, Any]:
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


# --- The page --------------------------------------------------------------------------------------------


async def _page(export: Export, tables: _Tables) -> AsyncIterator[bytes]:
    words = _words(export.language)
    explained = {
        (entry["service"], entry.get("table")): entry for entry in export.data_map if "kind" in entry
    }
    template = _pages().get_template("export.html")
    async for piece in template.generate_async(
        language=export.language,
        words=words,
        label=_labels(words),
        request_id=export.request_id,
        day=format_date(export.completed_at.date(), format="long", locale=export.language),
        services=[
            {
                "name": service,
                "tables": [
                    {
                        "name": name,
                        "rows": table.rows,
                        "why": explained.get((service, name)),
                        "records": _records_of(export, service, name),
                    }
                    for name, table in by_name.items()
                ],
            }
            for service, by_name in tables.items()
        ],
    ):
        yield piece.encode()


async def _records_of(export: Export, service: str, name: str) -> AsyncIterator[dict[str, Any]]:
    async for record in export.records(service):
        if record["table"] == name:
            yield {
                "fields": {key: value for key, value in _flat(record).items() if value not in (None, "", [])},
                "attached": {key: rows for key, rows in record["attached"].items() if rows},
            }


def _labels(words: Mapping[str, str]) -> Callable[[str], str]:
    """A name of a column or a service in the reader's language; one we have no word for is shown as it is."""

    def label(name: str) -> str:
        last = name.rsplit(".", 1)[-1]
        return words.get(name) or words.get(last) or last.replace("_", " ").capitalize()

    return label


@cache
def _words(language: str) -> Mapping[str, str]:
    return orjson.loads((files("services.privacy") / "pages" / f"words.{language}.json").read_bytes())


@cache
def _pages() -> Environment:
    folder = files("services.privacy") / "pages"
    return Environment(
        loader=FunctionLoader(lambda name: (folder / name).read_text("utf-8")),
        undefined=StrictUndefined,
        autoescape=True,
        enable_async=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
