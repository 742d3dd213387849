"""What a recipient found for an access: put into the person's archive as it came, beside what participants held."""

import hashlib
from base64 import b64encode
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.events.privacy import ExportedRecords
from libs.common.personal.data import Sealed
from libs.common.worker import Work
from services.privacy.recipients.protocols import Said

TABLE = "results"


async def sealed(work: Work, row: Row[Any], said: Said) -> Sealed[ExportedRecords] | None:
    """The box of what was found, if anything was. Raises SubjectErased, KeyringUnavailable."""
    if row.request_id is None or not (said.files or said.links):
        return None
    async with work.database.session(row.store_id) as session:
        name = await session.scalar(_NAME, {"id": row.recipient_id, "store_id": row.store_id})
    box = await work.vault.seal(
        ExportedRecords(records=_records(said, name or "")),
        store_id=row.store_id,
        subject_id=row.subject_id,
        bucket=str(row.request_id),
    )
    return box.box


_NAME = text("SELECT name FROM recipient WHERE id = :id AND store_id = :store_id")


def _records(said: Said, name: str) -> list[dict[str, Any]]:
    files = [
        {
            "facts": {"recipient": name},
            "data": {
                "file": {
                    "name": one.name,
                    "media_type": one.media_type,
                    "content": b64encode(one.content).decode(),
                }
            },
        }
        for one in said.files
    ]
    links = [{"facts": {"recipient": name}, "data": {"address": link}} for link in said.links]
    return [{"table": TABLE, "kind": None, "attached": {}, **one} for one in (*files, *links)]


# In the round that the request is in, as the answer after it.
_KEEP = text("""
    INSERT INTO export_chunk AS chunk
        (request_id, participant, sequence, store_id, subject_id, generation, round, box, hash)
    SELECT id, :participant, 0, store_id, :subject_id, :generation, round, :box, :hash FROM request
    WHERE id = :request_id AND store_id = :store_id AND state = 'running'
    ON CONFLICT (request_id, participant, sequence)
        DO UPDATE SET round = excluded.round, box = excluded.box, hash = excluded.hash
""")


async def keep(
    session: AsyncSession, row: Row[Any], participant: str, box: Sealed[ExportedRecords]
) -> dict[str, Any]:
    """Keep the box until the archive is made. Returns what the answer says of it."""
    digest = hashlib.sha256(box.payload).digest()
    values = {
        "request_id": row.request_id,
        "store_id": row.store_id,
        "subject_id": row.subject_id,
        "generation": row.generation,
        "participant": participant,
        "box": box.payload,
        "hash": digest,
    }
    await session.execute(_KEEP, values)
    return {"chunks": 1, "digest": hashlib.sha256(digest).hexdigest()}
