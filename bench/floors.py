"""What this machine does at best, measured in the same run as everything else."""

import asyncio
import multiprocessing
import time
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial

import asyncpg
import uvicorn
from aiokafka import AIOKafkaProducer
from fastapi import FastAPI

from bench.figures import Floor
from bench.load import Client, drive, request
from deploy.local.ports import free_port

SECONDS = 4.0
CLIENTS = 16


def bare_app() -> FastAPI:
    """The smallest FastAPI application that answers JSON."""
    app = FastAPI()

    @app.get("/")
    async def root() -> dict[str, str]:  # pyright: ignore[reportUnusedFunction]
        return {"hello": "world"}

    return app


def _serve(port: int) -> None:
    uvicorn.run(
        bare_app(),
        host="127.0.0.1",
        port=port,
        loop="uvloop",
        http="httptools",
        log_level="error",
        access_log=False,
    )


@contextmanager
def _served() -> Generator[str]:
    port = free_port()
    server = multiprocessing.get_context("spawn").Process(target=_serve, args=(port,), daemon=True)
    server.start()
    try:
        asyncio.run(_listening(port))
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.join()


async def _listening(port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return


async def send(client: Client, _number: int, *, content: bytes) -> None:
    """The scenario of one request over and over."""
    await client.send(content)


def route() -> Floor:
    """Requests a second of a bare FastAPI route, 16 clients."""
    with _served() as url:
        run = drive(url, partial(send, content=request("GET", "/")), clients=CLIENTS, seconds=SECONDS)
    return Floor("bare FastAPI route", run.per_second)


async def query(url: str) -> Floor:
    """Queries a second of `SELECT 1` through asyncpg, 16 connections."""
    connections = [await asyncpg.connect(url) for _ in range(CLIENTS)]
    until = time.perf_counter() + SECONDS

    async def ask(connection: asyncpg.Connection) -> int:
        count = 0
        while time.perf_counter() < until:
            await connection.fetchval("SELECT 1")
            count += 1
        return count

    counts = await asyncio.gather(*(ask(connection) for connection in connections))
    await asyncio.gather(*(connection.close() for connection in connections))
    return Floor("bare asyncpg query", sum(counts) / SECONDS)


async def durable_commit(url: str) -> Floor:
    """Transactions a second of one connection that inserts one row and waits for the disk."""
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE bench_floor (a int)")
    until = time.perf_counter() + SECONDS
    count = 0
    while time.perf_counter() < until:
        await connection.execute("INSERT INTO bench_floor VALUES (1)")
        count += 1
    await connection.execute("DROP TABLE bench_floor")
    await connection.close()
    return Floor("durable commit, one after the other", count / SECONDS)


async def kafka_send(servers: str) -> Floor:
    """Records a second of a bare idempotent aiokafka producer, 500 in flight, 600 bytes each."""
    producer = AIOKafkaProducer(bootstrap_servers=servers, enable_idempotence=True, acks="all")
    await producer.start()
    until = time.perf_counter() + SECONDS
    count = 0
    while time.perf_counter() < until:
        sent = [await producer.send("bench.floor", value=b"x" * 600, key=str(n).encode()) for n in range(500)]
        await asyncio.wait(sent)
        count += len(sent)
    await producer.stop()
    return Floor("bare aiokafka send", count / SECONDS)
