"""That this database was restored from a backup: what was asked of its service since then is to be done again.

`make restore` writes a row in the transaction that brings the backup back, so no restored database is without one. The
service tells the privacy service, which asks again (`services/privacy/redoing.py`).
"""

from datetime import datetime
from uuid import UUID

from sqlalchemy import func, text
from sqlalchemy.orm import Mapped, mapped_column

from libs.common.auth import PLATFORM_STORE
from libs.common.db import Base
from libs.common.events.privacy import DatabaseRestored
from libs.common.outbox import publish_all
from libs.common.worker import Work


class Restoration(Base):
    """One return to an earlier state."""

    __tablename__ = "restoration"

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.gen_random_uuid())
    taken_at: Mapped[datetime]
    """When the backup was begun: what was done here before it is in it."""
    restored_at: Mapped[datetime] = mapped_column(server_default=func.now())
    announced_at: Mapped[datetime | None]
    indexed_at: Mapped[datetime | None]
    """When its blind indexes had been made anew, should secrets have changed since the backup."""


_UNTOLD = text("""
    UPDATE restoration SET announced_at = now() WHERE announced_at IS NULL RETURNING id, taken_at
""")


async def tell(service: str, work: Work) -> int:
    """Say once of every restoration that it happened."""
    async with work.database.session(PLATFORM_STORE) as session:
        events = [
            DatabaseRestored(restoration_id=row.id, participant=service, taken_at=row.taken_at)
            for row in await session.execute(_UNTOLD)
        ]
        await publish_all(session, events, store_id=PLATFORM_STORE, source=service)
    return 0
