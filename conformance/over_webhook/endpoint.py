"""A recipient's endpoint, spoken to exactly as the privacy service speaks to it, and an ear for what it says later."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_network
from types import ModuleType
from typing import Any
from uuid import UUID, uuid4

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from conformance.checks import Missing, expect
from conformance.scene import Person, Seed
from deploy.local.serving import serving
from libs.common.events.privacy import Correction, References, Verb
from libs.common.outgoing import Outgoing
from services.privacy.domain.problems import NotSigned
from services.privacy.recipients import signatures
from services.privacy.recipients.protocols import Reply, Said, Sending, To, Told
from services.privacy.recipients.replies import Outcomes
from services.privacy.recipients.words import Role

ANYWHERE = tuple(ip_network(network) for network in ("0.0.0.0/0", "::/0"))
"""The kit calls whom it is told to call; the platform would refuse an address that is not public."""


@dataclass(slots=True)
class Endpoint:
    """Who is checked. `patience` is how many seconds an answer that comes later may take."""

    url: str
    secret: str
    protocol: ModuleType
    patience: float
    role: Role = Role.PROCESSOR
    seed: Seed | None = None
    public_url: str = ""
    store_id: UUID = field(default_factory=uuid4)
    outgoing: Outgoing = field(default_factory=lambda: Outgoing(networks=ANYWHERE, plain=True))
    answers: dict[UUID, Said] = field(default_factory=dict[UUID, Said])
    refused: list[str] = field(default_factory=list[str])
    """Why what it said later was not taken."""
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    # --- Whom it is told of --------------------------------------------------------------------------------

    def stranger(self) -> Person:
        """Somebody of whom it has never heard."""
        mark = uuid4().hex[:12]
        return Person(self.store_id, uuid4(), 1, f"canary-{mark}@vitrine.example", f"Canary {mark}")

    async def somebody(self) -> Person:
        """Somebody of whom it holds data. Raises Missing."""
        if self.seed is None:
            raise Missing("it holds data of nobody: name a hook by --seed-url or --seed-command")
        person = self.stranger()
        if not await self.seed(person):
            raise Missing("it did not take the data of a person from the seed hook")
        return person

    # --- Telling it ----------------------------------------------------------------------------------------

    def told(
        self, what: str, person: Person | None = None, *, corrections: Sequence[Correction] = ()
    ) -> Told:
        """What is due to be told, under an id of its own."""
        now = datetime.now(UTC)
        to = To(id=self.store_id, store_id=self.store_id, role=self.role, url=self.url)
        about: dict[str, Any] = {}
        if person is not None:
            about = {
                "request_id": uuid4(), "right": "conformance", "law": "GDPR", "received_at": now,
                "due_on": now.date(), "references": References(emails=(person.email,)),
                "corrections": corrections,
            }  # fmt: skip
        return Told(
            delivery_id=uuid4(), to=to, what=what, made_at=now, store_name="Conformance",
            public_url=self.public_url, **about,
        )  # fmt: skip

    async def send(
        self,
        told: Told,
        *,
        body: bytes | None = None,
        secrets: Sequence[str] | None = None,
        now: datetime | None = None,
    ) -> Reply:
        """One try, as the duty that delivers makes it."""
        sending = Sending(
            delivery_id=told.delivery_id,
            to=told.to,
            what=told.what,
            body=self.protocol.compose(told) if body is None else body,
            made_at=told.made_at,
            now=now or datetime.now(UTC),
            secrets=[self.secret] if secrets is None else secrets,
            outgoing=self.outgoing,
        )
        return await self.protocol.send(sending)

    async def ask(self, verb: Verb, person: Person, **more: Any) -> Said:
        """What it has done, said at once or later. Raises Missing."""
        return await self.outcome(told := self.told(verb, person, **more), await self.send(told))

    async def outcome(self, told: Told, reply: Reply) -> Said:
        """What a reply says, or what comes to the answer's address after it."""
        expect(not reply.word, described(reply))
        if reply.said is not None:
            return reply.said
        try:
            async with self._news, asyncio.timeout(self.patience):
                await self._news.wait_for(lambda: told.delivery_id in self.answers)
        except TimeoutError:
            why = f"; refused: {', '.join(self.refused)}" if self.refused else ""
            raise Missing(f"taken, and not said to be done within {self.patience:g} s{why}") from None
        return self.answers[told.delivery_id]

    # --- What it says later --------------------------------------------------------------------------------

    @asynccontextmanager
    async def listening(self) -> AsyncGenerator[None]:
        """Take answers, as the privacy service does, while the block runs."""
        path = "/privacy/v1/deliveries/{id:uuid}/answer"
        app = Starlette(routes=[Route(path, self._take, methods=["POST"])])
        async with serving(app) as self.public_url:
            yield

    async def _take(self, request: Request) -> Response:
        delivery_id, content = request.path_params["id"], await request.body()
        try:
            signatures.check(request.headers, str(delivery_id), content, [self.secret], now=datetime.now(UTC))
            said = Outcomes.model_validate_json(content).said()
        except (NotSigned, ValidationError) as error:
            self.refused.append("not signed" if isinstance(error, NotSigned) else "not understood")
            return Response(status_code=401 if isinstance(error, NotSigned) else 422)
        async with self._news:
            self.answers[delivery_id] = said
            self._news.notify_all()
        return Response(status_code=204)


def described(reply: Reply) -> str:
    """A reply in a word."""
    return f"{reply.word or 'taken'}, status {reply.status or 'none'}"
