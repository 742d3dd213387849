"""Gives a card to the person whose JSON comes on standard input, as an event that brings their data would.

The conformance kit runs it: python -m docs.examples.loyalty.seed
"""

import asyncio
import sys
from uuid import UUID

import httpx
import orjson

from docs.examples.loyalty.models import Card, CardHolder
from docs.examples.loyalty.worker import Settings
from libs.common.db import Database
from libs.common.personal.errors import SubjectErased
from libs.common.personal.tombstones import guard
from libs.common.personal.vault import Vault


async def give_card(
    settings: Settings, *, store_id: UUID, subject_id: UUID, generation: int, name: str
) -> None:
    """Raises SubjectErased for a person who was erased since, and when the event is of an earlier generation."""
    async with httpx.AsyncClient() as http:
        vault = Vault.connect(service="loyalty", settings=settings, http=http)
        sealed = await vault.seal(CardHolder(name=name), store_id=store_id, subject_id=subject_id)
    if sealed.generation != generation:
        raise SubjectErased
    database = Database(settings.database_url, pool_size=1)
    try:
        async with database.session(store_id) as session:
            await guard(session, store_id, subject_id, generation)
            session.add(
                Card(
                    store_id=store_id,
                    subject_id=subject_id,
                    generation=generation,
                    holder=sealed.box,
                    points=40,
                )
            )
    finally:
        await database.close()


if __name__ == "__main__":
    person = orjson.loads(sys.stdin.buffer.read())
    try:
        asyncio.run(
            give_card(
                Settings.model_validate({}),
                store_id=UUID(person["store_id"]),
                subject_id=UUID(person["subject_id"]),
                generation=person["generation"],
                name=person["name"],
            )
        )
    except SubjectErased as refused:
        sys.exit(refused.title)
