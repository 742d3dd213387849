"""What remains of an erased person in a service: an id and a generation, so that nothing comes back.

Writers of personal data and the erasure of the same person meet on an advisory lock: a writer either commits
before the erasure looks for rows, or finds the tombstone.
"""

import hashlib
from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from libs.common.db import Base, fetch
from libs.common.personal.errors import SubjectErased

Subject = tuple[UUID, UUID, int]
"""Store, subject, generation."""


class ErasedSubject(Base):
    """Every generation up to this one is refused for ever. Outlives the request that made it."""

    __tablename__ = "erased_subject"

    store_id: Mapped[UUID] = mapped_column(primary_key=True)
    subject_id: Mapped[UUID] = mapped_column(primary_key=True)
    generation: Mapped[int]
    erased_at: Mapped[datetime] = mapped_column(server_default=func.now())


# Locks are taken in the order of their keys, so that two batches never wait for each other. What follows a
# lock is a statement of its own, since its snapshot must be younger than the lock.
_SHARE = "SELECT pg_advisory_xact_lock_shared(key) FROM unnest($1::bigint[]) AS key"
_OWN = "SELECT pg_advisory_xact_lock(key) FROM unnest($1::bigint[]) AS key"
_ERASED = """
    SELECT asked.store_id, asked.subject_id, asked.generation
    FROM unnest($1::uuid[], $2::uuid[], $3::bigint[]) AS asked (store_id, subject_id, generation)
    JOIN erased_subject AS erased USING (store_id, subject_id)
    WHERE erased.generation >= asked.generation
"""
_BURY = """
    INSERT INTO erased_subject AS erased (store_id, subject_id, generation)
    SELECT store_id, subject_id, max(generation)
    FROM unnest($1::uuid[], $2::uuid[], $3::bigint[]) AS asked (store_id, subject_id, generation)
    GROUP BY store_id, subject_id
    ON CONFLICT (store_id, subject_id) DO UPDATE
    SET generation = excluded.generation, erased_at = excluded.erased_at
    WHERE erased.generation < excluded.generation
"""


async def guard(session: AsyncSession, store_id: UUID, subject_id: UUID, generation: int) -> None:
    """To be called before writing about a person: holds an erasure off until the session ends.

    Raises SubjectErased when the generation is over.
    """
    if await erased_among(session, [(store_id, subject_id, generation)]):
        raise SubjectErased


async def erased_among(session: AsyncSession, subjects: Iterable[Subject]) -> set[Subject]:
    """Those whose generation is over; erasures of the others are held off until the session ends."""
    asked = list(subjects)
    await fetch(session, _SHARE, _lock_keys(asked))
    rows = await fetch(session, _ERASED, *_columns(asked))
    return {(row["store_id"], row["subject_id"], row["generation"]) for row in rows}


async def hold_off(session: AsyncSession, subjects: Iterable[Subject]) -> None:
    """Nobody writes about these people, and none of them is erased, until the session ends. Not after `guard`."""
    await fetch(session, _OWN, _lock_keys(subjects))


async def bury(session: AsyncSession, subjects: Iterable[Subject]) -> None:
    """Refuse these generations from now on; waits for writers that passed the guard before.

    Never after `guard` for the same person in one session: two such sessions would wait for each other.
    """
    buried = list(subjects)
    await hold_off(session, buried)
    await fetch(session, _BURY, *_columns(buried))


def _columns(subjects: Iterable[Subject]) -> tuple[list[UUID], list[UUID], list[int]]:
    stores: list[UUID] = []
    people: list[UUID] = []
    generations: list[int] = []
    for store_id, subject_id, generation in subjects:
        stores.append(store_id)
        people.append(subject_id)
        generations.append(generation)
    return stores, people, generations


def _lock_keys(subjects: Iterable[Subject]) -> list[int]:
    return sorted({_lock_key(store_id, subject_id) for store_id, subject_id, _ in subjects})


def _lock_key(store_id: UUID, subject_id: UUID) -> int:
    digest = hashlib.blake2b(store_id.bytes + subject_id.bytes, digest_size=8, person=b"erasure").digest()
    return int.from_bytes(digest, signed=True)
