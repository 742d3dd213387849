"""Links to exports: a token that came by mail, good for a few days and a few times, dead once its person is erased."""

from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Row, select, text

from libs.common.db import Database
from libs.common.events.privacy import Verb
from libs.common.personal.errors import KeyDestroyed
from libs.common.personal.vault import Vault
from libs.common.personal.vocabulary import Purpose
from services.privacy.domain.problems import DownloadGone
from services.privacy.domain.states import State, TaskState
from services.privacy.models import Download, ExportChunk, Participant, Request, Task
from services.privacy.service.opening import hashed

Language = Literal["en", "fr"]
Record = dict[str, Any]
_IN_MEMORY = 6
"""Opened chunks that are kept for the next file of the archive; most people have fewer in all."""


@dataclass(slots=True)
class Export:
    """An export that is complete, and whose boxes open."""

    request_id: UUID
    store_id: UUID
    subject_id: UUID
    language: Language
    completed_at: datetime
    chunks: Mapping[str, int]
    """Of each participant that held something."""
    answers: Mapping[str, Mapping[str, Any]]
    data_map: Sequence[Mapping[str, Any]]
    database: Database
    vault: Vault
    _opened: OrderedDict[tuple[str, int], list[Record]] = field(
        default_factory=OrderedDict[tuple[str, int], list[Record]]
    )

    async def records(self, participant: str) -> AsyncIterator[Record]:
        """Everything a participant holds, in the order it was sent; a chunk in memory at a time."""
        for sequence in range(self.chunks[participant]):
            for record in await self.chunk(participant, sequence):
                yield record

    async def chunk(self, participant: str, sequence: int) -> list[Record]:
        """The records of one chunk. Raises KeyDestroyed, KeyringUnavailable."""
        place = participant, sequence
        if place not in self._opened:
            async with self.database.session(self.store_id) as session:
                box = await session.scalar(
                    select(ExportChunk.box).where(
                        ExportChunk.request_id == self.request_id,
                        ExportChunk.participant == participant,
                        ExportChunk.sequence == sequence,
                    )
                )
            if box is None:
                raise KeyDestroyed
            opened = await self.vault.open(
                box,
                store_id=self.store_id,
                subject_id=self.subject_id,
                purpose=Purpose.RIGHTS_OF_THE_PERSON,
            )
            self._opened[place] = opened.records
            while len(self._opened) > _IN_MEMORY:
                self._opened.popitem(last=False)
        return self._opened[place]


async def begin(database: Database, vault: Vault, *, token: str, now: datetime) -> Export:
    """Check a token, see that everything opens, and count one download.

    Raises DownloadGone, KeyringUnavailable; what is refused is not counted.
    """
    token_hash = hashed(token)
    export = await _export(database, vault, token_hash, now)
    try:
        for participant in export.chunks:
            await export.chunk(participant, 0)
    except KeyDestroyed:
        raise DownloadGone from None
    if not await _counted(database, token_hash, now):
        raise DownloadGone
    return export


async def _export(database: Database, vault: Vault, token_hash: bytes, now: datetime) -> Export:
    async with database.platform_session() as session:
        row = (
            await session.execute(
                select(Request)
                .join(Download, Download.request_id == Request.id)
                .where(
                    Download.token_hash == token_hash,
                    Download.expires_at > now,
                    Download.remaining > 0,
                    Request.state == State.COMPLETED,
                )
            )
        ).scalar()
        if row is None or row.contact is None:
            raise DownloadGone
        tasks = (
            await session.execute(
                select(Task.participant, Task.answer)
                .where(Task.request_id == row.id, Task.verb == Verb.EXPORT, Task.state == TaskState.DONE)
                .order_by(Task.participant)
            )
        ).all()
        maps = (await session.scalars(select(Participant.data_map).order_by(Participant.name))).all()
    try:
        contact = await vault.open(
            row.contact,
            store_id=row.store_id,
            subject_id=row.subject_id,
            purpose=Purpose.RIGHTS_OF_THE_PERSON,
        )
    except KeyDestroyed:
        raise DownloadGone from None
    return Export(
        request_id=row.id,
        store_id=row.store_id,
        subject_id=row.subject_id,
        language=contact.language,
        completed_at=row.completed_at or row.opened_at,
        chunks=_chunks(tasks),
        answers={task.participant: task.answer for task in tasks},
        data_map=[entry for one in maps for entry in one],
        database=database,
        vault=vault,
    )


def _chunks(tasks: Sequence[Row[Any, Any]]) -> dict[str, int]:
    return {task.participant: task.answer["chunks"] for task in tasks if task.answer["chunks"]}


_COUNT = text("""
    UPDATE download SET remaining = remaining - 1
    WHERE token_hash = :token_hash AND remaining > 0 AND expires_at > :now RETURNING remaining
""")


async def _counted(database: Database, token_hash: bytes, now: datetime) -> bool:
    async with database.platform_session() as session:
        return await session.scalar(_COUNT, {"token_hash": token_hash, "now": now}) is not None
