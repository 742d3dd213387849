"""What a process may remember for a while: bounded in number and in time."""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class _Entry(Generic[V]):
    value: V
    until: float
    tags: tuple[Hashable, ...]


class Memory(Generic[K, V]):
    """The least recently used goes first, nothing outlives its seconds, and all that bear a tag go at once."""

    def __init__(self, *, seconds: float, capacity: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._capacity = capacity
        self._clock = clock
        self._entries: OrderedDict[K, _Entry[V]] = OrderedDict()
        self._tagged: dict[Hashable, set[K]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K) -> V | None:
        """The value, unless its time is over."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if self._clock() >= entry.until:
            self._remove(key)
            return None
        self._entries.move_to_end(key)
        return entry.value

    def put(self, key: K, value: V, *, since: float, tags: tuple[Hashable, ...] = ()) -> None:
        """Remember a value that was true at `since`, on this memory's clock."""
        if key in self._entries:
            self._remove(key)
        self._entries[key] = _Entry(value, since + self._seconds, tags)
        for tag in tags:
            self._tagged.setdefault(tag, set()).add(key)
        while len(self._entries) > self._capacity:
            self._remove(next(iter(self._entries)))

    def forget(self, tag: Hashable) -> None:
        """Forget every value that bears the tag."""
        for key in tuple(self._tagged.get(tag, ())):
            self._remove(key)

    def expire(self) -> None:
        """Forget everything whose time is over, whether or not anybody asks for it again."""
        now = self._clock()
        for key in [key for key, entry in self._entries.items() if now >= entry.until]:
            self._remove(key)

    def _remove(self, key: K) -> None:
        for tag in self._entries.pop(key).tags:
            keys = self._tagged[tag]
            keys.discard(key)
            if not keys:
                del self._tagged[tag]
