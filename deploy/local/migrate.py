"""`make migrate`: bring every database of the platform up to date.

Reads the `…_MIGRATION_DATABASE_URL` and `…_DATABASE_URL` variables: it serves an operator's own servers too.
"""

import asyncio
import os
import sys
import time
from collections.abc import Iterable, Mapping
from urllib.parse import unquote, urlsplit

from deploy.local.revisions import PACKAGES
from libs.common.migrations import upgrade


async def migrate(environment: Mapping[str, str], names: Iterable[str] = PACKAGES) -> None:
    """Run the migrations of these databases as their owner and grant the rows to their application role.

    One after the other: Alembic keeps the migration under way in a global.
    """
    for name in names:
        owner = environment[f"{name.upper()}_MIGRATION_DATABASE_URL"]
        user = urlsplit(environment[f"{name.upper()}_DATABASE_URL"]).username or ""
        await upgrade(PACKAGES[name], owner, unquote(user))


def main() -> None:
    """Migrate the databases that the environment names."""
    missing = [name for name in PACKAGES if f"{name.upper()}_MIGRATION_DATABASE_URL" not in os.environ]
    if missing:
        sys.exit(
            "Set these first: "
            + ", ".join(f"{name.upper()}_MIGRATION_DATABASE_URL" for name in missing)
            + ".\n"
            "On this machine `make run` migrates its own databases by itself."
        )
    begin = time.monotonic()
    asyncio.run(migrate(os.environ))
    print(f"{len(PACKAGES)} databases are up to date ({time.monotonic() - begin:.1f} s).")


if __name__ == "__main__":
    main()
