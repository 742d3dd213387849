"""Looking at what is left."""

from collections.abc import Sequence

from libs.common.db import Query, Transaction
from libs.common.personal.vocabulary import Purpose, Retention
from services.privacy.keyring.schemas import LiveKey, LiveObjection, SubjectAsked, SubjectStatus

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
