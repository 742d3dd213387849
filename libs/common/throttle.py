"""How often something may be tried: counted per e-mail and per client address, in windows that end by themselves.

Nobody is locked out for good, and a counter knows people by keyed hashes only. A service that counts has the table.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import LargeBinary, bindparam, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from libs.common.db import Database, impersonal
from libs.common.errors import TooManyRequests

HOUR = timedelta(hours=1)


class TooManyAttempts(TooManyRequests):
    """429: the same for known and unknown people."""

    slug = "too-many-attempts"
    title = "Too many attempts; try again later"


class Counting:
    """The columns of the table `attempts` of a service: a counter of one window, which expires by itself."""

    __tablename__ = "attempts"

    store_id: Mapped[UUID] = mapped_column(primary_key=True)
    key_hash: Mapped[bytes] = mapped_column(
        primary_key=True, info=impersonal("keyed hash, deleted after its window")
    )
    count: Mapped[int]
    expires_at: Mapped[datetime] = mapped_column(index=True)


FORGET = text("DELETE FROM attempts WHERE expires_at < :now")
"""For a duty: counters whose window is over."""


# One window a key: it opens with the first attempt, and the attempts of a full one do not prolong it.
_COUNT = text("""
    INSERT INTO attempts AS known (store_id, key_hash, count, expires_at)
    SELECT :store_id, key_hash, 1, expires_at
    FROM unnest(CAST(:keys AS bytea[]), CAST(:expiries AS timestamptz[])) AS new (key_hash, expires_at)
    ORDER BY key_hash
    ON CONFLICT (store_id, key_hash) DO UPDATE SET
        count = CASE WHEN known.expires_at <= :now THEN 1 ELSE known.count + 1 END,
        expires_at = CASE WHEN known.expires_at <= :now THEN excluded.expires_at ELSE known.expires_at END
    RETURNING key_hash, count AS counted, expires_at
""")
# Rows are locked in the order in which they are counted, so that the two never wait for each other.
_SUCCEEDED = text("""
    WITH locked AS MATERIALIZED (
        SELECT key_hash FROM attempts WHERE store_id = :store_id AND key_hash IN (:person, :address)
        ORDER BY key_hash FOR UPDATE
    )
    UPDATE attempts SET count = CASE WHEN attempts.key_hash = :person THEN 0 ELSE greatest(count - 1, 0) END
    FROM locked WHERE attempts.store_id = :store_id AND attempts.key_hash = locked.key_hash
""").bindparams(bindparam("person", type_=LargeBinary), bindparam("address", type_=LargeBinary))


@dataclass(frozen=True, slots=True)
class Bound:
    """At most so many attempts with this key in a window."""

    key: bytes
    most: int
    window: timedelta


async def count(
    session: AsyncSession, store_id: UUID, bounds: Sequence[Bound], now: datetime
) -> dict[bytes, timedelta]:
    """Count one attempt with each key. Returns the keys that are over their bound, and for how long still."""
    rows = await session.execute(
        _COUNT,
        {
            "store_id": store_id,
            "now": now,
            "keys": [bound.key for bound in bounds],
            "expiries": [now + bound.window for bound in bounds],
        },
    )
    most = {bound.key: bound.most for bound in bounds}
    return {row.key_hash: row.expires_at - now for row in rows if row.counted > most[row.key_hash]}


async def count_or_refuse(database: Database, store_id: UUID, bounds: Sequence[Bound], now: datetime) -> None:
    """As `count`, in a transaction of its own. Raises TooManyAttempts when a key is over its bound."""
    async with database.session(store_id) as session:
        over = await count(session, store_id, bounds, now)
    if over:
        raise TooManyAttempts(int(max(over.values()).total_seconds()) + 1)


async def succeeded(session: AsyncSession, store_id: UUID, *, person: bytes, address: bytes) -> None:
    """The attempt was no failure: the person's count starts from nothing, the address gets its one back.

    Whoever has an account of their own cannot clear an address with it.
    """
    await session.execute(_SUCCEEDED, {"store_id": store_id, "person": person, "address": address})


def network(address: str) -> str:
    """What stands for a client: an IPv4 address, or the /64 that one IPv6 customer is given."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return "unknown"
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
