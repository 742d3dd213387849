"""PostgreSQL: one engine per process, one transaction per command, bound to one store.

Row-level security is the net under every query: a session that is bound to no store sees nothing.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, ClassVar, cast
from uuid import UUID

import orjson
from asyncpg import InterfaceError as DriverError
from asyncpg import InternalClientError, PostgresError, Record
from sqlalchemy import BigInteger, DateTime, MetaData, Uuid, event, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_dbapi
from sqlalchemy.exc import DBAPIError, DisconnectionError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase

from libs.common.errors import Unavailable

ALL_STORES = "*"
"""The scope of a worker's own machinery and of the few look-ups that cross stores, each opened by name."""

# A hint that a crash of the server forgets costs one interval of polling, so nobody waits for the disk.
_NOTIFY = """
    SELECT pg_notify(channel, '')
    FROM (SELECT set_config('synchronous_commit', 'off', true)) AS no_wait, unnest($1::text[]) AS channel
"""
_ROLLED_BACK_WITHIN = 5.0
_DIALECT = postgresql.dialect(paramstyle="numeric_dollar")
_BIND_STORE = text("SELECT set_config('app.store', :store, true)")


class Base(DeclarativeBase):
    """The naming convention makes every constraint droppable by name in a migration."""

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: DateTime(timezone=True),
        UUID: Uuid(as_uuid=True),
        int: BigInteger,
    }


def impersonal(reason: str) -> dict[str, str]:
    """`info=` of a free-text column that holds no personal data; the reason is shown in the data map.

    A test fails when a text, JSON or binary column is neither sealed nor declared so.
    """
    return {"impersonal": reason}


def engine_of(url: str, *, connect_args: Mapping[str, Any] | None = None, **options: Any) -> AsyncEngine:
    """An engine of the database at an address, which the driver reads itself: SQLAlchemy takes addresses apart by its
    own rules, and knows neither `sslmode` nor what else PostgreSQL's own programs find there (libpq, 32.1.2).
    """
    return create_async_engine(
        "postgresql+asyncpg://", connect_args={"dsn": url, **(connect_args or {})}, **options
    )


def bind_store(session: AsyncSession, store_id: UUID | str) -> None:
    """Bind every transaction of the session to one store, from its first statement."""
    session.info["store"] = str(store_id)


_QUEUE_SECONDS = 15
"""For a connection: who comes in a crowd waits; who would wait longer is turned away, and told to come again."""
_STATEMENTS = 500
"""That stay prepared on a connection, however long they are: more than a service has."""


class Database:
    """The engine of one database. Sessions commit when their block ends and roll back when it raises."""

    def __init__(self, url: str, *, pool_size: int = 10) -> None:
        self.url = url
        self.engine = engine_of(
            url,
            pool_size=pool_size,
            # Connections beyond the pool would be closed after each use, and opening one costs more than ten queries.
            max_overflow=0,
            # The connection that was used last is used next: its statements are prepared, and their plans made.
            pool_use_lifo=True,
            pool_timeout=_QUEUE_SECONDS,
            pool_recycle=1800,
            json_serializer=_to_json,
            json_deserializer=orjson.loads,
            connect_args={
                "timeout": 5,
                "command_timeout": 30,
                "prepared_statement_cache_size": _STATEMENTS,
                "statement_cache_size": _STATEMENTS,
                "max_cached_statement_lifetime": 0,
                "max_cacheable_statement_size": 0,
                "server_settings": {
                    "jit": "off",
                    # A process that was stopped in mid-transaction must not keep its locks for ever. It is called idle
                    # between two statements only, and asyncpg sends a statement in parts: it may stop between those.
                    "idle_in_transaction_session_timeout": "20s",
                    "transaction_timeout": "5min",
                },
            },
        )
        event.listen(self.engine.sync_engine, "checkout", _refuse_closed)
        self._sessions = async_sessionmaker(
            self.engine, expire_on_commit=False, sync_session_class=_StoreSession
        )
        self._to_ring: set[str] = set()
        self._ringing: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def session(self, store_id: UUID | str) -> AsyncGenerator[AsyncSession]:
        """One transaction bound to a store. Raises Unavailable when PostgreSQL cannot be reached."""
        try:
            async with self._sessions() as session:
                bind_store(session, store_id)
                yield session
                await session.commit()
                self._ring(session.info.get("rings", ()))
        except Exception as error:
            if is_outage(error):
                raise Unavailable from error
            raise

    async def read(self, store_id: UUID, query: str, *arguments: object) -> Any:
        """The one value of one query, in one round trip, bound to a store: for reads where time matters.

        In `query` the store is `$1::uuid` and the arguments begin at `$2`. A transaction would take four round
        trips. Here the statement is the transaction: CASE fixes the order (PostgreSQL, 4.2.14), so the store is
        bound before the query begins, and until the statement ends. Unbound, the query would see nothing.
        """
        statement = f"SELECT CASE WHEN set_config('app.store', $1, true) = $1 THEN ({query}) END"
        try:
            async with self._driver() as driver:
                return await driver.fetchval(statement, str(store_id), *arguments)
        except Exception as error:
            if is_outage(error):
                raise Unavailable from error
            raise

    @asynccontextmanager
    async def transaction(self, store_id: UUID | str) -> AsyncGenerator["Transaction"]:
        """As `session`, without a unit of work: for machinery that runs for every event, through `fetch` alone."""
        try:
            async with self._driver() as driver:
                transaction = Transaction(driver)
                try:
                    await driver.execute(f"BEGIN; SELECT set_config('app.store', '{store_id}', true)")
                    yield transaction
                    if await driver.execute("COMMIT") != "COMMIT":
                        raise RuntimeError("a transaction went on after a statement had failed")
                except BaseException as error:
                    if driver.is_closed() and isinstance(error, DriverError):
                        raise Unavailable from error
                    await _roll_back(driver)
                    raise
            self._ring(transaction.info.get("rings", ()))
        except Exception as error:
            if is_outage(error):
                raise Unavailable from error
            raise

    @asynccontextmanager
    async def _driver(self) -> AsyncGenerator[Any]:
        """A live connection of the pool without SQLAlchemy around it, which costs more than a short query."""
        connection = await self.engine.raw_connection()
        try:
            yield connection.driver_connection
        finally:
            connection.close()

    def platform_session(self) -> Any:
        """One transaction over all stores: for machinery, never for a request of a store's caller."""
        return self.session(ALL_STORES)

    def _ring(self, channels: Iterable[str]) -> None:
        self._to_ring.update(channels)
        if self._to_ring and (self._ringing is None or self._ringing.done()):
            self._ringing = asyncio.create_task(self._ring_until_quiet())

    async def _ring_until_quiet(self) -> None:
        """One notification stands for all that were asked for while the last one was under way."""
        while self._to_ring:
            channels = sorted(self._to_ring)
            self._to_ring.clear()
            with contextlib.suppress(Exception):  # a hint that is lost costs one interval of polling
                async with self._driver() as driver:
                    await driver.execute(_NOTIFY, channels)

    async def close(self) -> None:
        """Give every connection back."""
        if self._ringing is not None:
            await self._ringing
        await self.engine.dispose()


def _refuse_closed(connection: Any, _record: object, _proxy: object) -> None:
    """The pool opens another: the server that closed this one may have been back for hours."""
    if connection.driver_connection.is_closed():
        raise DisconnectionError


class Transaction:
    """A running transaction of a driver's connection. `info` is as a session's."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        self.info: dict[Any, Any] = {}


async def _roll_back(driver: Any) -> None:
    """A connection that does not answer is let go of, and its transaction with it."""
    try:
        async with asyncio.timeout(_ROLLED_BACK_WITHIN):
            await driver.execute("ROLLBACK")
    except Exception:
        driver.terminate()
    except BaseException:
        driver.terminate()
        raise


def ring_after_commit(session: "AsyncSession | Transaction", channel: str) -> None:
    """Wake whoever listens on a channel of this database, once the session has committed.

    Not within the transaction: a NOTIFY there makes all commits of the server queue for one lock.
    """
    session.info.setdefault("rings", set()).add(channel)


def _to_json(value: object) -> str:
    return orjson.dumps(value).decode()


class _StoreSession(AsyncSession.sync_session_class):
    """A session whose transactions start by naming their store to row-level security."""


@event.listens_for(_StoreSession, "after_begin")
def _name_the_store(session: Any, _transaction: Any, connection: Any) -> None:  # pyright: ignore[reportUnusedFunction]
    if (store := session.info.get("store")) is not None and not connection.in_nested_transaction():
        connection.execute(_BIND_STORE, {"store": store})


async def switch_store(session: AsyncSession, store_id: UUID | str) -> None:
    """Bind the running transaction to another store: a consumer's batch holds events of several.

    What the session still holds is written first, while the store that it is of is bound.
    """
    if session.info.get("store") != str(store_id):
        await session.flush()
        bind_store(session, store_id)
        await fetch(session, "SELECT set_config('app.store', $1, true)", str(store_id))


async def fetch(session: AsyncSession | Transaction, query: str, *arguments: object) -> list[Any]:
    """The rows of one statement within the session's transaction, read by name, arguments as `$1` and on.

    For paths where a statement's way through SQLAlchemy costs more than the statement. What the unit of work
    still holds is not flushed first. Raises Unavailable on a connection that is gone.
    """
    driver = session.driver if isinstance(session, Transaction) else await _driver_of(session)
    try:
        return await driver.fetch(query, *arguments, record_class=Row)
    except DriverError as error:
        if driver.is_closed():
            raise Unavailable from error
        raise


class Row(Record):
    """A row whose columns are its attributes, save `get`, `items`, `keys` and `values`, which a record has itself."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(name) from error


class Query:
    """A statement with named places, `:name`, that is compiled once and given to the driver: see `fetch`."""

    def __init__(self, statement: str) -> None:
        compiled = text(statement).compile(dialect=_DIALECT)
        self._statement = str(compiled)
        self._places: Sequence[str] = compiled.positiontup or ()

    async def rows(self, session: AsyncSession | Transaction, **values: object) -> list[Any]:
        """Its rows. Raises KeyError when a place is not filled."""
        return await fetch(session, self._statement, *(values[place] for place in self._places))


class Batch(Query):
    """The next few of very many, `ORDER BY … LIMIT`, from an index that has this order.

    PostgreSQL would read all of them to sort them while it believes that there are few: it has no statistics of a table
    yet, or none of a condition that spans columns. That it must not sort holds until the transaction ends.
    """

    async def rows(self, session: AsyncSession | Transaction, **values: object) -> list[Any]:
        """Its rows. Raises KeyError when a place is not filled."""
        await fetch(session, _UNSORTED)
        return await super().rows(session, **values)


_UNSORTED = (
    "SELECT set_config('enable_sort', 'off', true), set_config('enable_incremental_sort', 'off', true)"
)


async def _driver_of(session: AsyncSession) -> Any:
    if session.in_transaction():
        connection = session.sync_session.connection()
    else:
        connection = (await session.connection()).sync_connection
    return cast(Any, connection).connection.driver_connection


def is_outage(error: BaseException) -> bool:
    """Whether PostgreSQL, and not the statement, is what failed: unreachable, restarting, full, locked by others."""
    if isinstance(error, (PoolTimeout, InterfaceError, ConnectionError, TimeoutError, InternalClientError)):
        return True
    if isinstance(error, DBAPIError):
        state = str(getattr(error.orig, "sqlstate", "") or getattr(error.orig, "pgcode", ""))
        return (
            error.connection_invalidated
            or state[:2] in _OUTAGES
            or state in _NOT_THIS_TIME
            or (isinstance(error, OperationalError) and not state)
        )
    if isinstance(error, AsyncAdapt_asyncpg_dbapi.Error):
        # What a pool raises where SQLAlchemy's own errors are not around it: `Database.read`.
        return not error.sqlstate or error.sqlstate[:2] in _OUTAGES
    if isinstance(error, DriverError):
        # What SQLAlchemy's pool passes on as it is when a server ends while a new connection to it is set up.
        return str(error) == _CLOSED
    state = str(error.sqlstate) if isinstance(error, PostgresError) else ""
    return state[:2] in _OUTAGES or state in _NOT_THIS_TIME


_CLOSED = "connection is closed"
"""What asyncpg says of a connection that ended before it was used; for a wrong use it has the same class of error."""
_OUTAGES = frozenset({"08", "53", "57"})
"""Classes of PostgreSQL's appendix A: connection exception, insufficient resources (disk full, too many
connections), operator intervention (shutdown)."""
_NOT_THIS_TIME = frozenset({"55P03", "40P01", "40001", "25P03", "25P04"})
"""A lock that was not had in time, a deadlock, a serialization failure, a transaction that was silent or open for too
long: the same may succeed next time."""
