"""A member in a process of its own: takes a batch, says so, and commits when told to."""

import asyncio
import sys

from libs.common.broker import Fenced
from tests.contract.brokers import adapter


async def main(kind: str, address: str, silence: str, group: str, topic: str) -> None:
    broker = adapter(kind, address, float(silence))
    await broker.start()
    async with broker.subscribe(group, [topic]) as subscription:
        batch = await anext(aiter(subscription))
        print("took", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        try:
            await batch.commit()
        except Fenced:
            print("fenced", flush=True)
        else:
            print("committed", flush=True)
    await broker.stop()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
