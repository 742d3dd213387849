"""Giving keys a last day, and destroying those whose day is over."""

import logging
from collections import defaultdict
from collections.abc import Sequence
from datetime import date, timedelta
from uuid import UUID

from libs.common.db import ALL_STORES, Database, Query, Row, Transaction
from services.privacy.destructions import service as destructions
from services.privacy.keyring.domain import NEVER_RESTRICTED, WHOLE
from services.privacy.keyring.schemas import Changed, ExpiredBucket, ExpiryAsked
from services.privacy.keyring.service.rows import DELETE, LOCK, bucket_columns

logger = logging.getLogger(__name__)

_EXPIRE = Query("""
    UPDATE data_key AS key SET expires_on = asked.expires_on
    FROM unnest(CAST(:stores AS uuid[]), CAST(:subjects AS uuid[]), CAST(:generations AS bigint[]),
        CAST(:retentions AS text[]), CAST(:buckets AS text[]), CAST(:days AS date[]))
        AS asked (store_id, subject_id, generation, retention, bucket, expires_on)
    WHERE (key.store_id, key.subject_id, key.generation, key.retention, key.bucket)
            = (asked.store_id, asked.subject_id, asked.generation, asked.retention, asked.bucket)
        AND key.expires_on IS DISTINCT FROM asked.expires_on
""")
_KEYS = Query("""
    SELECT asked.position, key_id, state, expires_on,
        person.present > generation OR person.erased_at IS NOT NULL AS erased
    FROM unnest(CAST(:stores AS uuid[]), CAST(:subjects AS uuid[]), CAST(:generations AS bigint[]),
        CAST(:retentions AS text[]), CAST(:buckets AS text[]))
        WITH ORDINALITY AS asked (store_id, subject_id, generation, retention, bucket, position)
    JOIN data_key USING (store_id, subject_id, generation, retention, bucket)
    JOIN (SELECT store_id, subject_id, generation AS present, erased_at FROM subject) AS person
        USING (store_id, subject_id)
    ORDER BY asked.position, epoch
""")


async def expire(transaction: Transaction, *, expiries: Sequence[ExpiryAsked]) -> list[Changed]:
    """Set the last day of every key of these buckets, later or earlier; what is destroyed stays so.

    Of two days for one bucket in a batch the last one counts.
    """
    last = list({one.place: one for one in expiries}.values())
    await LOCK.rows(transaction, **bucket_columns(last))
    await _EXPIRE.rows(transaction, **bucket_columns(last), days=[one.expires_on for one in last])
    keys: dict[int, int] = defaultdict(int)
    for row in await _KEYS.rows(transaction, **bucket_columns(expiries)):
        keys[row.position] += 1
    return [
        Changed(
            store_id=one.store_id,
            subject_id=one.subject_id,
            generation=one.generation,
            keys=keys[position],
        )
        for position, one in enumerate(expiries, start=1)
    ]


# --- Destroying ------------------------------------------------------------------------------------------

# A bucket that belongs to something that is over is never sealed in again; one that does not goes on with a new key.
_END = Query("""
    INSERT INTO ended_bucket (store_id, subject_id, generation, retention, bucket)
    SELECT DISTINCT store_id, subject_id, generation, retention, bucket
    FROM unnest(CAST(:stores AS uuid[]), CAST(:subjects AS uuid[]), CAST(:generations AS bigint[]),
        CAST(:retentions AS text[]), CAST(:buckets AS text[]))
        AS asked (store_id, subject_id, generation, retention, bucket)
    ORDER BY store_id, subject_id, generation, retention, bucket
    ON CONFLICT DO NOTHING
""")
_FORGET_ENDED = Query("DELETE FROM ended_bucket WHERE ended_at < now() - make_interval(secs => :kept)")
ENDED_KEPT_FOR = timedelta(days=30)
"""As long as any event can still come (`inbox.KEPT_FOR`). A tombstone says which order was whose, so it goes then."""


async def destroy_expired(
    keyring: Database, log: Database, *, expiries: Sequence[ExpiryAsked], today: date
) -> list[ExpiredBucket]:
    """Write down which keys go, then let them go, as in `destroying.destroy`.

    A bucket that is on hold, or has a later day here than is asked for or than today, stays as it is, and the answer
    says so. All of it may be repeated; a repetition destroys nothing.
    """
    answers: list[ExpiredBucket] = []
    async with keyring.transaction(ALL_STORES) as transaction:
        await LOCK.rows(transaction, **bucket_columns(expiries))
        keys: dict[int, list[Row]] = defaultdict(list)
        for row in await _KEYS.rows(transaction, **bucket_columns(expiries)):
            keys[row.position].append(row)
        answers += [_sentence(one, keys[position], today) for position, one in enumerate(expiries, start=1)]
        ended = [
            one
            for one, answer in zip(expiries, answers, strict=True)
            if answer.outcome == "destroyed" and one.retention not in WHOLE
        ]
        await _END.rows(transaction, **bucket_columns(ended))
        await _FORGET_ENDED.rows(transaction, kept=ENDED_KEPT_FOR.total_seconds())
    doomed = [key_id for answer in answers for key_id in answer.destroyed]
    async with log.transaction(ALL_STORES) as transaction:
        await destructions.append(transaction, doomed)
    async with keyring.transaction(ALL_STORES) as transaction:
        await DELETE.rows(transaction, key_ids=doomed)
    logger.info("expired keys destroyed", extra={"count": len(doomed), "batch": len(expiries)})
    return answers


def _sentence(asked: ExpiryAsked, keys: Sequence[Row], today: date) -> ExpiredBucket:
    # Whoever is erased asked for more than a restriction: theirs is closed for a legal hold, and that is over.
    on_hold = any(key.state == "restricted" and not key.erased for key in keys)
    if on_hold and asked.retention not in NEVER_RESTRICTED:
        return ExpiredBucket(outcome="restricted")
    if asked.expires_on is None or asked.expires_on > today:
        return ExpiredBucket(outcome="early")
    if asked.retention in WHOLE:
        # A key without a day was made after this period had begun to end, for what came since.
        over = [key for key in keys if key.expires_on is not None and key.expires_on <= today]
        return ExpiredBucket(outcome="destroyed", destroyed=_ids(over))
    if any(key.expires_on is not None and key.expires_on > today for key in keys):
        return ExpiredBucket(outcome="early")
    return ExpiredBucket(outcome="destroyed", destroyed=_ids(keys))


def _ids(keys: Sequence[Row]) -> list[UUID]:
    return [key.key_id for key in keys]
