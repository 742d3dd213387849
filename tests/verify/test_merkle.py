"""The tree against the definition of RFC 9162, written down as it stands there, and against known roots."""

import hashlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitrine import merkle
from vitrine.merkle import Growing, NotProven, Span, Subtree

# --- The RFC, section 2.1, word for word -----------------------------------------------------------------


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def k_of(n: int) -> int:
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def mth(d: list[bytes]) -> bytes:
    if not d:
        return sha256(b"")
    if len(d) == 1:
        return sha256(b"\x00" + d[0])
    k = k_of(len(d))
    return sha256(b"\x01" + mth(d[:k]) + mth(d[k:]))


def path(m: int, d: list[bytes]) -> list[bytes]:
    if len(d) == 1:
        return []
    k = k_of(len(d))
    if m < k:
        return [*path(m, d[:k]), mth(d[k:])]
    return [*path(m - k, d[k:]), mth(d[:k])]


def proof(m: int, d: list[bytes]) -> list[bytes]:
    def subproof(m: int, d: list[bytes], b: bool) -> list[bytes]:
        if m == len(d):
            return [] if b else [mth(d)]
        k = k_of(len(d))
        if m <= k:
            return [*subproof(m, d[:k], b), mth(d[k:])]
        return [*subproof(m - k, d[k:], False), mth(d[:k])]

    return subproof(m, d, True)


# --- A log as ours is kept -------------------------------------------------------------------------------


class Kept:
    """A row a leaf: its hash, and those of the subtrees it completes."""

    def __init__(self, entries: list[bytes]) -> None:
        self.growing = Growing()
        self.rows = [self.growing.append(merkle.leaf_hash(entry)) for entry in entries]

    def hash_of(self, subtree: Subtree) -> bytes:
        return self.rows[subtree.completed_by][subtree.level]

    def over(self, span: Span) -> bytes:
        return merkle.fold([self.hash_of(one) for one in span.subtrees])


ENTRIES = st.lists(st.binary(max_size=5), min_size=1, max_size=70)


@given(ENTRIES)
def test_the_root_is_that_of_the_definition_however_the_tree_grew(entries: list[bytes]) -> None:
    kept = Kept(entries)
    assert kept.growing.root == mth(entries) == kept.over(Span(0, len(entries)))
    half = len(entries) // 2
    resumed = Growing(half, [kept.hash_of(one) for one in Span(0, half).subtrees])
    for entry in entries[half:]:
        resumed.append(merkle.leaf_hash(entry))
    assert resumed.root == mth(entries)


@given(ENTRIES, st.data())
def test_inclusion_is_proven_as_defined_and_for_nothing_else(
    entries: list[bytes], data: st.DataObject
) -> None:
    size, kept = len(entries), Kept(entries)
    index = data.draw(st.integers(0, size - 1))
    given_path = [kept.over(one) for one in merkle.inclusion(index, size)]
    assert given_path == path(index, entries)
    leaf, root = merkle.leaf_hash(entries[index]), mth(entries)
    merkle.check_inclusion(leaf, index, size, given_path, root)
    wrong = [
        (merkle.leaf_hash(entries[index] + b"!"), index, size, given_path, root),
        (leaf, index, size, given_path, sha256(root)),
        (leaf, index, size, [*given_path, root], root),
        (leaf, size, size, given_path, root),
        (leaf, -1, size, given_path, root),
    ]
    if given_path:
        wrong += [
            (leaf, index, size, given_path[:-1], root),
            (leaf, index, size, [sha256(given_path[0]), *given_path[1:]], root),
        ]
    for one in wrong:
        with pytest.raises(NotProven):
            merkle.check_inclusion(*one)


@given(ENTRIES, st.data())
def test_consistency_is_proven_as_defined_and_for_nothing_else(
    entries: list[bytes], data: st.DataObject
) -> None:
    second, kept = len(entries), Kept(entries)
    first = data.draw(st.integers(1, second))
    given_path = [kept.over(one) for one in merkle.consistency(first, second)]
    assert given_path == proof(first, entries)
    older, newer = mth(entries[:first]), mth(entries)
    merkle.check_consistency(first, older, second, newer, given_path)
    wrong = [
        (first, sha256(older), second, newer, given_path),
        (first, older, second, sha256(newer), given_path),
        (first, older, second, newer, [*given_path, newer]),
        (second, newer, first, older, given_path)
        if first < second
        else (first, older, second, newer, [older]),
    ]
    if given_path:
        wrong += [
            (first, older, second, newer, given_path[:-1]),
            (first, older, second, newer, [sha256(given_path[0]), *given_path[1:]]),
        ]
    for one in wrong:
        with pytest.raises(NotProven):
            merkle.check_consistency(*one)


@given(ENTRIES, st.data())
def test_a_past_that_was_rewritten_is_consistent_with_nothing(
    entries: list[bytes], data: st.DataObject
) -> None:
    first = data.draw(st.integers(1, len(entries)))
    changed = data.draw(st.integers(0, first - 1))
    forged = [one + b"!" if index == changed else one for index, one in enumerate(entries)]
    kept = Kept(forged)
    with pytest.raises(NotProven):
        merkle.check_consistency(
            first, mth(entries[:first]), len(entries), mth(forged),
            [kept.over(one) for one in merkle.consistency(first, len(entries))],
        )  # fmt: skip


def test_an_empty_tree_is_the_beginning_of_every_other() -> None:
    merkle.check_consistency(0, merkle.EMPTY, 3, mth([b"a", b"b", b"c"]), [])
    with pytest.raises(NotProven):
        merkle.check_consistency(0, sha256(b"no"), 3, mth([b"a", b"b", b"c"]), [])
    with pytest.raises(ValueError, match="edge"):
        Growing(3, [merkle.EMPTY])


# The inputs and roots that the implementations of Certificate Transparency test each other with.
LEAVES = [
    "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
]  # fmt: skip
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
PATH_OF_THE_SIXTH = [
    "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
]


def test_the_roots_are_those_of_certificate_transparency() -> None:
    growing = Growing()
    for leaf, root in zip(LEAVES, ROOTS, strict=True):
        growing.append(merkle.leaf_hash(bytes.fromhex(leaf)))
        assert growing.root.hex() == root
    kept = Kept([bytes.fromhex(one) for one in LEAVES])
    assert [kept.over(one).hex() for one in merkle.inclusion(5, 8)] == PATH_OF_THE_SIXTH


def test_a_proof_reads_as_many_rows_as_the_tree_is_high() -> None:
    size = 1_000_003
    for index in (0, 1, 524_287, 524_288, size - 1):
        rows = {part.completed_by for one in merkle.inclusion(index, size) for part in one.subtrees}
        assert len(rows) <= 2 * size.bit_length() and max(rows) < size
    for first, second in pairwise((1, 2, 65_535, 65_536, 999_999, size)):
        rows = {part.completed_by for one in merkle.consistency(first, second) for part in one.subtrees}
        assert len(rows) <= 2 * size.bit_length() and max(rows) < size
