"""Waiting requests in words for a terminal, with times of the reader's own zone."""

from collections.abc import Mapping, Sequence
from datetime import datetime, tzinfo
from typing import Any

Json = Mapping[str, Any]


class Telling:
    """Words at one moment. `zone` is the reader's; the machine's when it is None."""

    def __init__(self, now: datetime, zone: tzinfo | None = None) -> None:
        self._now = now
        self._zone = zone

    # --- Time --------------------------------------------------------------------------------------------

    def moment(self, written: str | None) -> str:
        """`14:02` of today, `27 Nov 14:02` of this year."""
        if written is None:
            return "?"
        at, now = datetime.fromisoformat(written).astimezone(self._zone), self._now.astimezone(self._zone)
        if at.date() == now.date():
            return f"{at:%H:%M}"
        return f"{at:%-d %b %H:%M}" if at.year == now.year else f"{at:%-d %b %Y %H:%M}"

    def _next(self, written: str | None) -> str:
        if written is None:
            return ", repeated only by hand"
        is_due = datetime.fromisoformat(written) <= self._now
        return f", next try {'now' if is_due else self.moment(written)}"

    # --- A list ------------------------------------------------------------------------------------------

    def table(self, rows: Sequence[Json]) -> list[str]:
        """A line for each request, under a head."""
        lines = [_HEAD, *(self._row(row) for row in rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(_HEAD) - 1)]
        return [
            "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[-1]])
            for line in lines
        ]

    def _row(self, row: Json) -> tuple[str, ...]:
        due = row["due_on"] or "-"
        return (
            row["request_id"],
            row["right"],
            row["state"],
            self.moment(row["opened_at"]),
            f"{due} OVERDUE" if row["overdue"] else due,
            self.waits_for(row),
        )

    def waits_for(self, row: Json) -> str:
        """Whom a request waits for, in a few words."""
        if row["waits_for"] != "participants":
            return _waits_for(row["waits_for"])
        names = [_marked(name, row) for name in row["participants"]]
        return f"{', '.join(names)} since {self.moment(row['since'])}"

    # --- One ---------------------------------------------------------------------------------------------

    def request(self, one: Json) -> list[str]:
        """All there is to say about why a request has not ended."""
        store = f" at {one['store']}" if one["store"] else ""
        lines = [
            f"{one['right']}{store} ({one['store_id']})",
            f"  {one['state']}, opened {self.moment(one['opened_at'])}; {self.deadline(one['deadline'])}",
        ]
        if one["escalated_at"] is not None:
            lines.append(f"  escalated {self.moment(one['escalated_at'])}: the platform may decide it")
        if one["waits_for"] != "participants":
            lines.append(f"  waits for {_waits_for(one['waits_for'])}")
        lines += [f"  {self.part(part)}" for part in one["parts"]]
        if one["ended"]:
            lines.append(
                f"  {one['ended']} of {one['ended'] + len(one['parts'])} parts of this phase have ended"
            )
        if ways := self._ways(one):
            lines += ["", *ways]
        return lines

    def part(self, part: Json) -> str:
        """`waiting for billing (erase) since 14:02, try 3, next try 14:32, last error left-over at 14:12`."""
        who = f"{part['participant']} ({part['task']})"
        match part["waits"]:
            case "turn":
                return f"{who} comes after {', '.join(part['after']) or 'others'}"
            case "time":
                return f"{who} is asked at {self.moment(part['next_try_at'])}"
            case "completion":
                words = (
                    f"{who} has had it since {self.moment(part['since'])}, and must still say that it is done"
                )
            case _:
                words = f"waiting for {who} since {self.moment(part['since'])}, try {part['tries']}"
                words += self._next(part["next_try_at"])
        if part["error"] is not None:
            words += f", last error {part['error']} at {self.moment(part['error_at'])}"
        return f"{words}  STUCK" if part["stuck"] else words

    def deadline(self, deadline: Json) -> str:
        """How far the last day is."""
        if deadline["stopped_since"] is not None:
            return f"the clock stands still since {self.moment(deadline['stopped_since'])}"
        if deadline["due_on"] is None:
            return "the law's period has not begun"
        if deadline["seconds_left"] is None:
            return f"its last day was {deadline['due_on']}"
        left = duration(abs(deadline["seconds_left"]))
        if deadline["seconds_left"] < 0:
            return f"its last day was {deadline['due_on']}: {left} LATE"
        return f"its last day is {deadline['due_on']}, {left} left"

    def _ways(self, one: Json) -> list[str]:
        """The commands that would end it."""
        id_ = one["request_id"]
        by = {way: [part for part in one["parts"] if way in part["ended_by"]] for way in _COMMANDS}
        return [
            command.format(id=id_, participant=parts[0]["participant"], verb=parts[0]["task"])
            for way, command in _COMMANDS.items()
            if (parts := by[way])
        ]

    # --- Participants ------------------------------------------------------------------------------------

    def participants(self, known: Json) -> list[str]:
        """A line for each participant: since when it is known, and how much it has still to answer; then who left."""
        rows = known["items"]
        width = max((len(row["name"]) for row in rows), default=0)
        present = [
            f"{one['name'].ljust(width)}  {self._announced(one)}; {one['waiting']} to answer" for one in rows
        ]
        return present + [self._departed(one) for one in known.get("departed", ())]

    def _departed(self, one: Json) -> str:
        why = f"{one['successor']} has its data" if one.get("successor") else one["ground"]
        return f"{one['name']} left {self.moment(one['departed_at'])}: {why}"

    def _announced(self, row: Json) -> str:
        if row["announced_at"] is None:
            return "expected, and never heard of"
        return f"announced {self.moment(row['announced_at'])}"


_HEAD = ("REQUEST", "RIGHT", "STATE", "OPENED", "LAST DAY", "WAITS FOR")
_WAITS_FOR = {
    "person": "its person",
    "decision": "a decision of the store",
    "day": "the day its person was told of",
    "worker": "the privacy worker",
    "nobody": "nobody: it is over",
}
_COMMANDS = {
    "drive": "ask again at once:  vitrine requests drive {id}",
    "settlement": "answer for one:     vitrine requests settle {id} --participant {participant} --verb {verb} …",
    "departure": "it is gone for good: vitrine participants leave {participant} …",
}
_UNITS = (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1))


def _waits_for(word: str) -> str:
    """A newer platform may have words that are not known here."""
    return _WAITS_FOR.get(word, word)


def duration(seconds: int) -> str:
    """The two largest units: `3 days 4 hours`."""
    words: list[str] = []
    for name, length in _UNITS:
        number, seconds = divmod(seconds, length)
        if number and len(words) < 2:
            words.append(f"{number} {name}{'s' if number > 1 else ''}")
        elif words:
            break
    return " ".join(words) or "0 seconds"


def _marked(name: str, row: Json) -> str:
    if name in row["stuck"]:
        return f"{name} (STUCK)"
    return f"{name} (failing)" if name in row["failing"] else name
