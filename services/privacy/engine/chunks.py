"""Pieces of exports: kept until the signed answer behind them says whether they are the right ones."""

from collections.abc import Iterable, Sequence
from hashlib import sha256
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.events.privacy import ExportChunk, Verb
from services.privacy.engine.tasks import Answer

# Only of a request that runs, and only from who was asked: anything else is dropped.
_KEEP_CHUNKS = text("""
    INSERT INTO export_chunk AS chunk
        (request_id, participant, sequence, store_id, subject_id, generation, round, box, hash)
    SELECT request.id, given.participant, given.sequence, request.store_id, request.subject_id,
        request.generation, request.round, given.box, given.hash
    FROM unnest(CAST(:requests AS uuid[]), CAST(:participants AS text[]), CAST(:rounds AS bigint[]),
        CAST(:sequences AS bigint[]), CAST(:boxes AS bytea[]), CAST(:hashes AS bytea[]))
        AS given (request_id, participant, round, sequence, box, hash)
    JOIN request ON request.id = given.request_id AND request.round = given.round
        AND request.store_id = :store_id AND request.claim IN ('access', 'portability') AND request.state = 'running'
    JOIN task ON task.request_id = request.id AND task.participant = given.participant
        AND task.verb = 'export' AND task.state IN ('waiting', 'failed')
    ORDER BY request.id, given.participant, given.sequence
    ON CONFLICT (request_id, participant, sequence)
        DO UPDATE SET round = excluded.round, box = excluded.box, hash = excluded.hash
""")
_HASHES = text("""
    SELECT request_id, participant, string_agg(hash, CAST('' AS bytea) ORDER BY sequence) AS hashes
    FROM export_chunk
    JOIN unnest(CAST(:requests AS uuid[]), CAST(:participants AS text[]), CAST(:rounds AS bigint[]),
        CAST(:chunks AS bigint[])) AS given (request_id, participant, round, chunks)
        USING (request_id, participant, round)
    WHERE sequence < chunks
    GROUP BY request_id, participant
""")


async def keep_chunks(session: AsyncSession, store_id: UUID, chunks: Iterable[ExportChunk]) -> None:
    """Keep pieces of exports until their answer binds them. One sent again takes the place of the first."""
    last = {(chunk.request_id, chunk.participant, chunk.sequence): chunk for chunk in chunks}.values()
    await session.execute(
        _KEEP_CHUNKS,
        {
            "store_id": store_id,
            "requests": [chunk.request_id for chunk in last],
            "participants": [chunk.participant for chunk in last],
            "rounds": [chunk.round for chunk in last],
            "sequences": [chunk.sequence for chunk in last],
            "boxes": [chunk.box.payload for chunk in last],
            "hashes": [sha256(chunk.box.payload).digest() for chunk in last],
        },
    )


async def incomplete(session: AsyncSession, answers: Sequence[Answer]) -> list[Answer]:
    """Exports whose chunks are not those the participant signed for: some were lost, or are somebody else's."""
    exports = [
        answer for answer in answers if answer.verb is Verb.EXPORT and answer.content.get("chunks", 0) > 0
    ]
    if not exports:
        return []
    rows = await session.execute(
        _HASHES,
        {
            "requests": [answer.request_id for answer in exports],
            "participants": [answer.participant for answer in exports],
            "rounds": [answer.round for answer in exports],
            "chunks": [answer.content["chunks"] for answer in exports],
        },
    )
    found = {(row.request_id, row.participant): sha256(row.hashes).hexdigest() for row in rows}
    return [
        answer
        for answer in exports
        if found.get((answer.request_id, answer.participant)) != answer.content.get("digest")
    ]
