"""Putting people's data on hold, and closing it to a purpose."""

from collections.abc import Sequence
from datetime import datetime

from libs.common.db import Query, Transaction
from services.privacy.keyring.domain import NEVER_RESTRICTED
from services.privacy.keyring.schemas import Changed, LifeAsked, ObjectionAsked
from services.privacy.keyring.service.rows import LOCK, generation_columns

_SET_STATE = Query("""
    UPDATE data_key AS key SET state = :state
    FROM unnest(CAST(:stores AS uuid[]), CAST(:subjects AS uuid[]), CAST(:generations AS bigint[]))
        AS asked (store_id, subject_id, generation)
    WHERE (key.store_id, key.subject_id, key.generation) = (asked.store_id, asked.subject_id, asked.generation)
        AND NOT key.retention = ANY(CAST(:never AS text[])) AND key.state <> :state
        AND (key.created_at < CAST(:made_before AS timestamptz)) IS NOT FALSE
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


async def restrict(
    transaction: Transaction, *, lives: Sequence[LifeAsked], made_before: datetime | None = None
) -> list[Changed]:
    """Put what there is of these people on hold; a key that is minted from now on is another one. Of a repetition:
    what there was then.
    """
    return await _set_state(transaction, lives, "restricted", made_before)


async def lift(transaction: Transaction, *, lives: Sequence[LifeAsked]) -> list[Changed]:
    """Let every key of these people open again, those from before and those from during the restriction."""
    return await _set_state(transaction, lives, "active")


async def _set_state(
    transaction: Transaction, lives: Sequence[LifeAsked], state: str, made_before: datetime | None = None
) -> list[Changed]:
    values = {**generation_columns(lives), "never": list(NEVER_RESTRICTED), "state": state}
    await LOCK.rows(transaction, **values)
    await _SET_STATE.rows(transaction, **values, made_before=made_before)
    return await _counted(transaction, lives, [state])


async def _counted(
    transaction: Transaction, lives: Sequence[LifeAsked], states: Sequence[str]
) -> list[Changed]:
    values = {**generation_columns(lives), "never": list(NEVER_RESTRICTED), "states": states}
    rows = await _COUNT_KEYS.rows(transaction, **values)
    return [
        Changed(store_id=one.store_id, subject_id=one.subject_id, generation=one.generation, keys=row["keys"])
        for one, row in zip(lives, rows, strict=True)
    ]


# --- Objecting -------------------------------------------------------------------------------------------

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
    await LOCK.rows(transaction, **generation_columns(objections))
    for statement, objected in ((_OBJECT, True), (_ALLOW, False)):
        some = [one for one in last if one.objected is objected]
        purposes = {"purposes": [one.purpose for one in some]}
        await statement.rows(transaction, **generation_columns(some), **purposes)
    return await _counted(transaction, objections, ["active", "restricted"])
