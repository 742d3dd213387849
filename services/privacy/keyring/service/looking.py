"""Looking at what is left."""

from collections.abc import Sequence
from uuid import UUID

from libs.common.db import Query, Transaction
from libs.common.personal.vocabulary import Purpose, Retention
from services.privacy.keyring.schemas import (
    Fate,
    LiveKey,
    LiveObjection,
    Place,
    Restoration,
    SubjectAsked,
    SubjectStatus,
)

_STATUS = Query("""
    SELECT asked.position, person.generation AS present, person.erased_at IS NOT NULL AS erased,
        key.key_id, key.retention, key.bucket, key.generation, key.state, key.expires_on,
        key.retired_at IS NOT NULL AS retired
    FROM unnest(CAST(:stores AS uuid[]), CAST(:subjects AS uuid[]))
        WITH ORDINALITY AS asked (store_id, subject_id, position)
    LEFT JOIN subject AS person USING (store_id, subject_id)
    LEFT JOIN data_key AS key USING (store_id, subject_id)
    ORDER BY asked.position, key.generation, key.retention, key.bucket, key.epoch
""")
_OBJECTIONS = Query("""
    SELECT asked.position, generation, purpose
    FROM unnest(CAST(:stores AS uuid[]), CAST(:subjects AS uuid[]))
        WITH ORDINALITY AS asked (store_id, subject_id, position)
    JOIN objection USING (store_id, subject_id)
    ORDER BY asked.position, generation, purpose
""")


async def status(transaction: Transaction, *, subjects: Sequence[SubjectAsked]) -> list[SubjectStatus]:
    """The keys that still open, without their material, and what was objected to."""
    answers = [
        SubjectStatus(
            store_id=asked.store_id,
            subject_id=asked.subject_id,
            generation=0,
            erased=False,
            keys=[],
            objections=[],
        )
        for asked in subjects
    ]
    asked = {"stores": [one.store_id for one in subjects], "subjects": [one.subject_id for one in subjects]}
    for row in await _STATUS.rows(transaction, **asked):
        answer = answers[row.position - 1]
        answer.generation, answer.erased = row.present or 0, row.erased
        if row.key_id is not None:
            answer.keys.append(
                LiveKey(
                    key_id=row.key_id,
                    retention=Retention(row.retention),
                    bucket=row.bucket,
                    generation=row.generation,
                    state=row.state,
                    retired=row.retired,
                    expires_on=row.expires_on,
                )
            )
    for row in await _OBJECTIONS.rows(transaction, **asked):
        objection = LiveObjection(generation=row.generation, purpose=Purpose(row.purpose))
        answers[row.position - 1].objections.append(objection)
    return answers


# --- What a restored database lacks ----------------------------------------------------------------------

_RESTORATIONS = Query("SELECT id, taken_at FROM restoration ORDER BY restored_at")


async def restorations(transaction: Transaction) -> list[Restoration]:
    """From which backups this keyring was restored."""
    rows = await _RESTORATIONS.rows(transaction)
    return [Restoration(restoration_id=row.id, taken_at=row.taken_at) for row in rows]


_FATES = Query("""
    SELECT store_id, subject_id, generation, bool_or(erased) AS erased, bool_or(restricted) AS restricted
    FROM (
        SELECT store_id, subject_id, generation - CASE WHEN erased_at IS NULL THEN 1 ELSE 0 END AS generation,
            true AS erased, false AS restricted
        FROM subject WHERE erased_at IS NOT NULL OR generation > 1
        UNION ALL
        SELECT DISTINCT store_id, subject_id, generation, false, true FROM data_key WHERE state = 'restricted'
    ) AS known
    WHERE (store_id, subject_id, generation)
        > (CAST(:store_id AS uuid), CAST(:subject_id AS uuid), CAST(:generation AS bigint))
    GROUP BY store_id, subject_id, generation ORDER BY store_id, subject_id, generation LIMIT :limit
""")
_AT_ONCE = 1000
_NOBODY = UUID(int=0)


async def fates(transaction: Transaction, *, after: Place | None) -> list[Fate]:
    """Whose data is erased, up to which generation, and whose is on hold: a batch of them."""
    after = after or Place(store_id=_NOBODY, subject_id=_NOBODY, generation=0)
    rows = await _FATES.rows(transaction, **after.model_dump(), limit=_AT_ONCE)
    return [Fate.model_validate(dict(row)) for row in rows]
