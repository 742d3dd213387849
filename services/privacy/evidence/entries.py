"""Steps of requests, noted in the transaction that takes them: one insert for any number of steps, and no hash yet.

An entry holds no personal data: ids, fixed words, counts, times, hashes and signatures. It names the request and never
its person. `placing.py` gives it its place in the log.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.db import fetch


class Step(StrEnum):
    """What happened to a request. The states it enters are steps under their own names."""

    OPENED = "opened"
    JOINED = "joined"
    """Somebody asked for the same again, before it was verified."""
    PROVED = "proved"
    """Something showed that the request is its person's."""
    VERIFIED = "verified"
    """It was enough, and the law's period began."""
    DECIDED = "decided"
    EXTENDED = "extended"
    STOPPED = "stopped"
    """The clock, for a question."""
    RESUMED = "resumed"
    ESCALATED = "escalated"
    ASSIGNED = "assigned"
    ISSUED = "issued"
    """A phase began: who was asked what."""
    ANSWERED = "answered"
    SETTLED = "settled"
    """Somebody answered for a participant, on which ground."""
    ANSWERED_FOR = "answered-for"
    """Who did."""
    ANSWERED_LATE = "answered-late"
    """A participant that had been answered for did answer: it changed nothing."""
    ANEW = "anew"
    """Another round: what was answered before does not count."""
    RUNNING = "running"
    CHECKING = "checking"
    COMPLETED = "completed"
    REFUSED = "refused"
    CANCELLED = "cancelled"
    DOCUMENT_RECEIVED = "document-received"
    DOCUMENT_OPENED = "document-opened"
    DOCUMENT_CHECKED = "document-checked"
    KEY_DESTROYED = "key-destroyed"
    """Of one document, or of a request that nobody verified."""
    TOLD = "told"
    """A mail was written."""
    CERTIFIED = "certified"
    KEPT_ENDED = "kept-ended"
    """What the law kept has expired."""


@dataclass(frozen=True, slots=True)
class Noted:
    """A step of a request."""

    request_id: UUID
    step: Step
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])


_NOTE = """
    INSERT INTO evidence_pending (store_id, request_id, kind, facts, at)
    SELECT $1, request_id, kind, facts, coalesce($2, now())
    FROM unnest($3::uuid[], $4::text[], $5::jsonb[])
        WITH ORDINALITY AS step (request_id, kind, facts, position)
    ORDER BY position
"""


async def note(
    session: AsyncSession, store_id: UUID, steps: Sequence[Noted], *, now: datetime | None = None
) -> None:
    """Note steps in their order; whoever calls has locked their requests in this transaction."""
    if steps:
        await fetch(
            session, _NOTE, store_id, now,
            [one.request_id for one in steps],
            [one.step.value for one in steps],
            [_json(one.facts) for one in steps],
        )  # fmt: skip


def _json(facts: Mapping[str, Any]) -> str:
    """Without what is not known; ids of the driver are none of the standard library's."""
    known = {name: value for name, value in facts.items() if value is not None}
    return orjson.dumps(known, default=str).decode()
