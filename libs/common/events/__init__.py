"""The envelope and every event contract: CloudEvents 1.0 in binary mode, one file of contracts per publisher.

An event carries ids and sealed boxes, never personal data in the clear. A field may be added with a default;
anything else is a new type (`.v2`), and both are published for a release.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, Generic, TypeVar
from uuid import UUID, uuid4

from pydantic import BaseModel, ConfigDict, ValidationError

from libs.common.broker import Record

MAXIMUM_BYTES = 1_000_000
_TYPE = re.compile(r"^vitrine\.[a-z]+\.[a-z-]+\.v[1-9][0-9]*$")
REGISTRY: dict[str, type["Event"]] = {}


class Event(BaseModel):
    """What happened to one aggregate. A subclass names its type, its topic and the field of its key.

    `class OrderPlaced(Event, type="vitrine.orders.order-placed.v1", topic="orders.orders", key="order_id")`
    """

    # A consumer ignores fields that a newer publisher added.
    model_config = ConfigDict(frozen=True, extra="ignore")

    type: ClassVar[str]
    topic: ClassVar[str]
    key: ClassVar[str]

    stands_alone: ClassVar[bool] = False
    """Whether one that cannot be read keeps no other of its key waiting: several publish under it, each for itself."""

    version: int = 0
    """The aggregate's version after the change; a consumer refuses a step back."""

    def __init_subclass__(cls, *, type: str = "", topic: str = "", key: str = "") -> None:  # noqa: A002
        super().__init_subclass__()
        if type:
            cls.type, cls.topic, cls.key = type, topic, key

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        if "type" not in vars(cls):
            return
        if not _TYPE.match(cls.type) or cls.type in REGISTRY:
            raise TypeError(f"{cls.type} is not a new event type")
        if cls.key not in cls.model_fields:
            raise TypeError(f"{cls.__name__} has no field {cls.key}")
        REGISTRY[cls.type] = cls

    @property
    def aggregate(self) -> str:
        """The id that orders this event among its like."""
        return str(getattr(self, self.key))


class PersonalEvent(Event):
    """An event that would create or change data about a person: refused once that generation is erased, or the time for
    which the data it brings is kept is over.
    """

    subject_id: UUID
    generation: int

    @property
    def place(self) -> tuple[str, str] | None:
        """Retention and bucket of what it brings, where that bucket can end before its person's other data."""
        return None


E_co = TypeVar("E_co", bound=Event, covariant=True)


@dataclass(frozen=True, slots=True)
class Envelope:
    """The attributes of CloudEvents, and the store."""

    id: UUID
    source: str
    type: str
    time: datetime
    store_id: UUID
    subject: str
    traceparent: str | None = None

    @property
    def key(self) -> str:
        """Orders records: one store's aggregate."""
        return f"{self.store_id}:{self.subject}"


@dataclass(frozen=True, slots=True)
class Received(Generic[E_co]):
    """A decoded event with the record it came in."""

    data: E_co
    envelope: Envelope
    record: Record


class Undecodable(Exception):
    """A record that is no event of ours. `reason` is a fixed word, never a piece of the record."""

    def __init__(self, reason: str, *, blocking: bool = True) -> None:
        super().__init__(reason)
        self.reason = reason
        self.blocking = blocking
        """Whether later records of its key wait for it."""


class UnknownType(Undecodable):
    """A well-formed event of a type, or a version, that this code does not know yet."""

    def __init__(self) -> None:
        super().__init__("unknown-type", blocking=False)


def envelope_of(event: Event, *, store_id: UUID, source: str, traceparent: str | None = None) -> Envelope:
    """A new envelope, stamped now."""
    return Envelope(
        id=uuid4(),
        source=f"/{source}",
        type=event.type,
        time=datetime.now(UTC),
        store_id=store_id,
        subject=event.aggregate,
        traceparent=traceparent,
    )


def headers_of(envelope: Envelope) -> dict[str, str]:
    """CloudEvents' Kafka protocol binding, binary content mode."""
    headers = {
        "ce_specversion": "1.0",
        "ce_id": str(envelope.id),
        "ce_source": envelope.source,
        "ce_type": envelope.type,
        "ce_time": envelope.time.isoformat(),
        "ce_subject": envelope.subject,
        "ce_store": str(envelope.store_id),
        "content-type": "application/json",
    }
    return headers | ({"traceparent": envelope.traceparent} if envelope.traceparent else {})


def decode(record: Record) -> Received[Event]:
    """The event in a record. Raises Undecodable with a reason, UnknownType for what a newer publisher sends."""
    envelope = _envelope(record.headers)
    contract = REGISTRY.get(envelope.type)
    if contract is None:
        raise UnknownType
    try:
        return Received(contract.model_validate_json(record.value), envelope, record)
    except ValidationError as error:
        raise Undecodable("invalid-data", blocking=not contract.stands_alone) from error


def _envelope(headers: Mapping[str, str]) -> Envelope:
    try:
        return Envelope(
            id=UUID(headers["ce_id"]),
            source=headers["ce_source"],
            type=headers["ce_type"],
            time=datetime.fromisoformat(headers["ce_time"]),
            store_id=UUID(headers["ce_store"]),
            subject=headers["ce_subject"],
            traceparent=headers.get("traceparent"),
        )
    except (KeyError, ValueError) as error:
        raise Undecodable("invalid-envelope") from error


def topics_of(contracts: Iterable[type[Event]]) -> list[str]:
    """The topics a consumer of these contracts reads."""
    return sorted({contract.topic for contract in contracts})
