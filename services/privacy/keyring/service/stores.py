"""The secrets of stores."""

import os
from collections.abc import Sequence
from uuid import UUID

from libs.common.db import Query, Transaction
from services.privacy.keyring.master_keys import KEY_BYTES, MasterKeys, store_secret_binding
from services.privacy.keyring.schemas import StoreSecret
from services.privacy.keyring.service.rows import as_base64

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
            master_keys.wrap(os.urandom(KEY_BYTES), store_secret_binding(store_id)) for store_id in missing
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
        row.store_id: as_base64(
            master_keys.unwrap(row.wrapped, row.master_key_id, store_secret_binding(row.store_id))
        )
        for row in await _SECRETS.rows(transaction, stores=stores)
    }
