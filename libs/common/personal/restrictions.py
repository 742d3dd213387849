"""Whose data is on hold in a service (GDPR, Art. 18). The keyring does not open it; no timer may delete it meanwhile.

f"DELETE FROM sign_up WHERE expires_at < :now AND NOT {is_restricted('sign_up')}"
"""

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from libs.common.db import Base, fetch
from libs.common.personal.tombstones import Subject


class RestrictedSubject(Base):
    """A generation whose data is on hold."""

    __tablename__ = "restricted_subject"

    store_id: Mapped[UUID] = mapped_column(primary_key=True)
    subject_id: Mapped[UUID] = mapped_column(primary_key=True)
    generation: Mapped[int] = mapped_column(primary_key=True)
    restricted_at: Mapped[datetime] = mapped_column(server_default=func.now())


def is_restricted(table: str) -> str:
    """In SQL, that a row of `table` is about somebody whose data is on hold."""
    return f"""EXISTS (
        SELECT FROM restricted_subject AS restricted
        WHERE (restricted.store_id, restricted.subject_id, restricted.generation)
            = ({table}.store_id, {table}.subject_id, {table}.generation))"""


# The rows are taken in order, so that two batches never wait for each other.
_RESTRICT = """
    INSERT INTO restricted_subject (store_id, subject_id, generation)
    SELECT DISTINCT store_id, subject_id, generation
    FROM unnest($1::uuid[], $2::uuid[], $3::bigint[]) AS asked (store_id, subject_id, generation)
    ORDER BY store_id, subject_id, generation
    ON CONFLICT DO NOTHING
"""
_LIFT = """
    DELETE FROM restricted_subject AS restricted
    USING unnest($1::uuid[], $2::uuid[], $3::bigint[]) AS asked (store_id, subject_id, generation)
    WHERE (restricted.store_id, restricted.subject_id, restricted.generation)
        = (asked.store_id, asked.subject_id, asked.generation)
"""


async def restrict(session: AsyncSession, people: Iterable[Subject]) -> None:
    """Note that the data of these people is on hold."""
    await fetch(session, _RESTRICT, *_columns(people))


async def lift(session: AsyncSession, people: Iterable[Subject]) -> None:
    """Note that it is on hold no more."""
    await fetch(session, _LIFT, *_columns(people))


def _columns(people: Iterable[Subject]) -> tuple[list[UUID], list[UUID], list[int]]:
    listed = sorted(people)
    return [one[0] for one in listed], [one[1] for one in listed], [one[2] for one in listed]
