"""All that was heard in the whole run, looked at once more."""

from collections import defaultdict
from collections.abc import Iterator
from uuid import UUID

import orjson

from conformance.checks import Checks, expect
from conformance.over_kafka.answering import same
from conformance.scene import Scene
from libs.common.broker import Record
from libs.common.events import Received
from libs.common.events.privacy import TaskAnswered, TaskIssued
from libs.common.personal.answers import Forged
from libs.common.personal.answers import check as check_signature

check = Checks[Scene]("What the whole conversation checks")


@check
async def signs_every_answer(scene: Scene) -> str:
    """Every answer is signed: a detached JWS with ES256 by the announced key, over the JSON that was sent, without
    `signature` and `version`, with `store_id`, keys sorted, no blanks.
    """
    answers, forged = _answers(scene), 0
    for answer in answers:
        try:
            check_signature(answer, public_key=scene.announced.public_key)
        except Forged:
            forged += 1
    expect(not forged, f"{forged} of {len(answers)} answers are not signed so")
    return f"{len(answers)} signatures"


@check
async def shapes_every_answer(scene: Scene) -> str:
    """Every record on `privacy.answers` is an event of ours in binary CloudEvents, with `store:request id` in its key,
    for the store that the task came for.
    """
    broken = _undecodable(scene)
    expect(not broken, f"{len(broken)} records are no events: {', '.join(sorted(set(broken)))}")
    stores = {one.task.request_id: one.store_id for one in scene.issued}
    for answer in _answers(scene):
        wanted = stores.get(answer.data.request_id, answer.envelope.store_id)
        expect(answer.envelope.store_id == wanted, f"{answer.data.verb} was answered for another store")
        expect(
            answer.record.key == f"{wanted}:{answer.data.request_id}", f"{answer.data.verb} has another key"
        )
    return f"{len(_answers(scene))} answers"


def _undecodable(scene: Scene) -> list[str]:
    asked = {f"{one.store_id}:{one.task.request_id}" for one in scene.issued}
    return [
        why for record, why in scene.talk.undecodable
        if record.topic == "privacy.answers" and record.key in asked
    ]  # fmt: skip


@check
async def answers_once(scene: Scene) -> str:
    """A task is answered as often as it was issued, and no more; nobody answers what was not asked."""
    issued: dict[tuple[UUID, str, int], int] = defaultdict(int)
    for one in scene.issued:
        issued[_place(one.task)] += 1
    given: dict[tuple[UUID, str, int], list[TaskAnswered]] = defaultdict(list)
    for answer in _answers(scene):
        given[_place(answer.data)].append(answer.data)
    unasked = [place for place in given if place not in issued and place[0] in {one for one, *_ in issued}]
    expect(not unasked, f"{len(unasked)} answers to what was not asked")
    # A process that was killed may have to answer what it answered before.
    often = [place for place, all_ in given.items() if place in issued and len(all_) > issued[place]]
    expect(not often or scene.restarted, f"{len(often)} tasks were answered more often than issued")
    return f"{len(given)} tasks, {sum(map(len, given.values()))} answers"


@check
async def never_contradicts_itself(scene: Scene) -> str:
    """All answers to one (request, verb, round) say the same, but for a failure before."""
    given: dict[tuple[UUID, str, int], list[TaskAnswered]] = defaultdict(list)
    for answer in _answers(scene):
        if answer.data.outcome != "failed":
            given[_place(answer.data)].append(answer.data)
    torn = [place for place, all_ in given.items() if not all(same(all_[0], one) for one in all_)]
    expect(not torn, f"{len(torn)} tasks have answers that differ")
    return f"{sum(len(all_) > 1 for all_ in given.values())} tasks were answered more than once, alike"


@check
async def says_nothing_in_the_clear(scene: Scene) -> str:
    """What names a person is in boxes only: nothing of it is in a key, a header or the body of a record."""
    canaries = {one for person in scene.people for one in person.canaries}
    told = [
        f"{where} on {record.topic}"
        for record in scene.talk.records
        for where, text in _texts(record)
        if any(canary.casefold() in text for canary in canaries)
    ]
    expect(not told, f"somebody is named in a {', a '.join(sorted(set(told)))}")
    return f"{len(scene.talk.records)} records, {len(canaries)} names and addresses in none"


def _texts(record: Record) -> Iterator[tuple[str, str]]:
    yield "key", record.key.casefold()
    for name, value in record.headers.items():
        yield "header", f"{name} {value}".casefold()
    try:
        # As it was meant: the same letter can be written in several ways.
        body = orjson.dumps(orjson.loads(record.value)).decode()
    except orjson.JSONDecodeError:
        body = record.value.decode(errors="replace")
    yield "body", body.casefold()


def _answers(scene: Scene) -> list[Received[TaskAnswered]]:
    asked = {one.task.request_id for one in scene.issued}
    return scene.talk.heard(
        TaskAnswered, lambda one: one.participant == scene.participant and one.request_id in asked
    )


def _place(said: TaskAnswered | TaskIssued) -> tuple[UUID, str, int]:
    return said.request_id, said.verb.value, said.round
