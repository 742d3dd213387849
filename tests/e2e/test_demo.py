"""The demo is the thread through the whole platform; it must hold on both brokers."""

from deploy.local.demo import Demo
from tests.e2e.conftest import Running


async def test_one_persons_way_through_the_platform(running: Running) -> None:
    await Demo(running.shop, running.platform, running.loyalty_key).play()
