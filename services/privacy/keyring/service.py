"""Making, opening, restricting and destroying keys, a batch at a time and with a bounded number of statements."""

import logging
import os
from base64 import b64encode
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any
from uuid import UUID, uuid4

from libs.common.db import ALL_STORES, Database, Query, Row, Transaction
from libs.common.personal.vocabulary import Purpose, Retention
from services.privacy.destructions import service as destructions
from services.privacy.keyring.domain import (
    NEVER_RESTRICTED,
    OPENS_DESPITE_RESTRICTION,
    SEALS_AFTER_ERASURE,
    Grant,
    outlives_erasure,
)
from services.privacy.keyring.master_keys import MasterKeys, data_key_binding, store_secret_binding
from services.privacy.keyring.schemas import (
    BucketAsked,
    Changed,
    DestroyedBucket,
    DestroyedKey,
    Erased,
    ErasureAsked,
    KeptKey,
    KeyAsked,
    LifeAsked,
    LiveKey,
    LiveObjection,
    MintedKey,
    ObjectionAsked,
    OpenedKey,
    Retired,
    RetirementAsked,
    StoreSecret,
    SubjectAsked,
    SubjectStatus,
)

logger = logging.getLogger(__name__)

_KEY_BYTES = 32

# --- Secrets of stores -----------------------------------------------------------------------------------

_SECRETS = Query("""
    SELECT store_id, wrapped, master_key_id FROM store_secret WHERE store_id = ANY(CAST(:stores AS uuid[]))
""")
_NEW_SECRETS = Query("""
    INSERT INTO store_secret (store_id, wrapped, master_key_id)
    SELECT store_id, wrapped, :master_key_id
    FROM unnest(CAST(:stores AS uuid[]), CAST(:wrapped AS bytea[])) AS new (store_id, wrapped)
    ORDER BY store_id
    ON CONFLICT DO NOTHING
""")


async def store_secrets(
    transaction: Transaction, *, stores: Sequence[UUID], master_keys: MasterKeys
) -> list[StoreSecret]:
    """The secret of each store; whoever comes first makes it."""
    found = await _secrets(transaction, stores, master_keys)
    if missing := [store_id for store_id in dict.fromkeys(stores) if store_id not in found]:
        wrapped = [
            master_keys.wrap(os.urandom(_KEY_BYTES), store_secret_binding(store_id)) for store_id in missing
        ]
        await _NEW_SECRETS.rows(
            transaction, stores=missing, wrapped=wrapped, master_key_id=master_keys.present_id
        )
        # Another caller may have been first, so what was made here is not what counts.
        found |= await _secrets(transaction, missing, master_keys)
    return [StoreSecret(store_id=store_id, secret=found[store_id]) for store_id in stores]


async def _secrets(
    transaction: Transaction, stores: Sequence[UUID], master_keys: MasterKeys
) -> dict[UUID, str]:
    return {
        row.store_id: _base64(
            master_keys.unwrap(row.wrapped, row.master_key_id, store_secret_binding(row.store_id))
        )
        for row in await _SECRETS.rows(transaction, stores=stores)
    }


# --- Minting ---------------------------------------------------------------------------------------------

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
        master_keys.wrap(os.urandom(_KEY_BYTES), data_key_binding(key_id, store_id, subject_id))
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
        key=_unwrapped(row, master_keys),
        generation=row.generation,
        expires_on=row.expires_on,
    )


def _place(item: Any) -> _Place:
    return item.store_id, item.subject_id, Retention(item.retention), item.bucket


def _place_columns(places: Iterable[_Place]) -> dict[str, list[Any]]:
    stores, subjects, retentions, buckets = map(list, zip(*places, strict=True))
    return {"stores": stores, "subjects": subjects, "retentions": retentions, "buckets": buckets}


# --- Opening ---------------------------------------------------------------------------------------------

_OPEN = Query("""
    WITH found AS (
        SELECT key_id, store_id, subject_id, generation, wrapped, master_key_id,
            CASE WHEN NOT retention = ANY(CAST(:retentions AS text[])) THEN 'forbidden'
                 WHEN state = 'restricted' AND NOT :despite_restriction THEN 'restricted'
                 WHEN EXISTS (SELECT FROM objection
                              WHERE (objection.store_id, objection.subject_id, objection.generation, purpose)
                                  = (key.store_id, key.subject_id, key.generation, CAST(:purpose AS text)))
                     THEN 'objected'
            END AS error
        FROM data_key AS key WHERE key_id = ANY(CAST(:key_ids AS uuid[]))
    ), counted AS (
        INSERT INTO opening_count AS total (day, service, purpose, count)
        SELECT CAST(:today AS date), CAST(:service AS text), CAST(:purpose AS text), count(*)
        FROM found WHERE error IS NULL HAVING count(*) > 0
        ON CONFLICT (day, service, purpose) DO UPDATE SET count = total.count + excluded.count
    )
    SELECT * FROM found
""")


async def open_keys(
    transaction: Transaction,
    *,
    service: str,
    grant: Grant,
    purpose: Purpose,
    key_ids: Sequence[UUID],
    today: date,
    master_keys: MasterKeys,
    log: Database,
) -> list[OpenedKey]:
    """Each key the grant allows for the purpose, counted; that a key is destroyed only the log can say."""
    rows = await _OPEN.rows(
        transaction,
        key_ids=key_ids,
        retentions=list(grant.open.get(purpose, frozenset())),
        despite_restriction=purpose in OPENS_DESPITE_RESTRICTION,
        today=today,
        service=service,
        purpose=purpose,
    )
    found = {row.key_id: _opened(row, master_keys) for row in rows}
    found |= await _not_found(log, [key_id for key_id in key_ids if key_id not in found])
    return [found[key_id] for key_id in key_ids]


def _opened(row: Row, master_keys: MasterKeys) -> OpenedKey:
    if row.error is not None:
        return OpenedKey(key_id=row.key_id, error=row.error)
    return OpenedKey(
        key_id=row.key_id,
        key=_unwrapped(row, master_keys),
        store_id=row.store_id,
        subject_id=row.subject_id,
        generation=row.generation,
    )


async def _not_found(log: Database, key_ids: Sequence[UUID]) -> dict[UUID, OpenedKey]:
    if not key_ids:
        return {}
    async with log.transaction(ALL_STORES) as transaction:
        destroyed = await destructions.destroyed_among(transaction, key_ids)
    if lost := len(set(key_ids) - destroyed):
        logger.error("keys are neither kept nor destroyed", extra={"count": lost})
    return {
        key_id: OpenedKey(key_id=key_id, error="destroyed" if key_id in destroyed else "unknown")
        for key_id in key_ids
    }


# --- Restricting -----------------------------------------------------------------------------------------

# The rows of people are locked first: what is being minted is then either seen here, or made after this.
_LOCK = Query("""
    SELECT FROM subject
    JOIN unnest(CAST(:stores AS uuid[]), CAST(:subjects AS uuid[])) AS asked (store_id, subject_id)
        USING (store_id, subject_id)
    ORDER BY store_id, subject_id FOR UPDATE OF subject
""")
_SET_STATE = Query("""
    UPDATE data_key AS key SET state = :state
    FROM unnest(CAST(:stores AS uuid[]), CAST(:subjects AS uuid[]), CAST(:generations AS bigint[]))
        AS asked (store_id, subject_id, generation)
    WHERE (key.store_id, key.subject_id, key.generation) = (asked.store_id, asked.subject_id, asked.generation)
        AND NOT key.retention = ANY(CAST(:never AS text[])) AND key.state <> :state
""")
_COUNT_KEYS = Query("""
    SELECT asked.position, count(key_id) AS keys
    FROM unnest(CAST(:stores AS uuid[]), CAST(:subjects AS uuid[]), CAST(:generations AS bigint[]))
        WITH ORDINALITY AS asked (store_id, subject_id, generation, position)
    LEFT JOIN data_key AS key
        ON (key.store_id, key.subject_id, key.generation) = (asked.store_id, asked.subject_id, asked.generation)
        AND NOT key.retention = ANY(CAST(:never AS text[])) AND key.state = ANY(CAST(:states AS text[]))
    GROUP BY asked.position ORDER BY asked.position
""")


async def restrict(transaction: Transaction, *, lives: Sequence[LifeAsked]) -> list[Changed]:
    """Put what there is of these people on hold; a key that is minted from now on is another one."""
    return await _set_state(transaction, lives, "restricted")


async def lift(transaction: Transaction, *, lives: Sequence[LifeAsked]) -> list[Changed]:
    """Let every key of these people open again, those from before and those from during the restriction."""
    return await _set_state(transaction, lives, "active")


async def _set_state(transaction: Transaction, lives: Sequence[LifeAsked], state: str) -> list[Changed]:
    values = {**_generation_columns(lives), "never": list(NEVER_RESTRICTED), "state": state}
    await _LOCK.rows(transaction, **values)
    await _SET_STATE.rows(transaction, **values)
    return await _counted(transaction, lives, [state])


async def _counted(
    transaction: Transaction, lives: Sequence[LifeAsked], states: Sequence[str]
) -> list[Changed]:
    values = {**_generation_columns(lives), "never": list(NEVER_RESTRICTED), "states": states}
    rows = await _COUNT_KEYS.rows(transaction, **values)
    return [
        Changed(store_id=one.store_id, subject_id=one.subject_id, generation=one.generation, keys=row["keys"])
        for one, row in zip(lives, rows, strict=True)
    ]


_OBJECT = Query("""
    INSERT INTO objection (store_id, subject_id, generation, purpose)
    SELECT DISTINCT store_id, subject_id, generation, purpose
    FROM unnest(CAST(:stores AS uuid[]), CAST(:subjects AS uuid[]), CAST(:generations AS bigint[]),
        CAST(:purposes AS text[])) AS asked (store_id, subject_id, generation, purpose)
    ORDER BY store_id, subject_id, generation, purpose
    ON CONFLICT DO NOTHING
""")
_ALLOW = Query("""
    DELETE FROM objection
    USING unnest(CAST(:stores AS uuid[]), CAST(:subjects AS uuid[]), CAST(:generations AS bigint[]),
        CAST(:purposes AS text[])) AS asked (store_id, subject_id, generation, purpose)
    WHERE (objection.store_id, objection.subject_id, objection.generation, objection.purpose)
        = (asked.store_id, asked.subject_id, asked.generation, asked.purpose)
""")


async def object_to(transaction: Transaction, *, objections: Sequence[ObjectionAsked]) -> list[Changed]:
    """Note what people object to, and forget what they allow again; the last word of a batch counts."""
    last = {(one.store_id, one.subject_id, one.generation, one.purpose): one for one in objections}.values()
    await _LOCK.rows(transaction, **_generation_columns(objections))
    for statement, objected in ((_OBJECT, True), (_ALLOW, False)):
        some = [one for one in last if one.objected is objected]
        purposes = {"purposes": [one.purpose for one in some]}
        await statement.rows(transaction, **_generation_columns(some), **purposes)
    return await _counted(transaction, objections, ["active", "restricted"])


# --- Destroying ------------------------------------------------------------------------------------------

_END_GENERATIONS = Query("""
    INSERT INTO subject AS person (store_id, subject_id, generation, generation_id, erased_at)
    SELECT store_id, subject_id, max(generation), gen_random_uuid(), now()
    FROM unnest(CAST(:stores AS uuid[]), CAST(:subjects AS uuid[]), CAST(:generations AS bigint[]))
        AS asked (store_id, subject_id, generation)
    GROUP BY store_id, subject_id ORDER BY store_id, subject_id
    ON CONFLICT (store_id, subject_id) DO UPDATE SET
        generation = greatest(person.generation, excluded.generation),
        erased_at = CASE WHEN person.generation <= excluded.generation
            THEN coalesce(person.erased_at, excluded.erased_at) ELSE person.erased_at END
    RETURNING generation_id, erased_at IS NOT NULL AS erased
""")
_KEYS_OF_GENERATIONS = Query("""
    SELECT asked.position, key_id, retention, bucket, expires_on
    FROM unnest(CAST(:stores AS uuid[]), CAST(:subjects AS uuid[]), CAST(:generations AS bigint[]))
        WITH ORDINALITY AS asked (store_id, subject_id, generation, position)
    JOIN data_key AS key ON (key.store_id, key.subject_id) = (asked.store_id, asked.subject_id)
        AND key.generation <= asked.generation
    ORDER BY key.created_at, key.key_id
""")
_DELETE = Query("DELETE FROM data_key WHERE key_id = ANY(CAST(:key_ids AS uuid[])) RETURNING key_id")
_FORGET_OBJECTIONS = Query("""
    DELETE FROM objection USING subject AS person
    WHERE (objection.store_id, objection.subject_id) = (person.store_id, person.subject_id)
        AND person.generation_id = ANY(CAST(:ended AS uuid[])) AND objection.generation <= person.generation
""")


async def destroy(
    keyring: Database, log: Database, *, erasures: Sequence[ErasureAsked], today: date
) -> list[Erased]:
    """End the generations, write down which keys go, then let them go: three commits in this order.

    From the first on nothing new can be sealed; from the second on a crash can only delay the third, since
    the log is replayed before a keyring opens anything. All of it may be repeated.
    """
    async with keyring.transaction(ALL_STORES) as transaction:
        ended = await _end_generations(transaction, erasures)
        answers = await _sentences(transaction, erasures, today)
    doomed = [key_id for answer in answers for key_id in answer.destroyed]
    async with log.transaction(ALL_STORES) as transaction:
        await destructions.append(transaction, [*doomed, *ended])
    async with keyring.transaction(ALL_STORES) as transaction:
        await _DELETE.rows(transaction, key_ids=doomed)
        await _FORGET_OBJECTIONS.rows(transaction, ended=ended)
    logger.info("keys destroyed", extra={"count": len(doomed), "batch": len(erasures)})
    return answers


async def _end_generations(transaction: Transaction, erasures: Sequence[ErasureAsked]) -> list[UUID]:
    rows = await _END_GENERATIONS.rows(transaction, **_generation_columns(erasures))
    return [row.generation_id for row in rows if row.erased]


async def _sentences(transaction: Transaction, erasures: Sequence[ErasureAsked], today: date) -> list[Erased]:
    requests: dict[tuple[UUID, UUID], frozenset[str]] = defaultdict(frozenset)
    for asked in erasures:
        requests[asked.store_id, asked.subject_id] |= {str(asked.request_id)}
    answers = [
        Erased(
            store_id=asked.store_id,
            subject_id=asked.subject_id,
            generation=asked.generation,
            destroyed=[],
            kept=[],
        )
        for asked in erasures
    ]
    for row in await _KEYS_OF_GENERATIONS.rows(transaction, **_generation_columns(erasures)):
        answer = answers[row.position - 1]
        retention = Retention(row.retention)
        of_person = requests[answer.store_id, answer.subject_id]
        if outlives_erasure(retention, row.bucket, row.expires_on, requests=of_person, today=today):
            answer.kept.append(
                KeptKey(
                    retention=retention,
                    bucket=row.bucket,
                    expires_on=row.expires_on,
                    law=retention.period.law,
                )
            )
        else:
            answer.destroyed.append(row.key_id)
    return answers


def _generation_columns(lives: Sequence[ErasureAsked] | Sequence[LifeAsked]) -> dict[str, list[Any]]:
    return {
        "stores": [asked.store_id for asked in lives],
        "subjects": [asked.subject_id for asked in lives],
        "generations": [asked.generation for asked in lives],
    }


# --- Destroying a part -----------------------------------------------------------------------------------

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
        **_generation_columns([one for one, _ in places]),
        "retentions": [retention for _, retention in places],
    }
    await _LOCK.rows(transaction, **values)
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
        await _DELETE.rows(transaction, key_ids=doomed)
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
    values = {
        **_generation_columns(buckets),
        "retentions": [one.retention for one in buckets],
        "buckets": [one.bucket for one in buckets],
    }
    async with keyring.transaction(ALL_STORES) as transaction:
        await _LOCK.rows(transaction, **values)
        for row in await _KEYS_OF_BUCKETS.rows(transaction, **values):
            answers[row.position - 1].destroyed.append(row.key_id)
    doomed = [key_id for answer in answers for key_id in answer.destroyed]
    async with log.transaction(ALL_STORES) as transaction:
        await destructions.append(transaction, doomed)
    async with keyring.transaction(ALL_STORES) as transaction:
        await _DELETE.rows(transaction, key_ids=doomed)
    logger.info("keys destroyed", extra={"count": len(doomed), "batch": len(buckets)})
    return answers


# --- Looking at what is left -----------------------------------------------------------------------------

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


# --- Replaying the log -----------------------------------------------------------------------------------

_END_LOGGED = Query("""
    UPDATE subject SET erased_at = now()
    WHERE generation_id = ANY(CAST(:key_ids AS uuid[])) AND erased_at IS NULL
""")


async def replay(keyring: Database, log: Database) -> int:
    """Destroy again whatever the log names, as a keyring must before it opens anything: it may be restored.

    Returns how many keys had come back.
    """
    returned = 0
    async with log.transaction(ALL_STORES) as reading:
        async for key_ids in destructions.read(reading):
            async with keyring.transaction(ALL_STORES) as transaction:
                returned += len(await _DELETE.rows(transaction, key_ids=key_ids))
                await _END_LOGGED.rows(transaction, key_ids=key_ids)
                await _FORGET_OBJECTIONS.rows(transaction, ended=key_ids)
    if returned:
        logger.warning("destroyed keys had come back and were destroyed again", extra={"count": returned})
    return returned


def _unwrapped(row: Row, master_keys: MasterKeys) -> str:
    binding = data_key_binding(row.key_id, row.store_id, row.subject_id)
    return _base64(master_keys.unwrap(row.wrapped, row.master_key_id, binding))


def _base64(secret: bytes) -> str:
    return b64encode(secret).decode()
