"""Mails about requests: what is to be written is noted with the request's change, and written and sealed here."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import uuid4

from babel.dates import format_date
from sqlalchemy import Row, insert, text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.db import ALL_STORES, Query, ring_after_commit
from libs.common.errors import Problem
from libs.common.mail import CHANNEL as LETTERS_CHANNEL
from libs.common.mail import RequestLetter, WaitingLetter
from libs.common.personal.data import Sealed
from libs.common.personal.errors import KeyDestroyed, SubjectErased
from libs.common.personal.vault import SealedFor, ToOpen, ToSeal
from libs.common.personal.vocabulary import Purpose, Retention
from libs.common.worker import Work
from services.privacy.domain.states import DOWNLOAD_DAYS, DOWNLOADS, KEYRING
from services.privacy.kinds import RequestContact
from services.privacy.models import Download
from services.privacy.service.opening import hashed

_LEASE_SECONDS = 30.0
_AT_ONCE = 100
_TOKEN_BYTES = 32

_CLAIM = Query("""
    WITH claimed AS (
        UPDATE notice SET due_at = now() + make_interval(secs => :lease)
        WHERE id IN (SELECT id FROM notice WHERE due_at <= now()
                     ORDER BY due_at LIMIT :limit FOR UPDATE SKIP LOCKED)
        RETURNING id, request_id, template, reader
    )
    SELECT request.*, claimed.id AS notice_id, template, reader, (
        SELECT jsonb_agg(kept || jsonb_build_object('participant', task.participant))
        FROM task, jsonb_array_elements(task.answer -> 'retained') AS kept
        WHERE task.request_id = request.id AND task.verb = 'erase' AND task.state = 'retained'
    ) AS retained FROM claimed JOIN request ON request.id = claimed.request_id
""")
_WRITTEN = text("DELETE FROM notice WHERE id = ANY(CAST(:ids AS uuid[])) RETURNING id")


@dataclass(frozen=True, slots=True)
class _Draft:
    """A letter that is not sealed yet, and the link it gives, if it gives one."""

    row: Row[Any]
    letter: RequestLetter
    link: dict[str, Any] | None


async def write(work: Work) -> int:
    """Write the mails that are due. Returns 0 unless more are waiting."""
    async with work.database.transaction(ALL_STORES) as transaction:
        rows = await _CLAIM.rows(transaction, lease=_LEASE_SECONDS, limit=_AT_ONCE)
    if not rows:
        return 0
    drafts = [
        _drafted(row, contact, work.settings.public_url, datetime.now(UTC))
        for row, contact in zip(rows, await _contacts(work, rows), strict=True)
        if contact is not None
    ]
    letters = await _sealed(work, drafts)
    async with work.database.platform_session() as session:
        # What was superseded meanwhile, by the end of the request for instance, is not sent.
        values = {"ids": [row.notice_id for row in rows]}
        written = set((await session.scalars(_WRITTEN, values)).all())
        await _post(session, [(one, box) for one, box in letters if one.row.notice_id in written])
    return len(rows) // _AT_ONCE


async def _contacts(work: Work, rows: Sequence[Row[Any]]) -> list[RequestContact | None]:
    """Where each is answered; None where the person was erased by another request."""
    full = [row for row in rows if row.contact is not None]
    boxes = [ToOpen(Sealed(RequestContact, row.contact), row.store_id, row.subject_id) for row in full]
    opened = await work.vault.open_many(boxes, purpose=Purpose.RIGHTS_OF_THE_PERSON)
    by_id = {row.notice_id: _unless_erased(contact) for row, contact in zip(full, opened, strict=True)}
    return [by_id.get(row.notice_id) for row in rows]


def _unless_erased(contact: RequestContact | Problem) -> RequestContact | None:
    if isinstance(contact, KeyDestroyed):
        return None
    if isinstance(contact, Problem):
        raise contact
    return contact


async def _sealed(work: Work, drafts: Sequence[_Draft]) -> list[tuple[_Draft, SealedFor[RequestLetter]]]:
    items = [
        ToSeal(draft.letter, draft.row.store_id, draft.row.subject_id, bucket=str(draft.row.id))
        for draft in drafts
    ]
    sealed = await work.vault.seal_many(items) if items else []
    for one in sealed:
        if isinstance(one, Problem) and not isinstance(one, SubjectErased):
            raise one
    return [(draft, one) for draft, one in zip(drafts, sealed, strict=True) if isinstance(one, SealedFor)]


async def _post(session: AsyncSession, letters: Sequence[tuple[_Draft, SealedFor[RequestLetter]]]) -> None:
    if not letters:
        return
    await session.execute(insert(WaitingLetter), [_waiting(draft, sealed) for draft, sealed in letters])
    links = [draft.link for draft, _ in letters if draft.link is not None]
    if links:
        await session.execute(insert(Download), links)
    ring_after_commit(session, LETTERS_CHANNEL)


def _waiting(draft: _Draft, sealed: SealedFor[RequestLetter]) -> dict[str, Any]:
    return {
        "id": uuid4(),
        "store_id": draft.row.store_id,
        "subject_id": draft.row.subject_id,
        "generation": draft.row.generation,
        "kind": RequestLetter.__name__,
        "box": sealed.box.payload,
    }


# --- What they say ---------------------------------------------------------------------------------------

_KEPT: Mapping[str, Mapping[str, str]] = {
    Retention.ACCOUNTING: {
        "en": "accounting records, invoices among them",
        "fr": "les pièces comptables, dont les factures",
    },
    Retention.REQUEST: {
        "en": "this request, as the proof that it was answered",
        "fr": "cette demande, comme preuve qu’il y a été répondu",
    },
}
_UNTIL = {"en": "until {}", "fr": "jusqu’au {}"}
_UNTIL_SETTLED = {
    "en": "as long as the answer can be disputed",
    "fr": "tant que la réponse peut être contestée",
}


def _drafted(row: Row[Any], contact: RequestContact, public_url: str, now: datetime) -> _Draft:
    language = contact.language
    values = {"store_id": str(row.store_id), "request_id": str(row.id), "claim": row.claim}
    link = None
    match row.template:
        case "request-received":
            values["due_on"] = _day(row.due_on, language)
        case "erasure-done":
            values["kept"] = "\n".join(_kept(row.retained or [], language))
        case _:
            token = secrets.token_urlsafe(_TOKEN_BYTES)
            expires_at = now + timedelta(days=DOWNLOAD_DAYS)
            link = _link(row, token, expires_at)
            values["link"] = f"{public_url}/privacy/download?language={language}#token={token}"
            values["expires_on"] = _day(expires_at.date(), language)
            values["times"] = str(DOWNLOADS)
    letter = RequestLetter(to=contact.email, template=row.template, language=language, values=values)
    return _Draft(row, letter, link)


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


def _kept(retained: Sequence[Mapping[str, Any]], language: str) -> list[str]:
    """A line for each thing that stays: what, until when, on what ground. The keyring's own rows say the same again."""
    lines: list[str] = []
    for kept in retained:
        if kept["participant"] == KEYRING:
            continue
        what = _KEPT.get(kept["retention"], {}).get(language, kept["kind"])
        until = (
            _UNTIL[language].format(_day(date.fromisoformat(kept["until"]), language))
            if kept["until"]
            else (_UNTIL_SETTLED[language])
        )
        lines.append(f"- {what}, {until} ({kept['ground']})")
    return sorted(set(lines))


def _day(day: date, language: str) -> str:
    return format_date(day, format="long", locale=language)
