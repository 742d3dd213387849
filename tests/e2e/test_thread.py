"""The demo is the thread through the whole platform; it must hold on both brokers."""

import tempfile
from pathlib import Path

import httpx
import pytest

from deploy.local.demo import Demo
from deploy.local.platform import Platform
from deploy.local.shop import Shop


@pytest.mark.parametrize("broker", ["embedded", "kafka"])
async def test_one_persons_way_through_the_platform(broker: str) -> None:
    with tempfile.TemporaryDirectory(prefix="vitrine-e2e-") as folder:
        async with (
            Platform(Path(folder), broker=broker) as platform,
            httpx.AsyncClient(base_url=platform.url, timeout=30) as http,
        ):
            await Demo(Shop(http), platform).play()
