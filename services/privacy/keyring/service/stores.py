"""The secrets of stores."""

import os
from collections.abc import Sequence
from uuid import UUID

from libs.common.db import Query, Transaction
from services.privacy.keyring.domain import Kind
from services.privacy.keyring.master_keys import MasterKeys, store_secret_binding
from services.privacy.keyring.schemas import StoreSecret
from services.privacy.keyring.service.rows import as_base64
from services.privacy.keyring.service.tenants import Tenants

_KEY_BYTES = 32
_SECRETS = Query("""
    SELECT secret.store_id, secret.wrapped, secret.master_key_id, tenant_key_id,
        tenant.wrapped AS tenant_wrapped, tenant.master_key_id AS tenant_master_key_id
    FROM store_secret AS secret LEFT JOIN tenant_key AS tenant ON tenant.key_id = secret.tenant_key_id
    WHERE secret.store_id = ANY(CAST(:stores AS uuid[]))
""")
_NEW_SECRETS = Query("""
    INSERT INTO store_secret (store_id, wrapped, tenant_key_id)
    SELECT store_id, wrapped, tenant_key_id
    FROM unnest(CAST(:stores AS uuid[]), CAST(:wrapped AS bytea[]), CAST(:tenant_key_ids AS uuid[]))
        AS new (store_id, wrapped, tenant_key_id)
    ORDER BY store_id
    ON CONFLICT DO NOTHING
""")


async def store_secrets(
    transaction: Transaction, *, stores: Sequence[UUID], master_keys: MasterKeys
) -> list[StoreSecret]:
    """The secret of each store; whoever comes first makes it. It outlives the store, whose people may still ask for
    what the law keeps of them.
    """
    tenants = Tenants(master_keys)
    found = await _secrets(transaction, stores, tenants)
    if missing := [store_id for store_id in dict.fromkeys(stores) if store_id not in found]:
        keys = await tenants.ensure(transaction, [(store_id, Kind.KEPT) for store_id in missing])
        wrapping = {store_id: key for (store_id, _), key in keys.items() if key is not None}
        await _NEW_SECRETS.rows(
            transaction,
            stores=list(wrapping),
            wrapped=[
                key.wrap(os.urandom(_KEY_BYTES), store_secret_binding(store_id))
                for store_id, key in wrapping.items()
            ],
            tenant_key_ids=[key.key_id for key in wrapping.values()],
        )
        # Another caller may have been first, so what was made here is not what counts.
        found |= await _secrets(transaction, missing, tenants)
    return [StoreSecret(store_id=store_id, secret=found[store_id]) for store_id in stores]


async def _secrets(transaction: Transaction, stores: Sequence[UUID], tenants: Tenants) -> dict[UUID, str]:
    rows = await _SECRETS.rows(transaction, stores=stores)
    return {row.store_id: as_base64(tenants.store_secret(row)) for row in rows}
