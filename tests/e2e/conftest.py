"""One platform of real processes for each broker, which an operator has set up for a sixth participant."""

import shutil
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from joserfc.jwk import ECKey

from deploy.local.demo import variables
from deploy.local.platform import Platform
from deploy.local.shop import Shop


@dataclass(frozen=True)
class Running:
    """A platform and its public port, and the key of the participant that is to join."""

    platform: Platform
    shop: Shop
    loyalty_key: ECKey


@pytest.fixture(scope="session", params=["embedded", "kafka"])
async def running(request: pytest.FixtureRequest) -> AsyncIterator[Running]:
    folder = Path(tempfile.mkdtemp(prefix="vitrine-e2e-"))
    key = ECKey.generate_key("P-256", auto_kid=True)
    try:
        with pytest.MonkeyPatch.context() as environment:
            for name, value in variables(folder, key).items():
                environment.setenv(name, value)
            async with (
                Platform(folder, broker=request.param, fast=True) as platform,
                httpx.AsyncClient(base_url=platform.url, timeout=30) as http,
            ):
                yield Running(platform, Shop(http), key)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
