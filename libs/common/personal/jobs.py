"""What a participant was asked and what it answered: a task issued again gets the same answer again."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Index, PrimaryKeyConstraint, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from libs.common.db import Base, Database, impersonal


class ParticipantJob(Base):
    """A task, waiting while it has no answer. The person is named only while it waits."""

    __tablename__ = "participant_job"
    __table_args__ = (
        PrimaryKeyConstraint("request_id", "verb"),
        Index("ix_participant_job_next_try_at", "next_try_at", postgresql_where=text("answer IS NULL")),
        Index("ix_participant_job_subject_id", "subject_id", postgresql_where=text("subject_id IS NOT NULL")),
        Index("ix_participant_job_issued_at", "issued_at"),
    )

    request_id: Mapped[UUID]
    verb: Mapped[str] = mapped_column(info=impersonal("what is asked"))
    store_id: Mapped[UUID]
    round: Mapped[int]
    subject_id: Mapped[UUID | None]
    generation: Mapped[int | None]
    answer: Mapped[dict[str, Any] | None] = mapped_column(JSONB, info=impersonal("an outcome and counts"))
    attempts: Mapped[int] = mapped_column(server_default="0")
    next_try_at: Mapped[datetime | None]
    issued_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Announcement(Base):
    """What this service last announced of itself."""

    __tablename__ = "announcement"

    participant: Mapped[str] = mapped_column(primary_key=True, info=impersonal("name of a service"))
    digest: Mapped[bytes] = mapped_column(info=impersonal("hash of a public key and a data map"))
    version: Mapped[int]
    announced_at: Mapped[datetime]


async def purge(database: Database, *, kept_seconds: float) -> int:
    """Forget answers that no topic, retry or replay can ask for again."""
    async with database.platform_session() as session:
        gone: Any = await session.execute(
            text("DELETE FROM participant_job WHERE issued_at < now() - make_interval(secs => :seconds)"),
            {"seconds": kept_seconds},
        )
        return int(gone.rowcount)
