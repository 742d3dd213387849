"""What was heard, done and answered outlasts the process."""

import asyncio

from conformance.checks import Checks, expect
from conformance.over_kafka.answering import said, same
from conformance.scene import Scene
from libs.common.events.privacy import Outcome, Verb

check = Checks[Scene]("What restarting checks")

_AT_ONCE = 20


@check
async def remembers_after_a_restart(scene: Scene) -> str:
    """After a restart the same task still gets the same answer, and late data of an erased person is still refused."""
    process, person = scene.process(), await scene.somebody()
    request_id, first = await scene.erase(person)
    await process.end()
    process.start()
    question = await scene.issue(
        Verb.ERASE, person, request_id=request_id, attempt=2, participants=[scene.participant]
    )
    again = (await scene.answer(question, already=1, within=scene.start_seconds)).data
    expect(same(first, again), f"first {said(first)}, after the restart {said(again)}")
    before = await scene.ask(Verb.PREVIEW, person)
    await scene.plant(person)
    after = await scene.ask(Verb.PREVIEW, person)
    expect(before.counts == after.counts, f"{said(before)}, and {said(after)} after a late event")
    return f"twice {said(first)}"


@check
async def loses_nothing_when_killed(scene: Scene) -> str:
    """Killed among many tasks and started again, every one is answered: what is not done is not committed."""
    process, person = scene.process(), await scene.somebody()
    questions = [await scene.issue(Verb.PREVIEW, person) for _ in range(_AT_ONCE)]
    await scene.answer(questions[0])
    await process.end(kill=True)
    process.start()
    more = [await scene.issue(Verb.PREVIEW, person) for _ in range(_AT_ONCE)]
    all_ = (scene.answer(one, within=scene.start_seconds) for one in (*questions, *more))
    answers = await asyncio.gather(*all_)
    wrong = [one for one in answers if one.data.outcome is not Outcome.DONE]
    expect(not wrong, f"{len(wrong)} of {len(answers)} were not done")
    return f"{len(answers)} answers to as many tasks"


@check
async def takes_up_what_came_while_it_was_down(scene: Scene) -> str:
    """A task that was published while you were down is answered when you are back."""
    process, person = scene.process(), await scene.somebody()
    await process.end()
    question = await scene.issue(Verb.EXPORT, person)
    process.start()
    await scene.answer(question, within=scene.start_seconds)
    answered = await scene.settle(question)
    expect(answered.outcome is Outcome.DONE, f"export was {answered.outcome}")
    return said(answered)
