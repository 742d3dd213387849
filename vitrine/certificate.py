"""A certificate: whether it is what was signed, whether the log has what it rests on, and whether it says no more."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from vitrine import merkle, signing
from vitrine.heads import Head
from vitrine.signing import Keys, NotSigned

Document = Mapping[str, Any]
_ENDS = frozenset({"completed", "refused", "cancelled"})


class Altered(ValueError):
    """Something does not match; the text says what."""


@dataclass(slots=True)
class Checked:
    """What a certificate says, and how much of it was checked."""

    certificate: Document
    head: Head
    entries: int = 0
    """That the log has, under the head."""
    gone: int = 0
    """Of these, entries of which the log keeps the hash alone any more."""
    signed_answers: int = 0
    """Answers that bear the signature of the participant itself, by the keys that came along."""
    before: list["Checked"] = field(default_factory=list["Checked"])


def check(document: Any, keys: Keys) -> Checked:
    """Everything that can be checked without asking anybody. Raises Altered."""
    try:
        checked = _check(document, keys, _participants(document))
        checked.before = [_check(one, keys, _participants(document)) for one in document["before"]]
        _check_chain([*checked.before, checked])
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise Altered("This is no certificate of Vitrine, or a part of it is missing.") from error
    return checked


def _participants(document: Document) -> Mapping[str, ECKey]:
    try:
        return {name: ECKey.import_key(dict(key)) for name, key in document["participants"].items()}
    except (JoseError, ValueError) as error:
        raise Altered("The key of a participant cannot be read.") from error


def _check(document: Document, keys: Keys, participants: Mapping[str, ECKey]) -> Checked:
    certificate = document["certificate"]
    try:
        keys.check(document["signature"], typ=signing.CERTIFICATE, content=signing.canonical(certificate))
    except NotSigned as error:
        raise Altered(
            "The certificate is not what was signed: it was changed, or another key signed it."
        ) from error
    checked = Checked(certificate, _head(certificate, keys))
    entries = _proven(document, checked)
    if not checked.gone and certificate["completes"] is None:
        _compare(certificate, entries)
    checked.signed_answers = _count_signed(certificate, entries, participants)
    return checked


def _head(certificate: Document, keys: Keys) -> Head:
    try:
        head = Head.read(certificate["head"], keys)
    except NotSigned as error:
        raise Altered("The head of the log that it names is not signed by a key that is trusted.") from error
    if head.log != certificate["store"]["id"]:
        raise Altered("The head that it names is of another store's log.")
    if {"size": head.size, "root": head.root.hex()} != certificate["log"]:
        raise Altered("The log's size or root is not that of the head that it names.")
    return head


def _proven(document: Document, checked: Checked) -> list[Document]:
    """The entries that the certificate rests on, each proven to be in the log."""
    certificate, head = checked.certificate, checked.head
    shown = {one["index"]: one for one in document["evidence"]}
    if sorted(shown) != sorted(index for index, _ in certificate["entries"]):
        raise Altered("Entries of the log were added or taken away.")
    entries: list[Document] = []
    for index, expected in certificate["entries"]:
        one, leaf = shown[index], bytes.fromhex(expected)
        if one["entry"] is not None and merkle.leaf_hash(signing.canonical(one["entry"])) != leaf:
            raise Altered(f"Entry {index} of the log was changed.")
        try:
            path = [bytes.fromhex(step) for step in one["path"]]
            merkle.check_inclusion(leaf, index, head.size, path, head.root)
        except ValueError as error:
            raise Altered(f"Entry {index} is not proven to be in the log.") from error
        checked.entries += 1
        if one["entry"] is None:
            checked.gone += 1
            continue
        if (one["entry"]["store"], one["entry"]["request"]) != (head.log, certificate["request"]["id"]):
            raise Altered(f"Entry {index} is about another request, or another store.")
        entries.append(one["entry"])
    return entries


def _check_chain(certificates: Sequence[Checked]) -> None:
    """Each completes the one before it, of the same request."""
    for number, (earlier, later) in enumerate(zip([None, *certificates], certificates, strict=False), 1):
        said, completes = later.certificate, later.certificate["completes"]
        if said["number"] != number:
            raise Altered("A certificate before this one is missing.")
        if earlier is None:
            expected = None
        else:
            content = signing.canonical(earlier.certificate)
            expected = {"id": earlier.certificate["id"], "sha256": hashlib.sha256(content).hexdigest()}
        if completes != expected:
            raise Altered("It completes another certificate than the one that is here.")


# --- What it says, against what the log says -------------------------------------------------------------


def _compare(certificate: Document, entries: Sequence[Document]) -> None:
    """That the certificate claims what the entries say, and nothing more."""
    end = next((one for one in entries if one["step"] in _ENDS), None)
    request = certificate["request"]
    if end is None or (end["step"], end["at"]) != (request["outcome"], request["ended_at"]):
        raise Altered("The log has another end of this request than the certificate.")
    answers = [one for one in entries if one["step"] in {"answered", "settled"}]
    for part in certificate["participants"]:
        _compare_part(certificate, part, answers)
    if (keys := certificate["keys"]) is not None:
        told = {one["at"] for one in answers if one["facts"]["participant"] == "keyring"}
        if keys["destroyed_at"] not in told:
            raise Altered("The log has no destruction of keys at the instant that the certificate names.")


def _compare_part(certificate: Document, part: Document, answers: Sequence[Document]) -> None:
    name = part["participant"]
    own = [one for one in answers if one["facts"]["participant"] == name]
    given = next((one["facts"] for one in reversed(own) if one["at"] == part["answered_at"]), None)
    if given is None or (_outcome(given), given.get("counts") or {}) != (part["outcome"], part["counts"]):
        raise Altered(f"The log has another answer of “{name}” than the certificate.")
    for word, value in part.get("settled", {}).items():
        if given.get(word) != value:
            raise Altered(f"The log says otherwise why others answered for “{name}”.")
    kept = [
        {key: one[key] for key in one if key not in {"participant", "ended_on"}}
        for one in certificate["kept"]
        if one["participant"] == name
    ]
    if kept != (given.get("retained") or []):
        raise Altered(f"The log says otherwise what “{name}” keeps.")
    if (checked := part["checked"]) is not None:
        found = next((one["facts"] for one in reversed(own) if one["at"] == checked["at"]), {})
        said = (found.get("outcome"), found.get("reread") or [], found.get("skipped") or {})
        if said != (checked["outcome"], checked["reread"], checked["skipped"]):
            raise Altered(f"The log has another re-read of “{name}” than the certificate.")


def _outcome(given: Document) -> str:
    """Of whoever joined during the check there is nothing else."""
    return "checked" if given["verb"] == "verify-erased" else given["outcome"]


def _count_signed(
    certificate: Document, entries: Sequence[Document], participants: Mapping[str, ECKey]
) -> int:
    """Answers that the participant itself signed. Raises Altered for one that it did not."""
    number = 0
    for one in entries:
        facts = one["facts"]
        if (
            one["step"] != "answered"
            or not facts.get("signature")
            or facts["participant"] not in participants
        ):
            continue
        body = {name: facts[name] for name in facts if name not in {"signature", "version"}}
        content = signing.canonical(body | {"store_id": certificate["store"]["id"]})
        try:
            jws.deserialize_compact(
                facts["signature"],
                participants[facts["participant"]],
                algorithms=[signing.ALGORITHM],
                payload=content,
            )
        except (JoseError, ValueError) as error:
            raise Altered(f"An answer of “{facts['participant']}” was not signed by it.") from error
        number += 1
    return number


# --- In plain words --------------------------------------------------------------------------------------


def in_words(checked: Checked) -> list[str]:
    """What is certified, a line each."""
    certificate, request = checked.certificate, checked.certificate["request"]
    store = certificate["store"]
    scope = request["purpose"] or request["category"]
    lines = [
        f"Request {request['id']} at {store['name'] or 'a store'} ({store['id']})",
        f"Right: {request['right']}{f' of {scope}' if scope else ''}, under {request['law'].upper()}",
        f"Opened {request['opened_at']}, verified {request['verified_at'] or 'never'},"
        f" {request['outcome']} {request['ended_at']}",
    ]
    if request["ground"]:
        lines.append(f"Ground: {request['ground']} ({request['authority'] or 'no article'})")
    if (keys := certificate["keys"]) is not None:
        lines += [
            f"Keys destroyed: {keys['destroyed']}, at {keys['destroyed_at']}; none is in any memory since"
            f" {keys['forgotten_by']}",
            f"The last backup of the keyring that may hold one lapses on {keys['backups_lapse_on']}",
        ]
    for part in certificate["participants"]:
        lines += _part(part)
    lines += [_kept(one) for one in certificate["kept"]]
    if not certificate["kept"] and certificate["participants"]:
        lines.append("Nothing is kept.")
    lines.append(f"Certificate {certificate['id']}, issued {certificate['issued_at']}")
    return lines


def _part(part: Document) -> list[str]:
    counts = ", ".join(f"{number} {name}" for name, number in part["counts"].items())
    lines = [f"{part['participant']}: {part['outcome']}{f' ({counts})' if counts else ''}"]
    if (settled := part.get("settled")) is not None:
        told = ", ".join(value for value in settled.values() if value)
        lines.append(f"  others answered for it, and nothing is claimed of it: {told}")
    if (checked := part["checked"]) is not None:
        lines += _reread(part["participant"], checked)
    lines += [
        f"  failed {one['times']} times before: {one['task']} {one['reason']}".rstrip()
        for one in part["failures"]
    ]
    return lines


def _reread(name: str, checked: Document) -> list[str]:
    if name == "keyring":
        return [f"  asked again {checked['at']}: no key is left that should be gone"]
    lines = [f"  re-read {checked['at']}: {', '.join(checked['reread']) or 'no table'}"]
    by_reason: dict[str, list[str]] = {}
    for table, why in sorted(checked["skipped"].items()):
        by_reason.setdefault(why, []).append(table)
    return lines + [f"  not re-read ({why}): {', '.join(tables)}" for why, tables in by_reason.items()]


def _kept(one: Document) -> str:
    until = f"until {one['until']}" if one["until"] else "until something else ends it"
    ended = f"; ended on {one['ended_on']}" if "ended_on" in one else ""
    return f"Kept by {one['participant']}: {one['count']} {one['kind']}, {until} ({one['ground']}){ended}"


def read(content: bytes) -> Any:
    """The document in these bytes. Raises Altered."""
    try:
        return json.loads(content)
    except ValueError as error:
        raise Altered("This cannot be read as JSON.") from error
