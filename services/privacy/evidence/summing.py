"""From the entries of a request to what is certified about it: nothing is said that no entry says."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import orjson

from services.privacy.domain.decisions import Ground, authority
from services.privacy.domain.rights import Law, Right, name_of
from services.privacy.domain.states import KEYRING
from services.privacy.engine.phases import lapse
from services.privacy.engine.tasks import RUNS
from services.privacy.evidence.entries import Step

ENDS = frozenset({Step.COMPLETED, Step.REFUSED, Step.CANCELLED})
SHOWN = ENDS | {
    Step.OPENED, Step.VERIFIED, Step.ANSWERED, Step.SETTLED, Step.ANEW, Step.CHECKING, Step.KEPT_ENDED,
}  # fmt: skip
"""Steps that a certificate rests on, and shows; of the others some name an account of the staff."""

Facts = Mapping[str, Any]


class Said:
    """An entry of the log, read."""

    def __init__(self, index: int, hash_: bytes, content: bytes) -> None:
        said = orjson.loads(content)
        self.index, self.hash = index, hash_
        self.step, self.at, self.facts = str(said["step"]), datetime.fromisoformat(said["at"]), said["facts"]


def end_of(entries: Iterable[Said]) -> Said | None:
    """How the request ended; None while the log does not say."""
    return next((one for one in entries if one.step in ENDS), None)


def summed(entries: Sequence[Said], *, backup_days: int) -> dict[str, Any]:
    """What the entries of a request that has ended come to. Raises ValueError without an end."""
    end = end_of(entries)
    if end is None:
        raise ValueError("the request has not ended")
    participants = _participants(entries, end)
    return {
        "request": _request(entries, end),
        "participants": participants,
        "keys": _keys(entries, end, backup_days),
        "kept": [kept for one in participants for kept in one.pop("kept")],
    }


def listed(entries: Iterable[Said]) -> list[list[Any]]:
    """The places and hashes of what a certificate rests on."""
    return [[one.index, one.hash.hex()] for one in entries if one.step in SHOWN]


# --- The request -----------------------------------------------------------------------------------------


def _request(entries: Iterable[Said], end: Said) -> dict[str, Any]:
    facts = end.facts
    right, law, purpose = Right(facts["right"]), Law(facts["law"]), facts.get("purpose")
    ground = Ground(facts["ground"]) if "ground" in facts else None
    first: dict[str, Said] = {}
    for one in entries:
        first.setdefault(one.step, one)
    return {
        "right": name_of(right, law, purpose),
        "law": law,
        "purpose": purpose,
        "category": facts.get("category"),
        "opened_at": _time(first.get(Step.OPENED)),
        "verified_at": _time(first.get(Step.VERIFIED)),
        "ended_at": _time(end),
        "outcome": end.step,
        "ground": ground,
        "authority": authority(ground, right, law) if ground else None,
    }


def _time(said: Said | None) -> str | None:
    return said.at.isoformat() if said else None


# --- Participants ----------------------------------------------------------------------------------------


def _participants(entries: Sequence[Said], end: Said) -> list[dict[str, Any]]:
    """Everybody's part, by their last answer: an answer of an earlier round does not count any more. Of whom others
    answered for nothing is said but that; whoever joined while an erasure was checked has only been read again.
    """
    if end.step != Step.COMPLETED:
        return []
    work = RUNS[Right(end.facts["right"])]
    answers = [one for one in entries if one.step in {Step.ANSWERED, Step.SETTLED}]
    done = {one.facts["participant"]: one for one in answers if one.facts["verb"] == work}
    checked = {one.facts["participant"]: one for one in answers if one.facts["verb"] == "verify-erased"}
    return [
        {
            "participant": name,
            "outcome": said.facts["outcome"] if name in done else "checked",
            "answered_at": _time(said),
            "counts": said.facts.get("counts") or {},
            "checked": _checked(checked.get(name)),
            "failures": _failures(answers, name),
            "kept": [{"participant": name, **kept} for kept in said.facts.get("retained") or ()],
            **_settled(said),
        }
        for name, said in sorted((checked | done).items())
    ]


def _settled(said: Said) -> dict[str, Any]:
    """What others said in its place."""
    if said.step != Step.SETTLED:
        return {}
    return {"settled": {name: said.facts.get(name) for name in ("said", "ground", "successor")}}


def _checked(said: Said | None) -> dict[str, Any] | None:
    """What was read again, and what was not; of the keyring, that no key is left."""
    if said is None:
        return None
    return {
        "outcome": said.facts["outcome"],
        "at": _time(said),
        "reread": said.facts.get("reread") or [],
        "skipped": said.facts.get("skipped") or {},
    }


def _failures(answers: Iterable[Said], name: str) -> list[dict[str, Any]]:
    """What went wrong on the way, however it ended."""
    counted = Counter(
        (one.facts["verb"], one.facts.get("reason") or "")
        for one in answers
        if one.facts["participant"] == name and one.facts["outcome"] == "failed"
    )
    return [
        {"task": verb, "reason": reason, "times": times} for (verb, reason), times in sorted(counted.items())
    ]


# --- Keys ------------------------------------------------------------------------------------------------


def _keys(entries: Sequence[Said], end: Said, backup_days: int) -> dict[str, Any] | None:
    """When the keys were destroyed: noted once the keyring had said so, so nothing opened after it."""
    if end.step != Step.COMPLETED or end.facts["right"] != Right.ERASURE:
        return None
    # What is of a part retires keys first, and destroys them last.
    verb = "verify-erased" if "purpose" in end.facts or "category" in end.facts else "erase"
    answers = [
        one
        for one in entries
        if one.step == Step.ANSWERED and one.facts["participant"] == KEYRING and one.facts["verb"] == verb
    ]
    if not answers:
        return None
    last = answers[-1]
    return {
        "destroyed": sum((one.facts.get("counts") or {}).get("keys", 0) for one in answers),
        "destroyed_at": _time(last),
        "forgotten_by": (last.at + lapse()).isoformat(),
        "backups_lapse_on": (last.at + timedelta(days=backup_days)).date().isoformat(),
    }


# --- What was kept, later --------------------------------------------------------------------------------


def with_ended(kept: Iterable[Facts], entries: Iterable[Said]) -> list[dict[str, Any]]:
    """What was kept, with the day on which it ended where the log says that it has."""
    ended = {
        (one.facts["retention"], one.facts["bucket"]): one.facts["on"]
        for one in entries
        if one.step == Step.KEPT_ENDED
    }
    return [
        {**one, "ended_on": ended[place]}
        if (place := (one["retention"], one["bucket"])) in ended and "ended_on" not in one
        else dict(one)
        for one in kept
    ]
