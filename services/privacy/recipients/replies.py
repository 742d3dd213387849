"""What recipients say of what they were asked, in the reply to a delivery or later: all of it is a stranger's."""

import re
from datetime import UTC, date, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from libs.common.events.privacy import Outcome
from libs.common.outgoing import Answer
from services.privacy.recipients.protocols import Reply, Said

_Word = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$", max_length=60)]
_Ground = Annotated[str, Field(pattern=r"^[\w .,;:()§/’'–-]{1,200}$")]
"""The name of a law fits; an address of a person does not."""
LONGEST_RETRY_AFTER = timedelta(days=1)
_GONE = 410


class Kept(BaseModel):
    """What a recipient keeps, on which ground and until when."""

    model_config = ConfigDict(extra="forbid")

    kind: _Word
    count: Annotated[int, Field(ge=0, le=10**9)] = 1
    ground: _Ground
    until: date | None = None


class Outcomes(BaseModel):
    """What a recipient has done: `{"outcome": "done", "counts": {"contact": 1}, "retained": []}`."""

    model_config = ConfigDict(extra="forbid")

    outcome: Outcome
    counts: Annotated[dict[_Word, Annotated[int, Field(ge=0, le=10**9)]], Field(max_length=20)] = {}
    retained: Annotated[list[Kept], Field(max_length=20)] = []
    reason: Annotated[str, Field(pattern=r"^([a-z0-9]+(-[a-z0-9]+)*)?$", max_length=60)] = Field(
        "", description="Of a failure: a word of your own, with nobody's data in it."
    )

    def said(self) -> Said:
        """The same, as protocols give it."""
        return Said(
            outcome=self.outcome,
            counts=self.counts,
            retained=[_as_retained(one) for one in self.retained],
            reason=self.reason,
        )


def _as_retained(kept: Kept) -> dict[str, Any]:
    """As a participant would say it; a recipient has no keys of ours, so no bucket either."""
    return {**kept.model_dump(mode="json"), "retention": "", "bucket": ""}


def acknowledged(answer: Answer, *, now: datetime) -> Reply:
    """What a reply means of whoever takes or refuses, and says no more."""
    if 200 <= answer.status < 300:
        return Reply(status=answer.status)
    return Reply(
        status=answer.status,
        word=_refusal(answer.status),
        retry_after=_retry_after(answer, now),
        gone=answer.status == _GONE,
    )


def understood(answer: Answer, *, now: datetime) -> Reply:
    """What a reply over HTTP means, by its status and, where there is one, by its body."""
    reply = acknowledged(answer, now=now)
    if reply.word or not _is_ours(answer):
        return reply
    try:
        said = Outcomes.model_validate_json(answer.content).said()
    except ValidationError:
        return Reply(status=answer.status, word="answer-not-understood")
    return Reply(status=answer.status, said=said)


def _is_ours(answer: Answer) -> bool:
    """Whether a body is meant to be an outcome: many servers say `OK`, or `{}`, and mean nothing by it."""
    return (
        answer.content.lstrip().startswith(b"{") and re.search(rb'"outcome"\s*:', answer.content) is not None
    )


def _refusal(status: int) -> str:
    if 300 <= status < 400:
        return "redirected"
    if status == _GONE:
        return "gone"
    return "refused" if status < 500 else "fails"


def _retry_after(answer: Answer, now: datetime) -> timedelta | None:
    """RFC 9110, 10.2.3: seconds, or a date."""
    asked = answer.headers.get("retry-after", "").strip()
    if asked.isascii() and asked.isdigit() and len(asked) < 10:
        return min(timedelta(seconds=int(asked)), LONGEST_RETRY_AFTER)
    try:
        until = parsedate_to_datetime(asked)
    except ValueError:
        return None
    pause = (until if until.tzinfo else until.replace(tzinfo=UTC)) - now
    return min(pause, LONGEST_RETRY_AFTER) if pause > timedelta(0) else None
