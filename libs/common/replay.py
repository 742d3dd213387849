"""`make replay`: drive parked events again, oldest of each key first.

Reads the same environment as the workers. Idempotent: what was handled meanwhile has no second effect.
"""

import argparse
import asyncio
from importlib import import_module

from libs.common.broker.connect import connect
from libs.common.db import Database
from libs.common.inbox import Consumer

SERVICES = ("catalog", "orders", "identity", "billing", "privacy")


async def _replay(service: str) -> int:
    settings = import_module(f"services.{service}.settings").Settings()
    handlers = import_module(f"services.{service}.consumer").HANDLERS
    database = Database(settings.database_url, pool_size=2)
    consumer = Consumer(service=service, database=database, broker=connect(settings), handlers=handlers)
    try:
        return await consumer.redrive(everything=True)
    finally:
        await database.close()


def main() -> None:
    """One line a service: how many parked events were handled."""
    parser = argparse.ArgumentParser(description="Drive parked events again, oldest of each key first.")
    parser.add_argument("services", nargs="*", default=SERVICES, choices=[*SERVICES, []], metavar="SERVICE")
    for service in parser.parse_args().services:
        print(f"{service:<10} {asyncio.run(_replay(service))} events handled")  # noqa: T201 - a command


if __name__ == "__main__":
    main()
