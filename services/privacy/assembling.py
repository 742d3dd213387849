"""Archives are assembled once, when everybody has answered, into sealed pieces; then their requests are complete.

Until the last piece is there nothing of an archive can be fetched. Who makes it says so again and again; a worker
that falls silent is given up, and the next begins anew, whose pieces take the place of the first one's.
"""

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
from joserfc.jwk import ECKey
from sqlalchemy import Row, text

from libs.common.errors import Unavailable
from libs.common.events.privacy import Verb
from libs.common.personal.data import Sealed
from libs.common.personal.errors import KeyDestroyed, SubjectErased
from libs.common.personal.vocabulary import Purpose
from libs.common.worker import Work
from services.privacy.archive import archive
from services.privacy.archive.export import IN_MEMORY, Export
from services.privacy.domain.states import State
from services.privacy.engine.phases import turn
from services.privacy.kinds import PIECE_BYTES, ArchivePiece, RequestContact

logger = logging.getLogger(__name__)

_LEASE_SECONDS = 30.0
"""Of silence, after which another may begin; the more often an archive failed, the longer, up to ten minutes."""
_AGAIN_SECONDS = 2.0
_LONGEST_SECONDS = 600.0


class _Superseded(Exception):
    """The request has ended, or another makes its archive now: what was made here is of no use."""


_CLAIM = text("""
    WITH claimed AS (
        UPDATE archive SET attempts = attempts + 1,
            due_at = now() + make_interval(secs => least(:longest, :lease * 2 ^ least(attempts, 20)))
        WHERE request_id = (
            SELECT request_id FROM archive WHERE state = 'making' AND due_at <= now()
            ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED)
        RETURNING request_id, round, attempts
    )
    SELECT request.id, request.store_id, request.subject_id, request.generation, claim, opened_at, contact,
        claimed.round, claimed.attempts,
        request.state = 'running' AND request.round = claimed.round AND contact IS NOT NULL AS wanted
    FROM claimed JOIN request ON request.id = claimed.request_id
""")


async def assemble(work: Work) -> int:
    """Make the archive that has waited longest. Returns 0 when none waits."""
    async with work.database.platform_session() as session:
        claimed = (
            await session.execute(_CLAIM, {"lease": _LEASE_SECONDS, "longest": _LONGEST_SECONDS})
        ).one_or_none()
    if claimed is None:
        return 0
    try:
        if not claimed.wanted:
            raise _Superseded
        async with _holding(work, claimed):
            await _assemble(work, claimed)
    except (KeyDestroyed, SubjectErased, _Superseded):
        await _drop(work, claimed)
    except Unavailable:
        await _put_back(work, claimed)
        raise
    return 1


async def _assemble(work: Work, claimed: Row[Any]) -> None:
    export = await _export(work, claimed)
    key = ECKey.import_key(orjson.loads(work.settings.service_key.get_secret_value()))
    digest = hashlib.sha256()
    # The first to make it finds nothing that another left.
    if claimed.attempts > 1:
        await _begin(work, claimed)
    size = pieces = 0
    last = b""
    async for piece in _of_one_size(archive(export, key=key)):
        if last:
            await _keep(work, claimed, pieces - 1, last)
        last = piece
        digest.update(piece)
        size += len(piece)
        pieces += 1
    await _finish(work, claimed, last, pieces=pieces, size=size, sha256=digest.digest())
    logger.info("archive is ready", extra={"request_id": str(claimed.id), "count": pieces})


async def _of_one_size(content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    gathered = bytearray()
    async for part in content:
        gathered += part
        while len(gathered) >= PIECE_BYTES:
            yield bytes(gathered[:PIECE_BYTES])
            del gathered[:PIECE_BYTES]
    if gathered:
        yield bytes(gathered)


# --- What it is made from --------------------------------------------------------------------------------

_ANSWERS = text("""
    SELECT participant, answer FROM task
    WHERE request_id = :id AND verb = :verb AND state = 'done' ORDER BY participant
""")
_DATA_MAP = text("SELECT data_map FROM participant ORDER BY name")
_CHUNKS = text("""
    SELECT participant, sequence, box FROM export_chunk
    WHERE request_id = :id AND round = :round
        AND (SELECT sum(octet_length(box)) FROM export_chunk WHERE request_id = :id) <= :room
    ORDER BY participant, sequence
""")


async def _export(work: Work, claimed: Row[Any]) -> Export:
    contact = await work.vault.open(
        Sealed(RequestContact, claimed.contact),
        store_id=claimed.store_id,
        subject_id=claimed.subject_id,
        purpose=Purpose.RIGHTS_OF_THE_PERSON,
    )
    async with work.database.session(claimed.store_id) as session:
        answers = (await session.execute(_ANSWERS, {"id": claimed.id, "verb": Verb.EXPORT})).all()
        maps = (await session.scalars(_DATA_MAP)).all()
        made_at = await session.scalar(text("SELECT date_trunc('second', now())"))
        chunks = await session.execute(_CHUNKS, {"id": claimed.id, "round": claimed.round, "room": IN_MEMORY})
    export = Export(
        request_id=claimed.id,
        store_id=claimed.store_id,
        subject_id=claimed.subject_id,
        right=claimed.claim,
        language=contact.language,
        opened_at=claimed.opened_at,
        made_at=made_at,
        chunks={one.participant: one.answer["chunks"] for one in answers if one.answer["chunks"]},
        counts={one.participant: one.answer["counts"] for one in answers},
        data_map=[entry for one in maps for entry in one],
        database=work.database,
        vault=work.vault,
    )
    await export.keep([(one.participant, one.sequence, one.box) for one in chunks])
    return export


# --- Who makes it ----------------------------------------------------------------------------------------

_HOLD = text("""
    UPDATE archive SET due_at = now() + make_interval(secs => :lease)
    WHERE request_id = :id AND attempts = :attempt AND state = 'making' RETURNING request_id
""")


@asynccontextmanager
async def _holding(work: Work, claimed: Row[Any]) -> AsyncGenerator[None]:
    """While the block runs, say that somebody is at it."""
    saying = asyncio.create_task(_say(work, claimed))
    try:
        yield
    finally:
        saying.cancel()
        await asyncio.gather(saying, return_exceptions=True)


async def _say(work: Work, claimed: Row[Any]) -> None:
    while True:
        await asyncio.sleep(_LEASE_SECONDS / 3)
        # One that is not heard is followed by the next; and pieces are refused once another has begun.
        with contextlib.suppress(Unavailable):
            async with work.database.session(claimed.store_id) as session:
                await session.execute(_HOLD, _mine(claimed) | {"lease": _LEASE_SECONDS})


async def _put_back(work: Work, claimed: Row[Any]) -> None:
    async with work.database.session(claimed.store_id) as session:
        await session.execute(_HOLD, _mine(claimed) | {"lease": _AGAIN_SECONDS})


def _mine(claimed: Row[Any]) -> dict[str, Any]:
    return {"id": claimed.id, "attempt": claimed.attempts}


# --- Keeping it ------------------------------------------------------------------------------------------

# The request's row first, as everywhere: an erasure that ends it waits for this, and then finds all there is.
_STILL_WANTED = text("""
    SELECT id FROM request WHERE id = :id AND state = 'running' AND round = :round FOR UPDATE
""")
_STILL_MINE = text("""
    SELECT request_id FROM archive WHERE request_id = :id AND attempts = :attempt AND state = 'making' FOR UPDATE
""")
_EMPTY = text("DELETE FROM archive_piece WHERE request_id = :id")
_PIECE = text("""
    INSERT INTO archive_piece (request_id, sequence, store_id, subject_id, generation, size, box)
    VALUES (:id, :sequence, :store_id, :subject_id, :generation, :size, :box)
""")
_READY = text("""
    UPDATE archive SET state = 'ready', pieces = :pieces, size = :size, sha256 = :sha256, ready_at = now()
    WHERE request_id = :id
""")
_FORGET_CHUNKS = text("DELETE FROM export_chunk WHERE request_id = :id")
_DROP = text("""
    WITH dropped AS (
        DELETE FROM archive WHERE request_id = :id AND attempts = :attempt AND state = 'making' RETURNING request_id
    )
    DELETE FROM archive_piece USING dropped WHERE archive_piece.request_id = dropped.request_id
""")


@asynccontextmanager
async def _changing(work: Work, claimed: Row[Any]) -> AsyncGenerator[Any]:
    """A transaction in which the archive is still to be made, and by this worker. Raises _Superseded."""
    async with work.database.session(claimed.store_id) as session:
        wanted = await session.scalar(_STILL_WANTED, {"id": claimed.id, "round": claimed.round})
        if wanted is None or await session.scalar(_STILL_MINE, _mine(claimed)) is None:
            raise _Superseded
        yield session


async def _begin(work: Work, claimed: Row[Any]) -> None:
    async with _changing(work, claimed) as session:
        await session.execute(_EMPTY, {"id": claimed.id})


async def _keep(work: Work, claimed: Row[Any], sequence: int, content: bytes) -> None:
    piece = await _sealed(work, claimed, sequence, content)
    async with _changing(work, claimed) as session:
        await session.execute(_PIECE, piece)


async def _finish(
    work: Work, claimed: Row[Any], last: bytes, *, pieces: int, size: int, sha256: bytes
) -> None:
    """The last piece, the archive, the end of its chunks and of the request: all of it, or nothing."""
    piece = await _sealed(work, claimed, pieces - 1, last)
    values = {"id": claimed.id, "pieces": pieces, "size": size, "sha256": sha256}
    async with _changing(work, claimed) as session:
        await session.execute(_PIECE, piece)
        await session.execute(_READY, values)
        await session.execute(_FORGET_CHUNKS, {"id": claimed.id})
        await turn(session, claimed.store_id, [claimed], State.COMPLETED)


async def _sealed(work: Work, claimed: Row[Any], sequence: int, content: bytes) -> dict[str, Any]:
    sealed = await work.vault.seal(
        ArchivePiece(content=content),
        store_id=claimed.store_id,
        subject_id=claimed.subject_id,
        bucket=str(claimed.id),
    )
    if sealed.generation != claimed.generation:
        raise SubjectErased
    return {
        "id": claimed.id,
        "sequence": sequence,
        "store_id": claimed.store_id,
        "subject_id": claimed.subject_id,
        "generation": claimed.generation,
        "size": len(content),
        "box": sealed.box.payload,
    }


async def _drop(work: Work, claimed: Row[Any]) -> None:
    logger.info("archive is not wanted any more", extra={"request_id": str(claimed.id)})
    async with work.database.session(claimed.store_id) as session:
        await session.execute(_DROP, _mine(claimed))
