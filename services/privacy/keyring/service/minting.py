"""Making keys."""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID, uuid4

from libs.common.db import Query, Row, Transaction
from libs.common.personal.vocabulary import Retention
from services.privacy.keyring.domain import SEALS_AFTER_ERASURE
from services.privacy.keyring.master_keys import KEY_BYTES, MasterKeys, data_key_binding
from services.privacy.keyring.schemas import KeyAsked, MintedKey
from services.privacy.keyring.service.rows import unwrapped

_Place = tuple[UUID, UUID, Retention, str]
"""Store, subject, retention, bucket."""

_EXISTING = Query("""
    SELECT wanted.*, person.generation, person.erased_at IS NOT NULL AS erased,
        key.key_id, key.wrapped, key.master_key_id, key.expires_on
    FROM unnest(
        CAST(:stores AS uuid[]), CAST(:subjects AS uuid[]), CAST(:retentions AS text[]), CAST(:buckets AS text[])
    ) AS wanted (store_id, subject_id, retention, bucket)
    JOIN subject AS person ON (person.store_id, person.subject_id) = (wanted.store_id, wanted.subject_id)
    LEFT JOIN LATERAL (
        SELECT key_id, wrapped, master_key_id, expires_on FROM data_key AS key
        WHERE (key.store_id, key.subject_id, key.generation, key.retention, key.bucket)
            = (wanted.store_id, wanted.subject_id, person.generation, wanted.retention, wanted.bucket)
            AND key.state = 'active' AND key.retired_at IS NULL
        ORDER BY key.epoch DESC LIMIT 1
    ) AS key ON true
""")
# One statement: the rows of people stay locked from the moment their generation is read until the keys are
# committed, so that an erasure sees either none of it or all of it. The updates that change nothing are what
# makes ON CONFLICT return, and lock, the row that is there. Rows are taken in order, so no two batches deadlock.
# The epoch is of the moment before the lock: whoever came between may have made the key and restricted it.
_MINT = Query("""
    WITH wanted AS (
        SELECT * FROM unnest(
            CAST(:stores AS uuid[]), CAST(:subjects AS uuid[]), CAST(:retentions AS text[]), CAST(:buckets AS text[]),
            CAST(:begins AS boolean[]), CAST(:expiries AS date[]), CAST(:key_ids AS uuid[]), CAST(:wrapped AS bytea[])
        ) AS wanted (store_id, subject_id, retention, bucket, begin, expires_on, key_id, wrapped)
    ), person AS (
        INSERT INTO subject AS person (store_id, subject_id, generation, generation_id, begun_at)
        SELECT store_id, subject_id, 1, gen_random_uuid(), CASE WHEN bool_or(begin) THEN now() END
        FROM wanted GROUP BY store_id, subject_id ORDER BY store_id, subject_id
        ON CONFLICT (store_id, subject_id) DO UPDATE SET (generation, generation_id, begun_at, erased_at) = (
            SELECT person.generation + 1, excluded.generation_id, excluded.begun_at, NULL::timestamptz
            WHERE person.erased_at IS NOT NULL AND excluded.begun_at IS NOT NULL
            UNION ALL
            SELECT person.generation, person.generation_id, person.begun_at, person.erased_at
            WHERE person.erased_at IS NULL OR excluded.begun_at IS NULL
        )
        RETURNING store_id, subject_id, generation, erased_at IS NOT NULL AS erased
    ), minted AS (
        INSERT INTO data_key AS data_key (key_id, store_id, subject_id, generation, retention, bucket, epoch,
            wrapped, master_key_id, expires_on)
        SELECT key_id, store_id, subject_id, generation, retention, bucket, (
                SELECT coalesce(max(epoch) FILTER (WHERE state = 'active' AND retired_at IS NULL), max(epoch) + 1, 1)
                FROM data_key AS key
                WHERE (key.store_id, key.subject_id, key.generation, key.retention, key.bucket)
                    = (wanted.store_id, wanted.subject_id, person.generation, wanted.retention, wanted.bucket)
            ), wrapped, :master_key_id, expires_on
        FROM wanted JOIN person USING (store_id, subject_id) WHERE NOT erased
        ORDER BY store_id, subject_id, retention, bucket
        ON CONFLICT ON CONSTRAINT uq_data_key_place DO UPDATE SET key_id = data_key.key_id
        RETURNING *, state = 'active' AND retired_at IS NULL AS seals
    )
    SELECT store_id, subject_id, retention, bucket, generation, erased,
        minted.key_id, minted.wrapped, minted.master_key_id, minted.expires_on, minted.seals
    FROM wanted
    JOIN person USING (store_id, subject_id)
    LEFT JOIN minted USING (store_id, subject_id, generation, retention, bucket)
""")


async def mint(
    transaction: Transaction, *, wanted: Sequence[KeyAsked], master_keys: MasterKeys
) -> list[MintedKey]:
    """The newest key of each place that seals, made if there is none.

    Within a batch, whoever begins anew does so for all.
    """
    begins: dict[_Place, bool] = defaultdict(bool)
    for item in wanted:
        begins[_place(item)] |= item.begin
    keys = {
        place: key
        for place, key in (await _existing(transaction, begins, master_keys)).items()
        if key.error is None or not begins[place]
    }
    while missing := {place: begin for place, begin in begins.items() if place not in keys}:
        keys |= await _made(transaction, missing, master_keys)
    return [keys[_place(item)] for item in wanted]


async def _existing(
    transaction: Transaction, places: Iterable[_Place], master_keys: MasterKeys
) -> dict[_Place, MintedKey]:
    rows = await _EXISTING.rows(transaction, **_place_columns(places))
    return {_place(row): _minted(row, master_keys) for row in rows if row.erased or row.key_id is not None}


async def _made(
    transaction: Transaction, begins: Mapping[_Place, bool], master_keys: MasterKeys
) -> dict[_Place, MintedKey]:
    key_ids = [uuid4() for _ in begins]
    wrapped = [
        master_keys.wrap(os.urandom(KEY_BYTES), data_key_binding(key_id, store_id, subject_id))
        for key_id, (store_id, subject_id, _, _) in zip(key_ids, begins, strict=True)
    ]
    rows = await _MINT.rows(
        transaction,
        **_place_columns(begins),
        begins=list(begins.values()),
        expiries=[retention.period.expires_on(bucket) for _, _, retention, bucket in begins],
        key_ids=key_ids,
        wrapped=wrapped,
        master_key_id=master_keys.present_id,
    )
    return {_place(row): _minted(row, master_keys) for row in rows if row.erased or row.seals}


def _minted(row: Row, master_keys: MasterKeys) -> MintedKey:
    if row.key_id is None or (row.erased and Retention(row.retention) not in SEALS_AFTER_ERASURE):
        return MintedKey(error="subject-erased")
    return MintedKey(
        key_id=row.key_id,
        key=unwrapped(row, master_keys),
        generation=row.generation,
        expires_on=row.expires_on,
    )


def _place(item: Any) -> _Place:
    return item.store_id, item.subject_id, Retention(item.retention), item.bucket


def _place_columns(places: Iterable[_Place]) -> dict[str, list[Any]]:
    stores, subjects, retentions, buckets = map(list, zip(*places, strict=True))
    return {"stores": stores, "subjects": subjects, "retentions": retentions, "buckets": buckets}
