"""One participant, whoever it holds data of, and everything a check may do to it."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID, uuid4

from conformance.checks import Missing, NotApplicable
from conformance.talk import Talk
from libs.common.events import Received
from libs.common.events.identity import StoreOpened
from libs.common.events.privacy import (
    ExportChunk,
    ExportedRecords,
    KeysChanged,
    KeysDestroyed,
    Life,
    Outcome,
    ParticipantAnnounced,
    TaskAnswered,
    TaskIssued,
    Verb,
)
from libs.common.personal.keys import Erasure, KeyringClient
from libs.common.personal.vault import ToOpen, Vault
from libs.common.personal.vocabulary import Purpose

_AGAIN_AFTER = 1.0


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who does not exist. The name and the address are found nowhere else."""

    store_id: UUID
    subject_id: UUID
    generation: int
    email: str
    name: str

    @property
    def life(self) -> Life:
        """As a task names somebody."""
        return Life(subject_id=self.subject_id, generation=self.generation)

    @property
    def canaries(self) -> tuple[str, str]:
        """What may be read in boxes only."""
        return self.email, self.name

    def as_json(self) -> dict[str, Any]:
        """What a seed hook is given."""
        return {
            "store_id": str(self.store_id),
            "subject_id": str(self.subject_id),
            "generation": self.generation,
            "email": self.email,
            "name": self.name,
        }


Seed = Callable[[Person], Awaitable[bool]]
"""Has the participant hold data of a person, as whatever brings such data would; whether it took it."""


class Running(Protocol):
    """The participant's process, where the kit has started it."""

    def start(self) -> None:
        """Start it; it is ready when it answers."""

    async def end(self, *, kill: bool = False) -> None:
        """Ask it to end, or kill it."""


@dataclass(frozen=True, slots=True)
class Question:
    """A task, and the store it is for."""

    store_id: UUID
    task: TaskIssued


@dataclass(slots=True)
class Scene:
    """What the checks over a broker work with. `patience` is how many seconds an answer may take."""

    talk: Talk
    participant: str
    keyring: KeyringClient
    vault: Vault
    patience: float
    seed: Seed | None = None
    running: Running | None = None
    admit: Callable[[ParticipantAnnounced], Awaitable[None]] | None = None
    """Makes the keyring know who announced itself; once."""
    store_id: UUID = field(default_factory=uuid4)
    start_seconds: float = 120.0
    """How long it may take until the participant has announced itself."""
    store_seconds: float = 300.0
    """How long it may take after the end of a store: ours looks again when nothing can be under way any more, three
    minutes later."""
    waiting: Question | None = None
    """A task that was there before the participant was."""
    ending: Person | None = None
    """Somebody at a store whose end has begun."""
    people: list[Person] = field(default_factory=list[Person])
    issued: list[Question] = field(default_factory=list["Question"])
    restarted: bool = False

    # --- Who is there --------------------------------------------------------------------------------------

    @property
    def announced(self) -> ParticipantAnnounced:
        """What the participant last said of itself. Raises Missing."""
        if not (heard := self.talk.heard(ParticipantAnnounced, self._is_own)):
            raise Missing("it has not announced itself")
        return heard[-1].data

    def _is_own(self, announced: ParticipantAnnounced) -> bool:
        return announced.participant == self.participant

    @property
    def kept(self) -> Sequence[Mapping[str, Any]]:
        """The entries of its data map that an export shows and that have a kind."""
        return [one for one in self.announced.data_map if "categories" in one and "schema" in one]

    async def open_store(self, store_id: UUID) -> None:
        """As identity says that a store is there."""
        opened = StoreOpened(
            store_id=store_id, slug=f"conformance-{store_id.hex[:8]}", name="Conformance", country="DE",
            currency="EUR", version=1,
        )  # fmt: skip
        await self.talk.say(opened, store_id=store_id)

    async def stranger(self, store_id: UUID | None = None) -> Person:
        """Somebody of whom the participant has never heard."""
        store_id, mark = store_id or self.store_id, uuid4().hex[:12]
        email = f"canary-{mark}@vitrine.example"
        subject_id = await self.vault.subject_id(store_id, email)
        person = Person(store_id, subject_id, 1, email, f"Canary {mark}")
        self.people.append(person)
        return person

    async def somebody(self, store_id: UUID | None = None) -> Person:
        """Somebody of whom the participant holds data. Raises Missing when it does not take it."""
        person = await self.stranger(store_id)
        if not await self.plant(person):
            raise Missing("it did not take the data of a person from the seed hook")
        return person

    async def leave_a_task(self) -> None:
        """Publish a task about nobody, before the participant is there."""
        nobody = Person(self.store_id, uuid4(), 1, "", "")
        self.waiting = await self.issue(Verb.PREVIEW, nobody)

    async def plant(self, person: Person) -> bool:
        """Bring data of a person to the participant; whether it was taken. Raises Missing without a hook."""
        if self.seed is None:
            raise Missing("it holds data of nobody: name a hook by --seed-url or --seed-command")
        return await self.seed(person)

    # --- Asking --------------------------------------------------------------------------------------------

    async def issue(
        self,
        verb: Verb,
        person: Person,
        *others: Person,
        request_id: UUID | None = None,
        **more: Any,
    ) -> Question:
        """Publish a task about one person, whose subjects may be several."""
        task = TaskIssued(
            request_id=request_id or uuid4(),
            verb=verb,
            subject_id=person.subject_id,
            generation=person.generation,
            also=[other.life for other in others],
            **more,
        )
        return await self._say(Question(person.store_id, task))

    async def repeat(self, question: Question, **changed: Any) -> Question:
        """Issue a task again, with whatever is changed in it."""
        task = question.task.model_copy(update={"attempt": question.task.attempt + 1, **changed})
        return await self._say(Question(question.store_id, task))

    async def _say(self, question: Question) -> Question:
        self.issued.append(question)
        await self.talk.say(question.task, store_id=question.store_id)
        return question

    async def answer(
        self, question: Question, *, already: int = 0, within: float | None = None
    ) -> Received[TaskAnswered]:
        """The answer to a task, after `already` others. Raises Missing."""
        within = self.patience if within is None else within
        heard = await self.talk.hear(
            TaskAnswered, self._answers(question.task), within=within, already=already
        )
        if heard is None:
            raise Missing(f"no answer to {question.task.verb} within {within:g} s")
        return heard

    def answers(self, question: Question) -> list[Received[TaskAnswered]]:
        """All that was answered to a task so far."""
        return self.talk.heard(TaskAnswered, self._answers(question.task))

    def _answers(self, task: TaskIssued) -> Callable[[TaskAnswered], bool]:
        place = (task.request_id, task.verb, task.round, self.participant)
        return lambda one: (one.request_id, one.verb, one.round, one.participant) == place

    async def ask(self, verb: Verb, person: Person, *others: Person, **more: Any) -> TaskAnswered:
        """Ask, and ask again while it fails, as long as patience lasts. Raises Missing."""
        return await self.settle(await self.issue(verb, person, *others, **more))

    async def settle(self, question: Question) -> TaskAnswered:
        """The first answer to a task that is no failure, or the last failure."""
        loop = asyncio.get_running_loop()
        until, count = loop.time() + self.patience, 0
        while (answered := (await self.answer(question, already=count)).data).outcome is Outcome.FAILED:
            count = len(self.answers(question))
            if loop.time() + _AGAIN_AFTER > until:
                return answered
            await asyncio.sleep(_AGAIN_AFTER)
            question = await self.repeat(question, participants=[self.participant])
        return answered

    # --- Reading what came ---------------------------------------------------------------------------------

    def chunks(self, request_id: UUID, round: int = 1) -> list[Received[ExportChunk]]:  # noqa: A002 - its name
        """The pieces of an export, in the order in which they came."""
        place = (request_id, round, self.participant)
        return self.talk.heard(ExportChunk, lambda one: (one.request_id, one.round, one.participant) == place)

    async def opened(self, person: Person, chunks: Sequence[ExportChunk]) -> list[ExportedRecords]:
        """What lies in the boxes. Raises Missing for one that does not open as the privacy service opens it."""
        boxes = [ToOpen(one.box, person.store_id, person.subject_id) for one in chunks]
        found = await self.vault.open_many(boxes, purpose=Purpose.RIGHTS_OF_THE_PERSON)
        records = [one for one in found if isinstance(one, ExportedRecords)]
        if len(records) < len(found):
            problems = sorted({type(one).__name__ for one in found if not isinstance(one, ExportedRecords)})
            raise Missing(f"{len(found) - len(records)} boxes do not open: {', '.join(problems)}")
        return records

    async def export(
        self, person: Person, *others: Person, **more: Any
    ) -> tuple[TaskAnswered, list[dict[str, Any]]]:
        """The answer to an export, and the records of its boxes."""
        request_id = uuid4()
        answered = await self.ask(Verb.EXPORT, person, *others, request_id=request_id, **more)
        pieces = [one.data for one in self.chunks(request_id)][: answered.chunks]
        return answered, [record for one in await self.opened(person, pieces) for record in one.records]

    # --- What the keyring does before anybody is asked -----------------------------------------------------

    async def destroy(self, person: Person, request_id: UUID) -> None:
        """Destroy the keys of a person for good, and say so."""
        await self.keyring.destroy(
            [Erasure(person.store_id, person.subject_id, person.generation, request_id)]
        )
        self.vault.drop(person.store_id, [person.subject_id])
        gone = KeysDestroyed(subject_id=person.subject_id, generation=person.generation)
        await self.talk.say(gone, store_id=person.store_id)

    async def erase(self, person: Person, **more: Any) -> tuple[UUID, TaskAnswered]:
        """Erase a person, as the engine does it: keys first. Returns the request, and the participant's answer."""
        request_id = uuid4()
        await self.destroy(person, request_id)
        return request_id, await self.ask(Verb.ERASE, person, request_id=request_id, **more)

    async def keys_changed(self, person: Person) -> None:
        """Say that some of a person's keys open for less, or for more, than before."""
        changed = KeysChanged(subject_id=person.subject_id, generation=person.generation)
        await self.talk.say(changed, store_id=person.store_id)
        self.vault.drop(person.store_id, [person.subject_id])

    def process(self) -> Running:
        """The participant's process. Raises NotApplicable where the kit has not started it."""
        if self.running is None:
            raise NotApplicable("the kit did not start the participant: give --command")
        self.restarted = True
        return self.running


def categories(scene: Scene) -> set[str]:
    """What the data map says of whom an export is."""
    return {one for entry in scene.kept for field in entry["categories"].values() for one in field}
