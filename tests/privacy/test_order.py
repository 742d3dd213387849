"""The order of an erasure, as the databases saw it: collect, tell, destroy keys, clean rows, read again, and say so.

Triggers note what happens, in the transaction in which it does and by the clock of the server that has all databases;
of the services nothing is replaced.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from sqlalchemy import select
from sqlalchemy.engine import make_url

from deploy.local.databases import database
from deploy.local.postgres import PostgresServer
from deploy.local.waiting import until
from libs.common.auth import PLATFORM_STORE
from libs.common.db import Database
from libs.common.events.privacy import KeysDestroyed, ParticipantAnnounced, Verb
from libs.common.personal.holdings import Person as Subject
from libs.common.personal.participant import Participant
from libs.common.personal.vocabulary import Purpose
from libs.common.worker import Work
from tests.common.personal.shop import SHOP, Purchase
from tests.privacy.conftest import Platform
from tests.privacy.test_people import merged
from tests.privacy.test_thread import ENDS_WITHIN, Running, running

__all__ = ["running"]

_WITNESS = """
    CREATE TABLE witnessed (at timestamptz NOT NULL DEFAULT clock_timestamp(), subject uuid, what text NOT NULL);
    CREATE FUNCTION witness() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
    DECLARE seen jsonb := to_jsonb(coalesce(NEW, OLD));
    BEGIN
        INSERT INTO witnessed (subject, what) VALUES (
            coalesce(seen ->> 'request_id', seen ->> 'subject_id', seen ->> 'id')::uuid,
            format(TG_ARGV[0], seen ->> TG_ARGV[1], seen ->> TG_ARGV[2]));
        RETURN NULL;
    END $$
"""
_FORGET = "DROP TABLE IF EXISTS witnessed CASCADE; DROP FUNCTION IF EXISTS witness CASCADE"


class Seen(NamedTuple):
    """Something that was committed."""

    at: datetime
    subject: UUID
    what: str


@dataclass
class Witness:
    """What the databases saw, and what the shop told those who have data from it."""

    connections: dict[str, Any]
    told: list[Seen] = field(default_factory=list[Seen])
    names: list[str] = field(default_factory=list[str])

    async def seen(self) -> list[Seen]:
        found = [
            Seen(*row)
            for connection in self.connections.values()
            for row in await connection.fetch("SELECT at, subject, what FROM witnessed")
        ]
        return sorted([*found, *self.told])

    async def tell(self, work: Work, store_id: UUID, people: Sequence[Subject]) -> None:
        """As a shop that lets its carrier know whom to forget: by name, which must still open."""
        async with work.database.session(store_id) as session:
            rows = list(
                await session.scalars(
                    select(Purchase).where(Purchase.subject_id.in_([one.subject_id for one in people]))
                )
            )
        for row in rows:
            assert row.contact is not None
            contact = await work.vault.open(
                row.contact,
                store_id=store_id,
                subject_id=row.subject_id,
                purpose=Purpose.RIGHTS_OF_THE_PERSON,
            )
            self.names.append(contact.email)
            at = await self.connections["shop"].fetchval("SELECT clock_timestamp()")
            self.told.append(Seen(at, row.subject_id, "told"))


async def _triggers(connection: Any, *triggers: str) -> None:
    await connection.execute(_FORGET)
    await connection.execute(_WITNESS)
    for number, trigger in enumerate(triggers):
        await connection.execute(f"CREATE TRIGGER witness_{number} AFTER {trigger}")


@pytest.fixture
async def witness(
    postgres: PostgresServer, running: Running, shop_database: Database
) -> AsyncIterator[Witness]:
    names = {
        "privacy": database("privacy"),
        "keyring": database("keyring"),
        "shop": str(make_url(shop_database.url).database),
    }
    connections = {name: await postgres.connect(one) for name, one in names.items()}
    await _triggers(
        connections["privacy"],
        "UPDATE OF answer ON task FOR EACH ROW WHEN (NEW.answer IS NOT NULL)"
        " EXECUTE FUNCTION witness('%s answered %s', 'participant', 'verb')",
        "UPDATE OF state ON request FOR EACH ROW WHEN (OLD.state <> NEW.state)"
        " EXECUTE FUNCTION witness('request is %s', 'state', 'state')",
        "INSERT ON waiting_letter FOR EACH ROW EXECUTE FUNCTION witness('%s written', 'kind', 'kind')",
    )
    await _triggers(
        connections["keyring"],
        "DELETE ON data_key FOR EACH ROW EXECUTE FUNCTION witness('key destroyed: %s', 'retention', 'retention')",
    )
    await _triggers(
        connections["shop"],
        "UPDATE OF contact ON purchase FOR EACH ROW WHEN (NEW.contact IS NULL)"
        " EXECUTE FUNCTION witness('row emptied', 'id', 'id')",
    )
    yield Witness(connections)
    for connection in connections.values():
        await connection.execute(_FORGET)
        await connection.close()


@pytest.fixture
async def telling(running: Running, witness: Witness, shop_participant: Participant) -> AsyncIterator[None]:
    """The shop says that it prepares erasures, and does."""
    shop_participant.prepare = witness.tell
    platform = running.platform
    await announce(platform, prepares=True)
    yield
    shop_participant.prepare = None
    await announce(platform, prepares=False)


async def announce(platform: Platform, *, prepares: bool) -> None:
    await platform.deliver(
        ParticipantAnnounced(
            participant=SHOP,
            public_key=platform.shop_key.as_dict(private=False),
            data_map=[],
            prepares=prepares,
        ),
        store_id=PLATFORM_STORE,
    )


def between(seen: Sequence[Seen], *words: str) -> tuple[datetime, datetime]:
    """When the first and when the last thing of a step happened."""
    times = [one.at for one in seen if one.what.startswith(words)]
    assert times, f"nothing was seen of {words}"
    return min(times), max(times)


STEPS = (
    ("test-shop answered preview", "privacy answered preview"),
    ("told",),
    ("test-shop answered prepare",),
    ("key destroyed: order",),
    ("keyring answered erase",),
    ("row emptied", "test-shop answered erase", "privacy answered erase"),
    ("test-shop answered verify-erased", "privacy answered verify-erased", "keyring answered verify-erased"),
    ("request is completed",),
    ("RequestLetter written",),
)
"""Each is over before the next begins."""


@pytest.mark.usefixtures("telling")
async def test_an_erasure_collects_tells_destroys_cleans_and_reads_again(
    running: Running, witness: Witness
) -> None:
    platform = running.platform
    await platform.decides(passing={"erasure": "when-clear"})
    one, other = await platform.person(), await platform.person()
    for person in (one, other):
        await running.purchase(person)
    await merged(platform, one, other)
    async with running.shop_worker():
        request_id = await platform.opened(one, "erasure")
        await running.ended(one, request_id)

        async def is_written() -> bool:
            return any(one.what == "RequestLetter written" for one in await witness.seen())

        await until(is_written, ENDS_WITHIN, "the person was not told")
    seen = [
        one_seen
        for one_seen in await witness.seen()
        if one_seen.subject in {request_id, one.subject_id, other.subject_id}
    ]
    for earlier, later in pairwise(STEPS):
        assert between(seen, *earlier)[1] < between(seen, *later)[0], (
            f"{later} began before the end of {earlier}"
        )
    # Whoever has data from the shop was told of both addresses, by what only an open box says.
    assert sorted(witness.names) == sorted([one.email, other.email])


@pytest.mark.usefixtures("telling")
async def test_nothing_is_destroyed_while_somebody_is_still_to_be_told(
    running: Running, witness: Witness
) -> None:
    platform = running.platform
    person = await platform.person()
    await running.purchase(person)
    # Nobody works at the shop yet.
    request_id = await platform.opened(person, "erasure")

    async def is_asked_again() -> bool:
        return len(await platform.tasks(request_id, Verb.PREPARE)) >= 2

    await until(is_asked_again, ENDS_WITHIN, "the shop was not asked again")
    assert not await platform.tasks(request_id, Verb.ERASE)
    assert not await platform.published(KeysDestroyed)
    [part] = [
        part
        for part in (await platform.detail(person, request_id))["parts"]
        if part["participant"] == "keyring"
    ]
    assert part["state"] == "waiting" and part["attempts"] == 0
    async with running.shop_worker():
        await running.ended(person, request_id)
    assert witness.names == [person.email]


@pytest.mark.usefixtures("telling")
async def test_whoever_joins_an_erasure_is_told_of_before_their_keys_go(
    running: Running, witness: Witness
) -> None:
    platform = running.platform
    one, other = await platform.person(), await platform.person()
    for person in (one, other):
        await running.purchase(person)
    async with running.shop_worker():
        await platform.decides(passing={"erasure": "officer"})
        request_id = await platform.opened(one, "erasure")
        await merged(platform, one, other)
        await approve(platform, request_id)
        await running.ended(one, request_id)
    assert sorted(witness.names) == sorted([one.email, other.email])


async def approve(platform: Platform, request_id: UUID) -> None:
    answer = await platform.do(request_id, "decision", {"approve": True})
    assert answer.status_code == 200, answer.text
