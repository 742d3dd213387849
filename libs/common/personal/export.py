"""What a participant holds about a person, read as a stream and sent on sealed.

Boxes are opened over the network, so an export is a duty of the worker and not a handler: a handler only notes
that it is wanted. Small exports of many people are made together; a large one leaves in chunks, and what is in
memory at one time is bounded by a page of rows and a chunk a person.
"""

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import ARRAY, Row, Select, bindparam, select, true
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.errors import Problem, Unavailable
from libs.common.events.privacy import CHUNK_BYTES, ExportChunk, ExportedRecords, Verb
from libs.common.personal.attachments import has_attachments
from libs.common.personal.data import PersonalData, Sealed, secret_fields
from libs.common.personal.erasure import Asked, asked_table, belongs_to, parameters
from libs.common.personal.errors import KeyDestroyed, KeyRestricted
from libs.common.personal.holdings import Attached, Holding
from libs.common.personal.vault import ToOpen, ToSeal, Vault
from libs.common.personal.vocabulary import LegalBasis, Purpose, Source

_PAGE = 500
_PAGE_WITH_FILES = 20
# JSON inside the box, which adds the names of fields and 45 bytes.
_CHUNK_TEXT = CHUNK_BYTES - 1024

Record = dict[str, Any]


class Unreadable(Exception):
    """A box that should open does not: an export without it would be incomplete. `reason` is a fixed word."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


_PORTABLE = frozenset({LegalBasis.CONSENT, LegalBasis.CONTRACT})


class Reading:
    """How the rows of one holding are read: its statements, which are made once."""

    def __init__(self, holding: Holding) -> None:
        self.holding = holding
        self.rows = _rows(holding)
        has_files = holding.kind is not None and has_attachments(holding.kind)
        self.page = _PAGE_WITH_FILES if has_files else _PAGE
        self.attached = [(one, _attached_rows(one)) for one in holding.attached]


def shown(holdings: Iterable[Holding], *, portable: bool) -> list[Reading]:
    """What an export shows; a portable one only what the person gave, by consent or for a contract (Art. 20(1)(a)),
    and what its service has words of another vocabulary for, which is more than the law asks.
    """
    return [
        Reading(holding)
        for holding in holdings
        if holding.exported and (not portable or _is_portable(holding))
    ]


def _is_portable(holding: Holding) -> bool:
    if holding.kind is None or holding.origin is not Source.PERSON:
        return False
    return holding.kind.legal_basis in _PORTABLE or holding.portable is not None


async def records_of(
    session: AsyncSession, vault: Vault, readings: Iterable[Reading], batch: Sequence[Asked]
) -> AsyncIterator[list[tuple[UUID, Record]]]:
    """Pages of (request, record) over everything held about the people of the batch.

    The session only reads; it holds no lock while boxes are opened. Raises Unreadable, KeyringUnavailable.
    """
    for reading in readings:
        rows = await session.stream(
            reading.rows, parameters(batch), execution_options={"yield_per": reading.page}
        )
        async for page in rows.partitions():
            yield await _opened(session, vault, reading, page)


def _rows(holding: Holding) -> Select[*tuple[Any, ...]]:
    held, asked = holding.sql, asked_table()
    columns = [held.c[name].label(f"fact_{name}") for name in holding.describe]
    if holding.box is not None:
        columns.append(held.c[holding.box].label("box"))
    if holding.attached:
        columns.append(held.c.id.label("row_id"))
    # An earlier life, of which the law may keep something, is no part of what this one may see.
    this_life = held.c.generation == asked.c.generation
    # Without its box, a row of which nothing else is shown says nothing.
    full = (
        held.c[holding.box].is_not(None)
        if holding.box and not (holding.describe or holding.attached)
        else true()
    )
    return (
        select(asked.c.request_id, asked.c.store_id, asked.c.subject_id, *columns)
        .join_from(asked, held, belongs_to(held, asked, holding))
        .where(this_life, full)
    )


async def _opened(
    session: AsyncSession, vault: Vault, reading: Reading, page: Sequence[Row[*tuple[Any, ...]]]
) -> list[tuple[UUID, Record]]:
    holding = reading.holding
    contents = await _contents(vault, holding, page)
    attached = [await _attached(session, *one, page) for one in reading.attached]
    records: list[tuple[UUID, Record]] = []
    for row, content in zip(page, contents, strict=True):
        record: Record = {
            "table": holding.name,
            "kind": holding.kind.__name__ if holding.kind else None,
            "facts": {name: getattr(row, f"fact_{name}") for name in holding.describe},
            **content,
            "attached": {
                # SQLAlchemy names a table by a kind of str that orjson takes for no key.
                str(one.sql.name): rows.get(row.row_id, [])
                for one, rows in zip(holding.attached, attached, strict=True)
            },
        }
        # As JSON will have it, so that its size is known and its types are those a reader will meet.
        records.append((row.request_id, orjson.loads(orjson.dumps(record, default=str))))
    return records


async def _contents(
    vault: Vault, holding: Holding, page: Sequence[Row[*tuple[Any, ...]]]
) -> list[dict[str, Any]]:
    if holding.kind is None:
        return [{"data": None} for _ in page]
    kind = holding.kind
    full = [
        ToOpen(
            row.box if isinstance(row.box, Sealed) else Sealed(kind, row.box), row.store_id, row.subject_id
        )
        for row in page
        if row.box is not None
    ]
    opened = iter(await vault.open_many(full, purpose=Purpose.RIGHTS_OF_THE_PERSON))
    return [_content(next(opened)) if row.box is not None else {"data": None} for row in page]


def _content(opened: PersonalData | Problem) -> dict[str, Any]:
    match opened:
        case PersonalData():
            return {"data": opened.model_dump(mode="json", exclude=set(secret_fields(type(opened))))}
        case KeyDestroyed():
            return {"data": None, "unreadable": "erased"}
        case KeyRestricted():
            return {"data": None, "unreadable": "on-hold"}
        case Unavailable():
            raise opened
        case _:
            raise Unreadable(opened.slug)


def _attached_rows(attached: Attached) -> Select[*tuple[Any, ...]]:
    child = attached.sql
    by = child.c[attached.by]
    shown = [child.c[name] for name in attached.describe]
    return (
        select(by.label("belongs_to"), *shown)
        .where(
            child.c.store_id == bindparam("store"),
            by == bindparam("rows", type_=ARRAY(by.type)).any_(),
        )
        .order_by(*child.primary_key.columns)
    )


async def _attached(
    session: AsyncSession,
    attached: Attached,
    statement: Select[*tuple[Any, ...]],
    page: Sequence[Row[*tuple[Any, ...]]],
) -> Mapping[Any, list[dict[str, Any]]]:
    """The described columns of the rows that belong to a page, by the id of the row they belong to."""
    if not attached.describe:
        return {}
    found: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for store_id in {row.store_id for row in page}:
        ids = [row.row_id for row in page if row.store_id == store_id]
        for row in await session.execute(statement, {"store": store_id, "rows": ids}):
            found[row.belongs_to].append({name: getattr(row, name) for name in attached.describe})
    return found


@dataclass(slots=True)
class Gathering:
    """The records of one request, cut into chunks as they come."""

    asked: Asked
    round: int
    traceparent: str | None = None
    """The trace that the task came with."""
    portable: bool = False
    also: Sequence[Asked] = ()
    """The other subjects of the same person, whose records go into the same chunks."""
    counts: Counter[str] = field(default_factory=Counter[str])
    sent: int = 0
    _waiting: list[Record] = field(default_factory=list[Record])
    _size: int = 0
    _digest: Any = field(default_factory=sha256)

    @property
    def verb(self) -> Verb:
        """What was asked."""
        return Verb.EXPORT

    @property
    def lives(self) -> list[Asked]:
        """All subjects whose records are gathered."""
        return [self.asked, *self.also]

    def add(self, record: Record) -> list[Record]:
        """Take a record in; returns the records of a chunk that is full without it, if so. Raises Unreadable."""
        size = len(orjson.dumps(record)) + 1
        if size > _CHUNK_TEXT:
            raise Unreadable("record-too-large")
        full = self.take() if self._size + size > _CHUNK_TEXT else []
        self._waiting.append(record)
        self._size += size
        self.counts[record["table"]] += 1
        return full

    def take(self) -> list[Record]:
        """The records that are in no chunk yet."""
        taken, self._waiting, self._size = self._waiting, [], 0
        return taken

    def number(self, box: Sealed[ExportedRecords], *, participant: str) -> ExportChunk:
        """The next chunk."""
        self._digest.update(sha256(box.payload).digest())
        self.sent += 1
        return ExportChunk(
            request_id=self.asked.request_id,
            participant=participant,
            round=self.round,
            sequence=self.sent - 1,
            box=box,
        )

    def anew(self) -> "Gathering":
        """The same request, from the beginning."""
        return Gathering(self.asked, self.round, self.traceparent, self.portable, self.also)

    @property
    def digest(self) -> str:
        """What binds the chunks to the answer; empty when there are none."""
        return self._digest.hexdigest() if self.sent else ""


async def seal(
    vault: Vault, pieces: Sequence[tuple[Gathering, list[Record]]]
) -> list[Sealed[ExportedRecords] | None]:
    """A box for each piece, under the key of its request; None where there are no records, or no person any more.

    Raises KeyringUnavailable.
    """
    full = [position for position, (_, records) in enumerate(pieces) if records]
    items = [
        ToSeal(
            ExportedRecords(records=pieces[position][1]),
            pieces[position][0].asked.store_id,
            pieces[position][0].asked.subject_id,
            bucket=str(pieces[position][0].asked.request_id),
        )
        for position in full
    ]
    boxes: list[Sealed[ExportedRecords] | None] = [None] * len(pieces)
    for position, sealed in zip(full, await vault.seal_many(items) if items else [], strict=True):
        boxes[position] = None if isinstance(sealed, Problem) else sealed.box
    return boxes
