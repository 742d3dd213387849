"""The duty that says by what outsiders know a person, before anything of a request is done."""

from hashlib import sha256

from libs.common.errors import Problem, Unavailable
from libs.common.events.privacy import CHUNK_BYTES, Outcome, References, TaskAnswered, Verb
from libs.common.outbox import publish
from libs.common.personal import jobs
from libs.common.personal.data import Sealed
from libs.common.personal.export import Unreadable
from libs.common.personal.jobs import Job
from libs.common.personal.participant.part import Part
from libs.common.personal.references import references_of
from libs.common.worker import Work


async def refer(part: Part, work: Work) -> int:
    """Say by what these people are known outside. Returns 0 unless more are waiting."""
    claimed = await jobs.claim(work.database, [Verb.REFER])
    for job in claimed:
        with part.doing([job]):
            await _refer(part, work, job)
    return len(claimed) // jobs.AT_ONCE


async def _refer(part: Part, work: Work, job: Job) -> None:
    try:
        box = await _sealed(part, work, job)
    except Unavailable:
        await jobs.put_back(work.database, [job])
        raise
    except Unreadable as error:
        await part.fail(work, job, error.reason)
    except Problem as problem:
        await part.fail(work, job, problem.slug)
    else:
        answer = _answer(part, job, box)
        store_id = job.asked.store_id
        async with work.database.session(store_id) as session:
            if await jobs.hold(session, [job]):
                await jobs.save(session, store_id, [answer])
                await publish(session, answer, store_id=store_id, source=part.service)


async def _sealed(part: Part, work: Work, job: Job) -> Sealed[References] | None:
    """A box of the request; None where nothing is known here. Raises Unreadable, SubjectErased, KeyringUnavailable."""
    store_id, subject_id = job.asked.store_id, job.asked.subject_id
    async with work.database.session(store_id) as reading:
        found = await references_of(reading, work.vault, part.referring, job.lives)
    if found == References():
        return None
    sealed = await work.vault.seal(
        found, store_id=store_id, subject_id=subject_id, bucket=str(job.asked.request_id)
    )
    if len(sealed.box.payload) > CHUNK_BYTES:
        raise Unreadable("too-many-references")
    return sealed.box


def _answer(part: Part, job: Job, box: Sealed[References] | None) -> TaskAnswered:
    if box is None:
        return part.answer(job, Outcome.NOTHING_HELD)
    return part.answer(job, Outcome.DONE, references=box, digest=sha256(box.payload).hexdigest())
