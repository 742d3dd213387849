"""Ctrl-C under load, and the second start: every order that was acknowledged is there, and goes its way."""

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from deploy.local.nursery import ROOT
from deploy.local.ports import free_port
from deploy.local.shop import Account, Order, Shop, Surprise, until

_READY_WITHIN = 120
_GUESTS = 3


@pytest.fixture
def data() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="vitrine-run-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def make_run(data: Path, port: int) -> AsyncGenerator[Process]:
    """What `make run` starts, once it is ready."""
    run = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "deploy.local.run", f"--port={port}", f"--data={data}"),
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.endswith("_URL")},
        stdout=PIPE,
        stderr=STDOUT,
    )
    try:
        await _says(run, "Ctrl-C stops everything")
        yield run
        if run.returncode is None:
            await _stop(run)
    finally:
        # Its children end with it, so that a failing test leaves nothing behind.
        with suppress(ProcessLookupError):
            run.kill()
        await run.wait()


async def _stop(run: Process) -> None:
    """Ctrl-C."""
    run.send_signal(signal.SIGINT)
    await _says(run, "Stopped.")
    assert await asyncio.wait_for(run.wait(), 30) == 0


async def _says(run: Process, words: str) -> None:
    assert run.stdout is not None
    async with asyncio.timeout(_READY_WITHIN):
        while line := (await run.stdout.readline()).decode():
            if words in line:
                return
    raise AssertionError(f"it ended without saying {words!r}")


async def test_ctrl_c_under_load_loses_no_acknowledged_order(data: Path) -> None:
    port = free_port()
    acknowledged: list[Order] = []
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
        shop = Shop(http)
        async with make_run(data, port) as run:
            owner, variant = await _open_store(shop)
            guests = [
                asyncio.create_task(_buy_until_closed(shop, owner, variant, acknowledged))
                for _ in range(_GUESTS)
            ]
            await until(lambda: _are(acknowledged, 10), "ten orders to be acknowledged")
            await _stop(run)
            await asyncio.gather(*guests)
        async with make_run(data, port):
            for order in acknowledged:
                await shop.order_settles(order, "awaiting_payment")


async def _open_store(shop: Shop) -> tuple[Account, str]:
    merchant = await shop.sign_up(f"merchant-{uuid4().hex}@vitrine.example")
    owner = await shop.open_store(merchant, name="Open late", slug=f"late-{uuid4().hex[:8]}")
    rows = "Handle,Title,Variant SKU,Variant Inventory Qty,Variant Price\nplenty,Plenty,PLENTY,1000,1.00\n"
    await shop.import_catalogue(owner, rows.encode())
    [variant] = (await shop.product(owner.store_id, "plenty"))["variants"]
    return owner, variant["id"]


async def _buy_until_closed(shop: Shop, owner: Account, variant: str, acknowledged: list[Order]) -> None:
    with suppress(Surprise, httpx.TransportError):
        while True:
            guest = f"guest-{uuid4().hex}@vitrine.example"
            acknowledged.append(await shop.check_out(owner.store_id, guest, {variant: 1}))


async def _are(acknowledged: list[Order], number: int) -> bool | None:
    return len(acknowledged) >= number or None
