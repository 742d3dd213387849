"""The boxes in a person's rows, opened a page at a time, and put back where nobody changed them meanwhile."""

from collections.abc import AsyncIterator, Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select, and_, select, true, update
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.errors import Problem, Unavailable
from libs.common.personal.data import PersonalData, Sealed, SealedColumn
from libs.common.personal.erasure import Asked, asked_table, belongs_to, parameters
from libs.common.personal.errors import KeyDestroyed
from libs.common.personal.export import Unreadable
from libs.common.personal.holdings import Holding
from libs.common.personal.vault import Opened, ToOpen, Vault
from libs.common.personal.vocabulary import Purpose

_PAGE = 500


class Moved(Exception):
    """A row changed while it was being worked on: begin again."""


async def pages(
    session: AsyncSession,
    vault: Vault,
    holding: Holding,
    asked: Asked,
    *,
    narrowed: ColumnElement[bool] | None = None,
    **more: Any,
) -> AsyncIterator[list[tuple[Row[Any], Opened[PersonalData]]]]:
    """The full boxes of a person's present life, opened, a page at a time. What is destroyed is left out."""
    rows = await session.stream(
        _rows(holding, narrowed), {**parameters([asked]), **more}, execution_options={"yield_per": _PAGE}
    )
    async for page in rows.partitions():
        boxes: list[ToOpen[PersonalData]] = [
            ToOpen(box_of(holding, row), row.store_id, asked.subject_id) for row in page
        ]
        outcomes = await vault.open_to_change(boxes, purpose=Purpose.RIGHTS_OF_THE_PERSON)
        yield [
            (row, opened)
            for row, outcome in zip(page, outcomes, strict=True)
            if (opened := _opened(outcome)) is not None
        ]


def _rows(holding: Holding, narrowed: ColumnElement[bool] | None) -> Select[*tuple[Any, ...]]:
    held, asked = holding.sql, asked_table()
    box = held.c[str(holding.box)]
    columns: list[Any] = [column for column in held.primary_key.columns if column.name != "store_id"]
    if holding.bucket is not None:
        columns.append(held.c[holding.bucket].label("bucket"))
    return (
        select(held.c.store_id, box.label("box"), *columns)
        .join_from(asked, held, belongs_to(held, asked, holding))
        .where(
            held.c.generation == asked.c.generation,
            box.is_not(None),
            true() if narrowed is None else narrowed,
        )
    )


def box_of(holding: Holding, row: Row[Any]) -> Sealed[PersonalData]:
    """The box of a row that was read as `box`."""
    assert holding.kind is not None, "a box has a kind"  # noqa: S101
    return row.box if isinstance(row.box, Sealed) else Sealed(holding.kind, row.box)


def _opened(outcome: Opened[PersonalData] | Problem) -> Opened[PersonalData] | None:
    match outcome:
        case Opened():
            return outcome
        case KeyDestroyed():
            return None
        case Unavailable():
            raise outcome
        case _:
            raise Unreadable(outcome.slug)


def is_row(holding: Holding, row: Row[Any]) -> Any:
    """In SQL, that it is this row."""
    return and_(*(column == getattr(row, column.name) for column in holding.sql.primary_key.columns))


async def indexes_of(
    vault: Vault, holding: Holding, store_id: UUID, data: PersonalData, new: PersonalData
) -> dict[str, bytes | None]:
    """The blind indexes of the fields that change, by their columns."""
    indexes: dict[str, bytes | None] = {}
    for column, (name, index) in holding.indexes.items():
        value = getattr(new, name)
        if value != getattr(data, name):
            indexes[column] = None if value is None else await vault.blind_index(store_id, index, value)
    return indexes


async def put_back(
    session: AsyncSession, holding: Holding, row: Row[Any], columns: Mapping[str, Any]
) -> None:
    """Change a row whose box is still the one that was opened. Raises Moved."""
    table, box = holding.sql, str(holding.box)
    version = {"version": table.c.version + 1} if "version" in table.c else {}
    changed: Any = await session.execute(
        update(table).where(is_row(holding, row), table.c[box] == row.box).values({**columns, **version})
    )
    if changed.rowcount != 1:
        raise Moved


def as_stored(holding: Holding, box: Sealed[Any]) -> Any:
    """The box as its column takes it."""
    sealed = isinstance(holding.column(str(holding.box)).type, SealedColumn)
    return box if sealed else box.payload
