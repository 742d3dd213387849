"""`make officer EMAIL=…`: an account of the platform's own becomes one of its privacy officers.

Reads what identity reads. An officer sees whom requests of all stores wait for, and answers those that stores left
unanswered; `--dismiss` ends that with the access token they have, ten minutes later at most.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from uuid import UUID

import httpx
from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert as upsert

from libs.common.auth import PLATFORM_STORE, Role
from libs.common.db import Database
from libs.common.personal.vault import Vault
from services.identity.models import Account, Membership
from services.identity.settings import Settings


async def appoint(settings: Settings, email: str, *, dismiss: bool = False) -> bool:
    """Whether there is such an account: one of the platform's own, confirmed and not closed."""
    database = Database(settings.database_url, pool_size=1)
    try:
        async with httpx.AsyncClient(timeout=10) as http:
            vault = Vault.connect(service="identity", settings=settings, http=http)
            indexes = await vault.blind_indexes(PLATFORM_STORE, "email", email)
        return await _appoint(database, indexes, dismiss=dismiss)
    finally:
        await database.close()


async def _appoint(database: Database, indexes: Sequence[bytes], *, dismiss: bool) -> bool:
    async with database.session(PLATFORM_STORE) as session:
        account_id: UUID | None = await session.scalar(
            select(Account.id).where(
                Account.store_id == PLATFORM_STORE,
                Account.email_index.in_(indexes),
                Account.closed_at.is_(None),
            )
        )
        if account_id is None:
            return False
        if dismiss:
            await session.execute(
                delete(Membership).where(
                    Membership.store_id == PLATFORM_STORE, Membership.account_id == account_id
                )
            )
        else:
            await session.execute(
                upsert(Membership)
                .values(store_id=PLATFORM_STORE, account_id=account_id, role=Role.PRIVACY_OFFICER)
                .on_conflict_do_update(
                    index_elements=[Membership.store_id, Membership.account_id],
                    set_={"role": Role.PRIVACY_OFFICER},
                )
            )
    return True


def main() -> int:
    """One line: what the account is now."""
    parser = argparse.ArgumentParser(prog="make officer", description=__doc__)
    parser.add_argument("email", help="of an account of the platform's own store")
    parser.add_argument("--dismiss", action="store_true", help="it is no officer any more")
    given = parser.parse_args()
    settings = Settings()  # pyright: ignore[reportCallIssue]
    if not asyncio.run(appoint(settings, given.email, dismiss=given.dismiss)):
        sys.stderr.write("The platform has no such account: sign up at its own store and confirm it first.\n")
        return 1
    said = "is no officer any more" if given.dismiss else "is a privacy officer of the platform"
    sys.stdout.write(f"The account {said}.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
