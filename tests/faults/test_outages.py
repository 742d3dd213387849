"""Brokers, databases and workers go and come back while the store is busy; zombies, poison and full disks too."""

import asyncio
import random
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from deploy.local.nursery import ROOT
from deploy.local.shop import key
from libs.common.broker import Record
from libs.common.broker.kafka import KafkaBroker
from libs.common.broker.postgres import EmbeddedBroker
from tests.faults.conftest import Running, address, becomes, burnt, checkout_body
from tests.faults.load import load

SEED = 20_260_102
TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACED = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}

# --- What the store needs goes away ----------------------------------------------------------------------


async def test_while_the_broker_is_away_commands_succeed_and_events_wait(running: Running) -> None:
    async with load(running) as busy:
        await busy.goes_on()
        await running.log.kill()
        await busy.goes_on(40)
        # Of two guests one order each may have left before.
        assert await running.backlog("orders") >= 40 - 2
        await running.log.start()
        await busy.goes_on()
    assert [one.text for one in running.refusals] == []
    await running.holds()


async def test_postgresql_killed_twice_refuses_cleanly_and_repeats_nothing(running: Running) -> None:
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    async with load(running) as busy:
        for _ in range(2):
            await busy.goes_on(chance.randint(2, 6))
            before = len(running.refusals)
            running.platform.postgres.kill()
            await becomes(lambda before=before: len(running.refusals) > before, "a command to be refused")
            await running.platform.postgres.start()
        await busy.goes_on()
    await running.holds()


async def test_when_the_outbox_has_no_room_nothing_is_half_written(running: Running) -> None:
    """Whatever is to be published goes to a file on a device that is full."""
    store = running.owner.store_id
    carts = f"/orders/v1/stores/{store}/carts"
    cart = (await running.persist("POST", carts)).json()
    headers = {"Cart-Secret": cart["secret"]} | key()
    line = f"{carts}/{cart['id']}/lines/{running.variant}"
    await running.persist("PUT", line, json={"quantity": 1}, headers=headers)
    send: dict[str, Any] = {"json": checkout_body(cart["id"], address("guest")), "headers": headers}
    before = await _written(running)
    async with _full_disk(running, "orders", "outbox"):
        refused = await running.shop.http.post(f"/orders/v1/stores/{store}/orders", **send)
    assert (refused.status_code, refused.headers["content-type"]) == (503, "application/problem+json")
    assert int(refused.headers["retry-after"]) > 0
    assert await _written(running) == before
    placed = await running.shop.http.post(f"/orders/v1/stores/{store}/orders", **send)
    assert placed.status_code == 201
    again = await running.shop.http.post(f"/orders/v1/stores/{store}/orders", **send)
    assert again.json() == placed.json()
    running.acknowledge(placed.json())
    await running.holds()


async def _written(running: Running) -> list[int]:
    tables = ("orders", "order_line", "outbox", "idempotency_record")
    return [await running.databases.value("orders", f"SELECT count(*) FROM {table}") for table in tables]


@asynccontextmanager
async def _full_disk(running: Running, service: str, table: str) -> AsyncGenerator[None]:
    """While the block runs, what is written to the table is written to a file without room too.

    The refusal is the kernel's, and PostgreSQL gives it its own words: the file of an empty table is /dev/full.
    """
    await running.databases.execute(
        service,
        f"""
        CREATE TABLE without_room (id bigint);
        GRANT INSERT ON without_room TO PUBLIC;
        CREATE FUNCTION write_too() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN INSERT INTO without_room VALUES (1); RETURN NEW; END $$;
        CREATE TRIGGER write_too BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION write_too();
        """,
    )
    path = await running.databases.value(service, "SELECT pg_relation_filepath('without_room')")
    file = running.platform.postgres.data / path
    file.unlink()
    file.symlink_to("/dev/full")
    try:
        with pytest.raises(asyncpg.DiskFullError, match="No space left on device"):
            await running.databases.execute(service, "INSERT INTO without_room VALUES (1)")
        yield
    finally:
        await running.databases.execute(service, "DROP FUNCTION write_too CASCADE; DROP TABLE without_room")


@asynccontextmanager
async def _failing(running: Running, service: str, table: str, when: str, error: str) -> AsyncGenerator[None]:
    """Rows that meet a condition cannot be written while the block runs."""
    await running.databases.execute(
        service,
        f"""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'refused' USING ERRCODE = '{error}'; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON {table} FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION refuse();
        """,
    )
    try:
        yield
    finally:
        await running.databases.execute(service, "DROP FUNCTION refuse CASCADE")


# --- Workers come and go ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("service", "point"),
    [
        ("catalog", "in-handler"),
        ("catalog", "before-offset-commit"),
        ("orders", "after-acknowledgement"),
    ],
)
async def test_what_a_frozen_worker_had_in_hand_is_done_once(
    running: Running, service: str, point: str
) -> None:
    [normal] = running.processes(service)
    await normal.stop()
    zombie = running.worker(service, point, signal="STOP", name=f"{service}-zombie")
    await zombie.start()
    async with load(running) as busy:
        await burnt(zombie, point)
        await normal.start()
        # The other goes on with everything, with what the frozen one had in hand too.
        for order in list(busy.placed):
            await running.shop.order_settles(order, "awaiting_payment", "cancelled")
        zombie.resume()
        await busy.goes_on()
    await zombie.stop()
    await running.holds()


async def test_events_of_a_key_stay_in_order_while_workers_come_and_go(running: Running) -> None:
    services = ("orders", "catalog", "billing")

    async def are(number: int) -> bool:
        return all([await running.log.members(service) == number for service in services])

    async with load(running) as busy:
        await becomes(lambda: are(1), "one worker each to be at work")
        more = [running.worker(service, name=f"{service}-{n}") for service in services for n in (2, 3)]
        await asyncio.gather(*(worker.start() for worker in more))
        await becomes(lambda: are(3), "three workers each to share the work")
        await busy.goes_on(6)
        for leaving, killed in zip(more[::2], more[1::2], strict=True):
            killed.kill()
            await leaving.stop()
        await becomes(lambda: are(1), "one worker each to have all the work")
    await running.holds()
    product = await running.shop.product(running.owner.store_id, "plenty")
    assert len(busy.titles) > 10
    offered = "SELECT title FROM offer WHERE variant_id = $1"
    assert (await running.databases.value("orders", offered, running.variant)).startswith(product["title"])


# --- Poison ----------------------------------------------------------------------------------------------


async def test_poison_is_set_aside_with_its_key_and_driven_again_by_one_command(running: Running) -> None:
    [poison] = (await running.shop.product(running.owner.store_id, "poison"))["variants"]
    parked = "SELECT reason, attempts, trace_id, blocking, next_try_at FROM dead_event ORDER BY id"
    async with _failing(
        running, "catalog", "reservation_line", f"NEW.variant_id = '{poison['id']}'", "P0001"
    ):
        order = await running.buy(variant=poison["id"])
        await running.cancel(order)
        await becomes(lambda: _are_parked(running, 2), "the poison and what follows it to be parked")
        first, behind = await running.databases.rows("catalog", parked)
        assert first["reason"] == "DBAPIError" and first["attempts"] >= 3
        assert behind["reason"] == "behind-another" and behind["blocking"]
        other = await running.buy()
        await running.shop.order_settles(other, "awaiting_payment")
        # Nine attempts with growing pauses take minutes; the tenth is the last.
        await running.databases.execute(
            "catalog", "UPDATE dead_event SET attempts = 9, next_try_at = now() WHERE attempts > 0"
        )
        await becomes(lambda: _is_given_up(running), "the poison to be given up")
    assert await running.parked("catalog") == 2
    assert await _replay(running) in (1, 2)
    await running.holds()
    assert await _replay(running) == 0


async def _are_parked(running: Running, number: int) -> bool:
    return await running.parked("catalog") == number


async def _is_given_up(running: Running) -> bool:
    given_up = "SELECT count(*) FROM dead_event WHERE attempts = 10 AND next_try_at IS NULL"
    return await running.databases.value("catalog", given_up) == 1


async def _replay(running: Running) -> int:
    """`make replay`: how many events it says were handled."""
    [worker] = running.processes("catalog")
    replay = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "libs.common.replay", "catalog"),
        cwd=ROOT,
        env=dict(worker.environment),
        stdout=PIPE,
    )
    said, _ = await replay.communicate()
    assert replay.returncode == 0
    service, number, *_ = said.decode().split()
    assert service == "catalog"
    return int(number)


async def test_a_record_that_is_no_event_stops_its_key_alone(running: Running) -> None:
    where = running.platform.environment
    broker = (
        KafkaBroker(where["KAFKA_BOOTSTRAP_SERVERS"])
        if running.platform.kafka is not None
        else EmbeddedBroker(where["BROKER_DATABASE_URL"])
    )
    order_id = str(uuid4())
    headers = TRACED | {
        "ce_specversion": "1.0", "ce_id": str(uuid4()), "ce_source": "/orders", "ce_subject": order_id,
        "ce_type": "vitrine.orders.order-placed.v1", "ce_time": "2026-01-01T00:00:00+00:00",
        "ce_store": running.owner.store_id,
    }  # fmt: skip
    await broker.start()
    await broker.publish([Record("orders.orders", f"{running.owner.store_id}:{order_id}", b"{}", headers)])
    await broker.stop()
    for service in ("catalog", "billing"):
        await becomes(
            lambda service=service: running.parked(service), f"{service} to park what it cannot read"
        )
        [dead] = await running.databases.rows(service, "SELECT * FROM dead_event")
        assert (dead["reason"], dead["trace_id"], dead["value"]) == ("invalid-data", TRACE, b"{}")
        assert dead["next_try_at"] is None
    await running.shop.order_settles(await running.buy(), "awaiting_payment")
    for service in ("catalog", "billing"):
        await running.databases.execute(service, "DELETE FROM dead_event")
    await running.holds()
