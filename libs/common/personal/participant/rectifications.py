"""The duty that corrects what is to be corrected, or says what would be."""

from libs.common.errors import Problem, Unavailable
from libs.common.events.privacy import Outcome, Verb
from libs.common.outbox import publish
from libs.common.personal import jobs, rectification
from libs.common.personal.boxes import Moved
from libs.common.personal.errors import KeyDestroyed, SubjectErased
from libs.common.personal.export import Unreadable
from libs.common.personal.jobs import Job
from libs.common.personal.participant.part import Part
from libs.common.personal.rectification import Verdict
from libs.common.personal.vocabulary import Purpose
from libs.common.worker import Work


async def rectify(part: Part, work: Work) -> int:
    """Correct what is to be corrected, or say what would be. Returns how much there was: more may wait for it."""
    claimed = await jobs.claim(work.database, [Verb.RECTIFY, Verb.PREVIEW])
    for job in claimed:
        with part.doing([job]):
            await _rectify(part, work, job)
    return len(claimed)


async def _rectify(part: Part, work: Work, job: Job) -> None:
    try:
        verdict = await _corrected(part, work, job)
    except Unavailable:
        await jobs.put_back(work.database, [job])
        raise
    except (Moved, KeyDestroyed, SubjectErased):
        # Of these the erasure answers for itself, and takes the job with it.
        await jobs.put_back(work.database, [job])
    except Unreadable as error:
        await part.fail(work, job, error.reason)
    except Problem as problem:
        await part.fail(work, job, problem.slug)
    else:
        await _save_verdict(part, work, job, verdict)


async def _corrected(part: Part, work: Work, job: Job) -> Verdict:
    if job.proposal is None:
        raise Unreadable("no-proposal")
    proposal = await work.vault.open(
        job.proposal,
        store_id=job.asked.store_id,
        subject_id=job.asked.subject_id,
        purpose=Purpose.RIGHTS_OF_THE_PERSON,
    )
    verdict = await rectification.judge(
        work.database, work.vault, part.holdings, job.lives, proposal.corrections
    )
    if job.verb is Verb.RECTIFY:
        for asked in job.lives:
            await rectification.correct(work.database, work.vault, part.holdings, asked, verdict)
    return verdict


async def _save_verdict(part: Part, work: Work, job: Job, verdict: Verdict) -> None:
    concerned = verdict.rows or verdict.beside or verdict.refused
    answer = part.answer(
        job,
        Outcome.DONE if concerned else Outcome.NOTHING_HELD,
        counts=dict(verdict.rows),
        beside=dict(verdict.beside),
        refused=sorted(verdict.refused),
        reason=verdict.reason,
    )
    store_id = job.asked.store_id
    async with work.database.session(store_id) as session:
        if await jobs.hold(session, [job]):
            await jobs.save(session, store_id, [answer])
            await publish(session, answer, store_id=store_id, source=part.service)
