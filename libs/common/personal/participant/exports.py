"""The duty that makes exports: what is held about people, sealed in chunks, and the answer that binds them."""

from collections.abc import Sequence

from libs.common.errors import Unavailable
from libs.common.events import Event
from libs.common.events.privacy import Outcome, TaskAnswered, Verb
from libs.common.outbox import publish_all
from libs.common.personal import jobs
from libs.common.personal.export import Gathering, Record, Unreadable, records_of, seal
from libs.common.personal.participant.part import Part
from libs.common.worker import Work


async def export(part: Part, work: Work) -> int:
    """Send what is held about the people of waiting exports. Returns 0 unless more are waiting."""
    claimed = [
        Gathering(job.asked, job.round, job.traceparent, job.portable, job.also)
        for job in await jobs.claim(work.database, [Verb.EXPORT])
    ]
    if claimed:
        with part.doing(claimed):
            await _export(part, work, claimed)
    return len(claimed) // jobs.AT_ONCE


async def _export(part: Part, work: Work, claimed: Sequence[Gathering]) -> None:
    try:
        await _send_all(part, work, claimed)
    except Unreadable as error:
        # One that cannot be answered must not hold the others back.
        if len(claimed) == 1:
            return await part.fail(work, claimed[0], error.reason)
        for one in claimed:
            await _export(part, work, [one.anew()])
    except Unavailable:
        await jobs.put_back(work.database, claimed)
        raise


async def _send_all(part: Part, work: Work, claimed: Sequence[Gathering]) -> None:
    by_request = {one.asked.request_id: one for one in claimed}
    for portable in (False, True):
        batch = [life for one in claimed if one.portable is portable for life in one.lives]
        if not batch:
            continue
        async with work.database.platform_session() as reading:
            async for page in records_of(reading, work.vault, part.exported(portable=portable), batch):
                full: list[tuple[Gathering, list[Record]]] = []
                for request_id, record in page:
                    if chunk := by_request[request_id].add(record):
                        full.append((by_request[request_id], chunk))
                if full:
                    await _send(part, work, full)
    await _send(part, work, [(one, one.take()) for one in claimed], last=True)


async def _send(
    part: Part, work: Work, pieces: Sequence[tuple[Gathering, list[Record]]], *, last: bool = False
) -> None:
    """Publish chunks, and after the last one the answer that binds them."""
    boxes = await seal(work.vault, pieces)
    for store_id in dict.fromkeys(one.asked.store_id for one, _ in pieces):
        async with work.database.session(store_id) as session:
            under_way = await jobs.hold(session, [one for one, _ in pieces if one.asked.store_id == store_id])
            events: list[Event] = []
            answers: list[TaskAnswered] = []
            for (one, records), box in zip(pieces, boxes, strict=True):
                erased = bool(records) and box is None
                if erased or one.asked.request_id not in under_way:
                    continue
                if box is not None:
                    events.append(one.number(box, participant=part.service))
                if last:
                    answers.append(_exported(part, one))
            await jobs.save(session, store_id, answers)
            await publish_all(session, [*events, *answers], store_id=store_id, source=part.service)


def _exported(part: Part, one: Gathering) -> TaskAnswered:
    outcome = Outcome.DONE if one.sent else Outcome.NOTHING_HELD
    return part.answer(one, outcome, counts=dict(one.counts), chunks=one.sent, digest=one.digest)
