"""`make rotate`: give stores new secrets for their blind indexes, while everything runs.

Reads what the privacy service reads. New rows get the new secret once every process knows it; then each service indexes
its rows anew, and when the last has said so the old secret is gone. Nothing else is to be done.
"""

import argparse
import asyncio
from uuid import UUID

import httpx
from sqlalchemy import text

from libs.common.db import Database
from services.privacy.endings import keyring_of
from services.privacy.settings import Settings

_STORES = text("SELECT store_id FROM known_store ORDER BY store_id")


async def rotate(settings: Settings, stores: list[UUID]) -> int:
    """Begin, or go on with, the change of these stores, or of all. Returns how many there are."""
    database = Database(settings.database_url, pool_size=1)
    try:
        async with database.platform_session() as session:
            stores = stores or list((await session.scalars(_STORES)).all())
    finally:
        await database.close()
    async with httpx.AsyncClient(timeout=10) as http:
        return len(await keyring_of(settings, http).rotate_indexes(stores)) if stores else 0


def main() -> None:
    """One line: how many stores change."""
    parser = argparse.ArgumentParser(prog="make rotate", description=__doc__)
    parser.add_argument("stores", nargs="*", type=UUID, metavar="STORE")
    number = asyncio.run(rotate(Settings.model_validate({}), parser.parse_args().stores))
    print(f"{number} stores change their index secrets. Until all services are done, both are looked up by.")  # noqa: T201


if __name__ == "__main__":
    main()
