"""A whole log, audited: every entry hashed again, every head computed again, and compared with heads that others kept.

The file is that of `GET /privacy/v1/stores/{store_id}/evidence/log`: a line of JSON each.

    {"log": "the store's id", "keys": [...]}
    {"index": 0, "hash": "...", "entry": {...}}      the entry is null once it is not kept any more
    {"head": "a signed head"}
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from vitrine import merkle, signing
from vitrine.certificate import Altered
from vitrine.heads import Head
from vitrine.merkle import Growing
from vitrine.signing import Keys, NotSigned


@dataclass(slots=True)
class Audit:
    """What was found right."""

    log: str
    entries: int = 0
    gone: int = 0
    """Entries of which only the hash is kept any more."""
    heads: int = 0
    uncovered: int = 0
    """Entries after the newest head: nothing proves yet that they stay."""
    seen: int = 0
    """Heads that others kept, and that this log still has."""
    roots: dict[int, bytes] = field(default_factory=dict[int, bytes])


def audit(lines: Iterable[bytes], keys: Keys, seen: Iterable[Head] = ()) -> Audit:
    """Raises Altered, with what does not match."""
    said = _parsed(lines)
    first = next(said, None)
    if first is None or not isinstance(first.get("log"), str):
        raise Altered("This is no log of Vitrine.")
    found = Audit(first["log"])
    heads: list[Head] = []
    growing = Growing()
    found.roots[0] = growing.root
    for line in said:
        if "head" in line:
            heads.append(_head(line["head"], keys, found.log))
        else:
            growing.append(_leaf(line, growing.size, found))
            found.roots[growing.size] = growing.root
    found.entries = growing.size
    for head in heads:
        _compare(head, found, "A head of the log")
    found.heads = len(heads)
    found.uncovered = found.entries - max((head.size for head in heads), default=0)
    for head in seen:
        if head.log != found.log:
            raise Altered("A head that was kept is of another store's log.")
        _compare(head, found, "A head that was kept")
        found.seen += 1
    return found


def keys_in(lines: Iterable[bytes]) -> list[Mapping[str, Any]]:
    """The keys that a log carries itself. Raises Altered."""
    first = next(_parsed(lines), None)
    if first is None or not isinstance(first.get("keys"), list):
        raise Altered("This is no log of Vitrine.")
    return first["keys"]


def _parsed(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                said = json.loads(line)
            except ValueError as error:
                raise Altered(f"Line {number} cannot be read.") from error
            if not isinstance(said, dict):
                raise Altered(f"Line {number} says nothing that belongs into a log.")
            yield said


def _head(signature: str, keys: Keys, log: str) -> Head:
    try:
        head = Head.read(signature, keys)
    except NotSigned as error:
        raise Altered("A head is not signed by a key that is trusted.") from error
    if head.log != log:
        raise Altered("A head is of another store's log.")
    return head


def _leaf(line: Mapping[str, Any], expected: int, found: Audit) -> bytes:
    try:
        index, hash_, entry = line["index"], bytes.fromhex(line["hash"]), line["entry"]
        if index != expected:
            raise Altered(f"Entry {expected} is missing, or not in its place: entry {index} is there.")
        if entry is None:
            found.gone += 1
        elif merkle.leaf_hash(signing.canonical(entry)) != hash_:
            raise Altered(f"Entry {index} was changed: its hash is another.")
        elif entry["store"] != found.log:
            raise Altered(f"Entry {index} is of another store.")
    except (KeyError, TypeError) as error:
        raise Altered(f"Entry {expected} lacks a part.") from error
    return hash_


def _compare(head: Head, found: Audit, which: str) -> None:
    if head.size > found.entries:
        raise Altered(
            f"{which} is over {head.size} entries, and only {found.entries} are there: the log was cut off or set back."
        )
    if found.roots[head.size] != head.root:
        raise Altered(
            f"{which} over {head.size} entries has another root: what it covers was changed, reordered or forked."
        )
