"""Rows are indexed anew by the present secret of their store: a page at a time, beside everything else.

A box says what its row is to be found by, so no earlier secret is needed. What is on hold is indexed like the rest: it
is stored, and its person must be found when they use a right. A row whose box opens no more is found by nobody.
"""

import os
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select, and_, func, or_, select, true, tuple_, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.db import Database
from libs.common.errors import Problem, Unavailable
from libs.common.personal.blind_indexes import EPOCH_BYTES, MAC_BYTES, prefix
from libs.common.personal.boxes import box_of, is_row
from libs.common.personal.data import PersonalData
from libs.common.personal.errors import KeyDestroyed
from libs.common.personal.holdings import Holding
from libs.common.personal.vault import Opened, ToOpen, Vault
from libs.common.personal.vocabulary import Purpose

_PAGE = 500


async def index_anew(
    database: Database, vault: Vault, holdings: Iterable[Holding], *, store_id: UUID, epoch: int
) -> int:
    """Index what is indexed by another epoch than this one. Returns how many rows could not be: people must look.

    May be repeated. Raises KeyringUnavailable.
    """
    left = 0
    for holding in holdings:
        if holding.indexes:
            left += await _index_table(database, vault, holding, store_id, epoch)
    return left


async def _index_table(database: Database, vault: Vault, holding: Holding, store_id: UUID, epoch: int) -> int:
    left, after = 0, None
    while True:
        async with database.session(store_id) as session:
            rows = (await session.execute(_rows(holding, store_id, epoch, after))).all()
        if not rows:
            return left
        changes = await _changes(vault, holding, store_id, epoch, rows)
        left += len(rows) - len(changes)
        left += await _write(database, holding, store_id, changes)
        after = [getattr(rows[-1], column.name) for column in _primary(holding)]


def _rows(
    holding: Holding, store_id: UUID, epoch: int, after: Sequence[Any] | None
) -> Select[*tuple[Any, ...]]:
    held, primary = holding.sql, _primary(holding)
    further = true() if after is None else tuple_(*primary) > tuple_(*after)
    old = [_is_old(held.c[name], epoch) for name in holding.indexes]
    kind = [held.c[name] == value for name, value in (holding.only or {}).items()]
    columns: list[Any] = [*primary, held.c.subject_id, held.c[str(holding.box)].label("box")]
    columns += [held.c[name].label(f"index_{name}") for name in holding.indexes]
    return (
        select(*columns)
        .where(held.c.store_id == store_id, or_(*old), further, *kind)
        .order_by(*primary)
        .limit(_PAGE)
    )


def _primary(holding: Holding) -> list[Any]:
    return list(holding.sql.primary_key.columns)


def _is_old(column: ColumnElement[Any], epoch: int) -> ColumnElement[bool]:
    length = MAC_BYTES + len(prefix(epoch))
    return or_(
        func.octet_length(column) != length,
        func.substr(column, 1, EPOCH_BYTES) != prefix(epoch)
        if epoch
        else func.octet_length(column) != length,
    )


async def _changes(
    vault: Vault, holding: Holding, store_id: UUID, epoch: int, rows: Sequence[Row[Any]]
) -> list[tuple[Row[Any], dict[str, bytes | None]]]:
    full = [row for row in rows if row.box is not None and row.subject_id is not None]
    boxes = [ToOpen(box_of(holding, row), store_id, row.subject_id) for row in full]
    opened = iter(await vault.open_to_change(boxes, purpose=Purpose.RIGHTS_OF_THE_PERSON))
    changes: list[tuple[Row[Any], dict[str, bytes | None]]] = []
    for row in rows:
        match next(opened) if row in full else KeyDestroyed():
            case Opened(data):
                changes.append((row, await _indexes(vault, holding, store_id, data)))
            case KeyDestroyed():
                changes.append((row, _of_nobody(holding, epoch)))
            case Unavailable() as problem:
                raise problem
            case Problem():
                continue
    return changes


async def _indexes(
    vault: Vault, holding: Holding, store_id: UUID, data: PersonalData
) -> dict[str, bytes | None]:
    values = {column: (getattr(data, name), index) for column, (name, index) in holding.indexes.items()}
    return {
        column: None if value is None else await vault.blind_index(store_id, index, value)
        for column, (value, index) in values.items()
    }


def _of_nobody(holding: Holding, epoch: int) -> dict[str, bytes | None]:
    return {
        name: None if holding.sql.c[name].nullable else prefix(epoch) + os.urandom(MAC_BYTES)
        for name in holding.indexes
    }


async def _write(
    database: Database,
    holding: Holding,
    store_id: UUID,
    changes: Sequence[tuple[Row[Any], dict[str, bytes | None]]],
) -> int:
    """Returns how many rows could not be changed, since another row has what is unique."""
    try:
        async with database.session(store_id) as session:
            for row, indexes in changes:
                await _put(session, holding, row, indexes)
    except IntegrityError:
        if len(changes) == 1:
            return 1
        return sum([await _write(database, holding, store_id, [one]) for one in changes])
    return 0


async def _put(
    session: AsyncSession, holding: Holding, row: Row[Any], indexes: dict[str, bytes | None]
) -> None:
    """A row that changed meanwhile has the index of what it says now, or is met in the next pass."""
    held = holding.sql
    as_read = and_(*(held.c[name] == getattr(row, f"index_{name}") for name in holding.indexes))
    box = held.c[str(holding.box)]
    same = box.is_(None) if row.box is None else box == row.box
    await session.execute(update(held).where(is_row(holding, row), same, as_read).values(indexes))
