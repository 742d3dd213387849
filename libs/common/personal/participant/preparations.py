"""The duty that tells whoever must know of an erasure, before anything is destroyed."""

from libs.common.errors import Problem, Unavailable
from libs.common.events.privacy import Outcome, Verb
from libs.common.outbox import publish
from libs.common.personal import jobs
from libs.common.personal.holdings import Person
from libs.common.personal.jobs import Job
from libs.common.personal.participant.part import Part
from libs.common.worker import Work


async def prepare(part: Part, work: Work) -> int:
    """Tell of what is to be erased. Returns 0 unless more are waiting."""
    claimed = await jobs.claim(work.database, [Verb.PREPARE])
    for job in claimed:
        with part.doing([job]):
            await _prepare(part, work, job)
    return len(claimed) // jobs.AT_ONCE


async def _prepare(part: Part, work: Work, job: Job) -> None:
    store_id = job.asked.store_id
    try:
        if part.prepare is not None:
            people = [Person(one.subject_id, one.generation) for one in job.lives]
            await part.prepare(work, store_id, people)
    except Unavailable:
        await jobs.put_back(work.database, [job])
        raise
    except Problem as problem:
        await part.fail(work, job, problem.slug)
    else:
        answer = part.answer(job, Outcome.DONE if part.prepare is not None else Outcome.NOTHING_HELD)
        async with work.database.session(store_id) as session:
            if await jobs.hold(session, [job]):
                await jobs.save(session, store_id, [answer])
                await publish(session, answer, store_id=store_id, source=part.service)
