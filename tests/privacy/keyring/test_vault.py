"""The vault over a real keyring: what it remembers, what it forgets, and what it does when nobody answers."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.local.waiting import until
from libs.common.db import Database
from libs.common.errors import Problem
from libs.common.personal.data import encrypt
from libs.common.personal.errors import (
    BoxDoesNotOpen,
    KeyDestroyed,
    KeyForbidden,
    KeyRestricted,
    KeyringUnavailable,
    KeyUnknown,
    SubjectErased,
)
from libs.common.personal.keys import Erasure, StoreSecrets
from libs.common.personal.vault import (
    KEY_SECONDS,
    SealedFor,
    ToOpen,
    ToSeal,
    Vault,
    announce,
    announce_store,
    normalise,
)
from libs.common.personal.vocabulary import Purpose
from tests.common.personal.kinds import Answer, Bill, Nickname, Parcel
from tests.privacy.keyring.conftest import RunningKeyring

FULFIL = Purpose.FULFIL_ORDER


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Calls:
    """How many calls of each kind reached the keyring."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    async def __call__(self, request: httpx.Request) -> None:
        self.paths.append(request.url.path.removeprefix("/keyring/v1/"))

    def of(self, path: str) -> int:
        return self.paths.count(path)


@pytest.fixture
async def calls(keyring: RunningKeyring) -> AsyncIterator[Calls]:
    counted = Calls()
    keyring.http.event_hooks["request"].append(counted)
    yield counted
    keyring.http.event_hooks["request"].remove(counted)


class HeldAnswers:
    """Answers of the keyring that are under way for as long as a test wants."""

    def __init__(self) -> None:
        self._released = asyncio.Event()
        self._released.set()
        self._arrived = asyncio.Event()

    async def __call__(self, _response: httpx.Response) -> None:
        self._arrived.set()
        async with asyncio.timeout(10):
            await self._released.wait()

    def hold(self) -> None:
        self._arrived.clear()
        self._released.clear()

    async def arrival(self) -> None:
        async with asyncio.timeout(10):
            await self._arrived.wait()

    def release(self) -> None:
        self._released.set()


@pytest.fixture
async def answers(keyring: RunningKeyring) -> AsyncIterator[HeldAnswers]:
    held = HeldAnswers()
    keyring.http.event_hooks["response"].append(held)
    yield held
    keyring.http.event_hooks["response"].remove(held)


@pytest.fixture
def store() -> UUID:
    return uuid4()


@pytest.fixture
def subject() -> UUID:
    return uuid4()


async def erase(keyring: RunningKeyring, store: UUID, subject: UUID, generation: int = 1) -> None:
    await keyring.client("privacy").destroy([Erasure(store, subject, generation, uuid4())])


# --- Naming ----------------------------------------------------------------------------------------------


async def test_one_person_is_one_subject_in_every_service(keyring: RunningKeyring, store: UUID) -> None:
    written = ["ada@example.org", " Ada@Example.ORG ", "ａｄａ@example.org", "ADA@EXAMPLE.ORG\n"]
    ids = {
        await keyring.vault(service).subject_id(store, email)
        for service in ("catalog", "identity", "orders", "billing", "privacy")
        for email in written
    }
    assert len(ids) == 1
    [subject] = ids
    assert (subject.version, subject.variant) == (8, "specified in RFC 4122")


async def test_other_people_and_other_stores_are_other_subjects(keyring: RunningKeyring, store: UUID) -> None:
    vault = keyring.vault("orders")
    ids = [
        await vault.subject_id(*named)
        for named in (
            (store, "ada@example.org"), (uuid4(), "ada@example.org"), (store, "ada+shop@example.org"),
            (store, "a.da@example.org"), (store, "ida@example.org"),
        )
    ]  # fmt: skip
    assert len(set(ids)) == len(ids)


async def test_a_blind_index_is_equal_for_equal_values_of_one_field_of_one_store(
    keyring: RunningKeyring, store: UUID
) -> None:
    index = await keyring.vault("orders").blind_index(store, "email", "Ada@example.org")
    again = keyring.vault("identity")
    assert await again.blind_index(store, "email", "ada@example.org ") == index
    assert len(index) == 34
    others = [
        await again.blind_index(store, "name", "ada@example.org"),
        await again.blind_index(uuid4(), "email", "ada@example.org"),
        await again.blind_index(store, "email", "ida@example.org"),
    ]
    assert len({index, *others}) == 4


@given(st.text())
def test_one_form_is_a_fixed_point(value: str) -> None:
    once = normalise(value)
    assert normalise(once) == once
    assert normalise(f"  {value}\t") == once


async def test_the_secret_of_a_store_is_asked_for_once(
    keyring: RunningKeyring, store: UUID, calls: Calls
) -> None:
    vault = keyring.vault("catalog")
    for number in range(5):
        await vault.subject_id(store, f"{number}@example.org")
        await vault.blind_index(store, "email", f"{number}@example.org")
    assert calls.of("stores/secrets") == 1


# --- Sealing and opening ---------------------------------------------------------------------------------


async def test_what_one_service_seals_another_opens_if_granted(
    keyring: RunningKeyring, store: UUID, subject: UUID
) -> None:
    data = Parcel(name="Ada")
    sealed = await keyring.vault("orders").seal(data, store_id=store, subject_id=subject)
    assert sealed.generation == 1
    where: dict[str, Any] = {"store_id": store, "subject_id": subject}
    assert await keyring.vault("billing").open(sealed.box, **where, purpose=Purpose.ACCOUNTING) == data
    with pytest.raises(KeyForbidden):
        await keyring.vault("identity").open(sealed.box, **where, purpose=Purpose.SECURITY)
    with pytest.raises(BoxDoesNotOpen):
        await keyring.vault("orders").open(sealed.box, store_id=store, subject_id=uuid4(), purpose=FULFIL)
    with pytest.raises(BoxDoesNotOpen):
        await keyring.vault("orders").open(sealed.box, store_id=uuid4(), subject_id=subject, purpose=FULFIL)


async def test_many_answer_item_by_item(keyring: RunningKeyring, store: UUID) -> None:
    vault = keyring.vault("orders")
    living, erased, held = uuid4(), uuid4(), uuid4()
    items = [ToSeal(Parcel(name=str(n)), store, subject) for n, subject in enumerate((living, erased, held))]
    sealed = await vault.seal_many(items)
    boxes = [ToOpen(one.box, store, item.subject_id) for one, item in zip(sealed, items, strict=True)
             if isinstance(one, SealedFor)]  # fmt: skip
    key, *_ = await keyring.client("orders").open([boxes[0].box.key_id], purpose=FULFIL)
    assert not isinstance(key, type)
    never_made = encrypt(Parcel(name="x"), type(key)(uuid4(), key.material, store, living, 1))
    moved = ToOpen(boxes[0].box, store, held)
    await erase(keyring, store, erased)
    async with keyring.database.platform_session() as session:
        sql = "UPDATE data_key SET state = 'restricted' WHERE subject_id = $1"
        await (await session.connection()).exec_driver_sql(sql, (held,))

    opened = await keyring.vault("orders").open_many(
        [*boxes, ToOpen(never_made, store, living), moved], purpose=FULFIL
    )
    assert opened[0] == Parcel(name="0")
    assert [type(one) for one in opened[1:]] == [KeyDestroyed, KeyRestricted, KeyUnknown, BoxDoesNotOpen]
    again = await keyring.vault("orders").seal_many(items)
    assert [type(one) for one in again] == [SealedFor, SubjectErased, SealedFor]


async def test_nothing_to_do_asks_nobody(keyring: RunningKeyring, calls: Calls) -> None:
    vault = keyring.vault("orders")
    assert await vault.seal_many([]) == []
    assert await vault.open_many([], purpose=FULFIL) == []
    assert calls.paths == []


async def test_a_bill_is_sealed_in_its_year(keyring: RunningKeyring, store: UUID, subject: UUID) -> None:
    vault = keyring.vault("billing")
    sealed = [
        await vault.seal(Bill(name="Ada"), store_id=store, subject_id=subject, bucket=year)
        for year in ("2025", "2026", "2026")
    ]
    assert len({one.box.key_id for one in sealed}) == 2


async def test_a_person_who_returns_is_a_new_generation(
    keyring: RunningKeyring, store: UUID, subject: UUID
) -> None:
    vault = keyring.vault("orders")
    where: dict[str, Any] = {"store_id": store, "subject_id": subject}
    first = await vault.seal(Parcel(name="Ada"), **where, begin=True)
    await erase(keyring, store, subject)
    vault.drop(store, [subject])
    with pytest.raises(SubjectErased) as refused:
        await vault.seal(Parcel(name="Ada"), **where)
    assert refused.value.status == 409
    second = await vault.seal(Parcel(name="Ada"), **where, begin=True)
    assert (first.generation, second.generation) == (1, 2)


async def test_a_live_command_is_never_misled_by_memory(
    keyring: RunningKeyring, store: UUID, subject: UUID
) -> None:
    """The vault missed the news of an erasure; the checkout that follows still begins anew."""
    vault = keyring.vault("orders")
    where: dict[str, Any] = {"store_id": store, "subject_id": subject}
    await vault.seal(Parcel(name="Ada"), **where)
    await erase(keyring, store, subject)
    assert (await vault.seal(Parcel(name="Ada"), **where, begin=True)).generation == 2


async def test_the_answer_to_a_request_is_sealed_after_the_erasure(
    keyring: RunningKeyring, store: UUID, subject: UUID
) -> None:
    request = uuid4()
    vault = keyring.vault("privacy")
    where: dict[str, Any] = {"store_id": store, "subject_id": subject}
    await vault.seal(Answer(name="Ada"), **where, bucket=str(request), begin=True)
    await keyring.client("privacy").destroy([Erasure(store, subject, 1, request)])
    vault.drop(store, [subject])
    sealed = await vault.seal(Answer(name="erased"), **where, bucket=str(request))
    assert (await vault.open(sealed.box, **where, purpose=Purpose.RIGHTS_OF_THE_PERSON)).name == "erased"


# --- Remembering and forgetting --------------------------------------------------------------------------


async def test_a_key_in_memory_is_not_asked_for_again(
    keyring: RunningKeyring, store: UUID, subject: UUID, calls: Calls
) -> None:
    vault = keyring.vault("orders")
    where: dict[str, Any] = {"store_id": store, "subject_id": subject}
    boxes = [(await vault.seal(Parcel(name=str(n)), **where)).box for n in range(5)]
    for box in boxes:
        await vault.open(box, **where, purpose=FULFIL)
    assert (calls.of("keys/mint"), calls.of("keys/open")) == (1, 1)
    # Another purpose is another question.
    await vault.open(boxes[0], **where, purpose=Purpose.SUPPORT)
    assert calls.of("keys/open") == 2


async def test_concurrent_openings_of_one_key_are_one_call(
    keyring: RunningKeyring, store: UUID, subject: UUID, calls: Calls
) -> None:
    where: dict[str, Any] = {"store_id": store, "subject_id": subject}
    box = (await keyring.vault("orders").seal(Parcel(name="Ada"), **where)).box
    vault = keyring.vault("orders")
    opened = await asyncio.gather(*(vault.open(box, **where, purpose=FULFIL) for _ in range(50)))
    assert opened == [Parcel(name="Ada")] * 50
    assert calls.of("keys/open") == 1


async def test_who_asked_first_may_give_up(
    keyring: RunningKeyring, store: UUID, subject: UUID, calls: Calls, answers: HeldAnswers
) -> None:
    where: dict[str, Any] = {"store_id": store, "subject_id": subject}
    box = (await keyring.vault("orders").seal(Parcel(name="Ada"), **where)).box
    vault = keyring.vault("orders")
    answers.hold()
    first = asyncio.create_task(vault.open(box, **where, purpose=FULFIL))
    second = asyncio.create_task(vault.open(box, **where, purpose=FULFIL))
    await answers.arrival()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    answers.release()
    assert await second == Parcel(name="Ada")
    assert calls.of("keys/open") == 1


async def test_a_process_that_missed_the_news_stops_opening_in_time(
    keyring: RunningKeyring, store: UUID, subject: UUID
) -> None:
    clock = Clock()
    vault = keyring.vault("orders", clock=clock)
    where: dict[str, Any] = {"store_id": store, "subject_id": subject}
    box = (await vault.seal(Parcel(name="Ada"), **where)).box
    await vault.open(box, **where, purpose=FULFIL)
    await erase(keyring, store, subject)
    clock.now += KEY_SECONDS - 0.1
    assert await vault.open(box, **where, purpose=FULFIL) == Parcel(name="Ada")
    clock.now += 0.1
    with pytest.raises(KeyDestroyed) as gone:
        await vault.open(box, **where, purpose=FULFIL)
    assert gone.value.status == 410
    with pytest.raises(SubjectErased):
        await vault.seal(Parcel(name="Ada"), **where)


@pytest.mark.parametrize("by", ["subject", "key", "store"])
async def test_dropped_keys_do_not_open(keyring: RunningKeyring, store: UUID, subject: UUID, by: str) -> None:
    vault = keyring.vault("orders")
    neighbour, elsewhere = uuid4(), uuid4()
    places = [(store, subject), (store, neighbour), (elsewhere, subject)]
    boxes = [(await vault.seal(Parcel(name="Ada"), store_id=s, subject_id=p)).box for s, p in places]
    to_open = [ToOpen(box, s, p) for box, (s, p) in zip(boxes, places, strict=True)]
    await vault.open_many(to_open, purpose=FULFIL)
    for place in places:
        await erase(keyring, *place)
    match by:
        case "subject":
            vault.drop(store, [subject])
        case "key":
            vault.drop(store, None, [boxes[0].key_id])
        case _:
            vault.drop(store)
    dropped = {"subject": [0], "key": [0], "store": [0, 1]}[by]
    opened = await vault.open_many(to_open, purpose=FULFIL)
    assert [n for n, one in enumerate(opened) if isinstance(one, Problem)] == dropped
    assert all(isinstance(opened[n], KeyDestroyed) for n in dropped)


async def test_a_drop_overtakes_an_answer_under_way(
    keyring: RunningKeyring, store: UUID, subject: UUID, answers: HeldAnswers
) -> None:
    where: dict[str, Any] = {"store_id": store, "subject_id": subject}
    box = (await keyring.vault("orders").seal(Parcel(name="Ada"), **where)).box
    vault = keyring.vault("orders")
    answers.hold()
    opening = asyncio.create_task(vault.open(box, **where, purpose=FULFIL))
    sealing = asyncio.create_task(vault.seal(Parcel(name="Ida"), **where))
    await answers.arrival()
    vault.drop(store, [subject])
    answers.release()
    await asyncio.gather(opening, sealing)
    await erase(keyring, store, subject)
    with pytest.raises(KeyDestroyed):
        await vault.open(box, **where, purpose=FULFIL)
    with pytest.raises(SubjectErased):
        await vault.seal(Parcel(name="Ida"), **where)


async def test_every_process_that_follows_the_database_drops(
    keyring: RunningKeyring, store: UUID, subject: UUID
) -> None:
    where: dict[str, Any] = {"store_id": store, "subject_id": subject}
    vaults = [keyring.vault("orders") for _ in range(2)]
    box = (await vaults[0].seal(Parcel(name="Ada"), **where)).box
    database = Database(keyring.settings.database_url)
    # Any database serves to ring in; a service uses its own.
    async with vaults[0].following(database.url), vaults[1].following(database.url):
        for vault in vaults:
            await vault.open(box, **where, purpose=FULFIL)
        await erase(keyring, store, subject)
        async with database.session(store) as session:
            await (await session.connection()).exec_driver_sql("NOTIFY keys_destroyed, 'gibberish'")
            await announce(session, [(store, subject), (store, uuid4())])

        async def gone() -> bool:
            opened = [
                await vault.open_many([ToOpen(box, store, subject)], purpose=FULFIL) for vault in vaults
            ]
            return all(isinstance(one, KeyDestroyed) for [one] in opened)

        await until(gone, 5, "a vault went on opening")
    await database.close()


async def test_every_process_forgets_all_keys_of_a_store_that_ended(
    keyring: RunningKeyring, store: UUID
) -> None:
    vault, other, subject = keyring.vault("orders"), uuid4(), uuid4()
    box, elsewhere = [
        (await vault.seal(Parcel(name="Ada"), store_id=one, subject_id=subject)).box for one in (store, other)
    ]
    database = Database(keyring.settings.database_url)
    async with vault.following(database.url):
        await vault.open(box, store_id=store, subject_id=subject, purpose=FULFIL)
        await keyring.client("privacy").destroy_tenants([store])
        # What was opened before still is, until the news comes.
        await vault.open(box, store_id=store, subject_id=subject, purpose=FULFIL)
        async with database.session(store) as session:
            await announce_store(session, store)

        async def gone() -> bool:
            [one] = await vault.open_many([ToOpen(box, store, subject)], purpose=FULFIL)
            return isinstance(one, KeyDestroyed)

        await until(gone, 5, "the vault went on opening")
    await vault.open(elsewhere, store_id=other, subject_id=subject, purpose=FULFIL)
    await database.close()


async def test_memory_is_bounded(keyring: RunningKeyring, store: UUID) -> None:
    vault = keyring.vault("orders", capacity=10)
    items = [ToSeal(Parcel(name=str(n)), store, uuid4()) for n in range(50)]
    sealed = await vault.seal_many(items)
    boxes = [ToOpen(one.box, store, item.subject_id) for one, item in zip(sealed, items, strict=True)
             if isinstance(one, SealedFor)]  # fmt: skip
    assert await vault.open_many(boxes, purpose=FULFIL) == [item.data for item in items]
    assert len(vault._opened) == len(vault._minted) == 10  # pyright: ignore[reportPrivateUsage]


# --- Outage ----------------------------------------------------------------------------------------------


async def test_an_outage_is_an_outage_and_memory_serves(
    own_keyring: RunningKeyring, store: UUID, subject: UUID
) -> None:
    vault = own_keyring.vault("orders")
    where: dict[str, Any] = {"store_id": store, "subject_id": subject}
    known = (await vault.seal(Parcel(name="Ada"), **where)).box
    unknown = (
        await own_keyring.vault("orders").seal(Parcel(name="Ida"), store_id=store, subject_id=store)
    ).box
    named = await vault.subject_id(store, "ada@example.org")
    await vault.open(known, **where, purpose=FULFIL)

    await own_keyring.stop()

    assert await vault.open(known, **where, purpose=FULFIL) == Parcel(name="Ada")
    assert isinstance(await vault.seal(Parcel(name="Ada"), **where), SealedFor)
    assert await vault.subject_id(store, "ada@example.org") == named
    for attempt in (
        vault.open(unknown, store_id=store, subject_id=store, purpose=FULFIL),
        vault.seal(Parcel(name="Eve"), store_id=store, subject_id=uuid4()),
        vault.seal(Parcel(name="Ada"), **where, begin=True),
        vault.subject_id(uuid4(), "ada@example.org"),
    ):
        with pytest.raises(KeyringUnavailable) as refused:
            await attempt
        assert refused.value.status == 503
        assert int(refused.value.headers["Retry-After"]) > 0
    mixed = await vault.open_many(
        [ToOpen(known, store, subject), ToOpen(unknown, store, store)], purpose=FULFIL
    )
    assert mixed[0] == Parcel(name="Ada")
    assert isinstance(mixed[1], KeyringUnavailable)

    await own_keyring.start()
    assert await vault.open(unknown, store_id=store, subject_id=store, purpose=FULFIL) == Parcel(name="Ida")


async def ask(keyring: RunningKeyring, store: UUID, answers: list[bytes]) -> dict[UUID, StoreSecrets]:
    """Ask something that gives each new connection one of these answers and closes it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"]}")
        writer.write(answers.pop(0))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    client = keyring.client("orders")
    client._url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"  # pyright: ignore[reportPrivateUsage]
    async with server:
        return await client.store_secrets([store])


BAD_GATEWAY = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize("answer", [b"", BAD_GATEWAY, b"gibberish\r\n\r\n"])
async def test_no_answer_or_a_strange_one_is_an_outage(
    keyring: RunningKeyring, store: UUID, answer: bytes
) -> None:
    with pytest.raises(KeyringUnavailable):
        await ask(keyring, store, [answer, answer])


async def test_a_connection_closed_without_an_answer_is_tried_once_more(
    keyring: RunningKeyring, store: UUID
) -> None:
    body = f'{{"items": [{{"store_id": "{store}", "secret": "c2VjcmV0", "indexes": []}}]}}'
    answer = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
    assert await ask(keyring, store, [b"", answer]) == {store: StoreSecrets(b"secret", ())}


async def test_a_service_that_the_keyring_does_not_know_is_a_mistake_of_ours(
    keyring: RunningKeyring, store: UUID
) -> None:
    client = keyring.client("orders")
    client._service = "loyalty"  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(KeyForbidden):
        await Vault(client).subject_id(store, "ada@example.org")


async def test_nothing_shows(keyring: RunningKeyring, store: UUID, subject: UUID) -> None:
    vault = keyring.vault("identity")
    sealed = await vault.seal(Nickname(name="Canari"), store_id=store, subject_id=subject)
    to_open = ToOpen(sealed.box, store, subject)
    secrets = await vault._store_secrets(store)  # pyright: ignore[reportPrivateUsage]
    shown = f"{sealed}{to_open!r}{ToSeal(Nickname(name='Canari'), store, subject)}{vault}{secrets}"
    assert "Canari" not in shown
    assert "\\x" not in shown
