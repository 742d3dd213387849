"""A Merkle tree as RFC 9162 has it (section 2.1): its hashes, its two proofs, and how they are checked.

A tree is never in memory. A leaf that completes perfect subtrees (its index ends in as many one bits as there are of
them) brings their hashes with it, and every hash that a proof needs is that of a perfect subtree, or of a few: so a log
keeps one row a leaf, and a proof reads as many rows as the tree is high.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

HASH_BYTES = 32
EMPTY = hashlib.sha256(b"").digest()
"""The root of a tree without leaves."""


class NotProven(ValueError):
    """The proof does not lead where it should."""


def leaf_hash(entry: bytes) -> bytes:
    """The hash of a leaf; its prefix keeps a leaf from being taken for a node."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of two subtrees side by side."""
    return hashlib.sha256(b"\x01" + left + right).digest()


# --- Subtrees --------------------------------------------------------------------------------------------


class Subtree(NamedTuple):
    """A perfect one: the leaves from `position << level`, `1 << level` of them."""

    level: int
    position: int

    @property
    def completed_by(self) -> int:
        """The index of its last leaf."""
        return (self.position + 1 << self.level) - 1


class Span(NamedTuple):
    """Leaves from `begin` up to `end`, which is not among them."""

    begin: int
    end: int

    @property
    def subtrees(self) -> list[Subtree]:
        """The perfect ones that it consists of, from left to right, each smaller than the one before."""
        found: list[Subtree] = []
        begin = self.begin
        while begin < self.end:
            level = (self.end - begin).bit_length() - 1
            found.append(Subtree(level, begin >> level))
            begin += 1 << level
        return found


def fold(hashes: Sequence[bytes]) -> bytes:
    """The hash over the subtrees of a span, which are given from left to right."""
    if not hashes:
        return EMPTY
    *others, folded = hashes
    for left in reversed(others):
        folded = node_hash(left, folded)
    return folded


class Growing:
    """The right edge of a tree: what it takes to append. `edge` are the hashes of `Span(0, size).subtrees`."""

    def __init__(self, size: int = 0, edge: Iterable[bytes] = ()) -> None:
        self.size = size
        self._edge = list(edge)
        if len(self._edge) != size.bit_count():
            raise ValueError("a tree of this size has another edge")

    def append(self, leaf: bytes) -> list[bytes]:
        """Add the hash of a leaf. Returns it with those of the subtrees it completes, from the lowest."""
        completed = [leaf]
        index = self.size
        while index & 1:
            completed.append(node_hash(self._edge.pop(), completed[-1]))
            index >>= 1
        self._edge.append(completed[-1])
        self.size += 1
        return completed

    @property
    def root(self) -> bytes:
        """Of the tree as it is now."""
        return fold(self._edge)


# --- Proofs ----------------------------------------------------------------------------------------------


def _split(size: int) -> int:
    """The largest power of two that is smaller than `size`."""
    return 1 << (size - 1).bit_length() - 1


def inclusion(index: int, size: int) -> list[Span]:
    """Whose hashes prove that the leaf is in the tree, from the leaf to the root (RFC 9162, 2.1.3.1).

    Raises ValueError for a leaf that the tree has not.
    """
    if not 0 <= index < size:
        raise ValueError("no such leaf")
    begin, end = 0, size
    path: list[Span] = []
    while end - begin > 1:
        middle = begin + _split(end - begin)
        if index < middle:
            path.append(Span(middle, end))
            end = middle
        else:
            path.append(Span(begin, middle))
            begin = middle
    return path[::-1]


def consistency(first: int, second: int) -> list[Span]:
    """Whose hashes prove that the tree of `second` leaves begins with that of `first` (RFC 9162, 2.1.4.1).

    Raises ValueError unless 0 < first <= second.
    """
    if not 0 < first <= second:
        raise ValueError("no such tree")
    begin, end, whole = 0, second, True
    path: list[Span] = []
    while first < end:
        middle = begin + _split(end - begin)
        if first <= middle:
            path.append(Span(middle, end))
            end = middle
        else:
            path.append(Span(begin, middle))
            begin, whole = middle, False
    return path[::-1] if whole else [Span(begin, end), *path[::-1]]


# --- Checks ----------------------------------------------------------------------------------------------


def check_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    """That the leaf is at this place of the tree with this root (RFC 9162, 2.1.3.2). Raises NotProven."""
    if not 0 <= index < size:
        raise NotProven
    place, last, found = index, size - 1, leaf
    for one in path:
        if last == 0:
            raise NotProven
        if place & 1 or place == last:
            found = node_hash(one, found)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            found = node_hash(found, one)
        place, last = place >> 1, last >> 1
    if last != 0 or found != root:
        raise NotProven


def check_consistency(
    first: int, first_root: bytes, second: int, second_root: bytes, path: Sequence[bytes]
) -> None:
    """That the second tree begins with the first (RFC 9162, 2.1.4.2). Raises NotProven."""
    if first in {0, second}:
        if path or (first == second and first_root != second_root) or (first == 0 and first_root != EMPTY):
            raise NotProven
        return
    if not 0 < first < second or not path:
        raise NotProven
    if first & (first - 1) == 0:
        path = [first_root, *path]
    place, last = first - 1, second - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    older = newer = path[0]
    for one in path[1:]:
        if last == 0:
            raise NotProven
        if place & 1 or place == last:
            older, newer = node_hash(one, older), node_hash(one, newer)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            newer = node_hash(newer, one)
        place, last = place >> 1, last >> 1
    if last != 0 or older != first_root or newer != second_root:
        raise NotProven
