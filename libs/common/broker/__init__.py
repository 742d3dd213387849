"""The broker port: what the platform asks of a log, whichever log it is.

Kafka (`kafka.py`) is the real one. The embedded log (`postgres.py`) is one table, so that the whole
platform starts with nothing but Python. One contract suite runs against both.

    BrokerError
    ├── BrokerUnavailable    the broker cannot be reached: nothing is lost, try again later
    ├── RecordTooLarge       this record can never be accepted: park it
    └── Fenced               the partition belongs to another member now: drop the batch
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol


class BrokerError(Exception):
    """Anything a broker can refuse."""


class BrokerUnavailable(BrokerError):
    """The broker cannot be reached; nothing is lost and the call may be repeated."""


class RecordTooLarge(BrokerError):
    """The broker will never accept this record."""


class Fenced(BrokerError):
    """Another member owns the partition; what was read must not be committed."""


@dataclass(frozen=True, slots=True)
class Record:
    """One message. `offset` and `partition` are set by the broker and -1 before it has the record."""

    topic: str
    key: str
    value: bytes
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    partition: int = -1
    offset: int = -1


class Batch(Protocol):
    """Records of one partition, in order."""

    @property
    def topic(self) -> str:
        """The topic read."""
        ...

    @property
    def partition(self) -> int:
        """The partition read."""
        ...

    @property
    def records(self) -> Sequence[Record]:
        """At least one record, in the order of the log."""
        ...

    async def commit(self) -> None:
        """Acknowledge every record of the batch. Raises Fenced, BrokerUnavailable."""
        ...


class Subscription(Protocol):
    """A member of a consumer group, iterated batch by batch."""

    def __aiter__(self) -> AsyncIterator[Batch]: ...

    async def lag(self) -> int:
        """Records not yet committed in the partitions this member holds."""
        ...


class Broker(Protocol):
    """Durable, ordered per key, at least once."""

    async def start(self) -> None:
        """Connect if possible. A broker that is down at start is not an error."""
        ...

    async def stop(self) -> None:
        """Let go of every connection; bounded, whatever the broker does."""
        ...

    async def ensure_topics(self, topics: Sequence[str]) -> None:
        """Create the topics that do not exist yet. Raises BrokerUnavailable."""
        ...

    async def publish(self, records: Sequence[Record]) -> None:
        """Durable when it returns; order per key. Raises BrokerUnavailable, RecordTooLarge."""
        ...

    def subscribe(self, group: str, topics: Sequence[str]) -> AbstractAsyncContextManager[Subscription]:
        """Join a group; leaving the context leaves the group."""
        ...

    async def cluster_id(self) -> str:
        """Identity of the log itself: a new value means that everything before is gone."""
        ...
