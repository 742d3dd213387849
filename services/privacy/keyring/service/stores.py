"""The secrets of stores: one for subject ids, which never changes, and those of blind indexes, which do."""

import os
from base64 import b64decode
from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import datetime
from uuid import UUID

from libs.common.db import Query, Row, Transaction
from libs.common.personal.blind_indexes import secret_of_epoch_0
from services.privacy.keyring.domain import Kind
from services.privacy.keyring.master_keys import (
    KEY_BYTES,
    MasterKeys,
    index_secret_binding,
    store_secret_binding,
)
from services.privacy.keyring.schemas import IndexSecret, Rotation, RotationAsked, StoreSecret
from services.privacy.keyring.service.rows import as_base64
from services.privacy.keyring.service.tenants import Tenants

_SECRETS = Query("""
    SELECT secret.store_id, secret.wrapped, secret.master_key_id, tenant_key_id,
        tenant.wrapped AS tenant_wrapped, tenant.master_key_id AS tenant_master_key_id
    FROM store_secret AS secret LEFT JOIN tenant_key AS tenant ON tenant.key_id = secret.tenant_key_id
    WHERE secret.store_id = ANY(CAST(:stores AS uuid[]))
""")
_NEW_SECRETS = Query("""
    WITH new AS (
        SELECT * FROM unnest(CAST(:stores AS uuid[]), CAST(:wrapped AS bytea[]), CAST(:tenant_key_ids AS uuid[]),
            CAST(:indexes AS bytea[])) AS new (store_id, wrapped, tenant_key_id, index_wrapped)
    ), made AS (
        INSERT INTO store_secret (store_id, wrapped, tenant_key_id)
        SELECT store_id, wrapped, tenant_key_id FROM new ORDER BY store_id
        ON CONFLICT DO NOTHING RETURNING store_id
    )
    INSERT INTO index_secret (store_id, epoch, wrapped, master_key_id)
    SELECT store_id, 1, index_wrapped, :master_key_id FROM made JOIN new USING (store_id)
""")
_INDEX_SECRETS = Query("""
    SELECT store_id, epoch, wrapped, master_key_id,
        greatest(extract(epoch FROM writes_from - CAST(:now AS timestamptz)), 0)::float8 AS writes_in
    FROM index_secret WHERE store_id = ANY(CAST(:stores AS uuid[])) ORDER BY store_id, epoch DESC
""")


async def store_secrets(
    transaction: Transaction, *, stores: Sequence[UUID], master_keys: MasterKeys, now: datetime
) -> list[StoreSecret]:
    """The secrets of each store; whoever comes first makes them. They outlive the store, whose people may still ask
    for what the law keeps of them.
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
                key.wrap(os.urandom(KEY_BYTES), store_secret_binding(store_id))
                for store_id, key in wrapping.items()
            ],
            tenant_key_ids=[key.key_id for key in wrapping.values()],
            indexes=[_new(master_keys, index_secret_binding(store_id, 1)) for store_id in wrapping],
            master_key_id=master_keys.present_id,
        )
        # Another caller may have been first, so what was made here is not what counts.
        found |= await _secrets(transaction, missing, tenants)
    indexes = await _index_secrets(transaction, stores, master_keys, now)
    return [
        StoreSecret(
            store_id=store_id,
            secret=found[store_id],
            indexes=indexes[store_id] or [_of_epoch_0(store_id, found[store_id])],
        )
        for store_id in stores
    ]


def _new(master_keys: MasterKeys, bound_to: bytes) -> bytes:
    return master_keys.wrap(os.urandom(KEY_BYTES), bound_to)


async def _secrets(transaction: Transaction, stores: Sequence[UUID], tenants: Tenants) -> dict[UUID, str]:
    rows = await _SECRETS.rows(transaction, stores=stores)
    return {row.store_id: as_base64(tenants.store_secret(row)) for row in rows}


async def _index_secrets(
    transaction: Transaction, stores: Sequence[UUID], master_keys: MasterKeys, now: datetime
) -> dict[UUID, list[IndexSecret]]:
    found: dict[UUID, list[IndexSecret]] = defaultdict(list)
    for row in await _INDEX_SECRETS.rows(transaction, stores=stores, now=now):
        found[row.store_id].append(_index_secret(row, master_keys))
    return found


def _index_secret(row: Row, master_keys: MasterKeys) -> IndexSecret:
    secret = master_keys.unwrap(row.wrapped, row.master_key_id, index_secret_binding(row.store_id, row.epoch))
    return IndexSecret(epoch=row.epoch, secret=as_base64(secret), writes_in=row.writes_in)


def _of_epoch_0(store_id: UUID, secret: str) -> IndexSecret:
    derived = secret_of_epoch_0(b64decode(secret), store_id)
    return IndexSecret(epoch=0, secret=as_base64(derived), writes_in=0)


# --- Changing those of blind indexes ---------------------------------------------------------------------

_LOCK = Query("""
    SELECT FROM store_secret WHERE store_id = ANY(CAST(:stores AS uuid[])) ORDER BY store_id FOR UPDATE
""")
# What is changing already goes on: one step at a time, or rows of three epochs would have to be looked for.
_NEXT = Query("""
    INSERT INTO index_secret (store_id, epoch, wrapped, master_key_id, writes_from)
    SELECT store_id, epoch, wrapped, :master_key_id, CASE WHEN epoch = 0 THEN :now
        ELSE CAST(:now AS timestamptz) + make_interval(secs => CAST(:lead AS float8)) END
    FROM unnest(CAST(:stores AS uuid[]), CAST(:epochs AS bigint[]), CAST(:wrapped AS bytea[]))
        AS new (store_id, epoch, wrapped)
    ON CONFLICT DO NOTHING
""")


async def rotate_indexes(
    transaction: Transaction,
    *,
    stores: Sequence[UUID],
    master_keys: MasterKeys,
    now: datetime,
    lead_seconds: float,
) -> list[Rotation]:
    """Give each store another secret, which is written with once everybody knows it, in `lead_seconds`."""
    secrets = await store_secrets(transaction, stores=stores, master_keys=master_keys, now=now)
    await _LOCK.rows(transaction, stores=stores)
    known = await _index_secrets(transaction, stores, master_keys, now)
    new: list[tuple[UUID, int, bytes]] = []
    for one in secrets:
        epochs = [index.epoch for index in known[one.store_id]]
        if not epochs:
            derived = secret_of_epoch_0(b64decode(one.secret), one.store_id)
            bound_to = index_secret_binding(one.store_id, 0)
            new.append((one.store_id, 0, master_keys.wrap(derived, bound_to)))
        if len(epochs) <= 1:
            following = max(epochs, default=0) + 1
            bound_to = index_secret_binding(one.store_id, following)
            new.append((one.store_id, following, _new(master_keys, bound_to)))
    await _NEXT.rows(
        transaction,
        stores=[store_id for store_id, _, _ in new],
        epochs=[epoch for _, epoch, _ in new],
        wrapped=[wrapped for _, _, wrapped in new],
        master_key_id=master_keys.present_id,
        now=now,
        lead=lead_seconds,
    )
    changed = await _index_secrets(transaction, stores, master_keys, now)
    return [Rotation(store_id=store_id, epoch=changed[store_id][0].epoch) for store_id in stores]


# What a command took from memory may be written as much later as everybody needed to learn of the change.
_ROTATIONS = Query("""
    SELECT store_id, max(epoch) AS epoch FROM index_secret AS secret
    GROUP BY store_id
    HAVING max(writes_from) + make_interval(secs => CAST(:lead AS float8)) <= :now
        AND (count(*) > 1 OR EXISTS (SELECT FROM restoration))
        AND NOT EXISTS (
            SELECT FROM index_report AS report
            WHERE (report.store_id, report.epoch, report.service) = (secret.store_id, max(secret.epoch), :service))
    ORDER BY store_id LIMIT :limit
""")
_AT_ONCE = 1000


async def rotations(
    transaction: Transaction, *, service: str, now: datetime, lead_seconds: float
) -> list[Rotation]:
    """The stores that a service has still to index anew: all of them, after this keyring was restored."""
    rows = await _ROTATIONS.rows(transaction, service=service, now=now, lead=lead_seconds, limit=_AT_ONCE)
    return [Rotation(store_id=row.store_id, epoch=row.epoch) for row in rows]


_REPORT = Query("""
    INSERT INTO index_report (store_id, epoch, service)
    SELECT store_id, epoch, :service
    FROM unnest(CAST(:stores AS uuid[]), CAST(:epochs AS bigint[])) AS done (store_id, epoch)
    JOIN index_secret USING (store_id, epoch)
    ON CONFLICT DO NOTHING
""")
_RETIRE = Query("""
    DELETE FROM index_secret AS secret
    USING unnest(CAST(:stores AS uuid[]), CAST(:epochs AS bigint[])) AS done (store_id, epoch)
    WHERE secret.store_id = done.store_id AND secret.epoch < done.epoch
        AND CAST(:services AS text[]) <@ ARRAY(
            SELECT CAST(service AS text) FROM index_report AS report
            WHERE (report.store_id, report.epoch) = (done.store_id, done.epoch))
""")


async def report_indexed(
    transaction: Transaction, *, done: Sequence[RotationAsked], service: str, services: Collection[str]
) -> list[Rotation]:
    """Note that a service is done; when every one of `services` is, the secrets before are gone for good."""
    values = {"stores": [one.store_id for one in done], "epochs": [one.epoch for one in done]}
    await _LOCK.rows(transaction, stores=values["stores"])
    await _REPORT.rows(transaction, **values, service=service)
    await _RETIRE.rows(transaction, **values, services=sorted(services))
    return [Rotation(store_id=one.store_id, epoch=one.epoch) for one in done]
