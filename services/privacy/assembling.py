"""Archives are assembled once, when everybody has answered, into sealed pieces; then their requests are complete.

Until the last piece is there nothing of an archive can be fetched. A large one is made alone, as a stream: who makes
it says so again and again; a worker that falls silent is given up, and the next begins anew, whose pieces take the
place of the first one's. Small ones, which most are, are made together: what surrounds each costs more than the thing
itself.
"""

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from joserfc.jwk import ECKey
from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.errors import Problem, Unavailable
from libs.common.events.privacy import Verb
from libs.common.personal.data import Sealed
from libs.common.personal.errors import KeyDestroyed, SubjectErased
from libs.common.personal.vault import SealedFor, ToOpen, ToSeal, unless_destroyed
from libs.common.personal.vocabulary import Purpose
from libs.common.worker import Work
from services.privacy.archive import archive
from services.privacy.archive.export import IN_MEMORY, DataMap, Export, Language, keep
from services.privacy.domain.states import State
from services.privacy.engine.phases import turn
from services.privacy.evidence.placing import key_of
from services.privacy.kinds import PIECE_BYTES, ArchivePiece, RequestContact

logger = logging.getLogger(__name__)

_LEASE_SECONDS = 30.0
"""Of silence, after which another may begin; the more often an archive failed, the longer, up to ten minutes."""
_AGAIN_SECONDS = 2.0
_LONGEST_SECONDS = 600.0
_TOGETHER = 25
_SMALL = 128 * 1024
"""Bytes of boxes, up to which an archive is made together with others: most people have a tenth of it."""


class _Superseded(Exception):
    """The request has ended, or another makes its archive now: what was made here is of no use."""


# One that failed before is made alone, so that it keeps no other from being made.
_CLAIM = text("""
    WITH waiting AS (
        SELECT request_id, due_at, attempts FROM archive WHERE state = 'making' AND due_at <= now()
        ORDER BY due_at LIMIT :together FOR UPDATE SKIP LOCKED
    ), sized AS (
        SELECT request_id, row_number() OVER (ORDER BY due_at, request_id) AS place, attempts = 0 AND (
            SELECT coalesce(sum(octet_length(box)), 0) FROM export_chunk
            WHERE export_chunk.request_id = waiting.request_id) <= :small AS small
        FROM waiting
    ), claimed AS (
        UPDATE archive SET attempts = attempts + 1,
            due_at = now() + make_interval(secs => least(:longest, :lease * 2 ^ least(attempts, 20)))
        WHERE request_id IN (
            SELECT request_id FROM sized WHERE place = 1 OR small AND (SELECT small FROM sized WHERE place = 1))
        RETURNING request_id, round, attempts
    )
    SELECT request.id, request.store_id, request.subject_id, request.generation, claim, opened_at, contact,
        claimed.round, claimed.attempts, known.language AS store_language,
        request.state = 'running' AND request.round = claimed.round
            AND (contact IS NOT NULL OR request.way = 'opendsr') AS wanted
    FROM claimed JOIN request ON request.id = claimed.request_id
        LEFT JOIN known_store AS known ON known.store_id = request.store_id
""")


@dataclass(frozen=True, slots=True)
class _Made:
    """An archive that is made, but for its last pieces, which are still to be kept."""

    claimed: Row[Any]
    last: Sequence[bytes]
    pieces: int
    size: int
    sha256: bytes


async def assemble(work: Work) -> int:
    """Make the archive that has waited longest, and if it is small others that are. Returns 0 when none waits."""
    async with work.database.platform_session() as session:
        values = {
            "lease": _LEASE_SECONDS,
            "longest": _LONGEST_SECONDS,
            "together": _TOGETHER,
            "small": _SMALL,
        }
        claimed = (await session.execute(_CLAIM, values)).all()
    try:
        finished = await _make([one for one in claimed if one.wanted], work)
    except Unavailable:
        await _put_back(work, claimed)
        raise
    for one in claimed:
        if one.id not in finished:
            await _drop(work, one)
    return len(claimed)


async def _make(claimed: Sequence[Row[Any]], work: Work) -> set[UUID]:
    """Returns the requests that are complete; the others have ended otherwise, or their archive is another's."""
    exports, key = await _exports(work, claimed), key_of(work.settings)
    match exports:
        case []:
            return set()
        case [(one, export)]:
            async with _holding(work, one):
                made = [await _large(work, one, export, key)]
        case _:
            made = [await _small(one, export, key) for one, export in exports]
    return await _finish(work, [one for one in made if one is not None])


async def _small(claimed: Row[Any], export: Export, key: ECKey) -> _Made:
    pieces = [piece async for piece in _of_one_size(archive(export, key=key))]
    # Nothing of a small archive is waited for, and whoever else runs here has waited for it.
    await asyncio.sleep(0)
    content = b"".join(pieces)
    return _Made(claimed, pieces, len(pieces), len(content), hashlib.sha256(content).digest())


async def _large(work: Work, claimed: Row[Any], export: Export, key: ECKey) -> _Made | None:
    digest = hashlib.sha256()
    size = pieces = 0
    last = b""
    try:
        # The first to make it finds nothing that another left.
        if claimed.attempts > 1:
            await _begin(work, claimed)
        async for piece in _of_one_size(archive(export, key=key)):
            if last:
                await _keep(work, claimed, pieces - 1, last)
            last = piece
            digest.update(piece)
            size += len(piece)
            pieces += 1
    except (KeyDestroyed, SubjectErased, _Superseded):
        return None
    return _Made(claimed, [last], pieces, size, digest.digest())


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
    SELECT request_id, participant, answer FROM task
    WHERE request_id = ANY(CAST(:ids AS uuid[])) AND verb = :verb AND state = 'done' ORDER BY participant
""")
_ANNOUNCED = text("SELECT name, announced_at FROM participant ORDER BY name")
_DATA_MAP = text("SELECT data_map FROM participant ORDER BY name")
_CHUNKS = text("""
    SELECT request_id, participant, sequence, box
    FROM export_chunk JOIN unnest(CAST(:ids AS uuid[]), CAST(:rounds AS bigint[])) AS given (request_id, round)
        USING (request_id, round)
    WHERE (SELECT sum(octet_length(other.box)) FROM export_chunk AS other
           WHERE other.request_id = given.request_id) <= :room
    ORDER BY request_id, participant, sequence
""")


async def _exports(work: Work, claimed: Sequence[Row[Any]]) -> list[tuple[Row[Any], Export]]:
    """What each archive is made from, with the records that there is room for; without those whose keys are gone."""
    languages = await _languages(work, claimed)
    known = [one for one in claimed if one.id in languages]
    if not known:
        return []
    values = {"ids": [one.id for one in known], "rounds": [one.round for one in known]}
    async with work.database.platform_session() as session:
        answers = (await session.execute(_ANSWERS, values | {"verb": Verb.EXPORT})).all()
        data_map = await _data_map(session)
        made_at = await session.scalar(text("SELECT date_trunc('second', now())"))
        chunks = (await session.execute(_CHUNKS, values | {"room": IN_MEMORY})).all()
    exports: list[tuple[Row[Any], Export]] = []
    for one in known:
        of_one = [answer for answer in answers if answer.request_id == one.id]
        export = Export(
            request_id=one.id,
            store_id=one.store_id,
            subject_id=one.subject_id,
            right=one.claim,
            language=languages[one.id],
            opened_at=one.opened_at,
            made_at=made_at,
            chunks={
                given.participant: given.answer["chunks"] for given in of_one if given.answer.get("chunks")
            },
            counts={given.participant: given.answer["counts"] for given in of_one},
            data_map=data_map,
            database=work.database,
            vault=work.vault,
        )
        exports.append((one, export))
    boxes = [(one.request_id, one.participant, one.sequence, one.box) for one in chunks]
    kept = await keep([export for _, export in exports], boxes, vault=work.vault)
    return [(one, export) for one, export in exports if one.id in kept]


_data_maps: dict[tuple[tuple[str, datetime], ...], DataMap] = {}
"""The one that is in force, by who announced it when."""


async def _data_map(session: AsyncSession) -> DataMap:
    announced = tuple((name, at) for name, at in await session.execute(_ANNOUNCED))
    if announced not in _data_maps:
        entries = [entry for one in await session.scalars(_DATA_MAP) for entry in one]
        _data_maps.clear()
        _data_maps[announced] = DataMap(entries)
    return _data_maps[announced]


async def _languages(work: Work, claimed: Sequence[Row[Any]]) -> dict[UUID, Language]:
    """The person's, unless their key is gone; the store's where a tool of its own asked."""
    asked = [one for one in claimed if one.contact is not None]
    boxes = [ToOpen(Sealed(RequestContact, one.contact), one.store_id, one.subject_id) for one in asked]
    opened = await work.vault.open_many(boxes, purpose=Purpose.RIGHTS_OF_THE_PERSON) if boxes else []
    languages: dict[UUID, Language] = {
        one.id: "fr" if one.store_language == "fr" else "en" for one in claimed if one.contact is None
    }
    for one, found in zip(asked, opened, strict=True):
        if (contact := unless_destroyed(found)) is not None:
            languages[one.id] = contact.language
    return languages


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


async def _put_back(work: Work, claimed: Sequence[Row[Any]]) -> None:
    async with work.database.platform_session() as session:
        for one in claimed:
            await session.execute(_HOLD, _mine(one) | {"lease": _AGAIN_SECONDS})


def _mine(claimed: Row[Any]) -> dict[str, Any]:
    return {"id": claimed.id, "attempt": claimed.attempts}


# --- Keeping it ------------------------------------------------------------------------------------------

# The request's row first, as everywhere: an erasure that ends it waits for this, and then finds all there is.
_STILL_WANTED = text("""
    SELECT id FROM request JOIN unnest(CAST(:ids AS uuid[]), CAST(:rounds AS bigint[])) AS given (id, round)
        USING (id, round)
    WHERE state = 'running' ORDER BY id FOR UPDATE OF request
""")
_STILL_MINE = text("""
    SELECT request_id FROM archive
    JOIN unnest(CAST(:ids AS uuid[]), CAST(:attempts AS bigint[])) AS given (request_id, attempts)
        USING (request_id, attempts)
    WHERE state = 'making' ORDER BY request_id FOR UPDATE OF archive
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
_FORGET_CHUNKS = text("DELETE FROM export_chunk WHERE request_id = ANY(CAST(:ids AS uuid[]))")
_DROP = text("""
    WITH dropped AS (
        DELETE FROM archive WHERE request_id = :id AND attempts = :attempt AND state = 'making' RETURNING request_id
    )
    DELETE FROM archive_piece USING dropped WHERE archive_piece.request_id = dropped.request_id
""")


async def _still(session: AsyncSession, claimed: Sequence[Row[Any]]) -> set[UUID]:
    """Those whose archives are still to be made, and by this worker; locked."""
    given = {
        "ids": [one.id for one in claimed],
        "rounds": [one.round for one in claimed],
        "attempts": [one.attempts for one in claimed],
    }
    wanted = set(await session.scalars(_STILL_WANTED, given))
    return wanted & set(await session.scalars(_STILL_MINE, given))


@asynccontextmanager
async def _changing(work: Work, claimed: Row[Any]) -> AsyncGenerator[AsyncSession]:
    """A transaction in which the archive is still to be made, and by this worker. Raises _Superseded."""
    async with work.database.session(claimed.store_id) as session:
        if not await _still(session, [claimed]):
            raise _Superseded
        yield session


async def _begin(work: Work, claimed: Row[Any]) -> None:
    async with _changing(work, claimed) as session:
        await session.execute(_EMPTY, {"id": claimed.id})


async def _keep(work: Work, claimed: Row[Any], sequence: int, content: bytes) -> None:
    [piece] = await _sealed(work, [(claimed, sequence, content)])
    if piece is None:
        raise SubjectErased
    async with _changing(work, claimed) as session:
        await session.execute(_PIECE, piece)


async def _finish(work: Work, made: Sequence[_Made]) -> set[UUID]:
    """The last pieces, the archives, the end of their chunks and of their requests: of each all of it, or nothing.

    Returns the requests that are complete.
    """
    last = [
        (one.claimed, number, content)
        for one in made
        for number, content in enumerate(one.last, one.pieces - len(one.last))
    ]
    sealed = await _sealed(work, last)
    erased = {claimed.id for (claimed, *_), piece in zip(last, sealed, strict=True) if piece is None}
    whole = [one for one in made if one.claimed.id not in erased]
    finished: set[UUID] = set()
    for store_id in dict.fromkeys(one.claimed.store_id for one in whole):
        async with work.database.session(store_id) as session:
            of_store = [one for one in whole if one.claimed.store_id == store_id]
            still = await _still(session, [one.claimed for one in of_store])
            done = [one for one in of_store if one.claimed.id in still]
            if done:
                await session.execute(_PIECE, [piece for piece in sealed if piece and piece["id"] in still])
                await session.execute(_READY, [_ready(one) for one in done])
                await session.execute(_FORGET_CHUNKS, {"ids": sorted(still)})
                await turn(session, store_id, [one.claimed for one in done], State.COMPLETED)
        finished |= still
    for one in made:
        if one.claimed.id in finished:
            extra = {"request_id": str(one.claimed.id), "count": one.pieces}
            logger.info("archive is ready", extra=extra)
    return finished


def _ready(made: _Made) -> dict[str, Any]:
    return {"id": made.claimed.id, "pieces": made.pieces, "size": made.size, "sha256": made.sha256}


async def _sealed(work: Work, contents: Sequence[tuple[Row[Any], int, bytes]]) -> list[dict[str, Any] | None]:
    """A row for each piece; None where its person is erased meanwhile. Raises KeyringUnavailable."""
    items = [
        ToSeal(ArchivePiece(content=content), one.store_id, one.subject_id, bucket=str(one.id))
        for one, _, content in contents
    ]
    sealed = await work.vault.seal_many(items)
    if other := [one for one in sealed if isinstance(one, Problem) and not isinstance(one, SubjectErased)]:
        raise other[0]
    return [
        {
            "id": one.id,
            "sequence": sequence,
            "store_id": one.store_id,
            "subject_id": one.subject_id,
            "generation": one.generation,
            "size": len(content),
            "box": piece.box.payload,
        }
        if isinstance(piece, SealedFor) and piece.generation == one.generation
        else None
        for (one, sequence, content), piece in zip(contents, sealed, strict=True)
    ]


async def _drop(work: Work, claimed: Row[Any]) -> None:
    logger.info("archive is not wanted any more", extra={"request_id": str(claimed.id)})
    async with work.database.session(claimed.store_id) as session:
        await session.execute(_DROP, _mine(claimed))
