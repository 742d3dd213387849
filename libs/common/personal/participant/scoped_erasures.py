"""The duty that erases a part: rows that are of nothing else go, the rest is sealed anew without it."""

from collections import Counter
from collections.abc import Mapping, Sequence

from libs.common.errors import Problem, Unavailable
from libs.common.events.privacy import Outcome, Retained, TaskAnswered, Verb
from libs.common.outbox import publish
from libs.common.personal import erasure, jobs
from libs.common.personal.boxes import Moved
from libs.common.personal.erasure import Keeping
from libs.common.personal.errors import SubjectErased
from libs.common.personal.export import Unreadable
from libs.common.personal.holdings import Person
from libs.common.personal.jobs import Job
from libs.common.personal.participant.part import Part
from libs.common.personal.resealing import reseal
from libs.common.personal.tombstones import erased_among
from libs.common.worker import Work


async def erase_parts(part: Part, work: Work) -> int:
    """Erase what is to be erased of people who stay. Returns 0 unless more are waiting."""
    claimed = await jobs.claim(work.database, [Verb.ERASE])
    for job in claimed:
        with part.doing([job]):
            await _erase(part, work, job)
    return len(claimed) // jobs.AT_ONCE


async def _erase(part: Part, work: Work, job: Job) -> None:
    try:
        counts = await _remove(part, work, job)
        for asked in job.lives:
            counts += await reseal(
                work.database, work.vault, part.holdings, asked, scope=job.scope, retired=job.retired
            )
    except Unavailable:
        await jobs.put_back(work.database, [job])
        raise
    except (Moved, SubjectErased):
        # Of the latter the erasure of everything answers for itself, and takes the job with it.
        await jobs.put_back(work.database, [job])
    except Unreadable as error:
        await part.fail(work, job, error.reason)
    except Problem as problem:
        await part.fail(work, job, problem.slug)
    else:
        await _answer(part, work, job, counts)


async def _remove(part: Part, work: Work, job: Job) -> Counter[str]:
    """Let the rows go whose kind is used for nothing else."""
    gone = [holding for holding in part.holdings if job.scope.removes(holding)]
    if not gone:
        return Counter()
    store_id = job.asked.store_id
    people = [Person(one.subject_id, one.generation) for one in job.lives]
    async with work.database.session(store_id) as session:
        if await erased_among(session, [(store_id, one.subject_id, one.generation) for one in people]):
            raise SubjectErased
        for holding in gone:
            if holding.before_erase is not None:
                await holding.before_erase(session, store_id, people)
        statements = erasure.erasing(gone, of_a_part=True)
        retired = [key_id.bytes for key_id in job.retired]
        return (await erasure.erase(session, statements, job.lives, retired=retired))[job.asked.request_id]


async def _answer(part: Part, work: Work, job: Job, counts: Mapping[str, int]) -> None:
    asked = job.asked
    keeping = Keeping.of(
        [one for one in job.scope.concerned(part.holdings) if one.kept_by_law],
        [one for one in part.holdings if job.scope.leaves(one)],
    )
    async with work.database.session(asked.store_id) as session:
        kept = (await erasure.retained(session, keeping, job.lives))[asked.request_id]
        if await jobs.hold(session, [job]):
            answer = _answered(part, job, counts, kept)
            await jobs.save(session, asked.store_id, [answer])
            await publish(session, answer, store_id=asked.store_id, source=part.service)


def _answered(part: Part, job: Job, counts: Mapping[str, int], kept: Sequence[Retained]) -> TaskAnswered:
    outcome = Outcome.RETAINED if kept else Outcome.DONE if counts else Outcome.NOTHING_HELD
    return part.answer(job, outcome, counts=dict(counts), retained=list(kept))
