"""What is written about a request: sealed before the transaction that keeps it, opened for who answers."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy import literal, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.db import Database
from libs.common.errors import NotFound, Problem
from libs.common.http import Page, cursor_at, position_in
from libs.common.personal.data import Sealed
from libs.common.personal.errors import SubjectErased
from libs.common.personal.vault import ToOpen, Vault, unless_destroyed
from libs.common.personal.vocabulary import Purpose
from services.privacy.desk_schemas import NoteView, ProposalView, Question
from services.privacy.domain.notes import About
from services.privacy.kinds import NoteText
from services.privacy.models import Request, RequestNote, Task


@dataclass(frozen=True, slots=True, repr=False)
class Note:
    """A note before it has a row."""

    id: UUID
    store_id: UUID
    request_id: UUID
    subject_id: UUID
    generation: int
    box: Sealed[NoteText]


async def sealed(database: Database, vault: Vault, *, store_id: UUID, request_id: UUID, text: str) -> Note:
    """The text under the key of its request. Raises NotFound, SubjectErased, KeyringUnavailable."""
    async with database.session(store_id) as session:
        person = (
            await session.execute(
                select(Request.subject_id, Request.generation).where(
                    Request.id == request_id, Request.store_id == store_id
                )
            )
        ).one_or_none()
    if person is None:
        raise NotFound
    made = await vault.seal(
        NoteText(text=text), store_id=store_id, subject_id=person.subject_id, bucket=str(request_id)
    )
    if made.generation != person.generation:
        raise SubjectErased
    return Note(uuid4(), store_id, request_id, person.subject_id, person.generation, made.box)


def keep(session: AsyncSession, note: Note, about: About, *, author: UUID | None, now: datetime) -> None:
    """Keep a note with the session's other changes."""
    session.add(
        RequestNote(
            id=note.id,
            request_id=note.request_id,
            store_id=note.store_id,
            subject_id=note.subject_id,
            generation=note.generation,
            about=about,
            author=author,
            at=now,
            box=note.box,
        )
    )


async def opened(
    database: Database, vault: Vault, *, store_id: UUID, request_id: UUID, cursor: str | None, limit: int
) -> Page[NoteView]:
    """What was written about a request, oldest first. Raises NotFound, InvalidCursor, KeyringUnavailable."""
    statement = (
        select(RequestNote)
        .where(RequestNote.request_id == request_id, RequestNote.store_id == store_id)
        .order_by(RequestNote.at, RequestNote.id)
        .limit(limit + 1)
    )
    if cursor is not None:
        at, id_ = position_in(cursor)
        statement = statement.where(
            tuple_(RequestNote.at, RequestNote.id) > tuple_(literal(at), literal(id_))
        )
    async with database.session(store_id) as session:
        known = await session.scalar(
            select(Request.id).where(Request.id == request_id, Request.store_id == store_id)
        )
        rows = list(await session.scalars(statement))
    if known is None:
        raise NotFound
    following = None
    if len(rows) > limit:
        rows = rows[:limit]
        following = cursor_at(rows[-1].at, rows[-1].id)
    boxes = [ToOpen(row.box, row.store_id, row.subject_id) for row in rows]
    found = await vault.open_many(boxes, purpose=Purpose.RIGHTS_OF_THE_PERSON)
    items = [_view(row, text) for row, text in zip(rows, found, strict=True)]
    return Page(items=items, next=following)


def _view(row: RequestNote, found: NoteText | Problem) -> NoteView:
    note = unless_destroyed(found)
    text = note.text if note is not None else None
    return NoteView(id=row.id, about=About(row.about), author=row.author, at=row.at, text=text)


async def questions(database: Database, vault: Vault, *, store_id: UUID, request_id: UUID) -> list[Question]:
    """What the person was asked, oldest first, and when they answered. Raises KeyringUnavailable."""
    async with database.session(store_id) as session:
        rows = list(
            await session.scalars(
                select(RequestNote)
                .where(
                    RequestNote.request_id == request_id,
                    RequestNote.store_id == store_id,
                    RequestNote.about.in_([About.QUESTION, About.ANSWER]),
                )
                .order_by(RequestNote.at, RequestNote.id)
            )
        )
    asked = [row for row in rows if row.about == About.QUESTION]
    answers = [row.at for row in rows if row.about == About.ANSWER]
    boxes = [ToOpen(row.box, row.store_id, row.subject_id) for row in asked]
    found = await vault.open_many(boxes, purpose=Purpose.RIGHTS_OF_THE_PERSON)
    return [
        Question(
            text=_view(row, text).text,
            asked_at=row.at,
            answered_at=next((at for at in answers if at >= row.at), None),
        )
        for row, text in zip(asked, found, strict=True)
    ]


async def proposal(database: Database, vault: Vault, *, store_id: UUID, request_id: UUID) -> ProposalView:
    """What a person asks to have corrected, for whoever must decide on it; and what no model takes.

    Raises NotFound, also for a request that corrects nothing; KeyDestroyed, KeyringUnavailable.
    """
    async with database.session(store_id) as session:
        row = (
            await session.execute(
                select(Request.subject_id, Request.proposal).where(
                    Request.id == request_id, Request.store_id == store_id
                )
            )
        ).one_or_none()
        answers = list(
            await session.scalars(
                select(Task.answer).where(
                    Task.request_id == request_id, Task.store_id == store_id, Task.answer.is_not(None)
                )
            )
        )
    if row is None or row.proposal is None:
        raise NotFound
    found = await vault.open(
        row.proposal, store_id=store_id, subject_id=row.subject_id, purpose=Purpose.RIGHTS_OF_THE_PERSON
    )
    refused = {category for answer in answers if answer for category in answer.get("refused", [])}
    return ProposalView.model_validate(
        {"corrections": [one.model_dump() for one in found.corrections], "refused": sorted(refused)}
    )
