"""What the privacy service keeps about people: it is a participant in its own requests."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.events.identity import AccountContact
from libs.common.events.privacy import ExportedRecords, Proposal, References
from libs.common.personal.holdings import COPIES, Copy, Holding, OnErase, OnRectify, Person
from services.privacy.engine.phases import NOTE_TURNED, TURNED
from services.privacy.holds import people_on_hold
from services.privacy.kinds import (
    AgentContact,
    ArchivePiece,
    DeskAddress,
    DocumentContent,
    NoteText,
    RequestContact,
)
from services.privacy.models import (
    Archive,
    ArchivePieceRow,
    ClosedAccount,
    DoomedKey,
    Download,
    DownloadGrant,
    Expiry,
    ExportChunk,
    PersonSubject,
    PrivacyDesk,
    Request,
    RequestNote,
    VerificationDocument,
)
from services.privacy.recipients.kinds import DeliveryBody
from services.privacy.recipients.models import Delivery, RequestReference

_CANCEL = text(f"""
    WITH ended AS (
        SELECT request.id FROM request
        JOIN unnest(CAST(:subjects AS uuid[]), CAST(:generations AS bigint[])) AS person (subject_id, generation)
            ON request.subject_id = person.subject_id AND request.generation <= person.generation
        WHERE request.store_id = :store_id
            AND (request.state IN ('received', 'verifying', 'deciding')
                OR request.state = 'running' AND request.claim IN ('access', 'portability', 'explanation'))
            AND NOT (request.way = 'opendsr' AND request.claim = 'erasure')
        ORDER BY request.id FOR UPDATE OF request
    ), silenced AS (
        UPDATE task SET next_issue_at = NULL FROM ended WHERE task.request_id = ended.id
    ), unwritten AS (
        DELETE FROM notice USING ended WHERE notice.request_id = ended.id
    ), turned AS (
        UPDATE request SET state = 'cancelled', watch = NULL, watch_at = NULL, version = version + 1,
            steps = steps || jsonb_build_array(jsonb_build_object('state', 'cancelled', 'at', now()))
        FROM ended WHERE request.id = ended.id
        RETURNING {TURNED}, now() AS at
    ), evidence AS ({NOTE_TURNED})
    INSERT INTO certificate_due (request_id, store_id, due_at)
    SELECT id, store_id, at FROM turned WHERE verified_at IS NOT NULL
""")  # noqa: S608 - a constant of this service


async def end_other_requests(session: AsyncSession, store_id: UUID, people: Sequence[Person]) -> None:
    """Of who is being erased nothing is exported, corrected or weighed any more: what is still open is cancelled."""
    await session.execute(
        _CANCEL,
        {
            "store_id": store_id,
            "subjects": [person.subject_id for person in people],
            "generations": [person.generation for person in people],
        },
    )


_NOTE_ERASED = text("""
    WITH noted AS (
        INSERT INTO document_check (document_id, request_id, store_id, outcome, at, openings, destroyed_at)
        SELECT document.id, document.request_id, document.store_id, 'erased', now(), document.openings, now()
        FROM verification_document AS document
        JOIN unnest(CAST(:subjects AS uuid[]), CAST(:generations AS bigint[])) AS person (subject_id, generation)
            ON document.subject_id = person.subject_id AND document.generation <= person.generation
        WHERE document.store_id = :store_id ON CONFLICT DO NOTHING
        RETURNING store_id, request_id, document_id, outcome
    )
    INSERT INTO evidence_pending (store_id, request_id, kind, facts)
    SELECT store_id, request_id, 'document-checked', jsonb_build_object('document', document_id, 'outcome', outcome)
    FROM noted
""")


async def note_erased_documents(session: AsyncSession, store_id: UUID, people: Sequence[Person]) -> None:
    """The keys of documents went with all others: that is on record too."""
    await session.execute(
        _NOTE_ERASED,
        {
            "store_id": store_id,
            "subjects": [person.subject_id for person in people],
            "generations": [person.generation for person in people],
        },
    )


HOLDINGS: Sequence[Holding] = (
    Holding(
        table=Request, box="contact", kind=RequestContact, bucket="id", on_erase=OnErase.CLEAR,
        describe=(
            "id", "claim", "law", "purpose", "category", "way", "state", "opened_at", "verified_at", "due_on",
            "decision", "ground", "completed_at",
        ),
        # With the address goes the link that was sent to it.
        clears=("status_hash", "also"), on_rectify=OnRectify.KEEP,
        before_erase=end_other_requests, obligations=people_on_hold,
    ),
    Holding(
        table=Request, box="proposal", kind=Proposal, bucket="id", on_erase=OnErase.CLEAR,
        on_rectify=OnRectify.KEEP,
    ),
    Holding(
        table=Request, box="agent", kind=AgentContact, bucket="id", on_erase=OnErase.CLEAR,
        on_rectify=OnRectify.KEEP,
    ),
    # Shown to the store, and destroyed then: no archive holds a copy.
    Holding(
        table=VerificationDocument, box="box", kind=DocumentContent, bucket="id", on_erase=OnErase.DELETE,
        exported=False, before_erase=note_erased_documents,
    ),
    Holding(table=DoomedKey, on_erase=OnErase.KEEP, exported=False),
    # Of what is erased nothing is counted any more; of what is kept this says until when.
    Holding(table=Expiry, on_erase=OnErase.KEEP, exported=False),
    Holding(
        table=RequestNote, box="box", kind=NoteText, bucket="request_id", on_erase=OnErase.DELETE,
        describe=("request_id", "about", "at"), on_rectify=OnRectify.KEEP,
    ),
    Holding(
        table=ClosedAccount, box="contact", kind=AccountContact, on_erase=OnErase.DELETE, exported=False,
        on_rectify=OnRectify.KEEP,
    ),
    Holding(table=PrivacyDesk, box="box", kind=DeskAddress, on_erase=OnErase.DELETE, on_rectify=OnRectify.KEEP),
    Holding(
        table=ExportChunk, box="box", kind=ExportedRecords, bucket="request_id", on_erase=OnErase.DELETE,
        exported=False,
    ),
    Holding(
        table=ArchivePieceRow, box="box", kind=ArchivePiece, bucket="request_id", on_erase=OnErase.DELETE,
        exported=False,
    ),
    # What is still to be told of whoever is erased meanwhile is told by their erasure.
    Holding(
        table=Delivery, box="body", kind=DeliveryBody, bucket="request_id", on_erase=OnErase.CLEAR, exported=False,
        on_rectify=OnRectify.KEEP,
    ),
    Holding(
        table=RequestReference, box="box", kind=References, bucket="request_id", on_erase=OnErase.DELETE,
        exported=False, on_rectify=OnRectify.KEEP,
    ),
    # Who was one person is known only for as long as there is one.
    Holding(table=PersonSubject, on_erase=OnErase.DELETE, exported=False),
    Holding(table=Archive, on_erase=OnErase.DELETE, exported=False),
    Holding(table=DownloadGrant, on_erase=OnErase.DELETE, exported=False),
    Holding(table=Download, on_erase=OnErase.DELETE, describe=("request_id", "created_at", "expires_at")),
)  # fmt: skip

HERE: Sequence[Copy] = (
    *COPIES,
    Copy(
        "attempts", "keyed hashes of e-mails and client addresses", "deleted an hour after they were counted"
    ),
)

_REQUESTS = (
    "GDPR, Art. 5(2) and 12: requests are answered for a store that is gone too, and end by themselves"
)
KEPT: Mapping[str, str] = {
    **dict.fromkeys(
        (
            *(
                "request",
                "notice",
                "task",
                "request_note",
                "verification_document",
                "document_check",
                "doomed_key",
                "redo",
            ),
            *(
                "export_chunk",
                "archive",
                "archive_piece",
                "download",
                "download_grant",
                "privacy_settings",
                "opendsr_controller",
                "opendsr_request",
                "opendsr_part",
                "opendsr_callback",
            ),
            *("recipient", "recipient_secret", "delivery", "delivery_attempt", "request_reference"),
        ),
        _REQUESTS,
    ),
    **dict.fromkeys(
        (
            *("evidence_pending", "evidence_leaf", "evidence_entry", "evidence_head"),
            *("certificate_due", "certificate"),
        ),
        "GDPR, Art. 5(2): the evidence of what was answered, which names nobody",
    ),
    **dict.fromkeys(("store_ending", "store_ending_part"), "That the store ended, and what was kept of it"),
    **dict.fromkeys(
        ("expiry", "retention_settings", "legal_hold"),
        "Until when what is kept stays: it ends by itself then",
    ),
}
"""What stays of a store that has ended."""
