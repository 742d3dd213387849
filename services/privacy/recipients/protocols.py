"""How a recipient is spoken to: a protocol is a module, and this is all that it is given and gives back.

    VERBS      what recipients of this protocol can have a part in
    PARTS      whether an erasure can be told that is not of everything
    compose    (Told) -> bytes: what is sent, the same at every try
    send       async (Sending) -> Reply: one try
    poll       async (Sending) -> Reply, where there is one: asks how far somebody is who has received it

Nothing here knows of deliveries, tasks or tables.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

from libs.common.events.privacy import Correction, Outcome, References, Verb
from libs.common.outgoing import Outgoing
from services.privacy.recipients.words import Role


@dataclass(frozen=True, slots=True)
class To:
    """Whom something is sent to."""

    id: UUID
    store_id: UUID
    role: Role
    url: str
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Of this protocol, as they were registered."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a recipient is told: all that any protocol makes a body from."""

    delivery_id: UUID
    to: To
    what: str
    """A verb, `test` or `store-ended`."""
    made_at: datetime
    store_name: str
    public_url: str
    """Under which we are reached: an answer that comes later comes to `/privacy/v1/deliveries/{id}/answer`."""
    request_id: UUID | None = None
    """Of a test, and of the end of a store, nothing that follows is there."""
    right: str = ""
    law: str = ""
    purpose: str | None = None
    category: str | None = None
    received_at: datetime | None = None
    due_on: date | None = None
    references: References = field(default_factory=References)
    corrections: Sequence[Correction] = ()


@dataclass(frozen=True, slots=True)
class Sending:
    """One try of a delivery."""

    delivery_id: UUID
    to: To
    what: str
    body: bytes
    made_at: datetime
    """When what is told became due: the same at every try."""
    now: datetime
    secrets: Sequence[str]
    """Of the recipient, the newest first: while one is replaced both count."""
    outgoing: Outgoing
    memo: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What the last reply left to be remembered."""


@dataclass(frozen=True, slots=True, repr=False)
class File:
    """Something that a recipient found of the person, as it came."""

    name: str
    media_type: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Said:
    """What a recipient says that it has done."""

    outcome: Outcome
    counts: Mapping[str, int] = field(default_factory=dict[str, int])
    retained: Sequence[Mapping[str, Any]] = ()
    reason: str = ""
    """Of a failure: a fixed word."""
    files: Sequence[File] = ()
    """Of an access: what it found."""
    links: Sequence[str] = field(default=(), repr=False)
    """And where the rest is, which could not be fetched."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of a try. Without a `word` the recipient has it; with one it is tried again."""

    status: int | None = None
    word: str = ""
    said: Said | None = None
    """What it has done, if it said so at once."""
    retry_after: timedelta | None = None
    """How long it asks to be left alone."""
    gone: bool = False
    """It wants nothing any more, ever (410)."""
    memo: Mapping[str, Any] | None = None
    """To be remembered in place of what was; ids, times and fixed words, nothing that names anybody."""
    poll_at: datetime | None = None
    """When to ask how far it is, where the protocol has `poll`."""


class Spoken(Protocol):
    """A module that speaks a protocol."""

    @property
    def VERBS(self) -> frozenset[Verb]: ...  # noqa: D102, N802 - a constant of a module
    @property
    def PARTS(self) -> bool: ...  # noqa: D102, N802
    @property
    def compose(self) -> Callable[[Told], bytes]: ...  # noqa: D102
    @property
    def send(self) -> Callable[[Sending], Awaitable[Reply]]: ...  # noqa: D102
