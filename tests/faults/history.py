"""What happened, read afterwards from outboxes and inboxes: nothing lost, invented, doubled or out of order.

Every event that was ever published lies in an outbox, every event that was handled in an inbox. The tests add one
column to the inbox, a number that PostgreSQL draws when a row is written, so that the order of handling is known.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any
from uuid import UUID

from deploy.local.databases import database
from deploy.local.environment import SERVICES
from deploy.local.postgres import PostgresServer

_PUBLISHED = """
    SELECT id, topic, key, (headers ->> 'ce_id')::uuid AS event_id, headers ->> 'ce_type' AS type,
        (convert_from(payload, 'UTF8')::jsonb ->> 'version')::bigint AS version
    FROM outbox ORDER BY id
"""


@dataclass
class History:
    """The events of a platform: per service what it published and, by event, when it handled it."""

    published: dict[str, list[Any]] = field(default_factory=dict[str, list[Any]])
    handled: dict[str, dict[UUID, int]] = field(default_factory=dict[str, dict[UUID, int]])

    def lost(self) -> dict[str, int]:
        """By service: events it handles, published and never handled there."""
        return _numbers({name: self._expected(name) - self.handled[name].keys() for name in SERVICES})

    def invented(self) -> dict[str, int]:
        """By service: events handled that nobody published."""
        return _numbers({name: self.handled[name].keys() - self._expected(name) for name in SERVICES})

    def inversions(self) -> list[str]:
        """Where a service handled a later event of a key before an earlier one."""
        found: list[str] = []
        for producer, rows in self.published.items():
            for consumer, handled in self.handled.items():
                last: dict[tuple[str, str], int] = {}
                for row in rows:
                    witness = handled.get(row["event_id"])
                    if witness is None:
                        continue
                    if witness < last.get((row["topic"], row["key"]), 0):
                        found.append(f"{producer} → {consumer}: {row['type']} of {row['key']}")
                    last[row["topic"], row["key"]] = witness
        return found

    def steps_back(self) -> list[str]:
        """Where the versions of a key did not rise."""
        found: list[str] = []
        for rows in self.published.values():
            last: dict[tuple[str, str], tuple[int, str]] = {}
            for row in rows:
                if not row["version"]:
                    continue
                place = row["topic"], row["key"]
                before, type_before = last.get(place, (0, ""))
                # One change may be told in two events of different types.
                if row["version"] < before or (row["version"] == before and row["type"] == type_before):
                    found.append(f"{row['type']} of {row['key']}: {before}, then {row['version']}")
                last[place] = row["version"], row["type"]
        return found

    def count(self, service: str, *types: str) -> Counter[str]:
        """By key, how many events of these types a service published."""
        return Counter(row["key"] for row in self.published[service] if row["type"].split(".")[-2] in types)

    def _expected(self, consumer: str) -> set[UUID]:
        types = _HANDLED[consumer]
        return {row["event_id"] for rows in self.published.values() for row in rows if row["type"] in types}


def _numbers(events: dict[str, set[UUID]]) -> dict[str, int]:
    return {name: len(found) for name, found in events.items() if found}


_HANDLED = {
    service: {event.type for event in import_module(f"services.{service}.consumer").HANDLERS}
    for service in SERVICES
}


async def witness(postgres: PostgresServer) -> None:
    """Have PostgreSQL number the rows of every inbox as they are written."""
    for service in SERVICES:
        connection = await postgres.connect(database(service))
        try:
            await connection.execute(
                "ALTER TABLE inbox ADD COLUMN witness bigint GENERATED ALWAYS AS IDENTITY"
            )
        finally:
            await connection.close()


async def read(postgres: PostgresServer) -> History:
    """The history so far. Inboxes first, so that what is found in them is found in the outboxes too."""
    history: dict[str, defaultdict[str, Any]] = {"published": defaultdict(list), "handled": defaultdict(dict)}
    for kind, query in (("handled", "SELECT event_id, witness FROM inbox"), ("published", _PUBLISHED)):
        for service in SERVICES:
            connection = await postgres.connect(database(service))
            try:
                rows = await connection.fetch(query)
            finally:
                await connection.close()
            history[kind][service] = (
                {row["event_id"]: row["witness"] for row in rows} if kind == "handled" else list(rows)
            )
    return History(**history)
