"""Wrapping anew what lies under an older master key, while keyrings mint and open beside it."""

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from libs.common.db import ALL_STORES, Database, Query, Row, Transaction, fetch
from services.privacy.keyring.master_keys import (
    MasterKeys,
    data_key_binding,
    index_secret_binding,
    store_secret_binding,
    tenant_key_binding,
)

logger = logging.getLogger(__name__)

BATCH = 500


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A table whose rows have `wrapped` and `master_key_id`, by which columns they are told apart, and what a row's
    ciphertext is bound to. `primary` must be its primary key: it is walked in this order.
    """

    table: str
    primary: Mapping[str, str]
    """Columns and their types."""
    bound_to: Callable[[Row], bytes]
    needs: Sequence[str] = ()
    """More columns that the binding is made from."""


WRAPPED: Sequence[Wrapped] = (
    Wrapped(
        "tenant_key", {"key_id": "uuid"}, lambda row: tenant_key_binding(row.key_id, row.store_id), ("store_id",)
    ),
    Wrapped("store_secret", {"store_id": "uuid"}, lambda row: store_secret_binding(row.store_id)),
    Wrapped(
        "index_secret", {"store_id": "uuid", "epoch": "bigint"},
        lambda row: index_secret_binding(row.store_id, row.epoch),
    ),
    Wrapped(
        "data_key", {"key_id": "uuid"},
        lambda row: data_key_binding(row.key_id, row.store_id, row.subject_id), ("store_id", "subject_id"),
    ),
)  # fmt: skip
"""Everything that lies under a master key, or did before stores had keys of their own."""


class MasterKeyUnknown(Exception):
    """Something lies under a master key that was not given. Nothing is lost."""


_NUMBERS = " UNION ALL ".join(
    f"SELECT master_key_id, count(*) AS number FROM {one.table} GROUP BY master_key_id"  # noqa: S608
    for one in WRAPPED
)
_MASTER_KEYS = Query(f"""
    SELECT master_key_id, sum(number) AS number FROM ({_NUMBERS}) AS wrapped
    WHERE master_key_id IS NOT NULL GROUP BY master_key_id ORDER BY master_key_id
""")  # noqa: S608 - words of this file


async def counted(keyring: Database) -> dict[str, int]:
    """How many rows lie under which master key, by its fingerprint."""
    async with keyring.transaction(ALL_STORES) as transaction:
        return {row.master_key_id: int(row.number) for row in await _MASTER_KEYS.rows(transaction)}


async def check_master_keys(keyring: Database, master_keys: MasterKeys) -> int:
    """How many rows lie under a master key that was not given; they answer 503, and the log says which key it is.

    Raises MasterKeyUnknown when there is nothing else: these are the master keys of another keyring, or another time.
    """
    numbers = await counted(keyring)
    missing = {name: number for name, number in numbers.items() if name not in master_keys}
    if missing:
        named = ", ".join(
            f"{number} keys and secrets under {name or 'no name'}" for name, number in missing.items()
        )
        words = (
            f"There are {named}, a master key that was not given (fingerprints, not keys). A keyring from before a "
            "rotation needs the key of that time: add it to KEYRING_OLD_MASTER_KEYS, then run make rewrap."
        )
        if missing.keys() == numbers.keys():
            raise MasterKeyUnknown(words)
        logger.error(words)
    return sum(missing.values())


async def rewrap(keyring: Database, master_keys: MasterKeys, *, batch: int = BATCH) -> AsyncIterator[int]:
    """Wrap anew, batch by batch, each a transaction of its own; yields how many rows were done so far.

    Any number may run at once. What somebody else is changing is left to the next pass, so that nobody waits for
    whoever waits for them. Raises MasterKeyMissing.
    """
    done = 0
    for one in WRAPPED:
        after: Sequence[Any] = ()
        while rows := await _rewrap_some(keyring, master_keys, one, after, batch):
            after = [rows[-1][name] for name in one.primary]
            done += len(rows)
            yield done


async def _rewrap_some(
    keyring: Database, master_keys: MasterKeys, one: Wrapped, after: Sequence[Any], batch: int
) -> list[Row]:
    async with keyring.transaction(ALL_STORES) as transaction:
        rows = await _old(transaction, one, after, master_keys.present_id, batch)
        if rows:
            await _put_back(transaction, one, rows, master_keys)
        return rows


async def _old(
    transaction: Transaction, one: Wrapped, after: Sequence[Any], present: str, batch: int
) -> list[Row]:
    primary = ", ".join(one.primary)
    places = ", ".join(f"${position}::{kind}" for position, kind in enumerate(one.primary.values(), start=3))
    further = f"AND ({primary}) > ({places})" if after else ""
    columns = ", ".join(dict.fromkeys((*one.primary, *one.needs, "wrapped", "master_key_id")))
    query = (
        f"SELECT {columns} FROM {one.table} WHERE master_key_id <> $1 {further} "  # noqa: S608 - words of this file
        f"ORDER BY {primary} LIMIT $2 FOR UPDATE SKIP LOCKED"
    )
    return await fetch(transaction, query, present, batch, *after)


async def _put_back(
    transaction: Transaction, one: Wrapped, rows: Sequence[Row], master_keys: MasterKeys
) -> None:
    wrapped = [_wrapped_anew(row, one.bound_to(row), master_keys) for row in rows]
    names = ", ".join(one.primary)
    places = [f"${position}::{kind}[]" for position, kind in enumerate(one.primary.values(), start=3)]
    query = f"""
        UPDATE {one.table} AS held SET wrapped = anew.wrapped, master_key_id = $1
        FROM unnest($2::bytea[], {", ".join(places)}) AS anew (wrapped, {names})
        WHERE ({", ".join(f"held.{name}" for name in one.primary)})
            = ({", ".join(f"anew.{name}" for name in one.primary)})
    """  # noqa: S608 - words of this file
    keys = [[row[name] for row in rows] for name in one.primary]
    await fetch(transaction, query, master_keys.present_id, wrapped, *keys)


def _wrapped_anew(row: Row, bound_to: bytes, master_keys: MasterKeys) -> bytes:
    return master_keys.wrap(master_keys.unwrap(row.wrapped, row.master_key_id, bound_to), bound_to)
