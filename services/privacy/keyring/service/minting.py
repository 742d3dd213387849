"""Making keys."""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any
from uuid import UUID, uuid4

from libs.common.db import Query, Row, Transaction
from libs.common.personal.vocabulary import Retention
from services.privacy.keyring.domain import SEALS_AFTER_ERASURE, WHOLE, kind_of
from services.privacy.keyring.master_keys import KEY_BYTES, MasterKeys, TenantKey, data_key_binding
from services.privacy.keyring.schemas import KeyAsked, MintedKey
from services.privacy.keyring.service.rows import DELETE, as_base64
from services.privacy.keyring.service.tenants import Place as TenantPlace
from services.privacy.keyring.service.tenants import Tenants

_Place = tuple[UUID, UUID, Retention, str]
"""Store, subject, retention, bucket."""

# With a key comes the key of the store that wraps it; where there is none yet, the one that will.
_EXISTING = Query("""
    SELECT wanted.*, person.generation, person.erased_at IS NOT NULL AS erased,
        key.key_id, key.wrapped, key.master_key_id, key.expires_on,
        EXISTS (
            SELECT FROM ended_bucket AS over
            WHERE (over.store_id, over.subject_id, over.generation, over.retention, over.bucket)
                = (wanted.store_id, wanted.subject_id, person.generation, wanted.retention, wanted.bucket)
        ) AS over,
        tenant.key_id AS tenant_key_id, tenant.wrapped AS tenant_wrapped,
        tenant.master_key_id AS tenant_master_key_id, tenant.retired_at IS NOT NULL AS tenant_retired
    FROM unnest(
        CAST(:stores AS uuid[]), CAST(:subjects AS uuid[]), CAST(:retentions AS text[]), CAST(:buckets AS text[]),
        CAST(:kinds AS text[])
    ) AS wanted (store_id, subject_id, retention, bucket, kind)
    LEFT JOIN subject AS person ON (person.store_id, person.subject_id) = (wanted.store_id, wanted.subject_id)
    LEFT JOIN LATERAL (
        SELECT key_id, wrapped, master_key_id, tenant_key_id, expires_on FROM data_key AS key
        WHERE (key.store_id, key.subject_id, key.generation, key.retention, key.bucket)
            = (wanted.store_id, wanted.subject_id, person.generation, wanted.retention, wanted.bucket)
            AND key.state = 'active' AND key.retired_at IS NULL
            AND (key.expires_on >= :today OR NOT key.retention = ANY(CAST(:whole AS text[]))) IS NOT FALSE
        ORDER BY key.epoch DESC LIMIT 1
    ) AS key ON true
    LEFT JOIN LATERAL (
        SELECT * FROM tenant_key WHERE tenant_key.key_id = key.tenant_key_id
        UNION ALL
        SELECT * FROM tenant_key
        WHERE key.key_id IS NULL AND (tenant_key.store_id, tenant_key.kind) = (wanted.store_id, wanted.kind)
    ) AS tenant ON true
""")
# One statement: the rows of people stay locked from the moment their generation is read until the keys are
# committed, so that an erasure sees either none of it or all of it. The updates that change nothing are what
# makes ON CONFLICT return, and lock, the row that is there. Rows are taken in order, so no two batches deadlock.
# The epoch is of the moment before the lock: whoever came between may have made the key and restricted it.
# A key of a person as such whose last day is over seals no more: what is sealed now is kept for its own time.
_MINT = Query("""
    WITH wanted AS (
        SELECT * FROM unnest(
            CAST(:stores AS uuid[]), CAST(:subjects AS uuid[]), CAST(:retentions AS text[]), CAST(:buckets AS text[]),
            CAST(:kinds AS text[]), CAST(:begins AS boolean[]), CAST(:expiries AS date[]), CAST(:key_ids AS uuid[]),
            CAST(:wrapped AS bytea[]), CAST(:tenant_key_ids AS uuid[])
        ) AS wanted (store_id, subject_id, retention, bucket, kind, begin, expires_on, key_id, wrapped, tenant_key_id)
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
            wrapped, tenant_key_id, expires_on)
        SELECT wanted.key_id, wanted.store_id, subject_id, generation, retention, bucket, (
                SELECT coalesce(max(epoch) FILTER (WHERE state = 'active' AND retired_at IS NULL
                    AND (key.expires_on >= :today OR NOT key.retention = ANY(CAST(:whole AS text[]))) IS NOT FALSE
                ), max(epoch) + 1, 1)
                FROM data_key AS key
                WHERE (key.store_id, key.subject_id, key.generation, key.retention, key.bucket)
                    = (wanted.store_id, wanted.subject_id, person.generation, wanted.retention, wanted.bucket)
            ), wanted.wrapped, tenant_key_id, expires_on
        FROM wanted JOIN person USING (store_id, subject_id)
            JOIN tenant_key AS tenant ON tenant.key_id = tenant_key_id AND tenant.retired_at IS NULL
        WHERE NOT erased
        ORDER BY wanted.store_id, subject_id, retention, bucket
        ON CONFLICT ON CONSTRAINT uq_data_key_place DO UPDATE SET key_id = data_key.key_id
        RETURNING *, state = 'active' AND retired_at IS NULL
            AND (data_key.expires_on >= :today OR NOT data_key.retention = ANY(CAST(:whole AS text[]))) IS NOT FALSE
            AS seals
    )
    SELECT wanted.store_id, subject_id, retention, bucket, generation, erased, minted.key_id, minted.wrapped,
        minted.master_key_id, minted.expires_on, minted.seals, minted.tenant_key_id,
        tenant.wrapped AS tenant_wrapped, tenant.master_key_id AS tenant_master_key_id,
        false AS tenant_retired
    FROM wanted
    JOIN person USING (store_id, subject_id)
    LEFT JOIN minted USING (store_id, subject_id, generation, retention, bucket)
    LEFT JOIN tenant_key AS tenant ON tenant.key_id = minted.tenant_key_id
""")


_OVER = Query("""
    SELECT store_id, subject_id, retention, bucket
    FROM unnest(CAST(:stores AS uuid[]), CAST(:subjects AS uuid[]), CAST(:generations AS bigint[]),
        CAST(:retentions AS text[]), CAST(:buckets AS text[]))
        AS made (store_id, subject_id, generation, retention, bucket)
    JOIN ended_bucket USING (store_id, subject_id, generation, retention, bucket)
""")


async def mint(
    transaction: Transaction, *, wanted: Sequence[KeyAsked], today: date, master_keys: MasterKeys
) -> list[MintedKey]:
    """The newest key of each place that seals, made if there is none.

    Within a batch, whoever begins anew does so for all.
    """
    tenants = Tenants(master_keys)
    begins: dict[_Place, bool] = defaultdict(bool)
    for item in wanted:
        begins[_place(item)] |= item.begin
    keys, wrapping = await _existing(transaction, begins, today, tenants)
    keys = {
        place: key
        for place, key in keys.items()
        if key.error not in {"subject-erased", "period-over"} or not begins[place]
    }
    while missing := {place: begin for place, begin in begins.items() if place not in keys}:
        wrapping |= await tenants.ensure(transaction, {_tenant(place) for place in missing} - wrapping.keys())
        keys |= await _made(transaction, missing, wrapping, tenants, today=today)
        # Whoever got none asks anew: the key of the store may have been destroyed meanwhile.
        wrapping = {}
    return [keys[_place(item)] for item in wanted]


async def _existing(
    transaction: Transaction, places: Iterable[_Place], today: date, tenants: Tenants
) -> tuple[dict[_Place, MintedKey], dict[TenantPlace, TenantKey | None]]:
    """What is there, and the keys of stores that wrap what is not."""
    keys: dict[_Place, MintedKey] = {}
    wrapping: dict[TenantPlace, TenantKey | None] = {}
    for row in await _EXISTING.rows(transaction, **_place_columns(places), today=today, whole=list(WHOLE)):
        place = _place(row)
        if row.over and not row.erased:
            keys[place] = _PERIOD_OVER
        elif row.erased or row.key_id is not None:
            keys[place] = _minted(row, tenants)
        elif row.tenant_key_id is not None:
            wrapping[_tenant(place)] = None if row.tenant_retired else tenants.of(row)
    return keys, wrapping


async def _made(
    transaction: Transaction,
    begins: Mapping[_Place, bool],
    wrapping: Mapping[TenantPlace, TenantKey | None],
    tenants: Tenants,
    *,
    today: date,
) -> dict[_Place, MintedKey]:
    ended = {place: _ENDED for place in begins if wrapping[_tenant(place)] is None}
    places = {place: key for place in begins if (key := wrapping[_tenant(place)]) is not None}
    if not places:
        return ended
    key_ids = [uuid4() for _ in places]
    wrapped = [
        key.wrap(os.urandom(KEY_BYTES), data_key_binding(key_id, store_id, subject_id))
        for key_id, ((store_id, subject_id, _, _), key) in zip(key_ids, places.items(), strict=True)
    ]
    rows = await _MINT.rows(
        transaction,
        **_place_columns(places),
        begins=[begins[place] for place in places],
        expiries=[retention.period.expires_on(bucket) for _, _, retention, bucket in places],
        key_ids=key_ids,
        wrapped=wrapped,
        tenant_key_ids=[key.key_id for key in places.values()],
        today=today,
        whole=list(WHOLE),
    )
    made = {_place(row): row for row in rows if row.erased or row.seals}
    over = await _taken_back(transaction, [row for row in made.values() if row.seals])
    return ended | {
        place: _PERIOD_OVER if place in over else _minted(row, tenants) for place, row in made.items()
    }


async def _taken_back(transaction: Transaction, made: Sequence[Row]) -> set[_Place]:
    """Keys of buckets that ended while this waited for their person's row go again; nobody has seen them."""
    named = [row for row in made if row.retention not in WHOLE]
    if not named:
        return set()
    places = {
        **_place_columns([_place(row) for row in named]),
        "generations": [row.generation for row in named],
    }
    over = {_place(row) for row in await _OVER.rows(transaction, **places)}
    await DELETE.rows(transaction, key_ids=[row.key_id for row in named if _place(row) in over])
    return over


_PERIOD_OVER = MintedKey(error="period-over")
"""What the bucket was for is over."""


_ENDED = MintedKey(error="destroyed")
"""Nothing is sealed any more for a store that has ended."""


def _minted(row: Row, tenants: Tenants) -> MintedKey:
    if row.key_id is None or (row.erased and Retention(row.retention) not in SEALS_AFTER_ERASURE):
        return MintedKey(error="subject-erased")
    if row.tenant_retired:
        return _ENDED
    return MintedKey(
        key_id=row.key_id,
        key=as_base64(tenants.data_key(row)),
        generation=row.generation,
        expires_on=row.expires_on,
    )


def _tenant(place: _Place) -> TenantPlace:
    store_id, _, retention, _ = place
    return store_id, kind_of(retention)


def _place(item: Any) -> _Place:
    return item.store_id, item.subject_id, Retention(item.retention), item.bucket


def _place_columns(places: Iterable[_Place]) -> dict[str, list[Any]]:
    stores, subjects, retentions, buckets = map(list, zip(*places, strict=True))
    kinds = [kind_of(retention) for retention in retentions]
    return {
        "stores": stores,
        "subjects": subjects,
        "retentions": retentions,
        "buckets": buckets,
        "kinds": kinds,
    }
