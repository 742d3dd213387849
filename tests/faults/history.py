"""What happened, read afterwards from outboxes and inboxes: nothing lost, invented, doubled or out of order.

Every event that was ever published lies in an outbox, every event that was dealt with in an inbox. The workers under
test also write each event that they handle into a table of the tests, in the handler's own transaction: there it would
lie twice if it was handled twice, and a number says in which order.
"""

from collections import Counter
from dataclasses import dataclass
from importlib import import_module
from typing import Any
from uuid import UUID

from deploy.local.databases import OWNER, app_role
from deploy.local.environment import SERVICES
from tests.faults.databases import Databases

_PUBLISHED = """
    SELECT id, topic, key, concat_ws(' ', key, CASE topic
            WHEN 'privacy.retention' THEN convert_from(payload, 'UTF8')::jsonb ->> 'bucket'
            WHEN 'privacy.answers' THEN coalesce(convert_from(payload, 'UTF8')::jsonb ->> 'verb', 'export') END
            ) AS line,
        (headers ->> 'ce_id')::uuid AS event_id, headers ->> 'ce_type' AS type,
        (convert_from(payload, 'UTF8')::jsonb ->> 'version')::bigint AS version
    FROM outbox ORDER BY id
"""
"""Events stand in line by their key; clocks by their bucket, since each order of a person is an aggregate; answers by
what was asked, since one participant may be asked two things about a request at once, and answers each by itself.
"""


@dataclass
class History:
    """The events of a platform, by service: what it published, what it dealt with, and its effects in their order."""

    published: dict[str, list[Any]]
    known: dict[str, set[UUID]]
    effects: dict[str, list[UUID]]

    def lost(self) -> dict[str, int]:
        """By service: events it handles, published and never dealt with there."""
        return _numbers({name: self._expected(name) - self.known[name] for name in SERVICES})

    def invented(self) -> dict[str, int]:
        """By service: events dealt with that nobody published."""
        return _numbers({name: self.known[name] - self._expected(name) for name in SERVICES})

    def doubled(self) -> dict[str, int]:
        """By service: events that had their effect more than once."""
        return _numbers(
            {
                name: {event for event, times in Counter(self.effects[name]).items() if times > 1}
                for name in SERVICES
            }
        )

    def inversions(self) -> list[str]:
        """Where a service handled a later event of a line before an earlier one."""
        found: list[str] = []
        for producer, rows in self.published.items():
            for consumer, effects in self.effects.items():
                places = {event: place for place, event in enumerate(effects)}
                last: dict[tuple[str, str], int] = {}
                for row in rows:
                    place = places.get(row["event_id"])
                    if place is None:
                        continue
                    if place < last.get((row["topic"], row["line"]), 0):
                        found.append(f"{producer} → {consumer}: {row['type']} of {row['key']}")
                    last[row["topic"], row["line"]] = place
        return found

    def steps_back(self) -> list[str]:
        """Where the versions of a line did not rise."""
        found: list[str] = []
        for rows in self.published.values():
            last: dict[tuple[str, str], tuple[int, str]] = {}
            for row in rows:
                if not row["version"]:
                    continue
                place = row["topic"], row["line"]
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


async def witness(databases: Databases) -> None:
    """Make the table into which workers under test write what they handle."""
    for service in SERVICES:
        await databases.execute(
            service,
            "CREATE TABLE effect (id bigint GENERATED ALWAYS AS IDENTITY, event_id uuid NOT NULL);"
            f"ALTER TABLE effect OWNER TO {OWNER}; GRANT INSERT ON effect TO {app_role(service)}",
        )


async def read(databases: Databases) -> History:
    """The history so far. Outboxes last, so that what is found elsewhere is found in them too."""
    effects = {
        name: await databases.rows(name, "SELECT event_id FROM effect ORDER BY id") for name in SERVICES
    }
    known = {name: await databases.rows(name, "SELECT event_id FROM inbox") for name in SERVICES}
    published = {name: await databases.rows(name, _PUBLISHED) for name in SERVICES}
    return History(
        published,
        {name: {row["event_id"] for row in rows} for name, rows in known.items()},
        {name: [row["event_id"] for row in rows] for name, rows in effects.items()},
    )
