"""Mails about requests: what is to be written is noted with the request's change, and written and sealed here."""

import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID, uuid4

from sqlalchemy import Row, insert, text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.auth import PLATFORM_STORE
from libs.common.db import ALL_STORES, Query, Transaction, fetch, ring_after_commit
from libs.common.errors import Problem
from libs.common.mail import CHANNEL as LETTERS_CHANNEL
from libs.common.mail import Letter, RequestLetter, WaitingLetter
from libs.common.personal.data import PersonalData, Sealed
from libs.common.personal.errors import KeyDestroyed, KeyRestricted, SubjectErased
from libs.common.personal.vault import SealedFor, ToOpen, ToSeal, unless_destroyed
from libs.common.personal.vocabulary import Clock, Purpose
from libs.common.worker import Work
from services.privacy import wording
from services.privacy.domain.states import DOWNLOAD_DAYS, DOWNLOADS
from services.privacy.kinds import AgentContact, DeskAddress, NoteText, RequestContact
from services.privacy.models import Download
from services.privacy.retention.clocks import start, start_of_own
from services.privacy.service.opening import hashed
from services.privacy.wording import Recipients

logger = logging.getLogger(__name__)

M = TypeVar("M", bound=PersonalData)
_Box = SealedFor[Any]
_LEASE_SECONDS = 30.0
_AT_ONCE = 100
_TOKEN_BYTES = 32

# What is kept and was refused is looked for once something was done.
_CLAIM = Query("""
    WITH claimed AS (
        UPDATE notice SET due_at = CAST(:now AS timestamptz) + make_interval(secs => :lease)
        WHERE id IN (SELECT id FROM notice WHERE due_at <= CAST(:now AS timestamptz)
                     ORDER BY due_at LIMIT :limit FOR UPDATE SKIP LOCKED)
        RETURNING id, request_id, template, reader, note_id
    )
    SELECT request.*, claimed.id AS notice_id, template, reader, note.box AS note, known.name AS store_name,
        known.country, head.size AS log_size, encode(head.root, 'hex') AS log_root, chosen.branding,
        desk.store_id AS desk_store_id, desk.subject_id AS desk_subject_id, desk.box AS desk, (
            SELECT jsonb_agg(answer || jsonb_strip_nulls(jsonb_build_object('participant', task.participant,
                'recipient', (SELECT name FROM recipient WHERE recipient.id = task.recipient_id)))) FROM task
            WHERE task.request_id = request.id AND request.state = 'completed' AND answer IS NOT NULL
                AND verb IN ('erase', 'rectify', 'restrict', 'lift-restriction', 'object')
        ) AS answers
    FROM claimed JOIN request ON request.id = claimed.request_id
        LEFT JOIN request_note AS note ON note.id = claimed.note_id
        LEFT JOIN known_store AS known ON known.store_id = request.store_id
        LEFT JOIN LATERAL (
            SELECT size, root FROM evidence_head WHERE evidence_head.store_id = request.store_id
                AND request.state IN ('completed', 'refused') ORDER BY size DESC LIMIT 1
        ) AS head ON true
        LEFT JOIN privacy_settings AS chosen ON chosen.store_id = request.store_id
        LEFT JOIN privacy_desk AS desk ON reader IN ('officer', 'platform')
            AND desk.store_id = CASE WHEN reader = 'platform' OR known.state <> 'open'
                THEN CAST(:platform AS uuid) ELSE request.store_id END
""")
_RECIPIENTS = """
    SELECT participant.name AS participant, entry ->> 'table' AS held, array_agg(DISTINCT recipient) AS recipients
    FROM participant, jsonb_array_elements(data_map) AS entry,
        jsonb_array_elements_text(entry -> 'recipients') AS recipient
    GROUP BY 1, 2
"""
_WRITTEN = text("""
    WITH written AS (
        DELETE FROM notice WHERE id = ANY(CAST(:ids AS uuid[])) RETURNING id, store_id, request_id, template, reader
    ), evidence AS (
        INSERT INTO evidence_pending (store_id, request_id, kind, at, facts)
        SELECT store_id, request_id, 'told', CAST(:now AS timestamptz),
            jsonb_build_object('template', template, 'reader', reader)
        FROM written WHERE id = ANY(CAST(:drafted AS uuid[]))
    )
    SELECT id FROM written
""")


@dataclass(frozen=True, slots=True)
class _Draft:
    """A letter that is not sealed yet, whose box it will be, and the link it gives, if it gives one."""

    row: Row[Any]
    letter: RequestLetter | Letter
    store_id: UUID
    subject_id: UUID
    bucket: str = ""
    link: dict[str, Any] | None = None


async def write(work: Work) -> int:
    """Write the mails that are due. Returns 0 unless more are waiting."""
    now = work.clock()
    async with work.database.transaction(ALL_STORES) as transaction:
        rows = await _CLAIM.rows(
            transaction, now=now, lease=_LEASE_SECONDS, limit=_AT_ONCE, platform=PLATFORM_STORE
        )
        recipients = await _recipients(transaction) if any(row.answers for row in rows) else {}
    if not rows:
        return 0
    drafts = [
        *await _to_people(work, [row for row in rows if row.reader == "person"], recipients, now),
        *await _to_officers(work, [row for row in rows if row.reader in {"officer", "platform"}]),
        *await _to_agents(work, [row for row in rows if row.reader == "agent"]),
    ]
    letters = await _sealed(work, drafts)
    async with work.database.platform_session() as session:
        # What was superseded meanwhile, by the end of the request for instance, is not sent.
        ids = [row.notice_id for row in rows]
        drafted = [one.row.notice_id for one, _ in letters]
        values = {"ids": ids, "drafted": drafted, "now": now}
        written = set((await session.scalars(_WRITTEN, values)).all())
        await _post(session, [(one, box) for one, box in letters if one.row.notice_id in written], now)
    return len(rows) // _AT_ONCE


async def _recipients(transaction: Transaction) -> Recipients:
    """Everybody's, by what they receive."""
    rows = await fetch(transaction, _RECIPIENTS)
    return {(row.participant, row.held): row.recipients for row in rows}


# --- Opening and sealing ---------------------------------------------------------------------------------


async def _to_people(
    work: Work, rows: Sequence[Row[Any]], recipients: Recipients, now: datetime
) -> list[_Draft]:
    """Their mails; none where the person was erased by another request."""
    contacts = await _opened(work, rows, "contact", RequestContact)
    agents = await _opened(work, rows, "agent", AgentContact)
    notes = await _opened(work, rows, "note", NoteText)
    drafts: list[_Draft] = []
    for row in rows:
        contact, note = contacts.get(row.notice_id), notes.get(row.notice_id)
        if contact is not None and (row.note is None or note is not None):
            drafts.append(
                _to_person(
                    row,
                    contact,
                    agent=agents.get(row.notice_id),
                    public_url=work.settings.public_url,
                    text=note.text if note is not None else "",
                    recipients=recipients,
                    now=now,
                )
            )
    return drafts


async def _opened(work: Work, rows: Sequence[Row[Any]], column: str, kind: type[M]) -> dict[UUID, M]:
    """By notice, what a box of the request holds; nothing where its key was destroyed."""
    full = [row for row in rows if getattr(row, column) is not None]
    if not full:
        return {}
    boxes = [ToOpen(Sealed(kind, getattr(row, column)), row.store_id, row.subject_id) for row in full]
    opened = await work.vault.open_many(boxes, purpose=Purpose.RIGHTS_OF_THE_PERSON)
    found = {row.notice_id: unless_destroyed(one) for row, one in zip(full, opened, strict=True)}
    return {notice_id: one for notice_id, one in found.items() if one is not None}


async def _to_officers(work: Work, rows: Sequence[Row[Any]]) -> list[_Draft]:
    """Mails to the privacy desk of a store, or of the platform, where it named an address."""
    full = [row for row in rows if row.desk is not None]
    if len(full) < len(rows):
        logger.warning("no privacy desk to write to", extra={"count": len(rows) - len(full)})
    boxes = [ToOpen(Sealed(DeskAddress, row.desk), row.desk_store_id, row.desk_subject_id) for row in full]
    opened = await work.vault.open_many(boxes, purpose=Purpose.SERVICE_MAIL) if boxes else []
    drafts: list[_Draft] = []
    for row, address in zip(full, opened, strict=True):
        if isinstance(address, DeskAddress):
            drafts.append(_to_officer(work, row, address))
        elif not isinstance(address, KeyDestroyed | KeyRestricted):
            raise address
    return drafts


async def _to_agents(work: Work, rows: Sequence[Row[Any]]) -> list[_Draft]:
    """Mails to whoever asked on a person's behalf: how it went, and nothing about the person."""
    agents = await _opened(work, rows, "agent", AgentContact)
    return [_to_agent(row, agents[row.notice_id]) for row in rows if row.notice_id in agents]


async def _sealed(work: Work, drafts: Sequence[_Draft]) -> list[tuple[_Draft, _Box]]:
    items = [ToSeal(draft.letter, draft.store_id, draft.subject_id, bucket=draft.bucket) for draft in drafts]
    sealed = await work.vault.seal_many(items) if items else []
    for one in sealed:
        if isinstance(one, Problem) and not isinstance(one, SubjectErased | KeyDestroyed):
            raise one
    return [(draft, one) for draft, one in zip(drafts, sealed, strict=True) if isinstance(one, SealedFor)]


async def _post(session: AsyncSession, letters: Sequence[tuple[_Draft, _Box]], now: datetime) -> None:
    if not letters:
        return
    await session.execute(insert(WaitingLetter), [_waiting(draft, sealed) for draft, sealed in letters])
    links = [draft.link for draft, _ in letters if draft.link is not None]
    if links:
        await session.execute(insert(Download), links)
        for draft in (draft for draft, _ in letters if draft.link is not None):
            ready = start_of_own(draft.row, Clock.EXPORT_READY, draft.row.id, at=now)
            await start(session, draft.store_id, [ready])
    ring_after_commit(session, LETTERS_CHANNEL)


def _waiting(draft: _Draft, sealed: _Box) -> dict[str, Any]:
    return {
        "id": uuid4(),
        "store_id": draft.store_id,
        "subject_id": draft.subject_id,
        "generation": sealed.generation,
        "kind": type(draft.letter).__name__,
        "box": sealed.box.payload,
    }


# --- What they say ---------------------------------------------------------------------------------------


def _to_person(
    row: Row[Any],
    contact: RequestContact,
    *,
    agent: AgentContact | None,
    public_url: str,
    text: str,
    recipients: Recipients,
    now: datetime,
) -> _Draft:
    url, language = public_url, contact.language
    status = (
        f"{url}/privacy/request?language={language}#token={contact.status_token}"
        if contact.status_token
        else ""
    )
    more = {"agent": agent.name, "agent_email": agent.email} if agent is not None else {"agent": ""}
    link = None
    if row.template == "export-ready":
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        expires_at = now + timedelta(days=DOWNLOAD_DAYS)
        link = _link(row, token, expires_at)
        more |= {
            "link": f"{url}/privacy/download?language={language}#token={token}",
            "expires_on": wording.day(expires_at.date(), language),
            "times": str(DOWNLOADS),
        }
    values = wording.for_person(row, language, text=text, status=status, recipients=recipients, link=more)
    letter = RequestLetter(to=contact.email, template=row.template, language=language, values=values)
    return _Draft(row, letter, row.store_id, row.subject_id, str(row.id), link)


def _to_officer(work: Work, row: Row[Any], address: DeskAddress) -> _Draft:
    desk = f"{work.settings.public_url}/privacy/v1/stores/{row.store_id}/requests/{row.id}"
    values = wording.for_officer(row, address.language, desk=desk)
    letter = Letter(to=address.email, template=row.template, language=address.language, values=values)
    return _Draft(row, letter, row.desk_store_id, row.desk_subject_id)


def _to_agent(row: Row[Any], agent: AgentContact) -> _Draft:
    values = {"store": row.store_name or "", "request_id": str(row.id)}
    letter = RequestLetter(to=agent.email, template=row.template, language=agent.language, values=values)
    return _Draft(row, letter, row.store_id, row.subject_id, str(row.id))


def _link(row: Row[Any], token: str, expires_at: datetime) -> dict[str, Any]:
    return {
        "token_hash": hashed(token),
        "request_id": row.id,
        "store_id": row.store_id,
        "subject_id": row.subject_id,
        "generation": row.generation,
        "expires_at": expires_at,
        "remaining": DOWNLOADS,
    }
