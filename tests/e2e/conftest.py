"""One platform of real processes for each broker, which an operator has set up for a sixth participant."""

import json
import shutil
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from joserfc.jwk import ECKey

from deploy.local.environment import keys
from deploy.local.platform import Platform
from deploy.local.shop import Shop

GRANTS = {
    "loyalty": {
        "mint": ["account", "export"],
        "open": {"essential.service": ["account"], "essential.legal_obligation": ["account", "request"]},
    }
}
"""What `docs/adding-a-participant.md` tells an operator to set."""


@dataclass(frozen=True)
class Running:
    """A platform and its public port, and the private key of the participant that is to join."""

    platform: Platform
    shop: Shop
    loyalty_key: str


@pytest.fixture(scope="session", params=["embedded", "kafka"])
async def running(request: pytest.FixtureRequest) -> AsyncIterator[Running]:
    folder = Path(tempfile.mkdtemp(prefix="vitrine-e2e-"))
    private = ECKey.generate_key("P-256", auto_kid=True)
    known = json.loads(keys(folder)["SERVICE_KEYS"]) | {"loyalty": private.as_dict(private=False)}
    try:
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("SERVICE_KEYS", json.dumps(known))
            environment.setenv("KEYRING_EXTRA_GRANTS", json.dumps(GRANTS))
            environment.setenv("KEY_SECONDS", "15")
            async with (
                Platform(folder, broker=request.param, fast=True) as platform,
                httpx.AsyncClient(base_url=platform.url, timeout=30) as http,
            ):
                yield Running(platform, Shop(http), json.dumps(private.as_dict(private=True)))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
