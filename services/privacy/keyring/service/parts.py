"""Destroying a part of a person's keys: what was retired, or a bucket that ends alone."""

import logging
from collections import defaultdict
from collections.abc import Sequence
from uuid import UUID

from libs.common.db import ALL_STORES, Database, Query, Transaction
from services.privacy.destructions import service as destructions
from services.privacy.keyring.schemas import (
    BucketAsked,
    DestroyedBucket,
    DestroyedKey,
    Retired,
    RetirementAsked,
)
from services.privacy.keyring.service.rows import DELETE, LOCK, bucket_columns, generation_columns

logger = logging.getLogger(__name__)

_RETIRE = Query("""
    UPDATE data_key AS key SET retired_at = now()
    FROM unnest(CAST(:stores AS uuid[]), CAST(:subjects AS uuid[]), CAST(:generations AS bigint[]),
        CAST(:retentions AS text[])) AS asked (store_id, subject_id, generation, retention)
    WHERE (key.store_id, key.subject_id, key.generation, key.retention)
            = (asked.store_id, asked.subject_id, asked.generation, asked.retention)
        AND key.retired_at IS NULL
""")
_RETIRED = Query("""
    SELECT store_id, subject_id, generation, retention, key_id
    FROM unnest(CAST(:stores AS uuid[]), CAST(:subjects AS uuid[]), CAST(:generations AS bigint[]),
        CAST(:retentions AS text[])) AS asked (store_id, subject_id, generation, retention)
    JOIN data_key USING (store_id, subject_id, generation, retention)
    WHERE retired_at IS NOT NULL
    ORDER BY retention, bucket, epoch
""")
_RETIRED_AMONG = Query("""
    SELECT key_id FROM data_key WHERE key_id = ANY(CAST(:key_ids AS uuid[])) AND retired_at IS NOT NULL
""")


async def retire(transaction: Transaction, *, retirements: Sequence[RetirementAsked]) -> list[Retired]:
    """Let the present keys of these people only open; every key of theirs that is retired, also from before."""
    places = [(one, retention) for one in retirements for retention in one.retentions]
    values = {
        **generation_columns([one for one, _ in places]),
        "retentions": [retention for _, retention in places],
    }
    await LOCK.rows(transaction, **values)
    await _RETIRE.rows(transaction, **values)
    retired: dict[tuple[UUID, UUID, int, str], list[UUID]] = defaultdict(list)
    for row in await _RETIRED.rows(transaction, **values):
        place = row.store_id, row.subject_id, row.generation, row.retention
        if row.key_id not in retired[place]:
            retired[place].append(row.key_id)
    return [
        Retired(
            store_id=one.store_id,
            subject_id=one.subject_id,
            generation=one.generation,
            key_ids=[
                key_id
                for retention in sorted(one.retentions)
                for key_id in retired[one.store_id, one.subject_id, one.generation, retention]
            ],
        )
        for one in retirements
    ]


async def destroy_retired(keyring: Database, log: Database, *, key_ids: Sequence[UUID]) -> list[DestroyedKey]:
    """Write down which keys go, then let them go, as in `destroy`. A key that is not retired stays."""
    async with keyring.transaction(ALL_STORES) as transaction:
        doomed = [row.key_id for row in await _RETIRED_AMONG.rows(transaction, key_ids=key_ids)]
    async with log.transaction(ALL_STORES) as transaction:
        await destructions.append(transaction, doomed)
        destroyed = await destructions.destroyed_among(transaction, key_ids)
    async with keyring.transaction(ALL_STORES) as transaction:
        await DELETE.rows(transaction, key_ids=doomed)
    logger.info("retired keys destroyed", extra={"count": len(doomed)})
    return [DestroyedKey(key_id=key_id, destroyed=key_id in destroyed) for key_id in key_ids]


_KEYS_OF_BUCKETS = Query("""
    SELECT asked.position, key_id
    FROM unnest(CAST(:stores AS uuid[]), CAST(:subjects AS uuid[]), CAST(:generations AS bigint[]),
        CAST(:retentions AS text[]), CAST(:buckets AS text[]))
        WITH ORDINALITY AS asked (store_id, subject_id, generation, retention, bucket, position)
    JOIN data_key USING (store_id, subject_id, generation, retention, bucket)
    ORDER BY asked.position, epoch
""")


async def destroy_buckets(
    keyring: Database, log: Database, *, buckets: Sequence[BucketAsked]
) -> list[DestroyedBucket]:
    """Write down which keys go, then let them go, as in `destroy`: what ends alone is over."""
    answers = [DestroyedBucket(destroyed=[]) for _ in buckets]
    values = bucket_columns(buckets)
    async with keyring.transaction(ALL_STORES) as transaction:
        await LOCK.rows(transaction, **values)
        for row in await _KEYS_OF_BUCKETS.rows(transaction, **values):
            answers[row.position - 1].destroyed.append(row.key_id)
    doomed = [key_id for answer in answers for key_id in answer.destroyed]
    async with log.transaction(ALL_STORES) as transaction:
        await destructions.append(transaction, doomed)
    async with keyring.transaction(ALL_STORES) as transaction:
        await DELETE.rows(transaction, key_ids=doomed)
    logger.info("keys destroyed", extra={"count": len(doomed), "batch": len(buckets)})
    return answers
