"""What the database itself refuses: entries that do not balance, changes, rows of other stores."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, insert, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.db import Base as Common
from libs.common.db import engine_of
from services.billing.domain import Method
from services.billing.models import Base, JournalEntry, PostingRow
from tests.billing.conftest import TODAY, Shop
from tests.privacy.keyring.conftest import RunningKeyring

Postings = list[tuple[str, int, int, str]]


async def book(session: AsyncSession, shop: Shop, order_id: UUID, postings: Postings) -> None:
    entry_id = uuid4()
    await session.execute(
        insert(JournalEntry).values(
            id=entry_id, store_id=shop.id, year=2026, number=uuid4().int % 10**9, occurred_on=TODAY,
            kind="sale", order_id=order_id, booked_at=datetime.now(UTC),
        )
    )  # fmt: skip
    for position, (account, debit, credit, currency) in enumerate(postings):
        await session.execute(
            insert(PostingRow).values(
                entry_id=entry_id, position=position, store_id=shop.id, account=account, debit=debit,
                credit=credit, currency=currency,
            )
        )  # fmt: skip


@pytest.mark.parametrize(
    "postings",
    [
        [],
        [("512", 0, 0, "EUR")],
        [("512", 100, 0, "EUR"), ("411", 0, 99, "EUR")],
        [("512", 100, 0, "EUR"), ("411", 0, 100, "USD")],
        [("512", 100, 0, "EUR"), ("411", 0, 100, "EUR"), ("707", 0, 1, "EUR")],
        [("512", 100, 100, "EUR"), ("411", 0, 0, "EUR")],
        [("512", -100, 0, "EUR"), ("411", 0, -100, "EUR")],
    ],
)
async def test_an_entry_that_does_not_balance_cannot_be_committed(shop: Shop, postings: Postings) -> None:
    order = await shop.open_order()
    with pytest.raises(DBAPIError) as refused:
        async with shop.database.session(shop.id) as session:
            await book(session, shop, order.order_id, postings)
    assert refused.value.orig is not None
    assert refused.value.orig.sqlstate == "23514"  # type: ignore[attr-defined]
    assert (await shop.get("ledger/entries"))["items"] == []


async def test_a_balanced_entry_of_two_currencies_can_be_committed(shop: Shop) -> None:
    order = await shop.open_order()
    async with shop.database.session(shop.id) as session:
        await book(
            session, shop, order.order_id,
            [("512", 100, 0, "EUR"), ("411", 0, 100, "EUR"), ("512", 7, 0, "USD"), ("411", 0, 7, "USD")],
        )  # fmt: skip
    assert len((await shop.get("ledger/entries"))["items"]) == 1


async def test_a_posting_added_later_must_balance_too(shop: Shop) -> None:
    await shop.pay(await shop.open_order())
    with pytest.raises(DBAPIError):
        async with shop.database.session(shop.id) as session:
            await session.execute(
                text(
                    "INSERT INTO posting SELECT entry_id, 9, store_id, account, 5, 0, currency "
                    "FROM posting LIMIT 1"
                )
            )


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE posting SET debit = debit + 1",
        "DELETE FROM posting",
        "UPDATE journal_entry SET occurred_on = occurred_on",
        "DELETE FROM journal_entry",
        "UPDATE payment SET amount = 0",
        "DELETE FROM payment",
    ],
)
async def test_what_is_booked_cannot_be_changed(shop: Shop, change: str) -> None:
    await shop.pay(await shop.open_order())
    with pytest.raises(DBAPIError) as refused:
        async with shop.database.session(shop.id) as session:
            await session.execute(text(change))
    assert "append-only" in str(refused.value.orig)


async def test_even_the_owner_cannot_empty_the_ledger(billing_environment: Mapping[str, str]) -> None:
    owner = await asyncpg.connect(billing_environment["BILLING_MIGRATION_DATABASE_URL"])
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
            await owner.execute("TRUNCATE posting CASCADE")
    finally:
        await owner.close()


async def test_no_row_of_another_store_is_seen_or_written(shop: Shop) -> None:
    order = await shop.open_order()
    await shop.pay(order)
    other = await Shop(shop.app, shop.client, shop.keyring).open()
    tables = [table.name for table in Base.metadata.sorted_tables]
    async with other.database.session(other.id) as session:
        for table in tables:
            assert await session.scalar(text(f"SELECT count(*) FROM {table}")) == 0, table
    with pytest.raises(DBAPIError, match="row-level security"):
        async with other.database.session(other.id) as session:
            await book(session, shop, order.order_id, [("512", 1, 0, "EUR"), ("411", 0, 1, "EUR")])


attempts = st.tuples(
    st.integers(min_value=0, max_value=10**12), st.sampled_from(Method), st.booleans(), st.booleans()
)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(made=st.lists(attempts, max_size=5))
async def test_any_sequence_of_payments_keeps_the_ledger_balanced(
    app: FastAPI,
    client: httpx.AsyncClient,
    keyring: RunningKeyring,
    made: list[tuple[int, Method, bool, bool]],
) -> None:
    shop = await Shop(app, client, keyring).open()
    received = 0
    for amount, method, is_exact, is_repeated in made:
        order = await shop.open_order(amount=amount)
        offered = {"amount": amount if is_exact else amount + 1, "currency": "EUR"}
        for _ in range(2 if is_repeated else 1):
            await shop.pay(order, amount=offered, method=method.value)
        received += amount if is_exact else 0
    balances = {one["name"]: one["balance"] for one in (await shop.get("ledger/balances"))["items"]}
    assert sum(balances.values()) == 0
    assert balances.get("customers", 0) == 0
    assert balances.get("bank", 0) + balances.get("cash", 0) == received == -balances.get("sales", 0)


# --- The migration ---------------------------------------------------------------------------------------


async def test_the_migration_makes_what_the_models_declare(billing_environment: Mapping[str, str]) -> None:
    engine = engine_of(billing_environment["BILLING_MIGRATION_DATABASE_URL"])
    async with engine.connect() as connection:
        assert await connection.run_sync(_differences) == []
    await engine.dispose()


def _differences(connection: Connection) -> list[Any]:
    context = MigrationContext.configure(connection, opts={"compare_type": True})
    return compare_metadata(context, [Common.metadata, Base.metadata])  # type: ignore[arg-type]


async def test_every_table_of_billing_is_isolated_by_force(billing_environment: Mapping[str, str]) -> None:
    owner = await asyncpg.connect(billing_environment["BILLING_MIGRATION_DATABASE_URL"])
    try:
        rows = await owner.fetch(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relrowsecurity AND relforcerowsecurity"
        )
    finally:
        await owner.close()
    assert set(Base.metadata.tables) <= {row["relname"] for row in rows}
