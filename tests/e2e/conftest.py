"""One platform of real processes for each broker, which an operator has set up for a sixth participant."""

import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from joserfc.jwk import ECKey

from deploy.local.cluster import begin_with_copy
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
        async with AsyncExitStack() as stack:
            # What the operator has set is for this platform, and for no other that tests start.
            with pytest.MonkeyPatch.context() as environment:
                for name, value in variables(folder, key).items():
                    environment.setenv(name, value)
                begin_with_copy(folder)
                platform = await stack.enter_async_context(Platform(folder, broker=request.param, fast=True))
            http = await stack.enter_async_context(httpx.AsyncClient(base_url=platform.url, timeout=30))
            yield Running(platform, Shop(http), key)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
