"""A service's part in the requests of the privacy service, from its declarations alone.

    PARTICIPANT = Participant(service="orders", holdings=HOLDINGS, settings=Settings)
    HANDLERS = {OrderPlaced: on_order_placed, **PARTICIPANT.handlers}
    DUTIES = [*PARTICIPANT.duties]

What opens no box is done where the task arrives, for a batch of people at once. `export`, `rectify`, the preview of a
rectification and the erasure of a part are noted there and done by a duty. A task that is issued again gets the same
answer again.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import timedelta
from time import monotonic
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from libs.common import inbox
from libs.common.events import Received
from libs.common.events.privacy import (
    KeysChanged,
    KeysDestroyed,
    Outcome,
    TaskAnswered,
    TaskIssued,
    Verb,
)
from libs.common.inbox import Handlers, batched
from libs.common.outbox import publish_all
from libs.common.personal import erasure, jobs, restrictions
from libs.common.personal.answers import sign
from libs.common.personal.erasure import Asked, Statement
from libs.common.personal.holdings import COPIES, Copy, Holding, Hook, Person
from libs.common.personal.inventory import Inventory, recognised
from libs.common.personal.participant.announcements import announce
from libs.common.personal.participant.exports import export
from libs.common.personal.participant.part import COMMON, Part
from libs.common.personal.participant.rectifications import rectify
from libs.common.personal.participant.scoped_erasures import erase_parts
from libs.common.personal.scope import WHOLE, Scope
from libs.common.personal.tombstones import bury, erased_among
from libs.common.personal.vault import announce as forget_in_every_process
from libs.common.settings import ServiceSettings
from libs.common.worker import Duty, Work

__all__ = ["COMMON", "Participant"]

_CATALOGUE_SECONDS = 60.0

_Work = Callable[[AsyncSession, Sequence[TaskIssued], Sequence[Asked]], Awaitable[list[TaskAnswered]]]


class Participant(Part):
    """Handlers and duties that answer for one service.

    `settings` is the class of the service's settings: the key that signs is read from the environment when it
    is first needed.
    """

    def __init__(
        self,
        *,
        service: str,
        holdings: Iterable[Holding],
        settings: type[ServiceSettings],
        copies: Iterable[Copy] = COPIES,
    ) -> None:
        super().__init__(service=service, holdings=holdings, settings=settings, copies=copies)
        self._erasing = erasure.erasing(self.holdings)
        self._inventories: dict[Scope, Inventory] = {}
        self._rereading: tuple[float, Statement | None] = (float("-inf"), None)

    @property
    def handlers(self) -> Handlers:
        """To be merged into the service's HANDLERS."""
        return {
            TaskIssued: batched(self.on_tasks),
            KeysDestroyed: batched(forget_keys),
            KeysChanged: batched(forget_keys),
        }

    @property
    def duties(self) -> Sequence[Duty]:
        """To be merged into the service's DUTIES."""
        return [
            Duty(f"{self.service} exports", self.export, timedelta(seconds=1), channel=jobs.CHANNEL),
            Duty(f"{self.service} rectifies", self.rectify, timedelta(seconds=1), channel=jobs.CHANNEL),
            Duty(
                f"{self.service} erases parts", self.erase_parts, timedelta(seconds=1), channel=jobs.CHANNEL
            ),
            Duty(f"{self.service} announces itself", self.announce, timedelta(hours=1)),
            Duty("forget old tasks", _forget_old_tasks, timedelta(hours=1)),
        ]

    async def export(self, work: Work) -> int:
        """Send what is held about the people of waiting exports. Returns 0 unless more are waiting."""
        return await export(self, work)

    async def rectify(self, work: Work) -> int:
        """Correct what is to be corrected, or say what would be. Returns 0 unless more are waiting."""
        return await rectify(self, work)

    async def erase_parts(self, work: Work) -> int:
        """Erase what is to be erased of people who stay. Returns 0 unless more are waiting."""
        return await erase_parts(self, work)

    async def announce(self, work: Work) -> int:
        """Say who answers here, with which key, and what is kept; daily, and when it changes."""
        return await announce(self, work)

    # --- Tasks -------------------------------------------------------------------------------------------

    async def on_tasks(self, session: AsyncSession, events: Sequence[Received[TaskIssued]]) -> None:
        """Do what is new, answer again what was answered, and leave what is under way alone."""
        store_id = events[0].envelope.store_id
        tasks = _newest(event.data for event in events if self._is_asked(event.data))
        known = await jobs.known(session, [task.request_id for task in tasks])
        fresh = [task for task in tasks if known.round_of(task) < task.round]
        answers: list[TaskAnswered] = []
        for verbs, work in self._works:
            asked = [task for task in fresh if task.verb in verbs and not _opens_boxes(task)]
            answers += await self._do(session, store_id, asked, work)
        answers += await self._note(session, store_id, [task for task in fresh if _opens_boxes(task)])
        again = [answer for task in tasks if (answer := known.answer_to(task)) is not None]
        await publish_all(session, [*again, *answers], store_id=store_id, source=self.service)

    @property
    def _works(self) -> Sequence[tuple[frozenset[Verb], _Work]]:
        return (
            (frozenset({Verb.ERASE}), self._erase),
            (frozenset({Verb.VERIFY_ERASED}), self._verify_erased),
            (frozenset({Verb.RESTRICT, Verb.LIFT_RESTRICTION}), self._hold_or_release),
            (frozenset({Verb.OBJECT}), self._object),
            (frozenset({Verb.PREVIEW}), self._preview),
            (frozenset({Verb.RECOGNISE}), self._recognise),
        )

    def _is_asked(self, task: TaskIssued) -> bool:
        return not task.participants or self.service in task.participants

    async def _do(
        self, session: AsyncSession, store_id: UUID, tasks: Sequence[TaskIssued], work: _Work
    ) -> list[TaskAnswered]:
        if not tasks:
            return []
        batch = [Asked(task.request_id, store_id, task.subject_id, task.generation) for task in tasks]
        answers = [
            sign(answer, store_id=store_id, key=self.key) for answer in await work(session, tasks, batch)
        ]
        # What failed is done again when it is asked again.
        await jobs.save(session, store_id, [one for one in answers if one.outcome is not Outcome.FAILED])
        return answers

    async def _note(
        self, session: AsyncSession, store_id: UUID, tasks: Sequence[TaskIssued]
    ) -> list[TaskAnswered]:
        """Leave these to their duties, except for those about somebody erased, whom no waiting task may name."""
        if not tasks:
            return []
        erased = await erased_among(session, [(store_id, task.subject_id, task.generation) for task in tasks])
        over = {Person(subject_id, generation) for _, subject_id, generation in erased}
        await jobs.note(session, store_id, [task for task in tasks if _person(task) not in over])
        late = [task for task in tasks if _person(task) in over]
        return await self._do(session, store_id, late, self._find_nothing)

    async def _find_nothing(
        self, session: AsyncSession, tasks: Sequence[TaskIssued], batch: Sequence[Asked]
    ) -> list[TaskAnswered]:
        return [self._answer(task, outcome=Outcome.NOTHING_HELD) for task in tasks]

    async def _erase(
        self, session: AsyncSession, tasks: Sequence[TaskIssued], batch: Sequence[Asked]
    ) -> list[TaskAnswered]:
        people = [Person(one.subject_id, one.generation) for one in batch]
        await bury(session, [(one.store_id, one.subject_id, one.generation) for one in batch])
        for holding in self.holdings:
            if holding.before_erase is not None:
                await holding.before_erase(session, batch[0].store_id, people)
        counts = await erasure.erase(session, self._erasing, batch)
        kept = await erasure.retained(session, self._inventory().keeping, batch)
        return [
            self._answer(
                task,
                outcome=Outcome.RETAINED if kept[task.request_id]
                else Outcome.DONE if counts[task.request_id]
                else Outcome.NOTHING_HELD,
                counts=dict(counts[task.request_id]),
                retained=kept[task.request_id],
            )
            for task in tasks
        ]  # fmt: skip

    async def _verify_erased(
        self, session: AsyncSession, tasks: Sequence[TaskIssued], batch: Sequence[Asked]
    ) -> list[TaskAnswered]:
        store_id, whole = batch[0].store_id, {task.request_id for task in tasks if _scope(task).is_whole}
        left = await erasure.left_over(
            session, await self._reread(session), [one for one in batch if one.request_id in whole]
        )
        parts = [
            (one, task.retired) for task, one in zip(tasks, batch, strict=True) if one.request_id not in whole
        ]
        left |= await erasure.left_under(session, store_id, parts)
        return [
            self._answer(task, outcome=Outcome.FAILED, reason="left-over", counts=dict(left[task.request_id]))
            if left[task.request_id]
            else self._answer(task, outcome=Outcome.DONE)
            for task in tasks
        ]

    async def _reread(self, session: AsyncSession) -> Statement | None:
        """The catalogue is read once a minute: only a migration changes it."""
        until, statement = self._rereading
        if monotonic() >= until:
            statement = await erasure.rereading(session, self.holdings)
            self._rereading = (monotonic() + _CATALOGUE_SECONDS, statement)
        return statement

    # --- What is held ------------------------------------------------------------------------------------

    def _inventory(self, scope: Scope = WHOLE) -> Inventory:
        """Of what is in a scope; its statements are built once."""
        if scope not in self._inventories:
            self._inventories[scope] = Inventory.of(self.holdings, scope)
        return self._inventories[scope]

    async def _preview(
        self, session: AsyncSession, tasks: Sequence[TaskIssued], batch: Sequence[Asked]
    ) -> list[TaskAnswered]:
        answers: list[TaskAnswered] = []
        for scope, some in _by_scope(tasks).items():
            inventory = self._inventory(scope)
            asked = [one for one in batch if one.request_id in {task.request_id for task in some}]
            counts = await inventory.count(session, asked)
            kept = await erasure.retained(session, inventory.keeping, asked)
            people = [_person(task) for task in some]
            obligations = await inventory.obligations(session, batch[0].store_id, people)
            answers += [
                self._answer(
                    task,
                    outcome=_held(counts[task.request_id] or kept[task.request_id]),
                    counts=dict(counts[task.request_id]),
                    retained=kept[task.request_id],
                    obligations=obligations.get(_person(task), []),
                )
                for task in some
            ]
        return answers

    async def _recognise(
        self, session: AsyncSession, tasks: Sequence[TaskIssued], batch: Sequence[Asked]
    ) -> list[TaskAnswered]:
        found = await recognised(session, self.holdings, batch[0].store_id, tasks)
        return [self._answer(task, outcome=_held(task.request_id in found)) for task in tasks]

    # --- What is done with it ----------------------------------------------------------------------------

    async def _hold_or_release(
        self, session: AsyncSession, tasks: Sequence[TaskIssued], batch: Sequence[Asked]
    ) -> list[TaskAnswered]:
        """Note who is on hold; of several tasks for one person the last one counts."""
        store_id = batch[0].store_id
        last = {_person(task): task.verb for task in tasks}
        held = [person for person, verb in last.items() if verb is Verb.RESTRICT]
        released = [person for person, verb in last.items() if verb is Verb.LIFT_RESTRICTION]
        await restrictions.restrict(session, [(store_id, one.subject_id, one.generation) for one in held])
        await restrictions.lift(session, [(store_id, one.subject_id, one.generation) for one in released])
        for holding in self.holdings:
            await _call(holding.on_restrict, session, store_id, held)
            await _call(holding.on_lift, session, store_id, released)
        return await self._counted(session, tasks, batch)

    async def _object(
        self, session: AsyncSession, tasks: Sequence[TaskIssued], batch: Sequence[Asked]
    ) -> list[TaskAnswered]:
        """The keyring opens nothing for the purpose any more; here it is said who uses data for it."""
        answers: list[TaskAnswered] = []
        for (purpose, _), some in _by_scope(tasks).items():
            concerned = [
                one for one in self.holdings if one.kind is not None and purpose in one.kind.purposes
            ]
            for holding in concerned:
                await _call(holding.on_object, session, batch[0].store_id, [_person(task) for task in some])
            answers += [self._answer(task, outcome=_held(concerned)) for task in some]
        return answers

    async def _counted(
        self, session: AsyncSession, tasks: Sequence[TaskIssued], batch: Sequence[Asked]
    ) -> list[TaskAnswered]:
        counts = await self._inventory().count(session, batch)
        return [
            self._answer(task, outcome=_held(counts[task.request_id]), counts=dict(counts[task.request_id]))
            for task in tasks
        ]

    def _answer(self, task: TaskIssued, *, outcome: Outcome, **more: Any) -> TaskAnswered:
        return TaskAnswered(
            request_id=task.request_id,
            verb=task.verb,
            round=task.round,
            participant=self.service,
            outcome=outcome,
            **more,
        )


async def forget_keys(
    session: AsyncSession, events: Sequence[Received[KeysDestroyed]] | Sequence[Received[KeysChanged]]
) -> None:
    """Every process of this service forgets the keys of these people, as soon as this commits."""
    await forget_in_every_process(
        session, {(event.envelope.store_id, event.data.subject_id) for event in events}
    )


async def _forget_old_tasks(work: Work) -> int:
    await jobs.purge(work.database, kept_seconds=inbox.KEPT_FOR.total_seconds())
    return 0


def _opens_boxes(task: TaskIssued) -> bool:
    match task.verb:
        case Verb.EXPORT | Verb.RECTIFY:
            return True
        case Verb.PREVIEW:
            return task.proposal is not None
        case Verb.ERASE:
            return not _scope(task).is_whole
        case _:
            return False


def _person(task: TaskIssued) -> Person:
    return Person(task.subject_id, task.generation)


def _held(anything: object) -> Outcome:
    return Outcome.DONE if anything else Outcome.NOTHING_HELD


async def _call(hook: Hook | None, session: AsyncSession, store_id: UUID, people: Sequence[Person]) -> None:
    if hook is not None and people:
        await hook(session, store_id, people)


def _scope(task: TaskIssued) -> Scope:
    return Scope(task.purpose, task.category)


def _by_scope(tasks: Iterable[TaskIssued]) -> dict[Scope, list[TaskIssued]]:
    scopes: dict[Scope, list[TaskIssued]] = defaultdict(list)
    for task in tasks:
        scopes[_scope(task)].append(task)
    return scopes


def _newest(tasks: Iterable[TaskIssued]) -> list[TaskIssued]:
    """Each task once, in its newest round."""
    newest: dict[tuple[UUID, Verb], TaskIssued] = {}
    for task in tasks:
        known = newest.get((task.request_id, task.verb))
        if known is None or known.round < task.round:
            newest[task.request_id, task.verb] = task
    return list(newest.values())
