"""Destroying whatever no law keeps of people."""

import logging
from collections import defaultdict
from collections.abc import Sequence
from datetime import date
from uuid import UUID

from libs.common.db import ALL_STORES, Database, Query, Transaction
from libs.common.personal.vocabulary import Retention
from services.privacy.destructions import service as destructions
from services.privacy.keyring.domain import outlives_erasure
from services.privacy.keyring.schemas import Erased, ErasureAsked, KeptKey
from services.privacy.keyring.service import tenants
from services.privacy.keyring.service.rows import DELETE, generation_columns

logger = logging.getLogger(__name__)

_FORGET_OBJECTIONS = Query("""
    DELETE FROM objection USING subject AS person
    WHERE (objection.store_id, objection.subject_id) = (person.store_id, person.subject_id)
        AND person.generation_id = ANY(CAST(:ended AS uuid[])) AND objection.generation <= person.generation
""")
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
    SELECT asked.position, key_id, key.generation, retention, bucket, expires_on
    FROM unnest(CAST(:stores AS uuid[]), CAST(:subjects AS uuid[]), CAST(:generations AS bigint[]))
        WITH ORDINALITY AS asked (store_id, subject_id, generation, position)
    JOIN data_key AS key ON (key.store_id, key.subject_id) = (asked.store_id, asked.subject_id)
        AND key.generation <= asked.generation
    ORDER BY key.created_at, key.key_id
""")


# What is kept for a legal claim opens for nothing else.
_CLOSE = Query("UPDATE data_key SET state = 'restricted' WHERE key_id = ANY(CAST(:key_ids AS uuid[]))")


async def destroy(
    keyring: Database, log: Database, *, erasures: Sequence[ErasureAsked], today: date
) -> list[Erased]:
    """End the generations, write down which keys go, then let them go: three commits in this order.

    From the first on nothing new can be sealed; from the second on a crash can only delay the third, since
    the log is replayed before a keyring opens anything. All of it may be repeated.
    """
    async with keyring.transaction(ALL_STORES) as transaction:
        ended = await _end_generations(transaction, erasures)
        answers, held = await _sentences(transaction, erasures, today)
        await _CLOSE.rows(transaction, key_ids=held)
    doomed = [key_id for answer in answers for key_id in answer.destroyed]
    async with log.transaction(ALL_STORES) as transaction:
        await destructions.append(transaction, [*doomed, *ended])
    async with keyring.transaction(ALL_STORES) as transaction:
        await DELETE.rows(transaction, key_ids=doomed)
        await _FORGET_OBJECTIONS.rows(transaction, ended=ended)
    logger.info("keys destroyed", extra={"count": len(doomed), "batch": len(erasures)})
    return answers


async def _end_generations(transaction: Transaction, erasures: Sequence[ErasureAsked]) -> list[UUID]:
    rows = await _END_GENERATIONS.rows(transaction, **generation_columns(erasures))
    return [row.generation_id for row in rows if row.erased]


async def _sentences(
    transaction: Transaction, erasures: Sequence[ErasureAsked], today: date
) -> tuple[list[Erased], list[UUID]]:
    """What becomes of every key, and which of those that stay are on legal hold."""
    held: list[UUID] = []
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
    for row in await _KEYS_OF_GENERATIONS.rows(transaction, **generation_columns(erasures)):
        answer = answers[row.position - 1]
        retention = Retention(row.retention)
        of_person = requests[answer.store_id, answer.subject_id]
        hold = erasures[row.position - 1].hold_on(retention)
        stays = outlives_erasure(retention, row.bucket, row.expires_on, requests=of_person, today=today)
        if not stays and hold is None:
            answer.destroyed.append(row.key_id)
            continue
        if not stays:
            held.append(row.key_id)
        answer.kept.append(
            KeptKey(
                retention=retention,
                bucket=row.bucket,
                expires_on=row.expires_on if stays or hold is None else hold.until,
                law=retention.period.law if stays or hold is None else hold.ground,
                generation=row.generation,
            )
        )
    return answers, held


# --- Replaying the log -----------------------------------------------------------------------------------

_END_LOGGED = Query("""
    UPDATE subject SET erased_at = now()
    WHERE generation_id = ANY(CAST(:key_ids AS uuid[])) AND erased_at IS NULL
""")


class WrongLog(Exception):
    """The destruction log is not the one this keyring wrote to, or is older: what is gone could come back."""


async def replay(keyring: Database, log: Database, *, trusted: UUID | None = None) -> int:
    """Destroy again whatever the log names, as a keyring must before it opens anything: it may be restored.

    Returns how many keys had come back. Raises WrongLog unless the log is `trusted`, or known from before.
    """
    await _check(keyring, log, trusted)
    returned = 0
    async with log.transaction(ALL_STORES) as reading:
        async for key_ids in destructions.read(reading):
            async with keyring.transaction(ALL_STORES) as transaction:
                returned += len(await tenants.DESTROY.rows(transaction, key_ids=key_ids))
                returned += len(await DELETE.rows(transaction, key_ids=key_ids))
                await _END_LOGGED.rows(transaction, key_ids=key_ids)
                await _FORGET_OBJECTIONS.rows(transaction, ended=key_ids)
    if returned:
        logger.warning("destroyed keys had come back and were destroyed again", extra={"count": returned})
    return returned


_SEEN = Query("SELECT log_id, key_id FROM log_seen")
_NOTE_LOG = Query("""
    UPDATE log_seen SET log_id = :log_id, key_id = NULL WHERE log_id IS DISTINCT FROM :log_id
""")


async def _check(keyring: Database, log: Database, trusted: UUID | None) -> None:
    async with keyring.transaction(ALL_STORES) as transaction:
        [seen] = await _SEEN.rows(transaction)
    async with log.transaction(ALL_STORES) as transaction:
        log_id = await destructions.identity(transaction)
        written = {seen.key_id} - {None}
        is_whole = await destructions.destroyed_among(transaction, list(written)) == written
    if log_id != trusted and (seen.log_id not in {None, log_id} or not is_whole):
        raise WrongLog(
            f"The destruction log {log_id} {'is older than' if seen.log_id == log_id else 'is not that of'} this "
            "keyring, which opens nothing, or destroyed keys would open again. Bring the log back (make restore "
            f"ONLY=destructions), or, if it is lost for good, start once with KEYRING_TRUSTED_LOG={log_id}."
        )
    async with keyring.transaction(ALL_STORES) as transaction:
        await _NOTE_LOG.rows(transaction, log_id=log_id)
        if not is_whole:
            await _FORGET_WITNESS.rows(transaction)


_FORGET_WITNESS = Query("UPDATE log_seen SET key_id = NULL")
