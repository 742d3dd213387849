"""The broker port: what the platform asks of a log, whichever log it is.

Kafka (`kafka.py`) is the real one. The embedded log (`postgres.py`) is one table, so that the whole
platform starts with nothing but Python. `connect.py` chooses; one contract suite runs against both.

    BrokerError              the broker refuses: asking again will not help
    ├── BrokerUnavailable    the broker cannot be reached: nothing is lost, try again later
    ├── RecordTooLarge       these records can never be accepted: park them
    └── Fenced               the partition belongs to another member now: drop the batch
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

PARTITIONS = 8
"""Of every topic this platform creates."""

RETENTION = timedelta(days=7)
"""How long a topic keeps a record: the longest outage a consumer survives."""

MAXIMUM_RECORD_BYTES = 2**20
"""The largest record either broker takes, by `Record.size`."""


class BrokerError(Exception):
    """Anything a broker can refuse."""


class BrokerUnavailable(BrokerError):
    """The broker cannot be reached; nothing is lost and the call may be repeated."""


class RecordTooLarge(BrokerError):
    """The broker will never accept `records`; the other records of the call may be published without them."""

    def __init__(self, records: "Sequence[Record]") -> None:
        super().__init__(f"{len(records)} of the records are too large")
        self.records = records


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

    @property
    def size(self) -> int:
        """Bytes of key, value and headers, as UTF-8."""
        headers = sum(len(name.encode()) + len(text.encode()) for name, text in self.headers.items())
        return len(self.key.encode()) + len(self.value) + headers


def refuse_too_large(records: Sequence[Record]) -> None:
    """Raise RecordTooLarge for records over the bound, before anything of the call is sent."""
    if too_large := [record for record in records if record.size > MAXIMUM_RECORD_BYTES]:
        raise RecordTooLarge(too_large)


class Batch(Protocol):
    """Records of one partition, in order and without gaps, beginning after the last commit."""

    @property
    def topic(self) -> str:
        """Where the records come from."""
        ...

    @property
    def partition(self) -> int:
        """Which partition of the topic."""
        ...

    @property
    def records(self) -> Sequence[Record]:
        """At least one."""
        ...

    async def commit(self) -> None:
        """Acknowledge every record of the batch; twice is harmless. Raises Fenced, BrokerUnavailable."""
        ...


class Subscription(Protocol):
    """A member of a consumer group, iterated batch by batch by one task.

    Partitions are served in turn. Asking for the next batch without having committed the last one gives that
    one up: it comes again after a short, growing pause, and no later record of its partition comes before it.
    While the broker is away the iteration waits. Asking may be cancelled at any moment without losing anything.
    """

    def __aiter__(self) -> AsyncIterator[Batch]: ...

    def ready(self) -> Sequence[Batch]:
        """Without waiting, the batches of other partitions that could come next, handed out now with the last one.

        Whoever takes them handles several partitions in one transaction. Each is committed by itself, and given
        up like the last one.
        """
        ...

    async def lag(self) -> int:
        """Records not yet committed in the partitions this member holds. Raises BrokerUnavailable."""
        ...


class Broker(Protocol):
    """Durable, ordered per key, at least once."""

    async def start(self) -> None:
        """Connect if possible. A broker that is down at start is not an error."""
        ...

    async def stop(self) -> None:
        """Let go of everything within a few seconds, whether the broker answers or not."""
        ...

    async def ensure_topics(self, topics: Sequence[str]) -> None:
        """Create the topics that do not exist yet. Raises BrokerUnavailable."""
        ...

    async def publish(self, records: Sequence[Record]) -> None:
        """Durable when it returns; order per key. Raises BrokerUnavailable, RecordTooLarge.

        After BrokerUnavailable some of the records may be in the log: publish all of them again. A topic must
        exist; BrokerError otherwise.
        """
        ...

    def subscribe(self, group: str, topics: Sequence[str]) -> AbstractAsyncContextManager[Subscription]:
        """Join a group; leaving the context leaves the group.

        A group that is new begins with the oldest record that is kept.
        """
        ...

    async def purge(self, older_than: timedelta) -> int:
        """Delete records by age where the log does not do so by itself. Raises BrokerUnavailable."""
        ...

    async def cluster_id(self) -> str:
        """Identity of the log itself: a new value means that everything before is gone.

        Cheap enough to ask before every batch that is sent. Raises BrokerUnavailable.
        """
        ...
