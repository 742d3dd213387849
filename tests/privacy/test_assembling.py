"""An archive is made once, whole, and in bounded memory, whoever dies, is erased or goes away meanwhile."""

import asyncio
import json
import logging
import os
import sys
import zipfile
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import text

from deploy.local.ports import free_port
from deploy.local.waiting import until
from libs.common.errors import Unavailable
from libs.common.events.privacy import ExportChunk, ExportedRecords, Outcome, Verb
from libs.common.personal.keys import Erasure
from services.privacy import assembling, kinds
from services.privacy.archive.export import DataMap, Export
from tests.common.personal.shop import SHOP
from tests.privacy.archives import Record, announce, answered, fetch, link, opened, purchase
from tests.privacy.assembler import memory
from tests.privacy.conftest import Person, Platform
from tests.privacy.keyring.conftest import RunningKeyring
from tests.privacy.test_engine import digest_of

ROWS = int(os.environ.get("ARCHIVE_ROWS", "20000"))
"""`ARCHIVE_ROWS=1000000` for a million; what is bounded is bounded by chunks, of which these are a dozen."""
MOST = 100 * 1024 * 1024


async def one(platform: Platform, query: str) -> int:
    async with platform.database.session(platform.store_id) as session:
        return await session.scalar(text(query)) or 0


async def pieces(platform: Platform) -> int:
    return await one(platform, "SELECT count(*) FROM archive_piece")


async def make_due(platform: Platform) -> None:
    async with platform.database.session(platform.store_id) as session:
        await session.execute(text("UPDATE archive SET due_at = now()"))


async def execute(platform: Platform, statement: str, **values: object) -> None:
    async with platform.database.session(platform.store_id) as session:
        await session.execute(text(statement), values)


def incompressible(number: int) -> Record:
    return purchase(str(number), name="".join(uuid4().hex for _ in range(500)))


@asynccontextmanager
async def running(
    environment: Mapping[str, str], keyring: RunningKeyring, *arguments: str
) -> AsyncGenerator[asyncio.subprocess.Process]:
    """A process of the privacy service."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *arguments,
        env={**os.environ, **environment, "KEYRING_URL": keyring.url},
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


# --- Whole, or not at all --------------------------------------------------------------------------------


async def test_a_worker_that_is_killed_leaves_nothing_to_fetch_and_the_next_begins_anew(
    platform: Platform,
    privacy_environment: Mapping[str, str],
    keyring: RunningKeyring,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await platform.assemble()
    person = await platform.person()
    many = [[incompressible(number) for number in range(20)] for _ in range(6)]
    request_id = await answered(platform, person, many)
    token = await link(platform, person, request_id)
    async with running(privacy_environment, keyring, "tests.privacy.assembler", "kill", "3") as process:
        assert await process.wait() == -9
    assert await pieces(platform) == 2
    assert await platform.state(person, request_id) == "running"
    assert (await fetch(platform, token)).status_code == 404, "half of an archive is served"
    assert await one(platform, "SELECT count(*) FROM notice WHERE template = 'export-ready'") == 0
    await platform.assemble()
    assert await platform.state(person, request_id) == "running", "nobody waited for who was at it"
    await make_due(platform)
    await platform.assemble()
    assert await platform.state(person, request_id) == "completed"
    assert await one(platform, "SELECT count(*) FROM export_chunk") == 0
    files = opened(await fetch(platform, token))
    assert files.testzip() is None
    assert len(json.loads(files.read(f"{SHOP}.json"))["records"]) == 120
    assert await pieces(platform) == await one(platform, "SELECT pieces FROM archive") > 2


async def test_a_worker_that_was_given_up_adds_nothing_to_what_another_made(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assembling, "PIECE_BYTES", 1000)
    await platform.assemble()
    person = await platform.person()
    request_id = await answered(platform, person, [[incompressible(1)]])
    keep, stopped, may_go_on = assembling._keep, asyncio.Event(), asyncio.Event()  # pyright: ignore[reportPrivateUsage]

    async def slow(*given: object) -> None:
        if not stopped.is_set():
            stopped.set()
            await may_go_on.wait()
        await keep(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(assembling, "_keep", slow)
    first = asyncio.create_task(assembling.assemble(platform.work))
    await asyncio.wait_for(stopped.wait(), 10)
    await make_due(platform)
    await platform.assemble()
    assert await platform.state(person, request_id) == "completed"
    made = await one(platform, "SELECT sum(size)::int FROM archive_piece")
    may_go_on.set()
    await first
    assert await one(platform, "SELECT sum(size)::int FROM archive_piece") == made
    assert opened(await fetch(platform, await link(platform, person, request_id))).testzip() is None


async def test_an_erasure_while_an_archive_is_made_leaves_nothing_of_it(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assembling, "PIECE_BYTES", 1000)
    await platform.assemble()
    person = await platform.person()
    access = await answered(platform, person, [[incompressible(1)]])
    keep, erased = assembling._keep, asyncio.Event()  # pyright: ignore[reportPrivateUsage]

    async def keep_and_erase(work: object, claimed: object, sequence: int, content: bytes) -> None:
        if sequence == 2:
            erasure = await platform.opened(person, "erasure")
            await platform.ask_keyring()
            await platform.answer_itself(erasure, Verb.ERASE)
            erased.set()
        await keep(work, claimed, sequence, content)  # type: ignore[arg-type]

    monkeypatch.setattr(assembling, "_keep", keep_and_erase)
    await platform.assemble()
    assert erased.is_set()
    assert await platform.state(person, access) == "cancelled"
    for table in ("archive", "archive_piece", "export_chunk"):
        assert await one(platform, f"SELECT count(*) FROM {table}") == 0, table


async def test_a_person_whose_keys_are_gone_gets_no_archive(platform: Platform) -> None:
    person = await platform.person()
    request_id = await answered(platform, person, [[purchase()]])
    client = platform.keyring.client("privacy")
    await client.destroy([Erasure(platform.store_id, person.subject_id, 1, uuid4())])
    platform.work.vault.drop(platform.store_id, [person.subject_id])
    await platform.assemble()
    assert await platform.state(person, request_id) == "running"
    assert await one(platform, "SELECT count(*) FROM archive") == 0


async def test_small_archives_are_made_together_and_none_keeps_another_from_it(platform: Platform) -> None:
    await platform.assemble()
    people = [await platform.person() for _ in range(4)]
    requests = [await answered(platform, person, [[purchase(str(n))]]) for n, person in enumerate(people)]
    client = platform.keyring.client("privacy")
    await client.destroy([Erasure(platform.store_id, people[1].subject_id, 1, uuid4())])
    platform.work.vault.drop(platform.store_id, [people[1].subject_id])
    await execute(platform, "UPDATE request SET round = round + 1 WHERE id = :id", id=requests[2])
    assert await assembling.assemble(platform.work) == 4
    states = [await platform.state(person, id_) for person, id_ in zip(people, requests, strict=True)]
    assert states == ["completed", "running", "running", "completed"]
    assert await one(platform, "SELECT count(*) FROM archive") == 2
    for person, id_ in ((people[0], requests[0]), (people[3], requests[3])):
        files = opened(await fetch(platform, await link(platform, person, id_)))
        assert len(json.loads(files.read(f"{SHOP}.json"))["records"]) == 1


async def test_an_archive_that_failed_once_or_is_large_is_made_alone(platform: Platform) -> None:
    await platform.assemble()
    people = [await platform.person() for _ in range(3)]
    large = [[incompressible(n) for n in range(20)]]
    assert len(json.dumps(large)) > assembling._SMALL  # pyright: ignore[reportPrivateUsage]
    await answered(platform, people[0], large)
    await answered(platform, people[1], [[purchase("1")]])
    failed = await answered(platform, people[2], [[purchase("2")]])
    await execute(platform, "UPDATE archive SET attempts = 1 WHERE request_id = :id", id=failed)
    made = [await assembling.assemble(platform.work) for _ in range(4)]
    assert made == [1, 1, 1, 0]
    assert await one(platform, "SELECT count(*) FROM archive WHERE state = 'ready'") == 3


async def test_a_keyring_that_is_away_delays_an_archive(
    platform: Platform, own_keyring: RunningKeyring
) -> None:
    await platform.assemble()
    person = await platform.person()
    request_id = await answered(platform, person, [[purchase()]])
    away = own_keyring.vault("privacy")
    await own_keyring.stop()
    with pytest.raises(Unavailable):
        await assembling.assemble(replace(platform.work, vault=away))
    assert await one(platform, "SELECT count(*) FROM archive WHERE due_at < now() + interval '3 s'") == 1
    await make_due(platform)
    await platform.assemble()
    assert await platform.state(person, request_id) == "completed"


async def test_nothing_of_the_person_is_in_the_clear(
    platform: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    person = await platform.person()
    with caplog.at_level(logging.DEBUG):
        request_id = await answered(platform, person, [[purchase(name="Canary Zoé")]])
        await platform.assemble()
        token = await link(platform, person, request_id)
        files = opened(await fetch(platform, token))
    assert b"Canary Zo" in files.read(f"{SHOP}.json")
    secret = next(iter(platform.client.cookies.jar)).value or ""
    said = "".join(str(vars(record)) for record in caplog.records)
    async with platform.database.platform_session() as session:
        for table in (
            "archive",
            "archive_piece",
            "download_grant",
            "download",
            "export_chunk",
            "request",
            "notice",
        ):
            rows = (await session.scalars(text(f"SELECT t::text FROM {table} AS t"))).all()
            said += "".join(rows)
    for canary in ("Canary Zo", "43616e617279205a6f", person.email, token, secret):
        assert canary not in said
    export = Export(
        request_id, platform.store_id, person.subject_id, "access", "en", None, None, {}, {}, DataMap(()), None, None  # type: ignore[arg-type]
    )  # fmt: skip
    export.keep("shop", 0, 0, [purchase()])
    assert "Canary" not in repr(export)


# --- Much of it ------------------------------------------------------------------------------------------


async def held(platform: Platform, person: Person, rows: int) -> UUID:
    """An export of a person with so many rows, to which everybody has answered."""
    request_id = await platform.opened(person, "access")
    chunks: list[ExportChunk] = []
    of_one_chunk = 1600
    for first in range(0, rows, of_one_chunk):
        records = [
            purchase(str(number), name=f"Canary {number}", total_amount=number, currency="EUR", state="paid",
                     placed_at="2026-03-05T10:00:00+00:00")
            for number in range(first, min(first + of_one_chunk, rows))
        ]  # fmt: skip
        sealed = await platform.work.vault.seal(
            ExportedRecords(records=records), store_id=platform.store_id, subject_id=person.subject_id,
            bucket=str(request_id),
        )  # fmt: skip
        chunk = ExportChunk(request_id=request_id, participant=SHOP, sequence=len(chunks), box=sealed.box)
        assert len(sealed.box.payload) <= 512 * 1024
        await platform.deliver(chunk)
        chunks.append(chunk)
    await platform.deliver(
        platform.answer(
            request_id, Verb.EXPORT, Outcome.DONE, chunks=len(chunks), digest=digest_of(*chunks),
            counts={"purchase": rows},
        )
    )  # fmt: skip
    await platform.answer_itself(request_id, Verb.EXPORT)
    return request_id


async def test_a_person_with_very_many_rows_costs_a_bounded_memory(
    platform: Platform, privacy_environment: Mapping[str, str], keyring: RunningKeyring, tmp_path: Path
) -> None:
    await platform.assemble()
    await announce(platform)
    person = await platform.person()
    request_id = await held(platform, person, ROWS)
    async with running(privacy_environment, keyring, "tests.privacy.assembler", "measure", "0") as process:
        told, _ = await process.communicate()
    grew = json.loads(told)["grew"]
    assert await platform.state(person, request_id) == "completed"
    token = await link(platform, person, request_id)
    port = free_port()
    served = await fetched(privacy_environment, keyring, port, token, tmp_path / "export.zip")
    print(f"{ROWS} rows: making grew by {grew / 2**20:.0f} MiB, serving by {served / 2**20:.0f} MiB")
    assert grew < MOST and served < MOST
    with zipfile.ZipFile(tmp_path / "export.zip") as files:
        with files.open(f"{SHOP}/purchase.csv") as sheet:
            assert sum(1 for _ in sheet) == ROWS + 1
        size = sum(one.file_size for one in files.infolist())
    assert size > 400 * ROWS, "there was not much to bound"


async def fetched(
    environment: Mapping[str, str], keyring: RunningKeyring, port: int, token: str, into: Path
) -> int:
    """Download as a browser would, from a process of its own; returns how much that grew."""
    application = ("tests.privacy.assembler", "serve", str(port))
    async with (
        running(environment, keyring, *application) as process,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
    ):

        async def ready() -> bool:
            try:
                return (await client.get("/privacy/healthz/ready")).status_code == 200
            except httpx.TransportError:
                return False

        await until(ready, 120, "the service did not start")
        before = memory(process.pid, "VmRSS")
        granted = await client.post("/privacy/v1/downloads", data={"token": token})
        async with client.stream("GET", granted.headers["location"]) as answer:
            assert answer.status_code == 200
            with into.open("wb") as file:
                async for piece in answer.aiter_bytes():
                    file.write(piece)
        return memory(process.pid, "VmHWM") - before


def test_a_piece_is_sealed_in_half_a_mebibyte() -> None:
    sealed = kinds.ArchivePiece(content=bytes(kinds.PIECE_BYTES)).model_dump_json(round_trip=True)
    assert len(sealed) + 45 <= 512 * 1024
