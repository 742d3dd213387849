"""What a service keeps about people, declared once: the generic participant, the export and the data map follow.

    HOLDINGS = [
        Holding(
            table=Order, box="contact", kind=OrderContact, on_erase=OnErase.CLEAR,
            clears=("email_index", "view_secret_hash"), describe=("number", "placed_at", "total_amount"),
            attached=[Attached(OrderLine, by="order_id", describe=("title", "quantity"))],
            before_erase=cancel_open_orders,
        ),
        Holding(table=Session, on_erase=OnErase.DELETE, describe=("created_at",)),
    ]

A table with a holding has `store_id`, `subject_id` and `generation`. A kind that the law keeps (accounting) is
reported when its person is erased and not touched.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, cast
from uuid import UUID

from sqlalchemy import Column, Enum, Table
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase

from libs.common.personal.data import PersonalData, SealedColumn, categories
from libs.common.personal.portable import Template
from libs.common.personal.vocabulary import Bucket, Category, Purpose, Retention, Source


class OnErase(StrEnum):
    """What becomes of a row when its person is erased, or when the time for which it is kept is over."""

    CLEAR = "clear"
    """The box and the columns in `clears` are emptied; the row stays with its figures."""
    DELETE = "delete"
    """The row goes, with what is attached to it."""
    KEEP = "keep"
    """The row is on its way to the person, an answer to the request itself for instance, and ends when it arrives."""


class OnRectify(StrEnum):
    """What becomes of a box when its person has something corrected (GDPR, Art. 16)."""

    RESEAL = "reseal"
    """The box is sealed anew, under the same key, with what is right."""
    BESIDE = "beside"
    """What was issued is not rewritten: a correction is kept beside it and shown with it."""
    KEEP = "keep"
    """It says what somebody asked for or confirmed at the time, and ends by itself."""


class Reference(StrEnum):
    """What outsiders know a person's rows by."""

    ACCOUNT = "account"
    ORDER = "order"


class Person(NamedTuple):
    """A person's life at a store up to and including one generation."""

    subject_id: UUID
    generation: int


Hook = Callable[[AsyncSession, UUID, Sequence[Person]], Awaitable[None]]
"""`async hook(session, store_id, people)`: a rule of the service's own, in the transaction of a task. Like every
handler it may publish events, and calls no network."""

Obligations = Callable[[AsyncSession, UUID, Sequence[Person]], Awaitable[Mapping[Person, Sequence[str]]]]
"""`async hook(session, store_id, people)`: why somebody should look before a person is erased, in fixed words."""


@dataclass(frozen=True, slots=True)
class Attached:
    """Rows of another table that belong to a holding's row: `by` is their column that names its `id`.

    `describe` are the impersonal columns shown with it in an export; `delete` lets them go with a deleted row.
    """

    table: type[DeclarativeBase]
    by: str
    describe: tuple[str, ...] = ()
    delete: bool = False

    @property
    def sql(self) -> Table:
        """The table itself."""
        return cast(Table, self.table.__table__)


@dataclass(frozen=True, slots=True)
class Beside:
    """Where corrections of what is not rewritten are kept, one row for each request and row; `by` is the column that
    names the `id` of the row.

    The table has `request_id`, `store_id`, `subject_id`, `generation`, the holding's bucket and a `box` of `kind`,
    which has the fields that can be corrected under the same names, none of them required. It has a holding of its
    own that KEEPs what it says.
    """

    table: type[DeclarativeBase]
    by: str
    kind: type[PersonalData]

    @property
    def sql(self) -> Table:
        """The table itself."""
        return cast(Table, self.table.__table__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """One table that has rows about people, and what the rights of a person mean for it.

    Raises TypeError where the declaration and the table do not fit.
    """

    table: type[DeclarativeBase]
    on_erase: OnErase
    box: str | None = None
    """The column of the box; none for rows about a person without personal content, a session for instance."""
    kind: type[PersonalData] | None = None
    """What the box holds."""
    bucket: str | None = None
    """For retentions that are divided (a year of accounting, an order): the column that says which bucket."""
    only: Mapping[str, str] | None = None
    """Where one table holds several kinds: the columns and values that tell this one."""
    clears: tuple[str, ...] = ()
    """Emptied together with the box: blind indexes, secrets of the person. They must be nullable. Where no
    rule of the service needs the row's link to the person any more, `subject_id` belongs here too."""
    describe: tuple[str, ...] = ()
    """Impersonal columns that an export shows next to the opened box."""
    attached: Sequence[Attached] = ()
    exported: bool = True
    """False for what is itself an answer on its way to the person."""
    source: Source = Source.OBSERVED
    """From where rows without a box came; of a box its kind says so."""
    portable: Template | None = None
    """What a row is in the vocabulary of schema.org, for a person who takes it elsewhere."""
    order_number: str | None = None
    """The column with the number of an order, by which its buyer can be recognised."""
    reference: Reference | None = None
    """What outsiders who had data from here know the `id` of a row as."""
    proved: str | None = None
    """The column that says when an address in the box was shown to be the person's: until then outsiders are told of
    nobody by it."""
    indexes: Mapping[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])
    """Blind indexes that follow a correction: by column, the field of the box and the name given to `blind_index`."""
    on_rectify: OnRectify = OnRectify.RESEAL
    beside: Beside | None = None
    """For OnRectify.BESIDE: where the corrections go."""
    before_erase: Hook | None = None
    """Before the rows change."""
    obligations: Obligations | None = None
    on_restrict: Hook | None = None
    """What the service must stop or show; that the keyring opens nothing it knows by itself."""
    on_lift: Hook | None = None
    on_object: Hook | None = None
    """After an objection to a purpose of the kind."""

    def __post_init__(self) -> None:
        named = (
            *self.clears,
            *self.describe,
            *self.indexes,
            *((self.order_number,) if self.order_number else ()),
            *((self.proved,) if self.proved else ()),
            *(("id",) if self.reference else ()),
        )
        for name in ("store_id", "subject_id", "generation", *named):
            self.column(name)
        if (self.box is None) != (self.kind is None):
            raise TypeError(f"{self.name}: a box and its kind are named together")
        if (self.on_rectify is OnRectify.BESIDE) != (self.beside is not None):
            raise TypeError(f"{self.name}: corrections go beside a row where it says so, and nowhere else")
        sealed = self.column(self.box).type if self.box is not None else None
        if isinstance(sealed, SealedColumn) and sealed.model is not self.kind:
            raise TypeError(f"{self.name}.{self.box} holds boxes of another kind")
        if self.on_erase is OnErase.CLEAR:
            for name in self.emptied:
                if not self.sql.columns[name].nullable:
                    raise TypeError(f"{self.name}.{name} cannot be emptied: it is not nullable")
        if self.is_divided and self.on_erase is not OnErase.KEEP:
            if self.bucket is None:
                raise TypeError(f"{self.name}: a divided retention needs the column of its bucket")
            self.column(self.bucket)

    @property
    def sql(self) -> Table:
        """The table itself."""
        return cast(Table, self.table.__table__)

    @property
    def name(self) -> str:
        """The table's name."""
        return str(self.sql.name)

    @property
    def retention(self) -> Retention | None:
        """Why the box may stay; none without a box."""
        return self.kind.retention if self.kind is not None else None

    @property
    def origin(self) -> Source:
        """From where the rows came."""
        return self.kind.source if self.kind is not None else self.source

    @property
    def is_divided(self) -> bool:
        """Whether parts of what the boxes hold have keys, and ends, of their own."""
        return self.retention is not None and self.retention.period.divided_by is not Bucket.WHOLE

    @property
    def kept_by_law(self) -> bool:
        """Whether an erasure leaves these rows in place and says until when."""
        return self.retention is not None and self.retention.period.kept_by_law

    @property
    def is_rectified(self) -> bool:
        """Whether what a box holds can be corrected."""
        return self.kind is not None and self.exported and self.on_rectify is not OnRectify.KEEP

    def is_about(self, purpose: Purpose | None, category: Category | None) -> bool:
        """Whether a box is used for `purpose` and holds something of `category`; None means any."""
        if self.kind is None:
            return purpose is None and category is None
        fields = self.kind.model_fields.values()
        return (purpose is None or purpose in self.kind.purposes) and (
            category is None or any(category.includes(one) for field in fields for one in categories(field))
        )

    @property
    def emptied(self) -> tuple[str, ...]:
        """The columns that CLEAR sets to null."""
        return (*((self.box,) if self.box else ()), *self.clears)

    def column(self, name: str) -> Column[Any]:
        """A column of the table. Raises TypeError when there is none of that name."""
        if name not in self.sql.columns:
            raise TypeError(f"{self.name} has no column {name}")
        return self.sql.columns[name]


@dataclass(frozen=True, slots=True)
class Copy:
    """A place besides its own column where a box may lie, and what clears it there."""

    place: str
    holds: str
    cleared_by: str


COPIES: Sequence[Copy] = (
    Copy(
        "outbox",
        "events with sealed boxes",
        "the destruction of their keys; rows are deleted 7 days after sending",
    ),
    Copy(
        "broker topics",
        "events with sealed boxes",
        "the destruction of their keys; records expire after 7 days",
    ),
    Copy(
        "dead_event",
        "parked events with sealed boxes",
        "the destruction of their keys; deleted when driven again",
    ),
    Copy(
        "waiting_letter",
        "sealed letters",
        "an erasure deletes them; else deleted when the mail server has them",
    ),
    Copy(
        "participant_job",
        "a sealed proposal of what is to be corrected",
        "the answer to the task, or an erasure",
    ),
    Copy("idempotency_record", "ids and states of creations, no box", "deleted after 2 days"),
    Copy("memory of processes", "opened keys, never boxes", "privacy.keys-destroyed at once, or 120 seconds"),
    Copy("dead tuples and write-ahead log", "sealed boxes", "the destruction of their keys"),
    Copy("backups", "sealed boxes", "the destruction of their keys; they stay unreadable when restored"),
    Copy("exports", "sealed pieces of a person's data", "deleted when the link expires, and by an erasure"),
)
"""What every service has; a service with more names it in `personal.py`."""


def is_impersonal(column: Column[Any]) -> bool:
    """Whether a column is declared to hold nothing personal, or can hold fixed words only."""
    return "impersonal" in column.info or isinstance(column.type, Enum)


def tables_of(holdings: Iterable[Holding]) -> frozenset[str]:
    """The names of the tables that have a holding."""
    return frozenset(holding.name for holding in holdings)
