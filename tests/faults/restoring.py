"""Databases of a running platform brought back from a backup, with whoever uses them stopped meanwhile."""

import asyncio
from collections.abc import Collection

import pytest

from deploy.local.backup import Places
from deploy.local.databases import NAMES
from deploy.local.environment import SERVICES
from deploy.local.errors import AlreadyRunning
from deploy.local.platform import Platform
from deploy.local.restore import restore
from deploy.local.shop import until
from tests.faults.databases import Databases


async def bring_back(
    platform: Platform, databases: Databases, places: Places, names: Collection[str], at: str
) -> None:
    """As an operator does with `make restore`; the platform is ready again afterwards, and has more to do."""
    stopped = [platform.processes[name] for name in _users(names)]
    await asyncio.gather(*(process.stop() for process in stopped))
    await databases.close()
    with pytest.MonkeyPatch.context() as environment:
        for name, value in platform.environment.items():
            if name == "KAFKA_BOOTSTRAP_SERVERS" or name.removesuffix("_DATABASE_URL") in _PREFIXES:
                environment.setenv(name, value)
        said: list[str] = []

        async def try_it() -> bool | None:
            try:
                return await restore(
                    platform.data, places, names, at, broker=platform.broker, say=said.append
                )
            except AlreadyRunning:
                # A connection that was closed a moment ago; nothing was changed.
                return None

        assert await until(try_it, f"{', '.join(names)} to be used by nobody"), said
    for process in stopped:
        await process.start()
    await platform.ready()


_PREFIXES = {f"{name.upper()}{kind}" for name in NAMES for kind in ("", "_MIGRATION")}


def _users(names: Collection[str]) -> list[str]:
    """The processes that use these databases; the privacy worker asks at its start whether the keyring was restored."""
    workers = set(SERVICES) if "broker" in names else {name for name in names if name in SERVICES}
    found = {f"{service}-worker" for service in workers | {"privacy"}}
    if {"keyring", "destructions"} & set(names):
        found.add("keyring")
    return sorted(found | {"gateway"}, key=lambda name: (name != "keyring", name))
