"""Requests that reached somebody of the store: a letter, a call, a visit. What they saw is kept with the request."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date, datetime
from uuid import UUID, uuid4

from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.db import Database
from libs.common.errors import Unavailable
from libs.common.personal.vault import Vault, normalise
from services.privacy.asked import Asked
from services.privacy.domain.notes import About
from services.privacy.domain.verification import Channel, Proof, Way
from services.privacy.kinds import NoteText
from services.privacy.service import noting, opening
from services.privacy.service.noting import Note
from services.privacy.service.opening import Asking


@dataclass(frozen=True, slots=True, repr=False)
class Received:
    """What reached the store, and what its reader saw."""

    asked: Asked
    email: str
    language: str
    channel: Channel
    seen: str
    by: UUID
    received_on: date | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Prepared:
    """A request with its boxes, and the note under the key of the request that it will lie with."""

    asking: Asking
    request_id: UUID
    seen: Note
    by: UUID


async def prepared(database: Database, vault: Vault, received: Received, *, store_id: UUID) -> Prepared:
    """Everything sealed. Raises SubjectErased, KeyringUnavailable."""
    email = normalise(received.email)
    subject_id = await vault.subject_id(store_id, email)
    asking = await opening.sealed(
        vault,
        store_id=store_id,
        subject_id=subject_id,
        asked=received.asked,
        email=email,
        language=received.language,
        way=Way.STAFF,
        proofs=(Proof.STAFF,),
        begin=True,
    )
    async with database.session(store_id) as session:
        joined = await opening.open_one(session, await opening.about_all(session, asking))
    request_id = joined.id if joined is not None else asking.id
    note = NoteText(text=f"{received.channel}: {received.seen}")
    seen = await vault.seal(note, store_id=store_id, subject_id=subject_id, bucket=str(request_id))
    kept = Note(uuid4(), store_id, request_id, subject_id, seen.generation, seen.box)
    return Prepared(replace(asking, received_on=received.received_on), request_id, kept, received.by)


async def take(
    session: AsyncSession, received: Prepared, *, expected: Iterable[str], now: datetime
) -> tuple[opening.Opened, bool]:
    """Open the request, or join the one that is open; its person is told in any case.

    Raises SubjectErased, ErasureUnderWay, ReceivedInTheFuture, Unavailable when it is another than a moment ago.
    """
    request, is_new = await opening.open_request(session, received.asking, expected=expected, now=now)
    if request.id != received.request_id:
        raise Unavailable
    noting.keep(session, received.seen, About.EVIDENCE, author=received.by, now=now)
    return request, is_new
