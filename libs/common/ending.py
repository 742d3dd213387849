"""What a service does at the end of a store: its rows go, in bounded batches, and what stays is named.

    ENDINGS = Endings(PARTICIPANT, metadata=Base.metadata, holdings=HOLDINGS, kept=KEPT)
    HANDLERS = {**ENDINGS.handlers, ...}
    DUTIES = [*ENDINGS.duties, ...]

Rows are removed by what the code declares, children before parents. Whether any is left is read the other way, from the
database's own catalogue, once nothing that was under way can have added to them: a table that nobody declared is found
too. Then the service says so, with what it keeps and on what ground.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from uuid import UUID

from sqlalchemy import MetaData, Table
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.db import fetch, ring_after_commit
from libs.common.events import Received
from libs.common.events.privacy import KeptOfStore, StoreCleaned, StoreKeysDestroyed
from libs.common.inbox import Handlers
from libs.common.outbox import publish
from libs.common.personal.answers import sign
from libs.common.personal.holdings import Holding, OnErase
from libs.common.personal.participant import Participant
from libs.common.personal.vault import announce_store
from libs.common.personal.vocabulary import Bucket, Retention
from libs.common.tables import METADATA
from libs.common.worker import Duty, Work

logger = logging.getLogger(__name__)

CHANNEL = "ended_stores"
"""NOTIFY channel: rows of a store are to be removed."""
BATCH = 1000
"""Rows that one transaction removes."""
UNDER_WAY = timedelta(minutes=3)
"""Opened keys are forgotten by then, and whatever began before the end is over: nothing is added any more."""
_LEASE = timedelta(seconds=30)

MACHINERY: Mapping[str, str] = {
    "known_store": "that the store existed and has ended",
    "outbox": "events that were sent, deleted after 7 days",
    "inbox": "ids of events, deleted after 30 days",
    "waiting_letter": "letters under way: what lies under a destroyed key is dropped instead of sent",
    "erased_subject": "whose data is refused for ever",
    "participant_job": "what was answered to requests, deleted after 30 days",
    "restricted_subject": "whose data is on hold, as long as any is kept",
    "expired_bucket": "what is past its time, deleted 30 days after it was cleaned",
}
"""What stays in every service without being kept: it names nobody, or ends by itself."""


class Endings:
    """One participant's part in the end of stores.

    `kept` names the tables that stay beside those whose boxes the law keeps, and on what ground.
    """

    def __init__(
        self,
        participant: Participant,
        *,
        metadata: MetaData,
        holdings: Iterable[Holding] = (),
        kept: Mapping[str, str] | None = None,
    ) -> None:
        self._participant = participant
        self._by_law = [one for one in holdings if one.kept_by_law]
        self.kept: Mapping[str, str] = {
            **MACHINERY,
            **(kept or {}),
            **{one.name: _law(one) for one in self._by_law},
        }
        self._statements = [
            *_removing(metadata, self.kept),
            *_emptying([one for one in holdings if one.name in self.kept and not _outlives(one)]),
        ]

    @property
    def handlers(self) -> Handlers:
        """To be merged into the service's HANDLERS."""
        return {StoreKeysDestroyed: self.on_keys_destroyed}

    @property
    def duties(self) -> Sequence[Duty]:
        """To be merged into the service's DUTIES."""
        return [Duty("remove what ended stores left", self.clean, timedelta(seconds=5), channel=CHANNEL)]

    async def on_keys_destroyed(self, session: AsyncSession, event: Received[StoreKeysDestroyed]) -> None:
        """Forget the keys, and begin; whoever is done says so again."""
        store_id = event.data.store_id
        await announce_store(session, store_id)
        if any(row.done for row in await fetch(session, _BEGIN, store_id, event.envelope.time)):
            await self._say(session, store_id)
        ring_after_commit(session, CHANNEL)

    async def clean(self, work: Work) -> int:
        """Remove a batch of one store's rows, or look whether any is left. Returns 0 when nothing is due."""
        now = work.clock()
        async with work.database.platform_session() as session:
            due = await fetch(session, _CLAIM, now, now + _LEASE)
        for store in due:
            async with work.database.session(store.store_id) as session:
                await self._step(session, store.store_id, first=store.cleaned_at is None, now=now)
        return len(due)

    async def _step(self, session: AsyncSession, store_id: UUID, *, first: bool, now: datetime) -> None:
        """As long as there is something to remove, the next step follows at once; then the rows are read again."""
        if await self._remove(session, store_id):
            await fetch(session, _AGAIN, store_id, now)
        elif first:
            await fetch(session, _LOOK_LATER, store_id, now, now + UNDER_WAY)
        elif left := await self._left(session, store_id):
            logger.error("rows of an ended store are left", extra={"count": sum(left.values())})
            await fetch(session, _AGAIN, store_id, now + UNDER_WAY)
        else:
            await fetch(session, _DONE, store_id, now)
            await self._say(session, store_id)
            logger.info("what an ended store left is removed", extra={"service": self._participant.service})

    async def _remove(self, session: AsyncSession, store_id: UUID) -> int:
        removed = 0
        for statement in self._statements:
            if removed < BATCH:
                removed += len(await fetch(session, statement, store_id, BATCH - removed))
        return removed

    async def _left(self, session: AsyncSession, store_id: UUID) -> dict[str, int]:
        """Rows of the store, by table, in any table of the catalogue that is not to be kept."""
        tables = [row.name for row in await fetch(session, _CATALOGUE) if row.name not in self.kept]
        counts = {name: await _count(session, name, store_id) for name in tables}
        return {name: count for name, count in counts.items() if count}

    # --- What is kept ------------------------------------------------------------------------------------

    async def _say(self, session: AsyncSession, store_id: UUID) -> None:
        cleaned = StoreCleaned(
            store_id=store_id,
            participant=self._participant.service,
            kept=[
                kept
                for name, ground in self.kept.items()
                if name not in MACHINERY and (kept := await self._of(session, store_id, name, ground)).count
            ],
        )
        signed = sign(cleaned, store_id=store_id, key=self._participant.key)
        await publish(session, signed, store_id=store_id, source=self._participant.service)

    async def _of(self, session: AsyncSession, store_id: UUID, name: str, ground: str) -> KeptOfStore:
        holding = next((one for one in self._by_law if one.name == name), None)
        return KeptOfStore(
            table=name,
            count=await _count(session, name, store_id),
            ground=ground,
            by_law=holding is not None,
            until=await _last_day(session, holding, store_id) if holding is not None else None,
        )


async def _count(session: AsyncSession, name: str, store_id: UUID) -> int:
    statement = f"SELECT count(*) AS number FROM {name} WHERE store_id = $1"  # noqa: S608 - from the catalogue
    [row] = await fetch(session, statement, store_id)
    return row.number


async def _last_day(session: AsyncSession, holding: Holding, store_id: UUID) -> date | None:
    period = _retention(holding).period
    if holding.bucket is None or period.divided_by is not Bucket.YEAR:
        return None
    statement = f"SELECT max({holding.bucket}) AS bucket FROM {holding.name} WHERE store_id = $1"  # noqa: S608
    [row] = await fetch(session, statement, store_id)
    return None if row.bucket is None else period.expires_on(str(row.bucket))


def _retention(holding: Holding) -> Retention:
    assert holding.retention is not None  # noqa: S101 - what the law keeps has a box
    return holding.retention


def _outlives(holding: Holding) -> bool:
    return holding.retention is not None and holding.retention.outlives_store


def _law(holding: Holding) -> str:
    return _retention(holding).period.law


# --- Statements ------------------------------------------------------------------------------------------

# No order holds between topics: of a store that is not known yet it must be known that it has ended.
_BEGIN = """
    INSERT INTO known_store AS store (store_id, slug, name, country, currency, language, version, state, clean_at)
    VALUES ($1, '', '', '', '', '', 0, 'ended', $2)
    ON CONFLICT (store_id) DO UPDATE SET state = 'ended',
        clean_at = CASE WHEN store.cleaned_at IS NULL THEN coalesce(store.clean_at, $2) ELSE store.clean_at END
    RETURNING cleaned_at IS NOT NULL AND clean_at IS NULL AS done
"""
_CLAIM = """
    UPDATE known_store SET clean_at = $2 WHERE store_id IN (
        SELECT store_id FROM known_store WHERE clean_at <= $1 ORDER BY clean_at LIMIT 1 FOR UPDATE SKIP LOCKED)
    RETURNING store_id, cleaned_at
"""
_AGAIN = "UPDATE known_store SET clean_at = $2 WHERE store_id = $1"
_LOOK_LATER = "UPDATE known_store SET cleaned_at = $2, clean_at = $3 WHERE store_id = $1"
_DONE = "UPDATE known_store SET cleaned_at = $2, clean_at = NULL WHERE store_id = $1"
_CATALOGUE = """
    SELECT quote_ident(relation.relname) AS name FROM pg_class AS relation
    JOIN pg_attribute AS attribute ON attribute.attrelid = relation.oid
    WHERE relation.relnamespace = current_schema()::regnamespace AND relation.relkind IN ('r', 'p', 'm')
        AND NOT relation.relispartition AND attribute.attname = 'store_id' AND NOT attribute.attisdropped
    ORDER BY 1
"""


def _removing(metadata: MetaData, kept: Mapping[str, str]) -> list[str]:
    """For each table of stores that does not stay, children before their parents: `$1` the store, `$2` how many."""
    tables = [*metadata.sorted_tables, *METADATA.sorted_tables]
    return [
        f"DELETE FROM {table.name} WHERE ctid = ANY(ARRAY("  # noqa: S608 - names of our own tables
        f"SELECT ctid FROM {table.name} WHERE store_id = $1 LIMIT $2)) RETURNING 1 AS one"
        for table in reversed(tables)
        if "store_id" in table.columns and table.name not in kept
    ]


def _emptying(holdings: Iterable[Holding]) -> list[str]:
    """For each table that stays for its figures: what it says about people goes."""
    statements: list[str] = []
    for holding in holdings:
        if holding.on_erase is not OnErase.CLEAR:
            continue
        table: Table = holding.sql
        nulls = ", ".join(f"{name} = NULL" for name in holding.emptied)
        full = " OR ".join(f"{name} IS NOT NULL" for name in holding.emptied)
        statements.append(
            f"UPDATE {table.name} SET {nulls} WHERE ctid = ANY(ARRAY("  # noqa: S608
            f"SELECT ctid FROM {table.name} WHERE store_id = $1 AND ({full}) LIMIT $2)) RETURNING 1 AS one"
        )
    return statements
