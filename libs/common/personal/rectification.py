"""What a person says is wrong is put right, box by box (GDPR, Art. 16).

Everything is looked at before anything changes: a correction that the model of one box does not take changes
nothing in this service. Then each box is sealed anew under its own key, a page of rows in a transaction, where
nobody changed it meanwhile. What was changed meanwhile, or done before a crash, is met again from the beginning:
a correction that is already there is counted and written no second time.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

import orjson
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from sqlalchemy import Row, UniqueConstraint, delete, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.db import Database
from libs.common.events.privacy import Correction
from libs.common.personal.boxes import Moved, indexes_of, is_row, pages, put_back
from libs.common.personal.data import PersonalData
from libs.common.personal.erasure import Asked
from libs.common.personal.export import Unreadable
from libs.common.personal.holdings import Holding, OnRectify
from libs.common.personal.tombstones import guard
from libs.common.personal.vault import Opened, Vault
from libs.common.personal.vocabulary import Category

_SECRET = "user.authorization"  # noqa: S105 - a category
TAKEN = "taken"
"""Why a correction was refused that every model takes: what it says must be unique, and is somebody else's."""


class Place(NamedTuple):
    """Where a model has something of a category, by the names of fields, and whether it has a list of it there."""

    path: tuple[str, ...]
    many: bool


@dataclass(slots=True)
class Verdict:
    """What the corrections of one request come to in this service."""

    corrections: dict[Category, Any]
    """Those that every box takes; what it should say."""
    refused: set[Category] = field(default_factory=set[Category])
    reason: str = ""
    rows: Counter[str] = field(default_factory=Counter[str])
    """By table, the boxes that are sealed anew."""
    beside: Counter[str] = field(default_factory=Counter[str])
    """By table, the rows that get a correction beside them."""


# --- Looking ---------------------------------------------------------------------------------------------


async def judge(
    database: Database,
    vault: Vault,
    holdings: Iterable[Holding],
    lives: Sequence[Asked],
    corrections: Iterable[Correction],
) -> Verdict:
    """What would change and what is refused, over all subjects of a person; nothing changes.

    Raises Unreadable, KeyringUnavailable.
    """
    verdict = Verdict({one.category: one.value for one in corrections})
    met: list[tuple[Holding, int]] = []
    async with database.session(lives[0].store_id) as session:
        for holding in _concerned(holdings, verdict.corrections):
            for asked in lives:
                number = 0
                async for page in pages(session, vault, holding, asked):
                    number += len(page)
                    for row, opened in page:
                        await _judge(session, vault, holding, (row, opened.data), verdict)
                met.append((holding, number))
    for category in verdict.refused:
        del verdict.corrections[category]
    for holding, number in met:
        if number and _places_of(holding, verdict.corrections):
            counts = verdict.beside if holding.on_rectify is OnRectify.BESIDE else verdict.rows
            counts[holding.name] += number
    return verdict


async def _judge(
    session: AsyncSession,
    vault: Vault,
    holding: Holding,
    met: tuple[Row[Any], PersonalData],
    verdict: Verdict,
) -> None:
    row, data = met
    for category in _places_of(holding, verdict.corrections).keys() - verdict.refused:
        corrected = _corrected(data, {category: verdict.corrections[category]})
        if corrected is None or category.startswith(_SECRET):
            verdict.refused.add(category)
            continue
        indexes = await indexes_of(vault, holding, row.store_id, data, corrected)
        if await _is_taken(session, vault, holding, (row, corrected), indexes):
            verdict.refused.add(category)
            verdict.reason = TAKEN


async def _is_taken(
    session: AsyncSession,
    vault: Vault,
    holding: Holding,
    met: tuple[Row[Any], PersonalData],
    indexes: Mapping[str, bytes | None],
) -> bool:
    """Whether another row of the store has, in a column that is unique, what this one would get."""
    table, (row, corrected) = holding.sql, met
    rules = [one for one in table.constraints if isinstance(one, UniqueConstraint)]
    for name in indexes.keys() & {column.name for rule in rules for column in rule.columns}:
        field, index = holding.indexes[name]
        value = getattr(corrected, field)
        found_by = () if value is None else await vault.blind_indexes(row.store_id, index, value)
        other = select(table.c.store_id).where(
            table.c.store_id == row.store_id, table.c[name].in_(found_by), ~is_row(holding, row)
        )
        if await session.scalar(other.limit(1)) is not None:
            return True
    return False


# --- Changing --------------------------------------------------------------------------------------------


async def correct(
    database: Database, vault: Vault, holdings: Iterable[Holding], asked: Asked, verdict: Verdict
) -> None:
    """Seal anew what the verdict lets change. To be repeated when it ends early.

    Raises Moved, SubjectErased, Unreadable, KeyringUnavailable.
    """
    async with database.session(asked.store_id) as reading:
        for holding in _concerned(holdings, verdict.corrections):
            async for page in pages(reading, vault, holding, asked):
                before = await _corrected_before(reading, holding, [row for row, _ in page])
                changes = [
                    (row, opened, await _change(vault, holding, (row, opened), verdict.corrections, before))
                    for row, opened in page
                ]
                try:
                    await _write(database, holding, asked, changes)
                except IntegrityError:
                    # Somebody took what is unique since it was judged; judged again, it is refused.
                    raise Moved from None


async def _corrected_before(session: AsyncSession, holding: Holding, rows: Iterable[Row[Any]]) -> set[Any]:
    """The rows that have a correction beside them, which the next one may take back."""
    if holding.beside is None:
        return set()
    of = holding.beside.sql.c[holding.beside.by]
    return set((await session.scalars(select(of).where(of.in_([row.id for row in rows])))).all())


async def _change(
    vault: Vault,
    holding: Holding,
    met: tuple[Row[Any], Opened[PersonalData]],
    corrections: Mapping[Category, Any],
    before: set[Any],
) -> dict[str, Any]:
    """The columns that change and what they change to; empty when the box says so already, and nothing beside it."""
    row, opened = met
    places = _places_of(holding, corrections)
    new = _corrected(opened.data, {category: corrections[category] for category in places})
    if new is None:
        raise Unreadable("corrections-contradict")
    if new == opened.data and not (holding.beside is not None and row.id in before):
        return {}
    if holding.beside is not None:
        fields = {place.path[0] for found in places.values() for place in found}
        return {"box": opened.seal(holding.beside.kind.model_validate(new.model_dump(include=fields)))}
    indexes = await indexes_of(vault, holding, row.store_id, opened.data, new)
    return {str(holding.box): opened.seal(new), **indexes}


async def _write(
    database: Database,
    holding: Holding,
    asked: Asked,
    changes: Sequence[tuple[Row[Any], Opened[PersonalData], Mapping[str, Any]]],
) -> None:
    async with database.session(asked.store_id) as session:
        await guard(session, asked.store_id, asked.subject_id, asked.generation)
        for row, _, columns in changes:
            if columns and holding.beside is not None:
                await _put_beside(session, holding, asked, row, columns)
            elif columns:
                await put_back(session, holding, row, columns)


async def _put_beside(
    session: AsyncSession, holding: Holding, asked: Asked, row: Row[Any], columns: Mapping[str, Any]
) -> None:
    """A correction that is done again, after a restore, is the last one again: it is a new row."""
    beside = holding.beside
    assert beside is not None, "only what is not rewritten has a place beside it"  # noqa: S101
    bucket = {holding.bucket: row.bucket} if holding.bucket else {}
    values = {**asked._asdict(), beside.by: row.id, **bucket, **columns}
    table = beside.sql
    same = (table.c.request_id == asked.request_id, table.c[beside.by] == row.id)
    await session.execute(delete(table).where(*same))
    await session.execute(insert(table).values(values))


# --- Models ----------------------------------------------------------------------------------------------


def _concerned(holdings: Iterable[Holding], corrections: Mapping[Category, Any]) -> list[Holding]:
    return [one for one in holdings if one.is_rectified and _places_of(one, corrections)]


def _places_of(holding: Holding, corrections: Iterable[Category]) -> dict[Category, tuple[Place, ...]]:
    if holding.kind is None:
        return {}
    found = {category: places(holding.kind, category) for category in corrections}
    return {category: where for category, where in found.items() if where}


@cache
def places(model: type[BaseModel], category: Category) -> tuple[Place, ...]:
    """The fields of exactly this category, also within the parts of a model."""
    found: list[Place] = []
    for name, one in model.model_fields.items():
        if category in _own_categories(one):
            found.append(Place((name,), _is_many(one.annotation)))
        elif (part := _part(one.annotation)) is not None:
            found += [Place((name, *inner.path), inner.many) for inner in places(part, category)]
    return tuple(found)


def _own_categories(one: FieldInfo) -> set[Category]:
    return {mark for mark in one.metadata if isinstance(mark, Category)}


def _is_many(annotation: Any) -> bool:
    return any(get_origin(one) in {tuple, list, set, frozenset} for one in _choices(annotation))


def _part(annotation: Any) -> type[BaseModel] | None:
    parts = [one for one in _choices(annotation) if isinstance(one, type) and issubclass(one, BaseModel)]
    return parts[0] if parts else None


def _choices(annotation: Any) -> list[Any]:
    """What a field can hold, but for nothing."""
    if get_origin(annotation) is Annotated:
        return _choices(get_args(annotation)[0])
    if get_origin(annotation) in {Union, UnionType}:
        return [choice for one in get_args(annotation) if one is not NoneType for choice in _choices(one)]
    return [annotation]


def _corrected(data: PersonalData, corrections: Mapping[Category, Any]) -> PersonalData | None:
    """The data with the corrections in it; None when its model does not take them."""
    document = data.model_dump(mode="json", round_trip=True)
    try:
        for category, value in corrections.items():
            for place in places(type(data), category):
                _put(document, place, value)
        return type(data).model_validate_json(orjson.dumps(document))
    except (ValidationError, _Ambiguous):
        return None


class _Ambiguous(Exception):
    """One value is to take the place of several, and nothing says of which."""


def _put(document: dict[str, Any], place: Place, value: Any) -> None:
    *way, last = place.path
    for name in way:
        if (document := document[name]) is None:
            return
    if place.many and not isinstance(value, list):
        if len(document[last]) > 1:
            raise _Ambiguous
        value = [value]
    document[last] = value
