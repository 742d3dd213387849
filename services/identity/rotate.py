"""`python -m services.identity.rotate`: a new key for access tokens, without one refused request.

The new key is published at once and signs a minute later; the old one stays published until the last token it
signed has expired. Running it again meanwhile changes nothing.
"""

import asyncio
import sys

from libs.common.db import Database
from services.identity.keys import SigningKeys
from services.identity.parts import now
from services.identity.settings import Settings


async def rotate(settings: Settings) -> str:
    """Rotate, and say when the new key signs."""
    database = Database(settings.database_url, pool_size=1)
    try:
        key = await SigningKeys(database, settings.master_key_bytes, now).rotate()
    finally:
        await database.close()
    return f"key {key.key_id} is published and signs from {key.active_from:%Y-%m-%d %H:%M:%S} UTC"


if __name__ == "__main__":
    sys.stdout.write(asyncio.run(rotate(Settings())) + "\n")  # pyright: ignore[reportCallIssue]
