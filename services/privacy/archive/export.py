"""What an archive is made from: the sealed chunks of a request, read in the order they were sent."""

import re
from base64 import b64decode
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple
from uuid import UUID

from sqlalchemy import select

from libs.common.db import Database
from libs.common.events.privacy import ExportedRecords
from libs.common.personal.data import Sealed
from libs.common.personal.errors import KeyDestroyed
from libs.common.personal.vault import ToOpen, Vault, unless_destroyed
from libs.common.personal.vocabulary import Purpose, Source
from services.privacy.models import ExportChunk

Language = Literal["en", "fr"]
Record = dict[str, Any]
PORTABILITY = "portability"
"""The claim of a person who takes along what they gave (GDPR, Art. 20)."""

IN_MEMORY = 2 * 2**20
"""Bytes of boxes whose records are kept for the next file of the archive; most people have fewer in all."""
_ATTACHMENT = {"name", "media_type", "content"}


class DataMap:
    """What participants announced of what they keep, an entry a kind of each table. Equal to itself alone, so what is
    made from it can be remembered.
    """

    def __init__(self, entries: Iterable[Mapping[str, Any]]) -> None:
        self._tables: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
        self._sources: dict[tuple[str, str, str | None], str | None] = {}
        for entry in entries:
            service, table, kind = (entry.get(name) for name in ("service", "table", "kind"))
            # Whoever announced nonsense spoils nobody's archive.
            if isinstance(service, str) and isinstance(table, str) and isinstance(kind, str | None):
                self._tables.setdefault(service, {}).setdefault(table, []).append(entry)
                self._sources[service, table, kind] = entry.get("source")

    def of(self, service: str) -> list[Mapping[str, Any]]:
        """The entries of a participant."""
        return [entry for entries in self._tables.get(service, {}).values() for entry in entries]

    def of_table(self, service: str, table: str) -> Sequence[Mapping[str, Any]]:
        """The entries of one of its tables."""
        return self._tables.get(service, {}).get(table, ())

    def source(self, service: str, table: str, kind: str | None) -> str:
        """From whom a record is; of what was not announced, the person."""
        return self._sources.get((service, table, kind)) or Source.PERSON


class Entry(NamedTuple):
    """A record, its number among those of its table, from 1, and how many attachments it has."""

    row: int
    record: Record
    files: int


class File(NamedTuple):
    """An attachment, and where it goes."""

    path: str
    content: bytes


@dataclass(slots=True)
class Export:
    """An export that is complete."""

    request_id: UUID
    store_id: UUID
    subject_id: UUID
    right: str
    language: Language
    opened_at: datetime
    made_at: datetime
    chunks: Mapping[str, int]
    """Of each participant that held something."""
    counts: Mapping[str, Mapping[str, int]]
    """What each participant says it holds."""
    data_map: DataMap
    database: Database
    vault: Vault
    _opened: OrderedDict[tuple[str, int], tuple[int, list[tuple[Record, int]]]] = field(
        default_factory=OrderedDict[tuple[str, int], tuple[int, list[tuple[Record, int]]]], repr=False
    )

    @property
    def is_portable(self) -> bool:
        """Whether only what the person gave belongs into it."""
        return self.right == PORTABILITY

    async def entries(self, service: str, *, among: Collection[int] | None = None) -> AsyncIterator[Entry]:
        """Everything a participant holds that belongs into the archive, a chunk in memory at a time.

        Rows are numbered right for every table that is in no other chunks than those of `among`. Attachments are
        without their content: `file` says where it goes.
        """
        rows: Counter[str] = Counter()
        async for record, files in self._records(service, among):
            rows[record["table"]] += 1
            row = rows[record["table"]]
            yield _with_paths(record, service, row) if files else Entry(row, record, 0)

    async def files(self, service: str, table: str, among: Collection[int]) -> AsyncIterator[File]:
        """The attachments of a table, in the order of its rows."""
        row = 0
        async for record, _ in self._records(service, among):
            if record["table"] == table:
                row += 1
                for number, one in enumerate(_attachments(record["data"]), 1):
                    yield File(_path(service, table, row, number, one["name"]), b64decode(one["content"]))

    async def _records(
        self, service: str, among: Collection[int] | None
    ) -> AsyncIterator[tuple[Record, int]]:
        for sequence in range(self.chunks[service]):
            if among is not None and sequence not in among:
                continue
            for record, files in await self._chunk(service, sequence):
                if not self.is_portable or self._is_given(service, record):
                    yield record, files

    def _is_given(self, service: str, record: Record) -> bool:
        """Whether the person gave it."""
        return self.data_map.source(service, record["table"], record["kind"]) == Source.PERSON

    def keep(self, service: str, sequence: int, size: int, records: Sequence[Record]) -> None:
        """Keep the records of a chunk whose box has so many bytes."""
        whole = [_whole(record) for record in records]
        files = (sum(1 for _ in _attachments(record["data"])) for record in whole)
        self._opened[service, sequence] = size, list(zip(whole, files, strict=True))

    async def _chunk(self, service: str, sequence: int) -> list[tuple[Record, int]]:
        """The records of one chunk, and how many attachments each has. Raises KeyDestroyed, KeyringUnavailable."""
        place = service, sequence
        if place not in self._opened:
            box = await self._box(service, sequence)
            while self._opened and len(box) + sum(kept for kept, _ in self._opened.values()) > IN_MEMORY:
                self._opened.popitem(last=False)
            content = await self.vault.open(
                Sealed(ExportedRecords, box),
                store_id=self.store_id,
                subject_id=self.subject_id,
                purpose=Purpose.RIGHTS_OF_THE_PERSON,
            )
            self.keep(service, sequence, len(box), content.records)
        return self._opened[place][1]

    async def _box(self, service: str, sequence: int) -> bytes:
        async with self.database.session(self.store_id) as session:
            box = await session.scalar(
                select(ExportChunk.box).where(
                    ExportChunk.request_id == self.request_id,
                    ExportChunk.participant == service,
                    ExportChunk.sequence == sequence,
                )
            )
        if box is None:
            raise KeyDestroyed
        return box.payload


Box = tuple[UUID, str, int, bytes]
"""Of a chunk: its request, who sent it, its number, and the sealed bytes."""


async def keep(exports: Sequence[Export], boxes: Sequence[Box], *, vault: Vault) -> set[UUID]:
    """Open boxes for which there is room in memory, of all exports in one call. Returns the requests of which none is
    under a destroyed key. Raises KeyringUnavailable.
    """
    by_request = {export.request_id: export for export in exports}
    whose = [by_request[request_id] for request_id, *_ in boxes]
    items = [
        ToOpen(Sealed(ExportedRecords, box), export.store_id, export.subject_id)
        for export, (*_, box) in zip(whose, boxes, strict=True)
    ]
    opened = await vault.open_many(items, purpose=Purpose.RIGHTS_OF_THE_PERSON)
    whole = set(by_request)
    for export, (_, service, sequence, box), content in zip(whose, boxes, opened, strict=True):
        if (known := unless_destroyed(content)) is None:
            whole.discard(export.request_id)
        else:
            export.keep(service, sequence, len(box), known.records)
    return whole


def _whole(record: Record) -> Record:
    """The record with every member that `ExportedRecords` promises; what a participant calls otherwise is a fact.

    Names of tables become names of files, so they lose what would lead elsewhere.
    """
    known = {"table", "kind", "facts", "data", "attached", "unreadable"}
    facts, data, attached = (record.get(name) for name in ("facts", "data", "attached"))
    more = {name: value for name, value in record.items() if name not in known}
    whole: Record = {
        "table": safe_name(str(record.get("table") or "records")),
        "kind": record.get("kind"),
        "facts": (facts if isinstance(facts, dict) else {}) | more,
        "data": data if isinstance(data, dict) else None,
        "attached": {
            safe_name(name): [row for row in rows if isinstance(row, dict)]
            for name, rows in (attached.items() if isinstance(attached, dict) else ())
            if isinstance(rows, list)
        },
    }
    return whole | ({"unreadable": record["unreadable"]} if "unreadable" in record else {})


# --- Attachments -----------------------------------------------------------------------------------------


def _is_attachment(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == _ATTACHMENT  # pyright: ignore[reportUnknownVariableType]


def _attachments(value: Any) -> Iterator[Mapping[str, str]]:
    """Those in a box's content, in the order in which they are there."""
    if _is_attachment(value):
        yield value
    elif isinstance(value, (dict, list)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _attachments(part)


def _with_paths(record: Record, service: str, row: int) -> Entry:
    """The record with paths where the content of attachments was."""
    found = 0

    def replaced(value: Any) -> Any:
        nonlocal found
        if _is_attachment(value):
            found += 1
            path = _path(service, record["table"], row, found, value["name"])
            return {"name": value["name"], "media_type": value["media_type"], "file": path}
        if isinstance(value, dict):
            return {name: replaced(part) for name, part in value.items()}
        return [replaced(part) for part in value] if isinstance(value, list) else value

    data = replaced(record["data"])
    return Entry(row, {**record, "data": data}, found)


def _path(service: str, table: str, row: int, number: int, name: str) -> str:
    """Unique by its numbers, harmless by its letters, whatever the person called the file."""
    return f"{service}/files/{table}-{row}-{number}-{safe_name(name)}"


def safe_name(name: str) -> str:
    """A file's name without what a file system, a shell or a reader could take for something else."""
    plain = re.sub(r"[^\w.]+", "-", name).strip("-.")
    stem, dot, ending = plain.rpartition(".")
    return (f"{stem[:60]}.{ending[:10]}" if dot else plain[:60]) or "file"
