"""Every task is answered: once, in the right shape, by whom it names, whatever else lies in the topic."""

from uuid import uuid4

import orjson

from conformance.checks import Checks, NotApplicable, expect
from conformance.scene import Person, Question, Scene
from libs.common.broker import Record
from libs.common.events import envelope_of, headers_of
from libs.common.events.privacy import Correction, Outcome, Proposal, TaskAnswered, TaskIssued, Verb
from libs.common.personal.data import Sealed
from libs.common.personal.vocabulary import Category, Purpose

check = Checks[Scene]("What answering checks")

_EVERY_PARTITION = 100
"""Records with as many keys reach every partition of a topic."""
_OF_NOBODY = frozenset({Outcome.DONE, Outcome.NOTHING_HELD})


@check
async def reads_from_the_beginning(scene: Scene) -> str:
    """A task that was in `privacy.tasks` before you came is answered: a new consumer group begins with the oldest
    record.
    """
    if scene.waiting is None:
        raise NotApplicable("no task was published before")
    answered = await scene.answer(scene.waiting)
    return f"{answered.data.verb} was {answered.data.outcome}"


@check
async def answers_previews(scene: Scene) -> str:
    """`preview` is answered: `nothing-held` for somebody you have never heard of."""
    return await _says_nothing_is_held(scene, Verb.PREVIEW)


@check
async def answers_exports(scene: Scene) -> str:
    """`export` is answered: `nothing-held`, without chunks, for somebody you have never heard of."""
    return await _says_nothing_is_held(scene, Verb.EXPORT)


@check
async def answers_rectifications(scene: Scene) -> str:
    """`rectify` is answered: `nothing-held` for somebody you have never heard of."""
    person, request_id = await scene.stranger(), uuid4()
    proposal = await propose(scene, person, request_id, Category.NAME, "Somebody Else")
    answered = await scene.ask(Verb.RECTIFY, person, request_id=request_id, proposal=proposal)
    expect(answered.outcome is Outcome.NOTHING_HELD, f"{answered.outcome} for somebody unknown")
    return str(answered.outcome)


@check
async def answers_restrictions(scene: Scene) -> str:
    """`restrict` is answered: `nothing-held` for somebody you have never heard of."""
    return await _says_nothing_is_held(scene, Verb.RESTRICT)


@check
async def answers_lifted_restrictions(scene: Scene) -> str:
    """`lift-restriction` is answered: `nothing-held` for somebody you have never heard of."""
    return await _says_nothing_is_held(scene, Verb.LIFT_RESTRICTION)


@check
async def answers_objections(scene: Scene) -> str:
    """`object` is answered, by `done` or `nothing-held`: data for the purpose is used, or is not."""
    answered = await scene.ask(Verb.OBJECT, await scene.stranger(), purpose=Purpose.MARKETING_MAIL)
    expect(answered.outcome in _OF_NOBODY, f"object was {answered.outcome}")
    return str(answered.outcome)


@check
async def answers_whether_an_order_is_known(scene: Scene) -> str:
    """`recognise` is answered: `nothing-held` for an order that nobody placed."""
    return await _says_nothing_is_held(scene, Verb.RECOGNISE, order_number="no-such-order")


@check
async def answers_erasures(scene: Scene) -> str:
    """`erase` is answered: `nothing-held` for somebody you have never heard of."""
    return await _says_nothing_is_held(scene, Verb.ERASE)


@check
async def answers_checks_of_erasures(scene: Scene) -> str:
    """`verify-erased` is answered `done` where nothing is left, as of somebody you have never heard of."""
    answered = await scene.ask(Verb.VERIFY_ERASED, await scene.stranger())
    expect(answered.outcome is Outcome.DONE, f"{answered.outcome} for somebody unknown")
    return str(answered.outcome)


@check
async def answers_by_what_others_know_somebody(scene: Scene) -> str:
    """`refer` is answered: `nothing-held` for somebody you have never heard of."""
    return await _says_nothing_is_held(scene, Verb.REFER)


@check
async def answers_preparations(scene: Scene) -> str:
    """`prepare` is answered `done`, if you announced that you prepare."""
    if not scene.announced.prepares:
        raise NotApplicable("it did not announce that it prepares")
    answered = await scene.ask(Verb.PREPARE, await scene.stranger())
    expect(answered.outcome in _OF_NOBODY, f"prepare was {answered.outcome}")
    return str(answered.outcome)


async def _says_nothing_is_held(scene: Scene, verb: Verb, **more: object) -> str:
    answered = await scene.ask(verb, await scene.stranger(), **more)
    expect(answered.outcome is Outcome.NOTHING_HELD, f"{answered.outcome} for somebody unknown")
    expect(answered.chunks == 0, f"{answered.chunks} chunks for somebody unknown")
    return str(answered.outcome)


async def propose(
    scene: Scene, person: Person, request_id: object, category: Category, value: object
) -> Sealed[Proposal]:
    """A correction of one field, sealed for its request."""
    proposal = Proposal(corrections=(Correction(category=category, value=value),))
    sealed = await scene.vault.seal(
        proposal, store_id=person.store_id, subject_id=person.subject_id, bucket=str(request_id)
    )
    return sealed.box


# --- Again, anew, and not at all -----------------------------------------------------------------------------


@check
async def answers_the_same_again(scene: Scene) -> str:
    """The same (request, verb, round), issued again, gets the same answer again, also when nothing is held any more."""
    person = await scene.somebody()
    request_id, first = await scene.erase(person)
    question = await scene.issue(
        Verb.ERASE, person, request_id=request_id, attempt=2, participants=[scene.participant]
    )
    again = (await scene.answer(question, already=1)).data
    expect(same(first, again), f"first {said(first)}, then {said(again)}")
    return f"twice {said(first)}"


@check
async def answers_a_new_round(scene: Scene) -> str:
    """A new `round` of a request asks for the work anew, and is answered under its own number."""
    person = await scene.stranger()
    question = await scene.issue(Verb.PREVIEW, person)
    before = await scene.settle(question)
    expect(before.outcome is Outcome.NOTHING_HELD, f"{before.outcome} for somebody unknown")
    expect(await scene.plant(person), "it did not take the data of a person from the seed hook")
    anew = (await scene.answer(await scene.repeat(question, round=2))).data
    expect(anew.outcome is Outcome.DONE, f"{anew.outcome} in round 2, though something is held by then")
    return f"round 1 {said(before)}, round 2 {said(anew)}"


@check
async def is_silent_when_others_are_asked(scene: Scene) -> str:
    """A task whose `participants` does not name you is not for you."""
    person = await scene.stranger()
    for_others = await scene.issue(Verb.PREVIEW, person, participants=["somebody-else"])
    # A later task with the same key is answered later.
    await scene.answer(await scene.repeat(for_others, round=2, participants=[scene.participant]))
    expect(not scene.answers(for_others), "it answered what another was asked")
    return "silent, and answered the next"


@check
async def answers_once_for_all_subjects(scene: Scene) -> str:
    """`also` names other subjects of the same person: one answer, with the counts of all summed."""
    one, other = await scene.somebody(), await scene.somebody()
    alone = [await scene.ask(Verb.PREVIEW, person) for person in (one, other)]
    both = await scene.ask(Verb.PREVIEW, one, other)
    wanted, seen = sum(sum(each.counts.values()) for each in alone), sum(both.counts.values())
    expect(seen == wanted, f"{seen} rows of both, {wanted} of each alone")
    answered, records = await scene.export(one, other)
    found = {canary for canary in (one.name, other.name, one.email, other.email) if canary in str(records)}
    expect(
        found & set(one.canaries) and found & set(other.canaries), "the export has one of two subjects only"
    )
    return f"{said(both)}; the export has both in {answered.chunks} chunks"


# --- Whatever else lies there --------------------------------------------------------------------------------


@check
async def passes_over_what_is_no_event(scene: Scene) -> str:
    """A record that is no event of ours is put aside; what comes after it is answered."""
    garbage = [
        Record("privacy.tasks", f"{scene.store_id}:{uuid4()}", value, headers)
        for value, headers in ((b"\xff\xfe no JSON", {}), (b"{}", {"ce_type": "no type", "ce_id": "no id"}))
        for _ in range(_EVERY_PARTITION)
    ]
    await scene.talk.say_raw(garbage)
    return await _still_answers(scene)


@check
async def passes_over_an_unknown_verb(scene: Scene) -> str:
    """A task with a verb of a later release is put aside; other requests are answered."""
    await scene.talk.say_raw(await _tasks(scene, verb="a-verb-of-a-later-release"))
    return await _still_answers(scene)


@check
async def passes_over_an_unknown_type(scene: Scene) -> str:
    """An event of a type that you do not know is passed over; what comes after it is answered."""
    records = await _tasks(scene, verb="preview")
    unknown = {"ce_type": "vitrine.privacy.of-a-later-release.v1"}
    await scene.talk.say_raw(
        [Record(one.topic, one.key, one.value, {**one.headers, **unknown}) for one in records]
    )
    went_on = await _still_answers(scene)
    ids = {one.key for one in records}
    expect(
        not any(one.record.key in ids for one in scene.talk.heard(TaskAnswered)), "it answered one of them"
    )
    return went_on


@check
async def ignores_unknown_fields(scene: Scene) -> str:
    """A field that a later release adds to a task changes nothing."""
    person = await scene.stranger()
    task = TaskIssued(
        request_id=uuid4(), verb=Verb.PREVIEW, subject_id=person.subject_id, generation=person.generation
    )
    scene.issued.append(Question(person.store_id, task))
    body = orjson.dumps({**task.model_dump(mode="json"), "of_a_later_release": {"a": [1]}})
    envelope = envelope_of(task, store_id=person.store_id, source="privacy")
    await scene.talk.say_raw([Record(task.topic, envelope.key, body, headers_of(envelope))])
    heard = await scene.talk.hear(
        TaskAnswered,
        lambda one: one.request_id == task.request_id and one.participant == scene.participant,
        within=scene.patience,
    )
    expect(heard, f"no answer within {scene.patience:g} s")
    return "answered as if the field were not there"


async def _tasks(scene: Scene, **changed: str) -> list[Record]:
    person = await scene.stranger()
    records: list[Record] = []
    for _ in range(_EVERY_PARTITION):
        task = TaskIssued(
            request_id=uuid4(), verb=Verb.PREVIEW, subject_id=person.subject_id, generation=person.generation
        )
        envelope = envelope_of(task, store_id=person.store_id, source="privacy")
        body = orjson.dumps({**task.model_dump(mode="json"), **changed})
        records.append(Record(task.topic, envelope.key, body, headers_of(envelope)))
    return records


async def _still_answers(scene: Scene) -> str:
    answered = await scene.ask(Verb.PREVIEW, await scene.stranger())
    return f"went on: the next preview was {answered.outcome}"


# --- Comparing -----------------------------------------------------------------------------------------------


def same(one: TaskAnswered, other: TaskAnswered) -> bool:
    """Whether two answers say the same; a signature may differ, since ES256 is made with chance."""
    own = {"signature", "version"}
    return one.model_dump(exclude=own) == other.model_dump(exclude=own)


def said(answered: TaskAnswered) -> str:
    """An answer in a word and its counts."""
    return f"{answered.outcome} {dict(answered.counts) or ''}".strip()
