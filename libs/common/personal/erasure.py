"""What a participant erases, keeps and finds left over, computed from its holdings once and done by one statement
for any number of people.

The re-read goes another way than the clean-up: it starts from the database's own catalogue, so that a table
or a column that nobody declared is found too.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    CTE,
    BigInteger,
    Column,
    ColumnElement,
    FromClause,
    LargeBinary,
    MetaData,
    Select,
    Table,
    Text,
    Uuid,
    and_,
    bindparam,
    cast,
    column,
    delete,
    false,
    func,
    literal,
    not_,
    null,
    or_,
    select,
    text,
    true,
    type_coerce,
    union_all,
    update,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql.dml import ReturningDelete, ReturningUpdate

from libs.common.db import fetch
from libs.common.events.privacy import Retained, Skipped, TaskIssued
from libs.common.personal.data import PersonalData
from libs.common.personal.holdings import Attached, Holding, OnErase, is_impersonal
from libs.common.personal.vocabulary import Retention


class Asked(NamedTuple):
    """One subject's part of a batch of tasks; a person may have several in one request."""

    request_id: UUID
    store_id: UUID
    subject_id: UUID
    generation: int


def asked_of(task: TaskIssued, store_id: UUID) -> list[Asked]:
    """All subjects that a task is about: what is counted for its request is counted over them."""
    return [Asked(task.request_id, store_id, life.subject_id, life.generation) for life in task.lives]


def asked_table() -> FromClause:
    """The batch as a table; its rows are the parameters that `parameters` gives."""
    columns = {"request_id": Uuid(), "store_id": Uuid(), "subject_id": Uuid(), "generation": BigInteger()}
    arrays = [bindparam(f"{name}s", type_=ARRAY(kind)) for name, kind in columns.items()]
    named = [column(name, kind) for name, kind in columns.items()]
    return func.unnest(*arrays).table_valued(*named, name="asked").render_derived()


def parameters(batch: Sequence[Asked]) -> dict[str, list[Any]]:
    """What `asked_table` is filled with."""
    return {f"{name}s": [getattr(one, name) for one in batch] for name in Asked._fields}


def belongs_to(held: FromClause, asked: FromClause, holding: Holding | None = None) -> ColumnElement[bool]:
    """That a row is about a person of the batch, and is one of the holding's."""
    conditions = [held.c.store_id == asked.c.store_id, held.c.subject_id == asked.c.subject_id]
    if "generation" in held.c:
        conditions.append(held.c.generation <= asked.c.generation)
    if holding is not None:
        conditions.append(_of_its_kind(held, holding))
    return and_(*conditions)


def _of_its_kind(held: FromClause, holding: Holding) -> ColumnElement[bool]:
    return and_(true(), *(held.c[name] == value for name, value in (holding.only or {}).items()))


def _evidence(held: FromClause, asked: FromClause, holding: Holding) -> ColumnElement[bool]:
    """That a row belongs to the very request that asks for the erasure, which must still be answered and proved."""
    if holding.retention is not Retention.REQUEST or holding.bucket is None:
        return false()
    return cast(held.c[holding.bucket], Text) == cast(asked.c.request_id, Text)


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement built once and executed often: the text it compiles to, and what fills its places."""

    query: str
    constants: Mapping[str, Any]
    places: Sequence[str]

    @classmethod
    def of(cls, executable: Any) -> "Statement":
        """The statement that an expression compiles to."""
        compiled = executable.compile(dialect=_DIALECT)
        return cls(str(compiled), compiled.params, compiled.positiontup)

    async def execute(self, session: AsyncSession, batch: Sequence[Asked], **more: Any) -> list[Any]:
        """Its rows for a batch."""
        values = {**self.constants, **parameters(batch), **more}
        return await fetch(session, self.query, *(values[place] for place in self.places))


_DIALECT = postgresql.dialect(paramstyle="numeric_dollar")


# --- Erasing ---------------------------------------------------------------------------------------------


def erasing(holdings: Sequence[Holding], *, of_a_part: bool = False) -> list[Statement]:
    """What clears and deletes all that no law keeps, and counts it; one statement unless a table has two holdings
    that change, which one statement cannot do to one row. `of_a_part`: only what lies under one of the `retired` keys.
    """
    rounds: list[dict[str, Holding]] = []
    for holding in holdings:
        if holding.kept_by_law or holding.on_erase is OnErase.KEEP:
            continue
        free = next((one for one in rounds if holding.name not in one), None)
        if free is None:
            rounds.append(free := {})
        free[holding.name] = holding
    return [Statement.of(_changing(list(one.values()), of_a_part)) for one in rounds]


def _changing(holdings: Sequence[Holding], of_a_part: bool) -> Any:
    asked = select(asked_table()).cte("asked")
    counts: list[Select[Any, Any, Any]] = []
    attached: list[CTE] = []
    for holding in holdings:
        narrowed = under_retired(holding) if of_a_part else true()
        change = _cleared if holding.on_erase is OnErase.CLEAR else _deleted
        changed = change(holding, asked, narrowed).cte(f"changed_{holding.name}")
        counts.append(
            select(changed.c.request_id, literal(holding.name).label("name"), func.count().label("number"))
            .group_by(changed.c.request_id)
        )  # fmt: skip
        if holding.on_erase is OnErase.DELETE:
            attached += [
                _detached(holding, one, asked, narrowed).cte(f"detached_{one.sql.name}")
                for one in holding.attached
                if one.delete
            ]
    return union_all(*counts).add_cte(asked, *attached)


def under_retired(holding: Holding) -> ColumnElement[bool]:
    """That the box of a row lies under one of the `retired` keys: its bytes 2 to 17."""
    box = type_coerce(holding.sql.c[str(holding.box)], LargeBinary)
    return func.substr(box, 2, 16) == bindparam("retired", type_=ARRAY(LargeBinary)).any_()


async def erase(
    session: AsyncSession, statements: Iterable[Statement], batch: Sequence[Asked], **more: Any
) -> dict[UUID, Counter[str]]:
    """By request, how many rows of each table changed.

    Two requests of a batch for one person share the work; it is counted for one of them.
    """
    counts: dict[UUID, Counter[str]] = defaultdict(Counter)
    for statement in statements:
        for row in await statement.execute(session, batch, **more):
            counts[row["request_id"]][row["name"]] += row["number"]
    return counts


def _cleared(holding: Holding, asked: FromClause, narrowed: ColumnElement[bool]) -> ReturningUpdate[Any]:
    held = holding.sql
    emptied: dict[str, Any] = {name: null() for name in holding.emptied}
    if "version" in held.c:
        emptied["version"] = held.c.version + 1
    return (
        update(held)
        .values(emptied)
        .where(
            belongs_to(held, asked, holding),
            or_(*(held.c[name].is_not(None) for name in holding.emptied)),
            not_(_evidence(held, asked, holding)),
            narrowed,
        )
        .returning(asked.c.request_id)
    )


def _deleted(holding: Holding, asked: FromClause, narrowed: ColumnElement[bool]) -> ReturningDelete[Any]:
    held = holding.sql
    return (
        delete(held)
        .where(belongs_to(held, asked, holding), not_(_evidence(held, asked, holding)), narrowed)
        .returning(asked.c.request_id)
    )


def _detached(holding: Holding, attached: Attached, asked: FromClause, narrowed: ColumnElement[bool]) -> Any:
    held, child = holding.sql, attached.sql
    return delete(child).where(
        child.c.store_id == held.c.store_id,
        child.c[attached.by] == held.c.id,
        belongs_to(held, asked, holding),
        not_(_evidence(held, asked, holding)),
        narrowed,
    )


# --- What the law keeps ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Keeping:
    """What counts the rows that stay, and the kinds they are of."""

    statement: Statement | None
    kinds: Mapping[str, type[PersonalData]]

    @classmethod
    def of(cls, holdings: Iterable[Holding], staying: Iterable[Holding] = ()) -> "Keeping":
        """The statement for these holdings; none when nothing stays. `staying` do, whatever the law says of them."""
        kept = {id(holding): _kept(holding) for holding in holdings if _stays(holding)}
        kept |= {id(holding): _kept(holding, whole=True) for holding in staying}
        kinds = {one.kind.__name__: one.kind for one in (*holdings, *staying) if one.kind is not None}
        return cls(Statement.of(union_all(*kept.values())) if kept else None, kinds)


async def retained(
    session: AsyncSession, keeping: Keeping, batch: Sequence[Asked]
) -> dict[UUID, list[Retained]]:
    """By request: what stays, of which kind, on what ground and until when."""
    kept: dict[UUID, list[Retained]] = defaultdict(list)
    for row in await keeping.statement.execute(session, batch) if keeping.statement is not None else ():
        retention = keeping.kinds[row["kind"]].retention
        kept[row["request_id"]].append(
            Retained(
                kind=row["kind"],
                retention=retention,
                bucket=row["bucket"],
                count=row["number"],
                ground=retention.period.law,
                until=retention.period.expires_on(row["bucket"]),
            )
        )
    return kept


def _stays(holding: Holding) -> bool:
    return (holding.kept_by_law and holding.box is not None) or (
        holding.retention is Retention.REQUEST and holding.bucket is not None
    )


def _kept(holding: Holding, *, whole: bool = False) -> Select[Any, Any, Any, Any]:
    held, asked = holding.sql, asked_table()
    full = held.c[holding.box].is_not(None) if holding.box else true()
    stays = full if whole or holding.kept_by_law else and_(full, _evidence(held, asked, holding))
    bucket = cast(held.c[holding.bucket], Text) if holding.bucket else cast(literal(""), Text)
    kind = holding.kind.__name__ if holding.kind is not None else ""
    return (
        select(
            asked.c.request_id,
            literal(kind).label("kind"),
            bucket.label("bucket"),
            func.count().label("number"),
        )
        .join_from(asked, held, belongs_to(held, asked, holding))
        .where(stays)
        .group_by(asked.c.request_id, bucket)
    )


# --- Reading again ---------------------------------------------------------------------------------------

MACHINERY = frozenset({"erased_subject", "expired_bucket", "legal_hold"})
"""Tables that name a person by id for the sake of what ends, or may not end yet."""


@dataclass(frozen=True, slots=True)
class Reread:
    """What a re-read looks at, and what it passes over and why: all of it is said in the answer."""

    statement: Statement | None
    tables: Sequence[str]
    skipped: Mapping[str, Skipped]

    def of_a_part(self, read: Collection[str]) -> "Reread":
        """The same, where only `read` were looked at, for what lies under retired keys."""
        passed = dict.fromkeys(self.tables, Skipped.NO_BOX) | dict(self.skipped)
        return Reread(None, sorted(read), {name: why for name, why in passed.items() if name not in read})


# A column of these types cannot hold what a person wrote or is called.
_HARMLESS = frozenset(
    {
        "uuid", "bigint", "integer", "smallint", "numeric", "boolean", "date", "timestamp with time zone",
    }
)  # fmt: skip
_CATALOGUE = text("""
    SELECT relation.relname AS name, attribute.attname AS column, format_type(attribute.atttypid, NULL) AS type
    FROM pg_class AS relation
    JOIN pg_attribute AS attribute ON attribute.attrelid = relation.oid
    WHERE relation.relnamespace = current_schema()::regnamespace
        AND relation.relkind IN ('r', 'p', 'm') AND NOT relation.relispartition
        AND attribute.attnum > 0 AND NOT attribute.attisdropped
    ORDER BY relation.relname, attribute.attnum
""")


async def rereading(
    session: AsyncSession, holdings: Sequence[Holding], *, staying: frozenset[Retention] = frozenset()
) -> Reread:
    """What counts what an erasure left, by request and table, for the database as it is now.

    What is `staying` for a legal claim is left for a reason.
    """
    tables: dict[str, dict[str, str]] = defaultdict(dict)
    for row in await session.execute(_CATALOGUE):
        tables[row.name][row.column] = row.type
    of_each = {name: [holding for holding in holdings if holding.name == name] for name in tables}
    skipped = {
        name: why
        for name, columns in tables.items()
        if (why := _passed_over(name, columns, of_each[name], staying)) is not None
    }
    counts = [
        _left_over(name, columns, of_each[name], staying)
        for name, columns in tables.items()
        if name not in skipped
    ]
    read = sorted(tables.keys() - skipped.keys())
    return Reread(Statement.of(union_all(*counts)) if counts else None, read, skipped)


def _passed_over(
    name: str, columns: Collection[str], holdings: Sequence[Holding], staying: frozenset[Retention]
) -> Skipped | None:
    """Why a table is not read again; a table of which only some rows stay is."""
    if name in MACHINERY:
        return Skipped.NAMES_THE_ERASED
    if not {"store_id", "subject_id"} <= set(columns):
        return Skipped.NAMES_NOBODY
    if not holdings or any(one.only or not _stays_whole(one, staying) for one in holdings):
        return None
    return Skipped.KEPT_BY_LAW if any(one.kept_by_law for one in holdings) else Skipped.KEPT


def _stays_whole(holding: Holding, staying: frozenset[Retention] = frozenset()) -> bool:
    return holding.kept_by_law or holding.on_erase is OnErase.KEEP or holding.retention in staying


async def left_over(
    session: AsyncSession, statement: Statement | None, batch: Sequence[Asked]
) -> dict[UUID, Counter[str]]:
    """By request, how many rows of each table still say something about its person."""
    left: dict[UUID, Counter[str]] = defaultdict(Counter)
    if statement is not None:
        for row in await statement.execute(session, batch):
            left[row["request_id"]][row["name"]] += row["number"]
    return left


def _left_over(
    name: str, columns: Mapping[str, str], holdings: Sequence[Holding], staying: frozenset[Retention]
) -> Select[Any, Any, Any]:
    held = Table(name, MetaData(), *(Column(column) for column in columns)).alias("held")
    asked = asked_table()
    left = or_(
        _undeclared(held, holdings),
        *(
            _survives(held, asked, columns, one, holdings)
            for one in holdings
            if one.retention is None or one.retention not in staying
        ),
    )
    return (
        select(asked.c.request_id, literal(name).label("name"), func.count().label("number"))
        .join_from(asked, held, belongs_to(held, asked))
        .where(left)
        .group_by(asked.c.request_id)
    )


def _undeclared(held: FromClause, holdings: Sequence[Holding]) -> ColumnElement[bool]:
    return and_(true(), *(not_(_of_its_kind(held, holding)) for holding in holdings))


def _survives(
    held: FromClause,
    asked: FromClause,
    columns: Mapping[str, str],
    holding: Holding,
    holdings: Sequence[Holding],
) -> ColumnElement[bool]:
    """That a row of this holding should be gone, or still has something in a column that should be empty."""
    if _stays_whole(holding):
        return false()
    left: ColumnElement[bool] = true()
    if holding.on_erase is OnErase.CLEAR:
        kept = {name for one in holdings if one.kept_by_law for name in one.emptied}
        declared = {one.name for one in holding.sql.columns if is_impersonal(one)}
        full = {name for name, kind in columns.items() if kind not in _HARMLESS} - declared - kept
        left = or_(false(), *(held.c[name].is_not(None) for name in sorted(full | set(holding.emptied))))
    return and_(_of_its_kind(held, holding), left, not_(_evidence(held, asked, holding)))


# --- Reading a part again --------------------------------------------------------------------------------

_BOXES = """
    SELECT relation.relname AS table, quote_ident(relation.relname) AS name, quote_ident(attribute.attname) AS box
    FROM pg_class AS relation
    JOIN pg_attribute AS attribute ON attribute.attrelid = relation.oid
    WHERE relation.relnamespace = current_schema()::regnamespace
        AND relation.relkind IN ('r', 'p', 'm') AND NOT relation.relispartition
        AND attribute.atttypid = 'bytea'::regtype AND attribute.attnum > 0 AND NOT attribute.attisdropped
        AND (SELECT count(*) FROM pg_attribute AS person WHERE person.attrelid = relation.oid
             AND person.attname IN ('store_id', 'subject_id') AND NOT person.attisdropped) = 2
    ORDER BY relation.relname, attribute.attnum
"""
_UNDER_RETIRED = """
    SELECT asked.request_id, '{name}' AS name, count(*) AS number
    FROM unnest($2::uuid[], $3::uuid[], $4::bytea[]) AS asked (request_id, subject_id, key_id)
    JOIN {name} AS held ON held.store_id = $1 AND held.subject_id = asked.subject_id
        AND substr(held.{box}, 2, 16) = asked.key_id
    GROUP BY asked.request_id
"""


async def left_under(
    session: AsyncSession, store_id: UUID, batch: Sequence[tuple[Asked, Sequence[UUID]]]
) -> tuple[dict[UUID, Counter[str]], list[str]]:
    """By request, how many values of each table lie under one of its retired keys, in whatever binary column; and
    the tables that have one.
    """
    keys = [(asked, key_id.bytes) for asked, retired in batch for key_id in retired]
    left: dict[UUID, Counter[str]] = defaultdict(Counter)
    columns = await fetch(session, _BOXES)
    read = sorted({one["table"] for one in columns})
    if not keys or not columns:
        return left, read
    query = " UNION ALL ".join(_UNDER_RETIRED.format(name=one["name"], box=one["box"]) for one in columns)
    rows = await fetch(
        session, query, store_id,
        [asked.request_id for asked, _ in keys],
        [asked.subject_id for asked, _ in keys],
        [key_id for _, key_id in keys],
    )  # fmt: skip
    for row in rows:
        left[row["request_id"]][row["name"]] += row["number"]
    return left, read
