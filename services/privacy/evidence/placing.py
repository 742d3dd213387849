"""Steps that were noted get their place in their store's log: one transaction gives it to a batch and signs a head.

A lock per store lets one worker at a time do so; what is placed leaves `evidence_pending` in the transaction that
places it, so a crash at any line leaves all of a batch waiting, or none. The order is that in which steps became
visible, in which those of one request follow each other as they were noted.
"""

import logging
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from joserfc.jwk import ECKey
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.db import ALL_STORES, fetch
from libs.common.errors import Unavailable
from libs.common.settings import ServiceSettings
from libs.common.worker import Work
from services.privacy.evidence.reading import hashes_of
from vitrine import merkle, signing
from vitrine.heads import Head
from vitrine.merkle import Growing, Span

logger = logging.getLogger(__name__)

_AT_ONCE = 1000
_LOCK_CLASS = 7_002

_WAITING = "SELECT DISTINCT store_id FROM evidence_pending ORDER BY store_id"


async def place(work: Work) -> int:
    """Place what waits, store by store. Returns 0 unless more may be waiting.

    Nobody rings for it: a head a second says as much as a head a step, and costs a hundredth.
    """
    async with work.database.transaction(ALL_STORES) as transaction:
        stores = [row.store_id for row in await fetch(transaction, _WAITING)]
    key = key_of(work.settings)
    placed = 0
    for store_id in stores:
        try:
            placed = max(placed, await place_in(work, store_id, key))
        except Unavailable:
            raise
        except Exception:
            # A log that somebody has tampered with cannot grow; those of other stores do.
            logger.exception("the log of a store cannot grow", extra={"store_id": str(store_id)})
    return placed // _AT_ONCE


def key_of(settings: ServiceSettings) -> ECKey:
    """What this service signs with; `/privacy/v1/keys.json` publishes it."""
    return ECKey.import_key(orjson.loads(settings.service_key.get_secret_value()))


# The snapshots that read the log must be younger than the lock, so this is a statement of its own.
_LOCK = f"SELECT pg_try_advisory_xact_lock({_LOCK_CLASS}, hashtext($1::text)) AS mine"
# As an array, the chosen are looked up by key. How long a queue is, no statistics say: to join with it, PostgreSQL read
# all of it again for each step.
_TAKE = """
    DELETE FROM evidence_pending WHERE store_id = $1 AND id = ANY(ARRAY(
        SELECT id FROM evidence_pending WHERE store_id = $1 ORDER BY id LIMIT $2
    )) RETURNING id, entry_id, request_id, kind, facts, at
"""
_SIZE = "SELECT max(size) AS size FROM evidence_head WHERE store_id = $1"


async def place_in(work: Work, store_id: UUID, key: ECKey) -> int:
    """Place a batch of one store, and say how many there were; 0 also while another worker is at it."""
    async with work.database.session(store_id) as session:
        [lock] = await fetch(session, _LOCK, str(store_id))
        if not lock.mine:
            return 0
        steps = sorted(await fetch(session, _TAKE, store_id, _AT_ONCE), key=lambda step: step.id)
        if steps:
            [last] = await fetch(session, _SIZE, store_id)
            size = last.size or 0
            edge = await hashes_of(session, store_id, Span(0, size).subtrees)
            growing = Growing(size, edge)
            await _append(session, store_id, growing, steps)
            await _sign(session, Head(str(store_id), growing.size, growing.root, work.clock()), key)
    return len(steps)


_LEAVES = """
    INSERT INTO evidence_leaf (store_id, index, hash, nodes)
    SELECT $1, $2 + position - 1, hash, nodes
    FROM unnest($3::bytea[], $4::bytea[]) WITH ORDINALITY AS leaf (hash, nodes, position)
"""
_ENTRIES = """
    INSERT INTO evidence_entry (store_id, index, request_id, kind, at, content)
    SELECT $1, $2 + position - 1, request_id, kind, at, content
    FROM unnest($3::uuid[], $4::text[], $5::timestamptz[], $6::bytea[])
        WITH ORDINALITY AS entry (request_id, kind, at, content, position)
"""


async def _append(session: AsyncSession, store_id: UUID, growing: Growing, steps: Sequence[Any]) -> None:
    first = growing.size
    contents = [_content(store_id, step) for step in steps]
    completed = [growing.append(merkle.leaf_hash(content)) for content in contents]
    await fetch(
        session,
        _LEAVES,
        store_id,
        first,
        [one[0] for one in completed],
        [b"".join(one[1:]) for one in completed],
    )
    await fetch(session, _ENTRIES, store_id, first, *_columns(steps), contents)


def _columns(steps: Iterable[Any]) -> tuple[list[UUID], list[str], list[datetime]]:
    chosen = [*steps]
    return [one.request_id for one in chosen], [one.kind for one in chosen], [one.at for one in chosen]


def _content(store_id: UUID, step: Any) -> bytes:
    """The bytes of an entry: what its hash is of, and what an auditor reads."""
    return signing.canonical(
        {
            "id": str(step.entry_id),
            "store": str(store_id),
            "request": str(step.request_id),
            "step": step.kind,
            "at": step.at.isoformat(),
            "facts": step.facts if isinstance(step.facts, dict) else orjson.loads(step.facts),
        }
    )


_HEAD = """
    WITH published AS (
        INSERT INTO published_key (kid, key) VALUES ($6, $7::jsonb) ON CONFLICT DO NOTHING
    )
    INSERT INTO evidence_head (store_id, size, root, signed_at, signature) VALUES ($1, $2, $3, $4, $5)
"""


async def _sign(session: AsyncSession, head: Head, key: ECKey) -> None:
    """The key goes along: one that has signed anything stays published."""
    public = orjson.dumps(public_key(key)).decode()
    await fetch(
        session,
        _HEAD,
        UUID(head.log),
        head.size,
        head.root,
        head.at,
        head.sign(key),
        signing.key_id(key),
        public,
    )


def public_key(key: ECKey) -> dict[str, Any]:
    """The key as it is published (RFC 7517)."""
    known = {**key.as_dict(private=False), "use": "sig", "alg": signing.ALGORITHM}
    return {name: value for name, value in known.items() if isinstance(value, str)} | {
        "kid": signing.key_id(key)
    }
