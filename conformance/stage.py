"""What a participant meets: a broker, and the real keyring on a PostgreSQL of its own."""

import json
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from deploy.local import environment
from deploy.local.child import Child
from deploy.local.cluster import begin_with_copy
from deploy.local.databases import provision
from deploy.local.kafka import KafkaServer
from deploy.local.migrate import migrate
from deploy.local.nursery import Nursery
from deploy.local.ports import free_port
from deploy.local.postgres import PostgresServer
from deploy.local.waiting import until
from libs.common.events.privacy import ParticipantAnnounced
from libs.common.personal.vocabulary import Purpose, Retention

_READY_WITHIN = 60.0
_OF_THE_KEYRING = (
    "services.privacy.keyring.app",
    "deploy.local.gateway",
    "uvicorn.protocols.http.httptools_impl",
)


@dataclass(slots=True)
class Stage:
    """Where the participant finds everything. The keyring knows whom to answer once somebody has announced itself."""

    bootstrap_servers: str
    keyring_url: str
    key_of_privacy: str
    _variables: Mapping[str, str]
    _nursery: Nursery
    _folder: Path
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    @property
    def variables(self) -> dict[str, str]:
        """What the participant is to be started with, beside what is its own."""
        return {
            "BROKER": "kafka",
            "KAFKA_BOOTSTRAP_SERVERS": self.bootstrap_servers,
            "KEYRING_URL": self.keyring_url,
        }

    async def admit(self, announced: ParticipantAnnounced) -> None:
        """Start the keyring, with the public key and the grants of who announced itself."""
        known = json.loads(self._variables["SERVICE_KEYS"])
        keys = {"privacy": known["privacy"], announced.participant: announced.public_key}
        own = {
            **self._variables,
            "SERVICE_KEYS": json.dumps(keys),
            "KEYRING_EXTRA_GRANTS": json.dumps({announced.participant: grant_of(announced.data_map)}),
        }
        keyring = Child(
            self._nursery,
            "keyring",
            "deploy.local.keyring",
            f"--port={httpx.URL(self.keyring_url).port}",
            environment=environment.for_process(own, ("keyring", "destructions")),
            log=self._folder / "keyring.log",
        )
        self._stack.push_async_callback(keyring.stop)
        await keyring.start()
        await self._keyring_answers()

    async def _keyring_answers(self) -> None:
        async with httpx.AsyncClient(base_url=self.keyring_url, timeout=5) as http:

            async def ready() -> bool:
                try:
                    return (await http.get("/healthz/ready")).status_code == 200
                except httpx.HTTPError:
                    return False

            await until(ready, _READY_WITHIN, "the keyring did not answer")


@asynccontextmanager
async def staged(
    folder: Path, *, kafka: str | None, keyring_port: int | None = None
) -> AsyncGenerator[Stage]:
    """PostgreSQL, and Kafka unless one is named. Raises StartError."""
    async with AsyncExitStack() as stack:
        if kafka is None:
            server = KafkaServer(folder / "kafka", fast=True)
            stack.push_async_callback(server.stop)
            await server.start()
            kafka = server.bootstrap_servers
        begin_with_copy(folder)
        postgres = PostgresServer(folder / "postgres", fast=True)
        stack.push_async_callback(postgres.stop)
        await postgres.start()
        variables = {**await provision(postgres), **environment.keys(folder)}
        await migrate(variables, ["keyring", "destructions"])
        nursery = Nursery(folder / "nursery.log", _OF_THE_KEYRING)
        stack.push_async_callback(nursery.stop)
        nursery.start()
        stage = Stage(
            bootstrap_servers=kafka,
            keyring_url=f"http://127.0.0.1:{keyring_port or free_port()}",
            key_of_privacy=variables["PRIVACY_SERVICE_KEY"],
            _variables=variables,
            _nursery=nursery,
            _folder=folder,
        )
        await stack.enter_async_context(stage._stack)  # pyright: ignore[reportPrivateUsage]
        yield stage


def grant_of(data_map: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What an operator would allow a participant that announced this: to seal and open what it says it keeps, and what
    every participant needs for answers.
    """
    kept = [entry for entry in data_map if "retention" in entry]
    retentions = {entry["retention"]["name"] for entry in kept}
    opens: dict[str, set[str]] = {Purpose.RIGHTS_OF_THE_PERSON.value: {*retentions, Retention.REQUEST.value}}
    for entry in kept:
        for purpose in entry["purposes"]:
            opens.setdefault(purpose, set()).add(entry["retention"]["name"])
    return {
        "mint": sorted(retentions | {Retention.EXPORT.value, Retention.REQUEST.value}),
        "open": {purpose: sorted(names) for purpose, names in opens.items()},
    }
