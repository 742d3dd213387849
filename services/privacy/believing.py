"""Which answers are believed: those signed with the key of the participant that they name, and no others."""

import logging
import re
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.db import fetch
from libs.common.events import Received
from libs.common.events.privacy import CHUNK_BYTES, RowsCleaned, StoreCleaned, TaskAnswered
from libs.common.personal.answers import Forged, check
from libs.common.telemetry import meter
from services.privacy.domain.parts import Unwanted
from services.privacy.domain.states import RECIPIENT

logger = logging.getLogger(__name__)

A = TypeVar("A", TaskAnswered, RowsCleaned, StoreCleaned)

_KEYS = "SELECT name, public_key FROM participant WHERE name = ANY($1::text[])"

_refused = meter.create_counter(
    "privacy.answers.refused", description="Answers and announcements that change nothing, by the reason."
)


async def believed(session: AsyncSession, events: Sequence[Received[A]]) -> list[Received[A]]:
    """Those that their participants have signed, in their order; the others are counted and logged."""
    names = sorted({event.data.participant for event in events})
    keys: dict[str, Any] = {row.name: row.public_key for row in await fetch(session, _KEYS, names)}
    return [event for event in events if _is_signed(event, keys)]


MOST = 2**31 - 1
"""What is counted and numbered stays below."""
_ANSWER_BYTES = 128 * 1024
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_WORD = re.compile(r"[A-Za-z0-9_-]{0,64}")


def sound(events: Iterable[Received[TaskAnswered]]) -> list[Received[TaskAnswered]]:
    """Those that say what an answer can say; the others are counted, and change nothing. What is kept of an answer is
    kept for years, in the clear: so it has names, fixed words and numbers, and no text that could quote data.
    """
    found: list[Received[TaskAnswered]] = []
    for event in events:
        if _is_sound(event.data, event.record.value):
            found.append(event)
        else:
            refuse("TaskAnswered", event.data.participant, Unwanted.MALFORMED)
    return found


def _is_sound(said: TaskAnswered, value: bytes) -> bool:
    numbers = [*said.counts.values(), *said.beside.values(), *(one.count for one in said.retained)]
    names = [*said.counts, *said.beside, *said.reread, *said.skipped]
    carried = len(said.references.payload) if said.references is not None else 0
    return (
        carried <= CHUNK_BYTES
        and len(value) <= _ANSWER_BYTES + 2 * carried
        and b"\\u0000" not in value
        and said.round <= MOST
        and said.chunks <= MOST
        and all(0 <= number <= MOST for number in numbers)
        and all(_NAME.fullmatch(name) for name in names)
        and _WORD.fullmatch(said.reason) is not None
    )


def _is_signed(event: Received[A], keys: dict[str, Any]) -> bool:
    name = event.data.participant
    try:
        check(event, public_key=keys[name])
    except (Forged, KeyError):
        refuse(type(event.data).__name__, name if name in keys else "unknown")
        return False
    return True


def refuse(what: str, participant: str, reason: Unwanted = Unwanted.FORGED) -> None:
    """Count and log something that changes nothing."""
    # There are as many recipients as stores like; as a label they are one.
    who = "recipient" if participant.startswith(RECIPIENT) else participant
    _refused.add(1, {"what": what, "participant": who, "reason": reason})
    # What comes late or twice is the way of a log that delivers at least once.
    level = logging.INFO if reason in {Unwanted.DOUBLED, Unwanted.LATE} else logging.WARNING
    logger.log(
        level,
        "not believed" if reason is Unwanted.FORGED else "not taken",
        extra={"outcome": what, "participant": participant, "reason": reason},
    )
