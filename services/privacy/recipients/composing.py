"""What a recipient is told, made once: the body of a delivery, sealed with its request before it is first sent."""

from typing import Any

from sqlalchemy import Row, text

from libs.common.events.privacy import Correction, Proposal, References, Verb
from libs.common.personal.data import Sealed
from libs.common.personal.errors import KeyDestroyed
from libs.common.personal.tombstones import erased_among
from libs.common.personal.vocabulary import Purpose
from libs.common.worker import Work
from services.privacy.domain.rights import Law, Right, name_of
from services.privacy.engine.tasks import is_part, lives_of
from services.privacy.kinds import RequestContact
from services.privacy.recipients import references
from services.privacy.recipients.kinds import DeliveryBody
from services.privacy.recipients.protocols import To, Told
from services.privacy.recipients.speaking import PROTOCOLS
from services.privacy.recipients.words import Protocol, Role


class NobodyKnown(Exception):
    """Nothing is known by which an outsider could find the person: there is nothing to tell."""


_REQUEST = text("""
    SELECT request.*, ARRAY(
        SELECT box FROM request_reference AS said WHERE said.request_id = request.id ORDER BY round, participant
    ) AS said
    FROM request WHERE id = :request_id AND store_id = :store_id
""")
_KEEP = text("""
    UPDATE delivery SET body = coalesce(body, :body) WHERE id = :id AND store_id = :store_id RETURNING body
""")


async def body_of(work: Work, row: Row[Any]) -> bytes:
    """What is sent, made now if it was not yet. Raises NobodyKnown, KeyDestroyed, KeyringUnavailable."""
    if row.request_id is None:
        return PROTOCOLS[Protocol(row.protocol)].compose(_told(work, row))
    if row.body is None:
        content = PROTOCOLS[Protocol(row.protocol)].compose(await _told_of_request(work, row))
        return await _kept(work, row, content)
    return await _opened(work, row, row.body)


def to(row: Any) -> To:
    """Whom a delivery is for."""
    return To(row.recipient_id, row.store_id, Role(row.role), row.url, row.options)


def _told(work: Work, row: Row[Any], **more: Any) -> Told:
    return Told(
        delivery_id=row.id,
        to=to(row),
        what=row.what,
        made_at=row.made_at,
        store_name=row.store_name or "",
        public_url=work.settings.public_url,
        **more,
    )


async def _told_of_request(work: Work, row: Row[Any]) -> Told:
    async with work.database.session(row.store_id) as session:
        values = {"request_id": row.request_id, "store_id": row.store_id}
        request = (await session.execute(_REQUEST, values)).one()
        lives = [(row.store_id, life.subject_id, life.generation) for life in lives_of(request)]
        erased = await erased_among(session, lives)
    known = await references.merged(
        work.vault, row.store_id, lives_of(request), request.said, *await _addresses(work, request)
    )
    if known == References():
        is_erasure = request.claim == Right.ERASURE and not is_part(request)
        raise KeyDestroyed if erased and not is_erasure else NobodyKnown
    right, law = Right(request.claim), Law(request.law)
    return _told(
        work,
        row,
        request_id=request.id,
        right=name_of(right, law, request.purpose),
        law=law,
        purpose=request.purpose,
        category=request.category,
        received_at=request.received_at or request.opened_at,
        due_on=request.due_on,
        references=known,
        corrections=await _corrections(work, request) if row.what == Verb.RECTIFY else (),
    )


async def _addresses(work: Work, request: Row[Any]) -> list[str]:
    """The one that the request came from, if it came from one."""
    if request.contact is None:
        return []
    contact = Sealed(RequestContact, request.contact)
    return [(await _open(work, request, contact)).email]


async def _corrections(work: Work, request: Row[Any]) -> tuple[Correction, ...]:
    return (await _open(work, request, Sealed(Proposal, request.proposal))).corrections


# --- Sealing and opening ---------------------------------------------------------------------------------


async def _kept(work: Work, row: Row[Any], content: bytes) -> bytes:
    """What is sent from now on: of two that make it at a time, what the first one made."""
    sealed = await work.vault.seal(
        DeliveryBody(content=content),
        store_id=row.store_id,
        subject_id=row.subject_id,
        bucket=str(row.request_id),
    )
    async with work.database.session(row.store_id) as session:
        values = {"id": row.id, "store_id": row.store_id, "body": sealed.box.payload}
        kept = (await session.execute(_KEEP, values)).scalar_one()
    return content if kept == sealed.box.payload else await _opened(work, row, kept)


async def _opened(work: Work, row: Row[Any], body: bytes) -> bytes:
    return (await _open(work, row, Sealed(DeliveryBody, body))).content


async def _open(work: Work, row: Row[Any], box: Sealed[Any]) -> Any:
    return await work.vault.open(
        box, store_id=row.store_id, subject_id=row.subject_id, purpose=Purpose.RIGHTS_OF_THE_PERSON
    )
