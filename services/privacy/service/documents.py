"""Documents that show whose a request is: sealed alone, looked at by a person, destroyed that moment.

What is to be destroyed is noted in the transaction in which the row goes; `endings` has the key destroyed after it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Row, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.db import Database
from libs.common.errors import NotFound, Unavailable
from libs.common.personal.data import Sealed
from libs.common.personal.errors import KeyDestroyed
from libs.common.personal.tombstones import guard
from libs.common.personal.vault import SealedFor, Vault
from libs.common.personal.vocabulary import Clock, Purpose, Retention
from services.privacy.domain.notes import About
from services.privacy.domain.problems import (
    AlreadyChecked,
    DocumentNotAccepted,
    DocumentNotWanted,
    TooManyDocuments,
)
from services.privacy.domain.rights import Right
from services.privacy.domain.states import OVER, State
from services.privacy.domain.verification import DOCUMENTS, MediaType, Outcome, Proof, media_type_of
from services.privacy.endings import doom
from services.privacy.engine import decisions
from services.privacy.engine.clock import is_stopped
from services.privacy.engine.notices import notify
from services.privacy.evidence.entries import Noted, Step, note
from services.privacy.kinds import DocumentContent
from services.privacy.models import DocumentCheck, Request, VerificationDocument
from services.privacy.policies import Policy, policy_of
from services.privacy.retention.clocks import start, start_of_own
from services.privacy.schemas import DocumentCheckView, DocumentList, DocumentView
from services.privacy.service import noting
from services.privacy.service.noting import Note
from services.privacy.service.replying import Followed


@dataclass(frozen=True, slots=True, repr=False)
class Uploaded:
    """A document that has no row yet, under a key of its own."""

    id: UUID
    media_type: MediaType
    size: int
    sealed: SealedFor[DocumentContent]


# --- Uploading -------------------------------------------------------------------------------------------


def accepted_type(content: bytes) -> MediaType:
    """What the document is, by its own first bytes. Raises DocumentNotAccepted."""
    found = media_type_of(content)
    if found is None:
        raise DocumentNotAccepted(reason="empty" if not content else "type")
    return found


async def sealed_document(vault: Vault, *, store_id: UUID, subject_id: UUID, content: bytes) -> Uploaded:
    """The document in its box. Raises DocumentNotAccepted, SubjectErased, KeyringUnavailable."""
    media_type, id_ = accepted_type(content), uuid4()
    box = await vault.seal(
        DocumentContent(content=content), store_id=store_id, subject_id=subject_id, bucket=str(id_)
    )
    return Uploaded(id_, media_type, len(content), box)


def is_wanted(request: Request | Row[Any], policy: Policy) -> bool:
    """Whether a document helps: one would verify the request, or the store waits for its requester."""
    if State(request.state) is State.VERIFYING:
        return Proof.DOCUMENT in policy.enough(Right(request.claim))
    return is_stopped(request) and State(request.state) not in OVER


async def prepared(database: Database, vault: Vault, found: Followed, content: bytes) -> Uploaded:
    """A document of whoever has the request's link, before it has a row.

    Raises DocumentNotAccepted, DocumentNotWanted, TooManyDocuments, SubjectErased, KeyringUnavailable.
    """
    accepted_type(content)
    async with database.session(found.store_id) as session:
        # Before a key is asked for, so that a link cannot be used to fill a store with boxes.
        request = await session.get_one(Request, found.id)
        await _check_wanted(session, request)
    return await sealed_document(
        vault, store_id=found.store_id, subject_id=request.subject_id, content=content
    )


async def take(session: AsyncSession, found: Followed, uploaded: Uploaded, *, now: datetime) -> None:
    """Keep it until somebody has looked at it. Raises DocumentNotWanted, TooManyDocuments, SubjectErased."""
    row = await decisions.locked(session, found.store_id, found.id)
    await guard(session, found.store_id, row.subject_id, uploaded.sealed.generation)
    await _check_wanted(session, row)
    await attach(session, row, uploaded, now=now)


async def discard(session: AsyncSession, found: Followed, uploaded: Uploaded, *, at: datetime) -> None:
    """Nothing lies under the key that was made for the document: it goes."""
    row = await decisions.locked(session, found.store_id, found.id)
    await doom(session, row, Retention.VERIFICATION, uploaded.id, at=at)


async def _check_wanted(session: AsyncSession, request: Request | Row[Any]) -> None:
    if not is_wanted(request, await policy_of(session, request.store_id)):
        raise DocumentNotWanted
    waiting = await session.scalar(
        select(func.count())
        .select_from(VerificationDocument)
        .where(VerificationDocument.request_id == request.id)
    )
    if (waiting or 0) >= DOCUMENTS:
        raise TooManyDocuments


async def attach(
    session: AsyncSession, request: Request | Row[Any], uploaded: Uploaded, *, now: datetime
) -> None:
    """The document waits with its request, and the store's officer is told."""
    session.add(
        VerificationDocument(
            id=uploaded.id,
            request_id=request.id,
            store_id=request.store_id,
            subject_id=request.subject_id,
            generation=uploaded.sealed.generation,
            media_type=uploaded.media_type,
            size=uploaded.size,
            uploaded_at=now,
            box=uploaded.sealed.box,
        )
    )
    sent = {"document": uploaded.id, "media_type": uploaded.media_type, "size": uploaded.size}
    await note(session, request.store_id, [Noted(request.id, Step.DOCUMENT_RECEIVED, sent)], now=now)
    await notify(session, request, "document-received", now=now, reader="officer")
    received = start_of_own(request, Clock.DOCUMENT_RECEIVED, uploaded.id, at=now)
    await start(session, request.store_id, [received])


# --- Looking ---------------------------------------------------------------------------------------------


async def list_documents(session: AsyncSession, *, store_id: UUID, request_id: UUID) -> DocumentList:
    """The documents of a request that wait, and what became of the others. Raises NotFound."""
    await decisions.locked(session, store_id, request_id)
    waiting = await session.scalars(
        select(VerificationDocument)
        .where(VerificationDocument.request_id == request_id, VerificationDocument.store_id == store_id)
        .order_by(VerificationDocument.uploaded_at, VerificationDocument.id)
    )
    checks = await session.scalars(
        select(DocumentCheck)
        .where(DocumentCheck.request_id == request_id, DocumentCheck.store_id == store_id)
        .order_by(DocumentCheck.at, DocumentCheck.document_id)
    )
    return DocumentList(
        waiting=[DocumentView.model_validate(one, from_attributes=True) for one in waiting],
        checks=[check_view(one) for one in checks],
    )


_OPENED = text("""
    UPDATE verification_document SET openings = openings + 1
    WHERE id = :id AND request_id = :request_id AND store_id = :store_id
    RETURNING subject_id, media_type, box
""")


async def content_of(
    database: Database, vault: Vault, *, store_id: UUID, request_id: UUID, document_id: UUID
) -> tuple[MediaType, bytes]:
    """The document; that it was opened is counted before it is. Raises NotFound, KeyringUnavailable."""
    values = {"id": document_id, "request_id": request_id, "store_id": store_id}
    async with database.session(store_id) as session:
        row = (await session.execute(_OPENED, values)).one_or_none()
        if row is None:
            raise NotFound
        opened = Noted(request_id, Step.DOCUMENT_OPENED, {"document": document_id})
        await note(session, store_id, [opened])
    try:
        content = await vault.open(
            Sealed(DocumentContent, row.box),
            store_id=store_id,
            subject_id=row.subject_id,
            purpose=Purpose.RIGHTS_OF_THE_PERSON,
        )
    except KeyDestroyed:
        raise NotFound from None
    return MediaType(row.media_type), content.content


# --- Checking --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, repr=False)
class Check:
    """What somebody of the store says of a document, and what they saw."""

    document_id: UUID
    accepted: bool
    seen: str
    by: UUID

    @property
    def outcome(self) -> Outcome:
        """The word for it."""
        return Outcome.ACCEPTED if self.accepted else Outcome.REJECTED


async def judge(
    database: Database,
    vault: Vault,
    check: Check,
    *,
    store_id: UUID,
    request_id: UUID,
    expected: Iterable[str],
    now: datetime,
) -> None:
    """Take the row of a document away, keep what was seen in it, and let it prove what it proves.

    Saying the same again changes nothing. Raises NotFound, AlreadyChecked, SubjectErased, KeyringUnavailable.
    """
    async with database.session(store_id) as session:
        await decisions.locked(session, store_id, request_id)
        known = await session.get(DocumentCheck, check.document_id)
    if known is None:
        seen = await noting.sealed(database, vault, store_id=store_id, request_id=request_id, text=check.seen)
        async with database.session(store_id) as session:
            await guard(session, store_id, seen.subject_id, seen.generation)
            request = await decisions.locked(session, store_id, request_id)
            known = await session.get(DocumentCheck, check.document_id)
            if known is None:
                await _note(session, request, check, seen, expected=expected, now=now)
                return
    if known.request_id != request_id:
        raise NotFound
    if (known.outcome, known.checked_by) != (check.outcome, check.by):
        raise AlreadyChecked


_TAKEN = text("""
    WITH taken AS (
        DELETE FROM verification_document WHERE id = :id AND request_id = :request_id AND store_id = :store_id
        RETURNING id, request_id, store_id, openings
    )
    INSERT INTO document_check (document_id, request_id, store_id, outcome, checked_by, at, openings)
    SELECT id, request_id, store_id, :outcome, :by, :now, openings FROM taken RETURNING document_id
""")


async def _note(
    session: AsyncSession,
    request: Row[Any],
    check: Check,
    seen: Note,
    *,
    expected: Iterable[str],
    now: datetime,
) -> None:
    values = {
        "id": check.document_id,
        "request_id": request.id,
        "store_id": request.store_id,
        "outcome": check.outcome,
        "by": check.by,
        "now": now,
    }
    if await session.scalar(_TAKEN, values) is None:
        raise NotFound
    judged = {"document": check.document_id, "outcome": check.outcome, "by": check.by}
    await note(session, request.store_id, [Noted(request.id, Step.DOCUMENT_CHECKED, judged)], now=now)
    await doom(session, request, Retention.VERIFICATION, check.document_id, at=now)
    noting.keep(session, seen, About.EVIDENCE, author=check.by, now=now)
    if check.accepted:
        await decisions.prove(session, request, Proof.DOCUMENT, now=now, expected=expected)


async def check_of(session: AsyncSession, document_id: UUID) -> DocumentCheckView:
    """What became of a document. Raises Unavailable while nothing is known."""
    found = await session.get(DocumentCheck, document_id)
    if found is None:
        raise Unavailable
    return check_view(found)


def check_view(check: DocumentCheck) -> DocumentCheckView:
    """A check as the store sees it."""
    return DocumentCheckView.model_validate(check, from_attributes=True)
