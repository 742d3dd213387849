"""The loyalty example as a sixth participant of a platform on this machine, as `docs/adding-a-participant.md` says."""

import json
from pathlib import Path

from joserfc.jwk import ECKey

from deploy.local import environment
from deploy.local.child import Child
from deploy.local.databases import OWNER
from deploy.local.platform import Platform
from libs.common.migrations import upgrade

GRANTS = {
    "loyalty": {
        "mint": ["account", "export", "request"],
        "open": {"essential.service": ["account"], "essential.legal_obligation": ["account", "request"]},
    }
}
_APP = "vitrine_loyalty_app"
_DATABASE = "vitrine_loyalty"
_WORKER = "loyalty-worker"


def variables(data: Path, key: ECKey) -> dict[str, str]:
    """What an operator sets before the platform in the folder `data` starts: who the sixth is, and what it may do."""
    known = json.loads(environment.keys(data)["SERVICE_KEYS"]) | {"loyalty": key.as_dict(private=False)}
    return {"SERVICE_KEYS": json.dumps(known), "KEYRING_EXTRA_GRANTS": json.dumps(GRANTS)}


async def start(platform: Platform, key: ECKey) -> Child:
    """Its database and its worker, which from then on is a process of the platform like any other."""
    if _WORKER not in platform.processes:
        await _add(platform, key)
    worker = platform.processes[_WORKER]
    await worker.start()
    return worker


async def _add(platform: Platform, key: ECKey) -> None:
    postgres = platform.postgres
    connection = await postgres.connect()
    await connection.execute(f"CREATE ROLE {_APP} LOGIN PASSWORD '{postgres.password(_APP)}'")
    await connection.execute(f"CREATE DATABASE {_DATABASE} OWNER {OWNER}")
    await connection.close()
    await upgrade("docs.examples.loyalty", postgres.url(_DATABASE, OWNER), _APP)
    platform.environment |= {
        "LOYALTY_DATABASE_URL": postgres.url(_DATABASE, _APP),
        "LOYALTY_SERVICE_KEY": json.dumps(key.as_dict(private=True)),
    }
    platform.add(_WORKER, "docs.examples.loyalty.worker", ("loyalty",))
