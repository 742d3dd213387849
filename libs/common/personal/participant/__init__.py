"""A service's part in the requests of the privacy service, from its declarations alone.

    PARTICIPANT = Participant(service="orders", holdings=HOLDINGS, settings=Settings)
    HANDLERS = {OrderPlaced: on_order_placed, **PARTICIPANT.handlers}
    DUTIES = [*PARTICIPANT.duties]

What opens no box is done where the task arrives, for a batch of people at once. `export`, `refer`, `prepare`,
`rectify`, the preview of a rectification and the erasure of a part are noted there and done by a duty. A task that is
issued again gets the same answer again.
"""

from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from time import monotonic
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from libs.common import inbox
from libs.common.events import Received
from libs.common.events.privacy import (
    Held,
    KeysChanged,
    KeysDestroyed,
    KeysExpired,
    Life,
    Outcome,
    Retained,
    TaskAnswered,
    TaskIssued,
    Verb,
)
from libs.common.inbox import Handlers, batched
from libs.common.outbox import publish_all
from libs.common.personal import erasure, expiry, jobs, restorations, restrictions
from libs.common.personal.answers import sign
from libs.common.personal.erasure import Asked, Keeping, Reread, Statement, asked_of
from libs.common.personal.holdings import COPIES, Copy, Holding, Hook, Person
from libs.common.personal.inventory import Inventory, recognised
from libs.common.personal.participant.announcements import announce
from libs.common.personal.participant.expiries import clean
from libs.common.personal.participant.expiries import note as note_expired
from libs.common.personal.participant.exports import export
from libs.common.personal.participant.index_rotations import index_anew
from libs.common.personal.participant.part import COMMON, Part, Preparation
from libs.common.personal.participant.preparations import prepare
from libs.common.personal.participant.rectifications import rectify
from libs.common.personal.participant.references import refer
from libs.common.personal.participant.scoped_erasures import erase_parts
from libs.common.personal.scope import WHOLE, Scope
from libs.common.personal.tombstones import bury, erased_among
from libs.common.personal.vault import announce as forget_in_every_process
from libs.common.personal.vocabulary import Clock, Retention
from libs.common.settings import ServiceSettings
from libs.common.telemetry import joint_spans, traceparent_of
from libs.common.worker import Duty, Work

__all__ = ["COMMON", "Participant"]

_CATALOGUE_SECONDS = 60.0

Kept = tuple[Held, ...]
"""What a legal hold keeps from an erasure."""
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
        prepare: Preparation | None = None,
        clocks: Iterable[Clock] = (),
    ) -> None:
        super().__init__(
            service=service,
            holdings=holdings,
            settings=settings,
            copies=copies,
            prepare=prepare,
            clocks=clocks,
        )
        self._erasings: dict[Kept, Sequence[Statement]] = {}
        self._keepings: dict[Kept, Keeping] = {}
        self._inventories: dict[Scope, Inventory] = {}
        self._rereadings: dict[Kept, tuple[float, Reread]] = {}

    @property
    def handlers(self) -> Handlers:
        """To be merged into the service's HANDLERS."""
        return {
            TaskIssued: batched(self.on_tasks),
            KeysDestroyed: batched(forget_keys),
            KeysChanged: batched(forget_keys),
            KeysExpired: batched(self.on_expired),
        }

    @property
    def duties(self) -> Sequence[Duty]:
        """To be merged into the service's DUTIES."""
        return [
            self._duty("exports", self.export, Verb.EXPORT),
            self._duty("prepares erasures", self.prepare_erasures, Verb.PREPARE),
            self._duty("refers", self.refer, Verb.REFER),
            self._duty("rectifies", self.rectify, Verb.RECTIFY),
            self._duty("erases parts", self.erase_parts, Verb.ERASE),
            Duty(f"{self.service} cleans", self.clean, timedelta(seconds=1), channel=expiry.CHANNEL),
            Duty(f"{self.service} announces itself", self.announce, timedelta(hours=1)),
            Duty(
                f"{self.service} tells of a restored database", self.tell_of_restorations, timedelta(hours=1)
            ),
            Duty(f"{self.service} indexes anew", self.index_anew, timedelta(seconds=10)),
            Duty("forget old tasks", _forget_old_tasks, timedelta(hours=1)),
            Duty("forget what is cleaned", _forget_what_is_cleaned, timedelta(hours=1)),
        ]

    def _duty(self, what: str, step: Callable[[Work], Awaitable[int]], verb: Verb) -> Duty:
        """One that a task wakes. By itself it looks for what was put back, or was left by a worker that is gone."""
        return Duty(f"{self.service} {what}", step, timedelta(seconds=5), channel=jobs.channel(verb))

    async def export(self, work: Work) -> int:
        """Send what is held about the people of waiting exports. Returns 0 unless more are waiting."""
        return await export(self, work)

    async def prepare_erasures(self, work: Work) -> int:
        """Tell whoever must know before anything is destroyed. Returns 0 unless more are waiting."""
        return await prepare(self, work)

    async def refer(self, work: Work) -> int:
        """Say by what outsiders know the people of waiting tasks. Returns 0 unless more are waiting."""
        return await refer(self, work)

    async def rectify(self, work: Work) -> int:
        """Correct what is to be corrected, or say what would be. Returns 0 unless more are waiting."""
        return await rectify(self, work)

    async def erase_parts(self, work: Work) -> int:
        """Erase what is to be erased of people who stay. Returns 0 unless more are waiting."""
        return await erase_parts(self, work)

    async def clean(self, work: Work) -> int:
        """Empty and delete what is past the time for which it is kept. Returns 0 unless more are waiting."""
        return await clean(self, work)

    async def announce(self, work: Work) -> int:
        """Say who answers here, with which key, and what is kept; daily, and when it changes."""
        return await announce(self, work)

    async def tell_of_restorations(self, work: Work) -> int:
        """Say that the database was restored, so that what was asked since is asked again."""
        return await restorations.tell(self.service, work)

    async def index_anew(self, work: Work) -> int:
        """Index what is indexed by an earlier secret. Returns 0: what could not be done is tried again later."""
        return await index_anew(self, work)

    async def on_expired(self, session: AsyncSession, events: Sequence[Received[KeysExpired]]) -> None:
        """Forget the keys, and have what lies under them cleaned."""
        await forget_keys(session, events)
        await note_expired(self, session, events[0].envelope.store_id, [event.data for event in events])

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
        batch = [one for task in tasks for one in asked_of(task, store_id)]
        spans = ((f"task {task.verb}", traceparent_of(str(task.request_id))) for task in tasks)
        with joint_spans(spans, service=self.service):
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
        lives = [(store_id, life.subject_id, life.generation) for task in tasks for life in task.lives]
        over = {Life(subject_id=one, generation=last) for _, one, last in await erased_among(session, lives)}
        late: list[TaskIssued] = []
        waiting: list[TaskIssued] = []
        for task in tasks:
            match [life for life in task.lives if life not in over]:
                case [first, *others]:
                    waiting.append(task.model_copy(update={**dict(first), "also": others}))
                case _:
                    late.append(task)
        await jobs.note(session, store_id, waiting)
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
        counts: dict[UUID, Counter[str]] = defaultdict(Counter)
        kept: dict[UUID, list[Retained]] = defaultdict(list)
        for held, some in _by_hold(tasks, batch).items():
            counts |= await erasure.erase(session, self._erasing(held), some)
            found = await erasure.retained(session, self._keeping(held), some)
            kept |= {id_: [_as_held(one, held) for one in listed] for id_, listed in found.items()}
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
        left: dict[UUID, Counter[str]] = defaultdict(Counter)
        rereads: dict[UUID, Reread] = {}
        for held, some in _by_hold(tasks, batch).items():
            reread = await self._reread(session, held)
            rereads |= {one.request_id: reread for one in some}
            asked = [one for one in some if one.request_id in whole]
            left |= await erasure.left_over(session, reread.statement, asked)
        retired = {task.request_id: task.retired for task in tasks}
        parts = [(one, retired[one.request_id]) for one in batch if one.request_id not in whole]
        of_parts = dict(rereads)
        if parts:
            left_of_parts, read = await erasure.left_under(session, store_id, parts)
            left |= left_of_parts
            of_parts = {id_: reread.of_a_part(read) for id_, reread in rereads.items()}
        return [
            self._reread_answer(
                task,
                (rereads if task.request_id in whole else of_parts)[task.request_id],
                left.get(task.request_id),
            )
            for task in tasks
        ]

    def _reread_answer(
        self, task: TaskIssued, reread: Reread, left: Mapping[str, int] | None
    ) -> TaskAnswered:
        """What was found, and all that was looked at for it."""
        looked = {"reread": list(reread.tables), "skipped": dict(reread.skipped)}
        if left:
            return self._answer(task, outcome=Outcome.FAILED, reason="left-over", counts=dict(left), **looked)
        return self._answer(task, outcome=Outcome.DONE, **looked)

    def _erasing(self, held: Kept) -> Sequence[Statement]:
        """What erases all but what a legal hold keeps; built once."""
        if held not in self._erasings:
            names = {one.retention for one in held}
            self._erasings[held] = erasure.erasing(
                [one for one in self.holdings if one.retention not in names]
            )
        return self._erasings[held]

    def _keeping(self, held: Kept) -> Keeping:
        if not held:
            return self._inventory().keeping
        if held not in self._keepings:
            names = {one.retention for one in held}
            staying = [one for one in self.holdings if one.retention in names and not one.kept_by_law]
            self._keepings[held] = Keeping.of(self.holdings, staying)
        return self._keepings[held]

    async def _reread(self, session: AsyncSession, held: Kept) -> Reread:
        """The catalogue is read once a minute: only a migration changes it."""
        until, reread = self._rereadings.get(held, (float("-inf"), None))
        if reread is None or monotonic() >= until:
            names = frozenset(one.retention for one in held)
            reread = await erasure.rereading(session, self.holdings, staying=names)
            self._rereadings[held] = (monotonic() + _CATALOGUE_SECONDS, reread)
        return reread

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
            people = [person for task in some for person in _people(task)]
            obligations = await inventory.obligations(session, batch[0].store_id, people)
            answers += [
                self._answer(
                    task,
                    outcome=_held(counts[task.request_id] or kept[task.request_id]),
                    counts=dict(counts[task.request_id]),
                    retained=kept[task.request_id],
                    obligations=sorted(
                        {word for person in _people(task) for word in obligations.get(person, [])}
                    ),
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
        """Note who is on hold; of several tasks for one person the last one counts, and who is erased is not noted."""
        store_id = batch[0].store_id
        asked = {(store_id, one.subject_id, one.generation) for one in batch}
        over = {Person(subject, last) for _, subject, last in await erased_among(session, asked)}
        last = {person: task.verb for task in tasks for person in _people(task) if person not in over}
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
            people = [person for task in some for person in _people(task)]
            for holding in concerned:
                await _call(holding.on_object, session, batch[0].store_id, people)
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
    session: AsyncSession,
    events: Sequence[Received[KeysDestroyed]]
    | Sequence[Received[KeysChanged]]
    | Sequence[Received[KeysExpired]],
) -> None:
    """Every process of this service forgets the keys of these people, as soon as this commits."""
    await forget_in_every_process(
        session, {(event.envelope.store_id, event.data.subject_id) for event in events}
    )


async def _forget_old_tasks(work: Work) -> int:
    await jobs.purge(work.database, kept_seconds=inbox.KEPT_FOR.total_seconds())
    return 0


async def _forget_what_is_cleaned(work: Work) -> int:
    await expiry.purge(work.database, kept_seconds=inbox.KEPT_FOR.total_seconds())
    return 0


def _by_hold(tasks: Sequence[TaskIssued], batch: Sequence[Asked]) -> dict[Kept, list[Asked]]:
    """A statement goes for all of whom the same is kept."""
    held = {task.request_id: tuple(sorted(task.held, key=lambda one: one.retention)) for task in tasks}
    groups: dict[Kept, list[Asked]] = defaultdict(list)
    for asked in batch:
        groups[held[asked.request_id]].append(asked)
    return groups


def _as_held(kept: Retained, held: Kept) -> Retained:
    """What stays for a claim says so; what the law keeps anyhow stays for that."""
    hold = next((one for one in held if one.retention == kept.retention), None)
    if hold is None or Retention(kept.retention).period.kept_by_law:
        return kept
    return kept.model_copy(update={"ground": hold.ground, "until": hold.until})


def _opens_boxes(task: TaskIssued) -> bool:
    match task.verb:
        case Verb.EXPORT | Verb.RECTIFY | Verb.PREPARE | Verb.REFER:
            return True
        case Verb.PREVIEW:
            return task.proposal is not None
        case Verb.ERASE:
            return not _scope(task).is_whole
        case _:
            return False


def _people(task: TaskIssued) -> list[Person]:
    return [Person(life.subject_id, life.generation) for life in task.lives]


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
