"""The duty that cleans what is past the time for which it is kept: in batches, then a re-read, then the answer."""

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.db import ALL_STORES
from libs.common.events.privacy import KeysExpired, RowsCleaned
from libs.common.outbox import publish_all
from libs.common.personal import expiry
from libs.common.personal.answers import sign
from libs.common.personal.expiry import Cleaning, Over
from libs.common.personal.participant.part import Part
from libs.common.personal.vocabulary import Retention
from libs.common.rest import rest
from libs.common.worker import Work


async def note(part: Part, session: AsyncSession, store_id: UUID, events: Sequence[KeysExpired]) -> None:
    """Keep what is to be cleaned here; what was clean before is answered again."""
    held = [event for event in events if event.retention in part.cleanings]
    if held:
        again = [
            _answer(part, store_id, row, row.counts) for row in await expiry.note(session, store_id, held)
        ]
        await publish_all(session, again, store_id=store_id, source=part.service)


async def clean(part: Part, work: Work) -> int:
    """Clean what is to be cleaned. Returns 0 unless more are waiting."""
    claimed = await expiry.claim(work.database, part.cleanings)
    places: dict[tuple[UUID, Retention], list[Over]] = defaultdict(list)
    for one in claimed:
        places[one.store_id, one.retention].append(one)
    for (_, retention), over in places.items():
        cleanings = part.cleanings.get(retention, [])
        counts: dict[Over, Counter[str]] = defaultdict(Counter)
        for cleaning in cleanings:
            await _clean(work, cleaning, over, counts)
        await _conclude(part, work, cleanings, {one: counts[one] for one in over})
    return len(claimed) // expiry.AT_ONCE


async def _clean(
    work: Work, cleaning: Cleaning, over: Sequence[Over], counts: dict[Over, Counter[str]]
) -> None:
    """A batch in a transaction, until one finds nothing; between two, others have their turn."""
    batch, found = expiry.batch_of(over), True
    while found:
        began = time.monotonic()
        async with work.database.transaction(ALL_STORES) as transaction:
            changed = await cleaning.clean(transaction, batch)
        for position, number in changed.items():
            counts[over[position]][cleaning.holding.name] += number
        if found := bool(changed):
            await rest(began)


async def _conclude(
    part: Part, work: Work, cleanings: Iterable[Cleaning], counts: Mapping[Over, Counter[str]]
) -> None:
    """Read again; what has nothing left is answered, in the transaction that notes it."""
    over = list(counts)
    store_id = over[0].store_id
    async with work.database.session(store_id) as session:
        left = await expiry.left_over(session, store_id, over, cleanings)
        done = {one: number for one, number in counts.items() if one not in left}
        await expiry.cleaned(session, done)
        answers = [_answer(part, store_id, one, number) for one, number in done.items()]
        await publish_all(session, answers, store_id=store_id, source=part.service)
    if left:
        await expiry.put_back(work.database, left)


def _answer(part: Part, store_id: UUID, one: Any, counts: Mapping[str, int]) -> RowsCleaned:
    answer = RowsCleaned(
        subject_id=one.subject_id,
        generation=one.generation,
        retention=Retention(one.retention),
        bucket=one.bucket,
        participant=part.service,
        counts={table: number for table, number in counts.items() if number},
    )
    return sign(answer, store_id=store_id, key=part.key)
