"""Whole lives in one process: real services over real databases and a real keyring, and a hand that carries every event
through the consumers, so that an erasure goes all its way and any step of it can be held.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any
from uuid import UUID

from sqlalchemy import text

from deploy.local.databases import database
from deploy.local.environment import SERVICES
from deploy.local.postgres import PostgresServer
from deploy.local.waiting import until
from libs.common.auth import PLATFORM_STORE, Role
from libs.common.broker import Record
from libs.common.db import fetch
from libs.common.events import decode
from libs.common.inbox import Consumer, Handlers
from libs.common.personal.participant import Participant
from libs.common.personal.tombstones import hold_off
from libs.common.worker import Work
from services.privacy import key_tasks
from tests.contract.house import PASSWORD, Furnished, House, Person, buy
from tests.deliveries import HandedOver
from tests.privacy.keyring.conftest import RunningKeyring
from tests.remains import TABLES_NAMING_PEOPLE, counts
from tests.tokens import authorization

WAITS = 20
HANDLERS: dict[str, Handlers] = {
    service: import_module(f"services.{service}.consumer").HANDLERS for service in SERVICES
}
PARTICIPANTS: dict[str, Participant] = {
    service: import_module(f"services.{service}.consumer").PARTICIPANT for service in SERVICES
}


@dataclass(frozen=True)
class Lives:
    """A store of its own whose erasures pass at once, and what goes on in all services about its people."""

    house: House
    keyring: RunningKeyring
    postgres: PostgresServer
    shop: Furnished

    @property
    def store_id(self) -> UUID:
        return self.shop.id

    async def begin(self) -> None:
        """Everybody announces itself, and the store decides."""
        for service, participant in PARTICIPANTS.items():
            await participant.announce(self.work(service))
        await self.carry(PLATFORM_STORE)
        path = f"/privacy/v1/stores/{self.store_id}/settings"
        body = {"passing": {"erasure": "at-once"}}
        headers = authorization(self.store_id, Role.OWNER) | {"If-Match": "*"}
        await self.house.call("PUT", path, json=body, headers=headers, expect=204)

    def work(self, service: str) -> Work:
        state = self.house.apps[service].state
        parts: Any = getattr(state, "parts", None)
        settings = parts.settings if parts is not None else state.settings
        vault = parts.vault if parts is not None else state.vault
        http = self.house.apps["privacy"].state.http
        return Work(service, settings, self.house.database(service), None, vault, http)  # type: ignore[arg-type]

    # --- What goes on ------------------------------------------------------------------------------------

    async def published(self, service: str, store_id: UUID) -> list[Record]:
        """What was not carried yet."""
        taken = text("""
            UPDATE outbox SET sent_at = now() WHERE store_id = :store_id AND sent_at IS NULL
            RETURNING id, topic, key, headers, payload
        """)
        async with self.house.database(service).session(store_id) as session:
            rows = (await session.execute(taken, {"store_id": store_id})).all()
        return [
            Record(row.topic, row.key, row.payload, row.headers)
            for row in sorted(rows, key=lambda row: row.id)
        ]

    async def hear(self, service: str, *records: Record) -> None:
        """Through the consumer, as from a broker."""
        wanted = [one for one in records if type(decode(one).data) in HANDLERS[service]]
        consumer = Consumer(
            service=service,
            database=self.house.database(service),
            broker=None,  # type: ignore[arg-type]
            handlers=HANDLERS[service],
        )
        if wanted:
            await consumer._take([HandedOver(wanted)])  # pyright: ignore[reportPrivateUsage]

    async def carry(self, store_id: UUID | None = None) -> int:
        """Carry every event to everybody, until nobody has anything to say. Returns how many there were."""
        carried = 0
        while records := [
            one for service in SERVICES for one in await self.published(service, store_id or self.store_id)
        ]:
            carried += len(records)
            for service in SERVICES:
                await self.hear(service, *records)
        return carried

    async def drive(self) -> None:
        """Events, the keyring and the duties that open boxes, until all has come to rest."""
        while True:
            moved = await self.carry()
            await key_tasks.ask_keyring(self.work("privacy"))
            for service, participant in PARTICIPANTS.items():
                await participant.export(self.work(service))
            if not moved and not await self.carry():
                return

    # --- What people do ----------------------------------------------------------------------------------

    async def subject(self, email: str) -> UUID:
        return await self.work("privacy").vault.subject_id(self.store_id, email)

    async def buy(self, email: str, headers: dict[str, str] | None = None) -> Any:
        return await buy(self.house, self.store_id, self.shop.objects["variant_id"], email, headers)

    async def ask(self, person: Person, right: str) -> str:
        path = f"/privacy/v1/stores/{self.store_id}/requests"
        body = {"right": right, "email": person.email}
        answer = await self.house.http.post(path, json=body, headers=person.headers)
        assert answer.status_code in {200, 201}, answer.text
        return answer.json()["id"]

    async def erased(self, person: Person) -> str:
        request_id = await self.ask(person, "erasure")
        await self.drive()
        assert await self.state(request_id) == "completed"
        return request_id

    async def state(self, request_id: str) -> str:
        path = f"/privacy/v1/stores/{self.store_id}/requests/{request_id}"
        seen = await self.house.call("GET", path, headers=authorization(self.store_id, Role.OWNER))
        return seen["state"]

    async def signs_in(self, email: str) -> Person | None:
        path = f"/identity/v1/stores/{self.store_id}/tokens"
        body = {"grant_type": "password", "email": email, "password": PASSWORD}
        answer = await self.house.http.post(path, json=body)
        if answer.status_code != 200:
            assert answer.status_code == 401, answer.text
            return None
        return Person(email, answer.json()["access_token"], answer.json()["refresh_token"])

    # --- What is left ------------------------------------------------------------------------------------

    async def remains(self, email: str, generation: int = 1) -> dict[str, int]:
        """Rows that name somebody's lives up to this one, and keys that would open them."""
        subject_id, found = await self.subject(email), dict[str, int]()
        for service in SERVICES:
            async with self.house.database(service).platform_session() as session:
                tables = (await session.scalars(text(TABLES_NAMING_PEOPLE))).all()
                for row in await fetch(session, counts(tables), self.store_id, subject_id, generation):
                    found[f"{service}.{row.place}"] = row.number
        [keys] = await self.keyring.client("privacy").status([(self.store_id, subject_id)])
        found["keys"] = sum(
            1
            for key in keys
            if key.generation <= generation and key.retention not in {"request", "accounting"}
        )
        return {place: number for place, number in found.items() if number}

    # --- Holding a step ----------------------------------------------------------------------------------

    @asynccontextmanager
    async def locked(self, service: str, table: str) -> AsyncGenerator[None]:
        """While the block runs nobody writes into the table: who would has done all that comes before."""
        connection = await self.postgres.connect(database(service))
        try:
            async with connection.transaction():
                await connection.execute(f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE")
                yield
        finally:
            await connection.close()

    @asynccontextmanager
    async def held(self, service: str, email: str) -> AsyncGenerator[Any]:
        """A session of the service in which an erasure is about to begin: writers about the person wait for it."""
        subject_id = await self.subject(email)
        async with self.house.database(service).session(self.store_id) as session:
            await hold_off(session, [(self.store_id, subject_id, 1)])
            yield session

    async def waits_for(self, service: str, kind: str) -> None:
        """Until somebody waits for a lock of this kind in a service's database."""
        connection = await self.postgres.connect()
        query = """
            SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database
            WHERE NOT granted AND datname = $1 AND locktype = $2
        """
        try:

            async def somebody() -> bool:
                return bool(await connection.fetchval(query, database(service), kind))

            await until(somebody, WAITS, f"nobody waits for a lock ({kind}) in {service}")
        finally:
            await connection.close()


Command = Callable[[Lives, Person, Any], Coroutine[Any, Any, Any]]


async def finished(*tasks: asyncio.Task[Any]) -> list[Any]:
    """The results, within a bound: nobody waits for anybody for ever."""
    return await asyncio.wait_for(asyncio.gather(*tasks), WAITS * 2)
