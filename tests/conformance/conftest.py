"""What the kit meets in its own tests: a real broker, and a keyring a module."""

import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from conformance.stage import Stage, staged
from deploy.local.kafka import KafkaServer


@pytest.fixture(scope="module")
async def stage(kafka: KafkaServer) -> AsyncIterator[Stage]:
    folder = Path(tempfile.mkdtemp(prefix="vitrine-"))
    async with staged(folder, kafka=kafka.bootstrap_servers) as stage:
        yield stage
    shutil.rmtree(folder, ignore_errors=True)
