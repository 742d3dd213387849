"""The keys of stores: made on first use, read together with what they wrap, destroyed with the store.

No process remembers one beyond a call. Whether it is still there is read in the very statement that reads what it
wraps, so one that another process destroyed a moment ago opens nothing here either.
"""

import logging
import os
from collections.abc import Iterable, Sequence
from uuid import UUID, uuid4

from libs.common.db import ALL_STORES, Database, Query, Row, Transaction
from libs.common.personal.vocabulary import Retention
from services.privacy.destructions import service as destructions
from services.privacy.keyring.domain import Kind
from services.privacy.keyring.master_keys import (
    KEY_BYTES,
    MasterKeyMissing,
    MasterKeys,
    TenantKey,
    data_key_binding,
    store_secret_binding,
    tenant_key_binding,
)
from services.privacy.keyring.schemas import DestroyedTenant
from services.privacy.keyring.service.rows import DELETE

logger = logging.getLogger(__name__)

_AT_ONCE = 2000

Place = tuple[UUID, Kind]
"""A store, and which of its keys."""


class Tenants:
    """The keys of stores within one call: each is unwrapped once."""

    def __init__(self, master_keys: MasterKeys) -> None:
        self._master_keys = master_keys
        self._unwrapped: dict[UUID, TenantKey] = {}

    def of(self, row: Row) -> TenantKey:
        """The key in a row's `tenant_…` columns. Raises MasterKeyMissing."""
        key = self._unwrapped.get(row.tenant_key_id)
        if key is None:
            if row.tenant_wrapped is None:
                raise MasterKeyMissing
            binding = tenant_key_binding(row.tenant_key_id, row.store_id)
            secret = self._master_keys.unwrap(row.tenant_wrapped, row.tenant_master_key_id, binding)
            key = self._unwrapped[row.tenant_key_id] = TenantKey(row.tenant_key_id, secret)
        return key

    def data_key(self, row: Row) -> bytes:
        """A person's key. Raises MasterKeyMissing."""
        return self._wrapped_in(row, data_key_binding(row.key_id, row.store_id, row.subject_id))

    def store_secret(self, row: Row) -> bytes:
        """A store's secret. Raises MasterKeyMissing."""
        return self._wrapped_in(row, store_secret_binding(row.store_id))

    def _wrapped_in(self, row: Row, binding: bytes) -> bytes:
        if row.tenant_key_id is None:
            # From before stores had keys of their own.
            return self._master_keys.unwrap(row.wrapped, row.master_key_id, binding)
        return self.of(row).unwrap(row.wrapped, binding)

    # --- Making ------------------------------------------------------------------------------------------

    async def ensure(
        self, transaction: Transaction, places: Iterable[Place]
    ) -> dict[Place, TenantKey | None]:
        """The key of each place, made if there is none; None where it is being destroyed, or is."""
        wanted = sorted(set(places))
        found = await self._found(transaction, wanted)
        if missing := [place for place in wanted if place not in found]:
            await _INSERT.rows(transaction, **self._made(missing))
            # Another caller may have been first, so what was made here is not what counts.
            found |= await self._found(transaction, missing)
        return found

    def _made(self, places: Sequence[Place]) -> dict[str, object]:
        key_ids = [uuid4() for _ in places]
        return {
            "key_ids": key_ids,
            "stores": [store_id for store_id, _ in places],
            "kinds": [kind for _, kind in places],
            "wrapped": [
                self._master_keys.wrap(os.urandom(KEY_BYTES), tenant_key_binding(key_id, store_id))
                for key_id, (store_id, _) in zip(key_ids, places, strict=True)
            ],
            "master_key_id": self._master_keys.present_id,
        }

    async def _found(
        self, transaction: Transaction, places: Sequence[Place]
    ) -> dict[Place, TenantKey | None]:
        stores, kinds = [store_id for store_id, _ in places], [kind for _, kind in places]
        return {
            (row.store_id, Kind(row.kind)): None if row.tenant_retired else self.of(row)
            for row in await _FIND.rows(transaction, stores=stores, kinds=kinds)
        }


_FIND = Query("""
    SELECT store_id, kind, key_id AS tenant_key_id, wrapped AS tenant_wrapped, master_key_id AS tenant_master_key_id,
        retired_at IS NOT NULL AS tenant_retired
    FROM unnest(CAST(:stores AS uuid[]), CAST(:kinds AS text[])) AS asked (store_id, kind)
    JOIN tenant_key USING (store_id, kind)
""")
_INSERT = Query("""
    INSERT INTO tenant_key (key_id, store_id, kind, wrapped, master_key_id)
    SELECT key_id, store_id, kind, wrapped, :master_key_id
    FROM unnest(CAST(:key_ids AS uuid[]), CAST(:stores AS uuid[]), CAST(:kinds AS text[]), CAST(:wrapped AS bytea[]))
        AS new (key_id, store_id, kind, wrapped)
    ORDER BY store_id, kind
    ON CONFLICT DO NOTHING
""")


# --- Destroying ------------------------------------------------------------------------------------------

# A store that never had a key has one from now on, so that none is made under another.
_RETIRE = Query("""
    INSERT INTO tenant_key AS tenant (key_id, store_id, kind, retired_at)
    SELECT gen_random_uuid(), store_id, 'ordinary', now()
    FROM unnest(CAST(:stores AS uuid[])) AS asked (store_id) GROUP BY store_id ORDER BY store_id
    ON CONFLICT (store_id, kind) DO UPDATE SET retired_at = coalesce(tenant.retired_at, now())
    RETURNING store_id, key_id
""")
DESTROY = Query("""
    UPDATE tenant_key SET wrapped = NULL, master_key_id = NULL, retired_at = coalesce(retired_at, now())
    WHERE key_id = ANY(CAST(:key_ids AS uuid[])) AND wrapped IS NOT NULL RETURNING key_id
""")


async def destroy(keyring: Database, log: Database, *, stores: Sequence[UUID]) -> list[DestroyedTenant]:
    """Destroy the ordinary key of each store, and forget a part of what lies under it; until `left` is 0, ask again.

    Three commits, as in `destroying.destroy`: from the first on nothing new is made under the key, from the second
    on its end is written down, and from the third on nothing under it opens. What was under it is then written down
    too, key by key, so that a box of it is for ever known to be destroyed and not lost.
    """
    async with keyring.transaction(ALL_STORES) as transaction:
        key_ids = {row.store_id: row.key_id for row in await _RETIRE.rows(transaction, stores=stores)}
    async with log.transaction(ALL_STORES) as transaction:
        await destructions.append(transaction, list(key_ids.values()))
    async with keyring.transaction(ALL_STORES) as transaction:
        ended = await DESTROY.rows(transaction, key_ids=list(key_ids.values()))
    if ended:
        logger.info("keys of stores destroyed", extra={"count": len(ended)})
    await _forget(keyring, log, stores)
    async with keyring.transaction(ALL_STORES) as transaction:
        left = {row.store_id: row.left for row in await _LEFT.rows(transaction, stores=stores, **_KEPT)}
    return [
        DestroyedTenant(store_id=store_id, key_id=key_ids[store_id], left=left.get(store_id, 0))
        for store_id in stores
    ]


_KEPT = {"kept": [one for one in Retention if one.outlives_store]}
_SOME = Query("""
    SELECT key_id FROM data_key
    WHERE store_id = ANY(CAST(:stores AS uuid[])) AND NOT retention = ANY(CAST(:kept AS text[])) LIMIT :limit
""")
_FORGET_PEOPLE = Query("""
    WITH gone AS (
        DELETE FROM subject WHERE (store_id, subject_id) IN (
            SELECT store_id, subject_id FROM subject AS person
            WHERE store_id = ANY(CAST(:stores AS uuid[]))
                AND NOT EXISTS (SELECT FROM data_key AS key
                    WHERE (key.store_id, key.subject_id) = (person.store_id, person.subject_id))
            LIMIT :limit FOR UPDATE SKIP LOCKED)
        RETURNING store_id, subject_id
    )
    DELETE FROM objection USING gone
    WHERE (objection.store_id, objection.subject_id) = (gone.store_id, gone.subject_id)
""")
# Whatever still could be opened or names somebody of whom nothing is kept, found by what it is and not by its key.
_LEFT = Query("""
    SELECT store_id, count(*) AS left FROM (
        SELECT store_id FROM data_key
        WHERE store_id = ANY(CAST(:stores AS uuid[])) AND NOT retention = ANY(CAST(:kept AS text[]))
        UNION ALL
        SELECT store_id FROM subject AS person
        WHERE store_id = ANY(CAST(:stores AS uuid[]))
            AND NOT EXISTS (SELECT FROM data_key AS key
                WHERE (key.store_id, key.subject_id) = (person.store_id, person.subject_id))
    ) AS anything GROUP BY store_id
""")


async def _forget(keyring: Database, log: Database, stores: Sequence[UUID]) -> None:
    async with keyring.transaction(ALL_STORES) as transaction:
        some = await _SOME.rows(transaction, stores=stores, limit=_AT_ONCE, **_KEPT)
    key_ids = [row.key_id for row in some]
    async with log.transaction(ALL_STORES) as transaction:
        await destructions.append(transaction, key_ids)
    async with keyring.transaction(ALL_STORES) as transaction:
        await DELETE.rows(transaction, key_ids=key_ids)
        await _FORGET_PEOPLE.rows(transaction, stores=stores, limit=_AT_ONCE)
