"""What is left of a person, wherever it could be: tables with their rows, keys that open, mails that were sent."""

import base64
import json
from dataclasses import dataclass
from email import message_from_bytes
from email.policy import default
from typing import Self
from uuid import UUID

from deploy.local.environment import SERVICES
from deploy.local.shop import Account
from tests.faults.conftest import Running
from tests.faults.databases import Databases
from tests.remains import LIVE_KEYS, TABLES_NAMING_PEOPLE, counts


@dataclass(frozen=True, slots=True)
class Life:
    """One generation of a person at a store: what an erasure ends."""

    store_id: UUID
    subject_id: UUID
    generation: int

    @classmethod
    def of(cls, account: Account) -> Self:
        """Whom an access token names."""
        body = account.access_token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        return cls(UUID(claims["store"]), UUID(claims["subject"]), claims["generation"])


async def remains(databases: Databases, life: Life) -> dict[str, int]:
    """Rows that name the person in this or an earlier life, by service and table, and keys that would open them."""
    whom = life.store_id, life.subject_id, life.generation
    found: dict[str, int] = {"keyring.data_key": await databases.value("keyring", LIVE_KEYS, *whom)}
    for service in SERVICES:
        tables = [table for (table,) in await databases.rows(service, TABLES_NAMING_PEOPLE)]
        for table, number in await databases.rows(service, counts(tables), *whom):
            found[f"{service}.{table}"] = number
    return {place: number for place, number in found.items() if number}


def letters(running: Running, to: str, subject: str) -> set[str]:
    """The ids of the messages of a subject that a person was sent: one sent twice is one to a mail reader."""
    files = (file.read_bytes() for file in (running.platform.data / "mailbox").glob("*.eml"))
    mails = [message_from_bytes(content, policy=default) for content in files if to.encode() in content]
    return {mail["Message-ID"] for mail in mails if mail["To"] == to and mail["Subject"] == subject}


async def fingerprint(running: Running) -> dict[str, str]:
    """A hash of every row of every table that says what is so; when something was sent is not part of it."""
    tables = "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    found: dict[str, str] = {}
    for service in (*SERVICES, "keyring", "destructions"):
        for (table,) in await running.databases.rows(service, tables):
            row = "(id, key, payload)::text" if table == "outbox" else "seen::text"
            query = f"SELECT md5(coalesce(string_agg({row}, E'\\n' ORDER BY {row}), '')) FROM {table} AS seen"
            found[f"{service}.{table}"] = await running.databases.value(service, query)
    return {table: rows for table, rows in found.items() if not table.endswith(".broker_seen")}
