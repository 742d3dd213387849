"""Who takes part, with what it holds, and how it signs."""

import logging
from collections.abc import Awaitable, Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any
from uuid import UUID

import orjson
from joserfc.jwk import ECKey

from libs.common.events.privacy import Outcome, Proposal, TaskAnswered
from libs.common.mail import Letter, RequestLetter, WaitingLetter
from libs.common.outbox import publish
from libs.common.personal import jobs
from libs.common.personal.answers import sign
from libs.common.personal.expiry import cleanings
from libs.common.personal.export import Reading, shown
from libs.common.personal.holdings import COPIES, Copy, Holding, OnErase, Person
from libs.common.personal.jobs import ParticipantJob, UnderWay
from libs.common.personal.references import referring
from libs.common.personal.restrictions import RestrictedSubject
from libs.common.personal.vocabulary import Clock
from libs.common.settings import ServiceSettings
from libs.common.telemetry import continuing, joint_spans
from libs.common.worker import Work

logger = logging.getLogger(__name__)

COMMON = (
    Holding(
        table=WaitingLetter, box="box", kind=Letter, only={"kind": "Letter"},
        on_erase=OnErase.DELETE, exported=False,
    ),
    Holding(
        table=WaitingLetter, box="box", kind=RequestLetter, only={"kind": "RequestLetter"},
        on_erase=OnErase.KEEP, exported=False,
    ),
    Holding(
        table=ParticipantJob, box="proposal", kind=Proposal, bucket="request_id",
        on_erase=OnErase.DELETE, exported=False,
    ),
    Holding(table=RestrictedSubject, on_erase=OnErase.DELETE, exported=False),
)  # fmt: skip
"""In every service's database: letters that wait, tasks that open boxes, and who is on hold."""


Preparation = Callable[[Work, UUID, Sequence[Person]], Awaitable[None]]
"""`async prepare(work, store_id, people)`: tell whoever has data of these people from this service that they are to be
erased. It may open boxes and call the network, and is repeated until it ends well."""


class Part:
    """A service, what it holds, and the key that signs for it, read from its settings when it is first needed."""

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
        self.service = service
        self.prepare = prepare
        self.holdings = (*holdings, *COMMON)
        self.copies = tuple(copies)
        self.clocks = frozenset(clocks)
        self.cleanings = cleanings(self.holdings)
        self.referring = referring(self.holdings)
        self._settings = settings
        self._exported = {portable: shown(self.holdings, portable=portable) for portable in (False, True)}

    @cached_property
    def key(self) -> ECKey:
        """What this service signs with."""
        settings = self._settings.model_validate({})
        return ECKey.import_key(orjson.loads(settings.service_key.get_secret_value()))

    def exported(self, *, portable: bool) -> Sequence[Reading]:
        """What an export shows."""
        return self._exported[portable]

    def answer(self, one: UnderWay, outcome: Outcome, **more: Any) -> TaskAnswered:
        """A signed answer to a job."""
        answer = TaskAnswered(
            request_id=one.asked.request_id,
            verb=one.verb,
            round=one.round,
            participant=self.service,
            outcome=outcome,
            **more,
        )
        return sign(answer, store_id=one.asked.store_id, key=self.key)

    @contextmanager
    def doing(self, under_way: Sequence[UnderWay]) -> Generator[None]:
        """What is done and published meanwhile is of the traces of these jobs' requests."""
        traces = {str(one.asked.request_id): one.traceparent for one in under_way}
        spans = ((f"task {one.verb}", one.traceparent) for one in under_way)
        with continuing(traces), joint_spans(spans, service=self.service):
            yield

    async def fail(self, work: Work, one: UnderWay, reason: str) -> None:
        """Say so, and go on trying: nobody but us can mend it."""
        logger.error(
            "a task fails",
            extra={"verb": one.verb, "reason": reason, "request_id": str(one.asked.request_id)},
        )
        store_id = one.asked.store_id
        async with work.database.session(store_id) as session:
            if await jobs.postpone(session, one):
                failed = self.answer(one, Outcome.FAILED, reason=reason)
                await publish(session, failed, store_id=store_id, source=self.service)
