"""A service's part in the requests of the privacy service, from its declarations alone.

    PARTICIPANT = Participant(service="orders", holdings=HOLDINGS, settings=Settings)
    HANDLERS = {OrderPlaced: on_order_placed, **PARTICIPANT.handlers}
    DUTIES = [*PARTICIPANT.duties]

`erase` and `verify-erased` are done where the task arrives, for a batch of people at once; `export` is noted
there and done by a duty, since it opens boxes. A task that is issued again gets the same answer again.
"""

import hashlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import timedelta
from functools import cached_property
from time import monotonic
from typing import Any
from uuid import UUID

import orjson
from joserfc.jwk import ECKey
from sqlalchemy import func, text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common import inbox
from libs.common.auth import PLATFORM_STORE
from libs.common.errors import Unavailable
from libs.common.events import Event, Received
from libs.common.events.privacy import (
    KeysDestroyed,
    Outcome,
    ParticipantAnnounced,
    TaskAnswered,
    TaskIssued,
    Verb,
)
from libs.common.inbox import Handlers, batched
from libs.common.mail import Letter, RequestLetter, WaitingLetter
from libs.common.outbox import publish, publish_all
from libs.common.personal import erasure, jobs
from libs.common.personal.answers import sign
from libs.common.personal.datamap import data_map
from libs.common.personal.erasure import Asked, Keeping, Statement
from libs.common.personal.export import Gathering, Record, Unreadable, records_of, seal
from libs.common.personal.holdings import COPIES, Copy, Holding, OnErase, Person
from libs.common.personal.jobs import Announcement, ParticipantJob
from libs.common.personal.tombstones import bury
from libs.common.personal.vault import announce
from libs.common.settings import ServiceSettings
from libs.common.telemetry import continuing
from libs.common.worker import Duty, Work

logger = logging.getLogger(__name__)

LETTERS = Holding(
    table=WaitingLetter, box="box", kind=Letter, only={"kind": "Letter"},
    on_erase=OnErase.DELETE, exported=False,
)  # fmt: skip
REQUEST_LETTERS = Holding(
    table=WaitingLetter, box="box", kind=RequestLetter, only={"kind": "RequestLetter"},
    on_erase=OnErase.KEEP, exported=False,
)  # fmt: skip
EXPORTS = Holding(table=ParticipantJob, on_erase=OnErase.DELETE, exported=False)
"""Letters, and exports that are still to be made, wait in every service's database."""

_CATALOGUE_SECONDS = 60.0
_ONE_AT_A_TIME = text("SELECT pg_advisory_xact_lock(hashtext('announcement'))")
_ANNOUNCED_AGAIN_AFTER = timedelta(days=1)

_Work = Callable[[AsyncSession, Sequence[TaskIssued], Sequence[Asked]], Awaitable[list[TaskAnswered]]]


class Participant:
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
        self.service = service
        self.holdings = (*holdings, LETTERS, REQUEST_LETTERS, EXPORTS)
        self._erasing = erasure.erasing(self.holdings)
        self._keeping = Keeping.of(self.holdings)
        self.copies = tuple(copies)
        self._settings = settings
        self._rereading: tuple[float, Statement | None] = (float("-inf"), None)

    @cached_property
    def key(self) -> ECKey:
        """What this service signs with."""
        settings = self._settings.model_validate({})
        return ECKey.import_key(orjson.loads(settings.service_key.get_secret_value()))

    @property
    def handlers(self) -> Handlers:
        """To be merged into the service's HANDLERS."""
        return {TaskIssued: batched(self.on_tasks), KeysDestroyed: batched(on_keys_destroyed)}

    @property
    def duties(self) -> Sequence[Duty]:
        """To be merged into the service's DUTIES."""
        return [
            Duty(f"{self.service} exports", self.export, timedelta(seconds=1), channel=jobs.CHANNEL),
            Duty(f"{self.service} announces itself", self.announce, timedelta(hours=1)),
            Duty("forget old tasks", _forget_old_tasks, timedelta(hours=1)),
        ]

    # --- Tasks -------------------------------------------------------------------------------------------

    async def on_tasks(self, session: AsyncSession, events: Sequence[Received[TaskIssued]]) -> None:
        """Do what is new, answer again what was answered, and leave what is under way alone."""
        store_id = events[0].envelope.store_id
        tasks = _newest(event.data for event in events if self._is_asked(event.data))
        known = await jobs.known(session, [task.request_id for task in tasks])
        fresh = [task for task in tasks if known.round_of(task) < task.round]
        answers: list[TaskAnswered] = []
        for verb, work in ((Verb.ERASE, self._erase), (Verb.VERIFY_ERASED, self._verify_erased)):
            answers += await self._do(session, store_id, [task for task in fresh if task.verb is verb], work)
        await jobs.note(session, store_id, [task for task in fresh if task.verb is Verb.EXPORT])
        again = [answer for task in tasks if (answer := known.answer_to(task)) is not None]
        await publish_all(session, [*again, *answers], store_id=store_id, source=self.service)

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

    async def _erase(
        self, session: AsyncSession, tasks: Sequence[TaskIssued], batch: Sequence[Asked]
    ) -> list[TaskAnswered]:
        people = [Person(one.subject_id, one.generation) for one in batch]
        await bury(session, [(one.store_id, one.subject_id, one.generation) for one in batch])
        for holding in self.holdings:
            if holding.before_erase is not None:
                await holding.before_erase(session, batch[0].store_id, people)
        counts = await erasure.erase(session, self._erasing, batch)
        kept = await erasure.retained(session, self._keeping, batch)
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
        left = await erasure.left_over(session, await self._reread(session), batch)
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

    def _answer(self, task: TaskIssued, *, outcome: Outcome, **more: Any) -> TaskAnswered:
        return TaskAnswered(
            request_id=task.request_id,
            verb=task.verb,
            round=task.round,
            participant=self.service,
            outcome=outcome,
            **more,
        )

    # --- Exports -----------------------------------------------------------------------------------------

    async def export(self, work: Work) -> int:
        """Send what is held about the people of waiting exports. Returns 0 unless more are waiting."""
        claimed = await jobs.claim(work.database)
        if claimed:
            with continuing({str(one.asked.request_id): one.traceparent for one in claimed}):
                await self._export(work, claimed)
        return len(claimed) // jobs.AT_ONCE

    async def _export(self, work: Work, claimed: Sequence[Gathering]) -> None:
        try:
            await self._send_all(work, claimed)
        except Unreadable as error:
            # One that cannot be answered must not hold the others back.
            if len(claimed) == 1:
                return await self._fail(work, claimed[0], error.reason)
            for one in claimed:
                await self._export(work, [one.anew()])
        except Unavailable:
            await jobs.put_back(work.database, claimed)
            raise

    async def _send_all(self, work: Work, claimed: Sequence[Gathering]) -> None:
        by_request = {one.asked.request_id: one for one in claimed}
        shown = [holding for holding in self.holdings if holding.exported]
        async with work.database.platform_session() as reading:
            async for page in records_of(reading, work.vault, shown, [one.asked for one in claimed]):
                full: list[tuple[Gathering, list[Record]]] = []
                for request_id, record in page:
                    if chunk := by_request[request_id].add(record):
                        full.append((by_request[request_id], chunk))
                if full:
                    await self._send(work, full)
        await self._send(work, [(one, one.take()) for one in claimed], last=True)

    async def _send(
        self, work: Work, pieces: Sequence[tuple[Gathering, list[Record]]], *, last: bool = False
    ) -> None:
        """Publish chunks, and after the last one the answer that binds them."""
        boxes = await seal(work.vault, pieces)
        for store_id in dict.fromkeys(one.asked.store_id for one, _ in pieces):
            async with work.database.session(store_id) as session:
                under_way = await jobs.hold(
                    session, [one for one, _ in pieces if one.asked.store_id == store_id]
                )
                events: list[Event] = []
                answers: list[TaskAnswered] = []
                for (one, records), box in zip(pieces, boxes, strict=True):
                    erased = bool(records) and box is None
                    if erased or one.asked.request_id not in under_way:
                        continue
                    if box is not None:
                        events.append(one.number(box, participant=self.service))
                    if last:
                        answers.append(self._exported(one, store_id))
                await jobs.save(session, store_id, answers)
                await publish_all(session, [*events, *answers], store_id=store_id, source=self.service)

    def _exported(self, one: Gathering, store_id: UUID) -> TaskAnswered:
        answer = TaskAnswered(
            request_id=one.asked.request_id,
            verb=Verb.EXPORT,
            round=one.round,
            participant=self.service,
            outcome=Outcome.DONE if one.sent else Outcome.NOTHING_HELD,
            counts=dict(one.counts),
            chunks=one.sent,
            digest=one.digest,
        )
        return sign(answer, store_id=store_id, key=self.key)

    async def _fail(self, work: Work, one: Gathering, reason: str) -> None:
        """Say so, and go on trying: nobody but us can mend it."""
        logger.error("export fails", extra={"reason": reason, "request_id": str(one.asked.request_id)})
        answer = TaskAnswered(
            request_id=one.asked.request_id,
            verb=Verb.EXPORT,
            round=one.round,
            participant=self.service,
            outcome=Outcome.FAILED,
            reason=reason,
        )
        store_id = one.asked.store_id
        async with work.database.session(store_id) as session:
            if await jobs.postpone(session, one):
                signed = sign(answer, store_id=store_id, key=self.key)
                await publish(session, signed, store_id=store_id, source=self.service)

    # --- Announcing --------------------------------------------------------------------------------------

    async def announce(self, work: Work) -> int:
        """Tell the privacy service who answers here, with which key, and what is kept; daily, and when it changes."""
        public_key = self.key.as_dict(private=False)
        entries = data_map(self.service, self.holdings, self.copies)
        digest = hashlib.sha256(orjson.dumps([public_key, entries], option=orjson.OPT_SORT_KEYS)).digest()
        async with work.database.session(PLATFORM_STORE) as session:
            await session.execute(_ONE_AT_A_TIME)
            last = await session.get(Announcement, self.service)
            now: Any = await session.scalar(func.now().select())
            if (
                last is not None
                and last.digest == digest
                and now - last.announced_at < _ANNOUNCED_AGAIN_AFTER
            ):
                return 0
            version = last.version + 1 if last is not None else 1
            await session.merge(
                Announcement(participant=self.service, digest=digest, version=version, announced_at=now)
            )
            event = ParticipantAnnounced(
                participant=self.service, public_key=public_key, data_map=entries, version=version
            )
            await publish(session, event, store_id=PLATFORM_STORE, source=self.service)
        return 0


async def on_keys_destroyed(session: AsyncSession, events: Sequence[Received[KeysDestroyed]]) -> None:
    """Every process of this service forgets the keys of these people, as soon as this commits."""
    await announce(session, {(event.envelope.store_id, event.data.subject_id) for event in events})


async def _forget_old_tasks(work: Work) -> int:
    await jobs.purge(work.database, kept_seconds=inbox.KEPT_FOR.total_seconds())
    return 0


def _newest(tasks: Iterable[TaskIssued]) -> list[TaskIssued]:
    """Each task once, in its newest round."""
    newest: dict[tuple[UUID, Verb], TaskIssued] = {}
    for task in tasks:
        known = newest.get((task.request_id, task.verb))
        if known is None or known.round < task.round:
            newest[task.request_id, task.verb] = task
    return list(newest.values())
