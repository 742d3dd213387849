"""Certificates: what is certified about a request once it has ended, and completed when what was kept has ended.

One is issued when the log has the end of its request, under a head that covers it, and no sooner than any opened key
has been forgotten everywhere. What is signed is kept for ever; it holds no personal data. Proofs are computed when
somebody fetches it, since leaves never change.
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import orjson
from joserfc.jwk import ECKey
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.db import fetch
from libs.common.personal.vocabulary import Bucket, Retention
from libs.common.telemetry import joint_spans
from libs.common.worker import Work
from services.privacy.domain.problems import NotCertified
from services.privacy.engine.phases import lapse
from services.privacy.evidence import reading
from services.privacy.evidence.entries import Noted, Step, note
from services.privacy.evidence.placing import key_of
from services.privacy.evidence.summing import Said, end_of, listed, summed, with_ended
from services.privacy.schemas import CertificateStanding
from services.privacy.settings import present
from vitrine import merkle, signing

logger = logging.getLogger(__name__)

_AT_ONCE = 100
_AGAIN = timedelta(seconds=2)
_MENDED = timedelta(minutes=10)
"""Until a certificate that could not be made is tried again."""

# --- Issuing ---------------------------------------------------------------------------------------------

_DUE = """
    SELECT due.request_id, due.store_id, known.name AS store_name, last.number, last.size, last.content,
        (SELECT traceparent FROM request WHERE request.id = due.request_id) AS traceparent
    FROM certificate_due AS due LEFT JOIN known_store AS known ON known.store_id = due.store_id
        LEFT JOIN LATERAL (
            SELECT number, size, content FROM certificate WHERE request_id = due.request_id
            ORDER BY number DESC LIMIT 1
        ) AS last ON true
    WHERE due_at <= $1 ORDER BY due_at LIMIT $2 FOR UPDATE OF due SKIP LOCKED
"""
_ENTRIES = """
    SELECT entry.request_id, entry.index, leaf.hash, entry.content
    FROM evidence_entry AS entry JOIN evidence_leaf AS leaf USING (store_id, index)
    WHERE entry.request_id = ANY($1::uuid[]) ORDER BY entry.request_id, entry.index
"""
_UNPLACED = "SELECT DISTINCT request_id FROM evidence_pending WHERE request_id = ANY($1::uuid[])"
_LATER = "UPDATE certificate_due SET due_at = $2 WHERE request_id = ANY($1::uuid[])"
_ISSUED = """
    INSERT INTO certificate (store_id, issued_at, size, request_id, number, id, content, signature)
    SELECT $1, $2, $3, request_id, number, id, content, signature
    FROM unnest($4::uuid[], $5::bigint[], $6::uuid[], $7::bytea[], $8::text[])
        AS issued (request_id, number, id, content, signature)
"""
_NO_LONGER_DUE = "DELETE FROM certificate_due WHERE request_id = ANY($1::uuid[])"


class _Issued(NamedTuple):
    request_id: UUID
    number: int
    id: UUID
    content: bytes
    signature: str


async def issue(work: Work) -> int:
    """Issue the certificates that are due. Returns 0 unless more may be."""
    now, key = work.clock(), key_of(work.settings)
    async with work.database.platform_session() as session:
        due = await fetch(session, _DUE, now, _AT_ONCE)
        for store_id in sorted({one.store_id for one in due}):
            of_store = [one for one in due if one.store_id == store_id]
            await _issue_in(session, store_id, of_store, key=key, now=now)
    return len(due) // _AT_ONCE


async def _issue_in(
    session: AsyncSession, store_id: UUID, due: Sequence[Any], *, key: ECKey, now: datetime
) -> None:
    requests = [one.request_id for one in due]
    entries: dict[UUID, list[Any]] = {request_id: [] for request_id in requests}
    for row in await fetch(session, _ENTRIES, requests):
        entries[row.request_id].append(row)
    unplaced = {one.request_id for one in await fetch(session, _UNPLACED, requests)}
    head = await reading.latest_head(session, store_id)
    if head is None:
        # Nothing of this store has its place in the log yet.
        await fetch(session, _LATER, requests, now + _AGAIN)
        return
    later: list[UUID] = []
    broken: list[UUID] = []
    issued: list[_Issued] = []
    for one in due:
        try:
            said = [Said(row.index, row.hash, row.content) for row in entries[one.request_id]]
            # A certificate that completes another needs no entry of old: they may be gone.
            is_early = end_of(said) is None and one.number is None
            if one.request_id in unplaced or is_early:
                later.append(one.request_id)
                continue
            body = _body(one, said)
        except (KeyError, TypeError, ValueError):
            # One that cannot be made keeps no other waiting, though somebody may have altered what is said of it.
            logger.exception("a certificate cannot be made", extra={"request_id": str(one.request_id)})
            broken.append(one.request_id)
            continue
        if body is not None:
            issued.append(_issued(one, body, head, key=key, now=now))
    if issued:
        traces = {one.request_id: one.traceparent for one in due}
        with joint_spans((("certificate", traces[one.request_id]) for one in issued), service="privacy"):
            await fetch(session, _ISSUED, store_id, now, head.size, *map(list, zip(*issued, strict=True)))
            await note(session, store_id, [_certified(one) for one in issued], now=now)
    await fetch(session, _NO_LONGER_DUE, [*set(requests).difference(later, broken)])
    for some, pause in ((later, _AGAIN), (broken, _MENDED)):
        if some:
            await fetch(session, _LATER, some, now + pause)


def _body(due: Any, entries: Sequence[Said]) -> dict[str, Any] | None:
    return _completed(due, entries) if due.number else _first(due, entries)


def _issued(due: Any, body: Mapping[str, Any], head: Any, *, key: ECKey, now: datetime) -> _Issued:
    number, id_ = (due.number or 0) + 1, uuid4()
    issued = {
        "id": str(id_),
        "number": number,
        "issued_at": now.isoformat(),
        "head": head.signature,
        "log": {"size": head.size, "root": head.root.hex()},
    }
    content = signing.canonical({**body, **issued})
    signature = signing.detached(content, typ=signing.CERTIFICATE, key=key)
    return _Issued(due.request_id, number, id_, content, signature)


def _certified(issued: _Issued) -> Noted:
    sha256 = hashlib.sha256(issued.content).hexdigest()
    certified = {"certificate": str(issued.id), "number": issued.number, "sha256": sha256}
    return Noted(issued.request_id, Step.CERTIFIED, certified)


def _first(due: Any, entries: Sequence[Said]) -> dict[str, Any]:
    body = summed(entries, backup_days=present().keyring_backup_days)
    body["request"] = {"id": str(due.request_id), **body["request"]}
    return {
        "version": 1,
        "store": {"id": str(due.store_id), "name": due.store_name},
        **body,
        "kept": with_ended(body["kept"], entries),
        "completes": None,
        "entries": listed(entries),
    }


def _completed(due: Any, entries: Sequence[Said]) -> dict[str, Any] | None:
    """The certificate before, and what has ended since; None where nothing has."""
    before = orjson.loads(due.content)
    kept = with_ended(before["kept"], entries)
    if kept == before["kept"]:
        return None
    completes = {"id": before["id"], "sha256": hashlib.sha256(due.content).hexdigest()}
    ended = [one for one in entries if one.step == Step.KEPT_ENDED and one.index >= due.size]
    return before | {"kept": kept, "completes": completes, "entries": listed(ended)}


# --- What was kept has ended -----------------------------------------------------------------------------

_RETAINED = """EXISTS (
            SELECT FROM task WHERE task.request_id = request.id AND verb = 'erase' AND answer -> 'retained'
                @> jsonb_build_array(jsonb_build_object('retention', $2::text, 'bucket', $3::text)))"""
_OF_SUBJECT = f"""
    SELECT id FROM request
    WHERE store_id = $1 AND (subject_id = $4 AND generation >= $5 OR id = ANY($6::uuid[]))
        AND claim = 'erasure' AND state IN ('running', 'checking', 'completed') AND {_RETAINED}
    ORDER BY id FOR UPDATE
"""  # noqa: S608 - a constant of this module
_OF_SEVERAL = f"""
    SELECT id FROM request
    WHERE store_id = $1 AND several AND claim = 'erasure' AND state = 'completed' AND {_RETAINED}
    ORDER BY id FOR UPDATE
"""  # noqa: S608 - a constant of this module
# Whose a further address was nobody knows any more: of a year everybody's has to be over, so theirs is.
_OVER = """
    SELECT id FROM request
    WHERE id = ANY($4::uuid[]) AND NOT EXISTS (
        SELECT FROM expiry
        WHERE expiry.store_id = $1 AND expiry.retention = $2 AND expiry.bucket = $3 AND expiry.state <> 'over'
            AND (several AND $5 OR request.id = ANY(expiry.left_by)
                OR expiry.subject_id = request.subject_id AND expiry.generation <= request.generation))
    ORDER BY id
"""
_DUE_AGAIN = """
    INSERT INTO certificate_due AS due (request_id, store_id, due_at)
    SELECT id, $1, now() + make_interval(secs => $3) FROM request
    WHERE id = ANY($2::uuid[]) AND state = 'completed'
    ON CONFLICT (request_id) DO UPDATE SET due_at = greatest(due.due_at, excluded.due_at)
"""


async def kept_has_ended(
    session: AsyncSession,
    *,
    store_id: UUID,
    subject_id: UUID,
    generation: int,
    retention: str,
    bucket: str,
    left_by: Sequence[UUID] = (),
    on: date,
) -> None:
    """What the law, or a legal hold, kept of an erased person is gone since the day `on`: each erasure that had left
    it, and has nothing left of it, gets a certificate that completes its first; the first of one that has not ended yet
    says so itself. To say it again changes nothing.
    """
    found = await fetch(
        session, _OF_SUBJECT, store_id, retention, bucket, subject_id, generation, list(left_by)
    )
    ended = {"retention": retention, "bucket": bucket, "on": on.isoformat()}
    await _complete(session, store_id, [row.id for row in found], ended)


async def year_has_ended(
    session: AsyncSession, *, store_id: UUID, retention: str, bucket: str, on: date
) -> None:
    """Something of this year is gone: once nothing of it is left of anybody, so is what was kept under the further
    addresses of whoever had several.
    """
    found = await fetch(session, _OF_SEVERAL, store_id, retention, bucket)
    ended = {"retention": retention, "bucket": bucket, "on": on.isoformat()}
    await _complete(session, store_id, [row.id for row in found], ended)


async def _complete(
    session: AsyncSession, store_id: UUID, requests: Sequence[UUID], ended: Mapping[str, str]
) -> None:
    """Their rows are locked: of two that end the last of what was kept, the second sees what the first did."""
    retention, bucket = ended["retention"], ended["bucket"]
    is_year = Retention(retention).period.divided_by is Bucket.YEAR
    rows = await fetch(session, _OVER, store_id, retention, bucket, list(requests), is_year)
    if over := [row.id for row in rows]:
        await note(session, store_id, [Noted(one, Step.KEPT_ENDED, ended) for one in over])
        await fetch(session, _DUE_AGAIN, store_id, over, lapse().total_seconds())


# --- Fetching --------------------------------------------------------------------------------------------

_CERTIFICATES = """
    SELECT number, size, content, signature FROM certificate
    WHERE request_id = $1 AND store_id = $2 ORDER BY number
"""
_WAITING = "SELECT due_at FROM certificate_due WHERE request_id = $1 AND store_id = $2"
_CONTENTS = "SELECT index, content FROM evidence_entry WHERE store_id = $1 AND index = ANY($2::bigint[])"
_KEYS = "SELECT key FROM published_key ORDER BY since, kid"
# Whoever left, and perhaps came back with another key, had this one when they answered.
_ANNOUNCED = """
    SELECT DISTINCT ON (name) name, public_key FROM (
        SELECT name, public_key, departed_at AS until FROM departure
        UNION ALL SELECT name, public_key, 'infinity' FROM participant
    ) AS known JOIN unnest($1::text[], $2::timestamptz[]) AS part (name, answered_at) USING (name)
    WHERE until >= answered_at ORDER BY name, until
"""


async def document(session: AsyncSession, *, store_id: UUID, request_id: UUID) -> dict[str, Any]:
    """The newest certificate of a request, those it completes, and the proofs of what it rests on.

    Raises NotCertified.
    """
    rows = await fetch(session, _CERTIFICATES, request_id, store_id)
    if not rows:
        due = await fetch(session, _WAITING, request_id, store_id)
        raise NotCertified(**({"due_at": due[0].due_at.isoformat()} if due else {}))
    documents: list[dict[str, Any]] = [
        {
            "certificate": orjson.loads(row.content),
            "signature": row.signature,
            "evidence": await _proven(session, row, store_id),
        }
        for row in rows
    ]
    *before, newest = documents
    parts = newest["certificate"]["participants"]
    names = [one["participant"] for one in parts]
    answered = [datetime.fromisoformat(one["answered_at"]) for one in parts]
    return {
        **newest,
        "before": before,
        "keys": await published_keys(session),
        "participants": {
            row.name: row.public_key for row in await fetch(session, _ANNOUNCED, names, answered)
        },
    }


async def _proven(session: AsyncSession, row: Any, store_id: UUID) -> list[dict[str, Any]]:
    """What each entry says, while that is kept, and the way from it to the root of the log."""
    entries: list[tuple[int, str]] = [(index, hash_) for index, hash_ in orjson.loads(row.content)["entries"]]
    contents = {
        one.index: orjson.loads(one.content)
        for one in await fetch(session, _CONTENTS, store_id, [index for index, _ in entries])
    }
    ways = [merkle.inclusion(index, row.size) for index, _ in entries]
    hashes = iter(await reading.over(session, store_id, [span for way in ways for span in way]))
    return [
        {
            "index": index,
            "hash": hash_,
            "entry": contents.get(index),
            "path": [next(hashes).hex() for _ in way],
        }
        for (index, hash_), way in zip(entries, ways, strict=True)
    ]


_STANDING = """
    SELECT issued_at, due_at FROM (SELECT) AS one
    LEFT JOIN (
        SELECT issued_at FROM certificate WHERE request_id = $1 ORDER BY number DESC LIMIT 1
    ) AS newest ON true
    LEFT JOIN certificate_due ON request_id = $1
"""


async def standing(session: AsyncSession, request_id: UUID) -> CertificateStanding:
    """When the newest certificate of a request was issued, or will be."""
    [row] = await fetch(session, _STANDING, request_id)
    return CertificateStanding(issued_at=row.issued_at, due_at=row.due_at)


async def published_keys(session: AsyncSession) -> list[dict[str, Any]]:
    """Every key that ever signed a head here, oldest first."""
    return [row.key for row in await fetch(session, _KEYS)]
