"""By what outsiders know a person, read from what a service holds: addresses and numbers in boxes, ids of rows."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pydantic import BaseModel
from sqlalchemy import Row, Select, select, true
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.errors import Unavailable
from libs.common.events.privacy import References
from libs.common.personal.data import PersonalData, Sealed, categories
from libs.common.personal.erasure import Asked, asked_table, belongs_to, parameters
from libs.common.personal.errors import KeyDestroyed
from libs.common.personal.export import Unreadable
from libs.common.personal.holdings import Holding, Reference
from libs.common.personal.vault import ToOpen, Vault
from libs.common.personal.vocabulary import Category, Purpose, Retention

_PAGE = 500
_ADDRESSES = frozenset({Category.EMAIL, Category.PHONE_NUMBER})
_OF_REQUESTS = frozenset({Retention.REQUEST, Retention.EXPORT, Retention.VERIFICATION})
"""What somebody wrote to use a right went to nobody outside, and may be another's, who asked for them."""


class Referring:
    """How the rows of one holding are read for what they are known by: its statement is made once."""

    def __init__(self, holding: Holding) -> None:
        self.holding = holding
        self.rows = _rows(holding)


def referring(holdings: Iterable[Holding]) -> list[Referring]:
    """What is read: holdings whose ids outsiders know, and those with an address or a number in their boxes."""
    return [Referring(one) for one in holdings if one.reference is not None or _has_addresses(one)]


def _has_addresses(holding: Holding) -> bool:
    if holding.kind is None or not holding.exported or holding.kind.retention in _OF_REQUESTS:
        return False
    return any(_ADDRESSES & categories(field) for field in holding.kind.model_fields.values())


def _rows(holding: Holding) -> Select[*tuple[Any, ...]]:
    held, asked = holding.sql, asked_table()
    columns = [held.c.id.label("row_id")] if holding.reference is not None else []
    columns += [held.c[str(holding.box)].label("box")] if _has_addresses(holding) else []
    # An earlier life was told of when it ended.
    this_life = held.c.generation == asked.c.generation
    known = held.c[holding.proved].is_not(None) if holding.proved is not None else true()
    return (
        select(asked.c.store_id, asked.c.subject_id, *columns)
        .join_from(asked, held, belongs_to(held, asked, holding))
        .where(this_life, known)
    )


async def references_of(
    session: AsyncSession, vault: Vault, readings: Iterable[Referring], lives: Sequence[Asked]
) -> References:
    """Everything about one person, each once. The session only reads. Raises Unreadable, KeyringUnavailable."""
    found = Found()
    for reading in readings:
        rows = await session.stream(reading.rows, parameters(lives), execution_options={"yield_per": _PAGE})
        async for page in rows.partitions():
            await _read(vault, reading.holding, page, found)
    return found.references()


async def _read(
    vault: Vault, holding: Holding, page: Sequence[Row[*tuple[Any, ...]]], found: "Found"
) -> None:
    if holding.reference is not None:
        found.ids[holding.reference].update(dict.fromkeys(row.row_id for row in page))
    if not _has_addresses(holding) or holding.kind is None:
        return
    boxes = [
        ToOpen(
            row.box if isinstance(row.box, Sealed) else Sealed(holding.kind, row.box),
            row.store_id,
            row.subject_id,
        )
        for row in page
        if row.box is not None
    ]
    for opened in await vault.open_many(boxes, purpose=Purpose.RIGHTS_OF_THE_PERSON) if boxes else ():
        if isinstance(opened, PersonalData):
            found.take(opened)
        elif isinstance(opened, Unavailable):
            raise opened
        elif not isinstance(opened, KeyDestroyed):
            raise Unreadable(opened.slug)


class Found:
    """References as they are found, each once and in that order."""

    def __init__(self) -> None:
        self.emails: dict[str, None] = {}
        self.phones: dict[str, None] = {}
        self.ids: dict[Reference, dict[Any, None]] = {one: {} for one in Reference}

    def take(self, data: PersonalData) -> None:
        """The addresses and numbers in a box."""
        self.emails.update(dict.fromkeys(values_of(data, Category.EMAIL)))
        self.phones.update(dict.fromkeys(values_of(data, Category.PHONE_NUMBER)))

    def add(self, others: References) -> None:
        """What somebody else has found."""
        self.emails.update(dict.fromkeys(others.emails))
        self.phones.update(dict.fromkeys(others.phones))
        self.ids[Reference.ACCOUNT].update(dict.fromkeys(others.accounts))
        self.ids[Reference.ORDER].update(dict.fromkeys(others.orders))

    def references(self) -> References:
        """All of it."""
        return References(
            emails=tuple(self.emails),
            phones=tuple(self.phones),
            accounts=tuple(self.ids[Reference.ACCOUNT]),
            orders=tuple(self.ids[Reference.ORDER]),
        )


def values_of(data: BaseModel, category: Category) -> Iterator[str]:
    """The texts of one category, however deep they lie."""
    for name, field in type(data).model_fields.items():
        if category in categories(field):
            yield from _texts(getattr(data, name), category)


def _texts(value: Any, category: Category) -> Iterator[str]:
    match value:
        case str():
            yield value
        case BaseModel():
            yield from values_of(value, category)
        case list() | tuple() | set() | frozenset():
            for part in value:
                yield from _texts(part, category)
        case _:
            return
