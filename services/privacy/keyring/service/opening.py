"""Opening keys, counted."""

import logging
from collections.abc import Sequence
from datetime import date
from uuid import UUID

from libs.common.db import ALL_STORES, Database, Query, Row, Transaction
from libs.common.personal.vocabulary import Purpose
from services.privacy.destructions import service as destructions
from services.privacy.keyring.domain import OPENS_DESPITE_RESTRICTION, Grant
from services.privacy.keyring.master_keys import MasterKeys
from services.privacy.keyring.schemas import OpenedKey
from services.privacy.keyring.service.rows import as_base64
from services.privacy.keyring.service.tenants import Tenants

logger = logging.getLogger(__name__)

_OPEN = Query("""
    WITH found AS (
        SELECT key.key_id, key.store_id, subject_id, generation, key.wrapped, key.master_key_id, tenant_key_id,
            tenant.wrapped AS tenant_wrapped, tenant.master_key_id AS tenant_master_key_id,
            CASE WHEN tenant.key_id IS NOT NULL AND tenant.wrapped IS NULL THEN 'destroyed'
                 WHEN NOT retention = ANY(CAST(:retentions AS text[])) THEN 'forbidden'
                 WHEN state = 'restricted' AND NOT :despite_restriction THEN 'restricted'
                 WHEN EXISTS (SELECT FROM objection
                              WHERE (objection.store_id, objection.subject_id, objection.generation, purpose)
                                  = (key.store_id, key.subject_id, key.generation, CAST(:purpose AS text)))
                     THEN 'objected'
            END AS error
        FROM data_key AS key LEFT JOIN tenant_key AS tenant ON tenant.key_id = key.tenant_key_id
        WHERE key.key_id = ANY(CAST(:key_ids AS uuid[]))
    ), counted AS (
        INSERT INTO opening_count AS total (day, service, purpose, slot, count)
        SELECT CAST(:today AS date), CAST(:service AS text), CAST(:purpose AS text), pg_backend_pid() % 16, count(*)
        FROM found WHERE error IS NULL HAVING count(*) > 0
        ON CONFLICT (day, service, purpose, slot) DO UPDATE SET count = total.count + excluded.count
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
    tenants = Tenants(master_keys)
    found = {row.key_id: _opened(row, tenants) for row in rows}
    found |= await _not_found(log, [key_id for key_id in key_ids if key_id not in found])
    return [found[key_id] for key_id in key_ids]


def _opened(row: Row, tenants: Tenants) -> OpenedKey:
    if row.error is not None:
        return OpenedKey(key_id=row.key_id, error=row.error)
    return OpenedKey(
        key_id=row.key_id,
        key=as_base64(tenants.data_key(row)),
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
