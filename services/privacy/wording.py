"""What mails about requests say: the values of each template."""

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from typing import Any

from babel.dates import format_date

from services.privacy.authorities import supervisor_of
from services.privacy.calendars import calendar_for
from services.privacy.domain.decisions import Ground, authority
from services.privacy.domain.rights import Law, Right, name_of
from services.privacy.domain.states import KEYRING, VERIFICATION_DAYS, State
from services.privacy.words import (
    CATEGORIES,
    EXTENSIONS,
    GROUNDS,
    KEPT,
    PURPOSES,
    RECIPIENTS,
    RIGHTS,
    said,
)

Answer = Mapping[str, Any]
Recipients = Mapping[tuple[str, str], Iterable[str]]
"""Who outside receives what a participant keeps in a table."""

TO_OFFICERS = frozenset(
    {
        "decision-wanted",
        "decision-reminder",
        "decision-escalated",
        "question-answered",
        "request-escalated",
        "document-received",
    }
)
"""Templates that whoever answers reads."""


def for_person(
    row: Any, language: str, *, text: str, status: str, recipients: Recipients, link: Mapping[str, str]
) -> dict[str, str]:
    """The values of a mail to the person. `text` is what somebody wrote for them, `status` the link to follow the
    request, `link` what a template has beyond this.
    """
    supervisor = supervisor_of(Law(row.law), row.country)
    return {
        **_of_request(row, language),
        **_branded(row, language),
        **_of_answers(row.answers or [], language, recipients),
        "text": text,
        "status": status,
        "waits_days": str(VERIFICATION_DAYS),
        "purpose": said(PURPOSES, row.purpose, language) if row.purpose else "",
        "portable": _yes(row.claim == Right.PORTABILITY),
        "part": _part(row, language),
        "verified": _yes(row.verified_at is not None),
        "begins_on": _moment(row.begins_at, row, language),
        "reason": said(EXTENSIONS, row.extension, language) if row.extension else "",
        "ground": said(GROUNDS, row.ground, language) if row.ground else "",
        "authority": _authority(row),
        **_of_log(row),
        "supervisor": supervisor.name,
        "supervisor_website": supervisor.website,
        **link,
    }


def for_officer(row: Any, language: str, *, desk: str) -> dict[str, str]:
    """The values of a mail to whoever answers; `desk` is where. It says nothing about the person."""
    return {**_of_request(row, language), "store": row.store_name or str(row.store_id), "desk": desk}


def _of_request(row: Any, language: str) -> dict[str, str]:
    name = name_of(Right(row.claim), Law(row.law), row.purpose)
    return {
        "store_id": str(row.store_id),
        "request_id": str(row.id),
        "claim": row.claim,
        "right": said(RIGHTS, name, language),
        "due_on": day(row.due_on, language) if row.due_on else "",
    }


def _branded(row: Any, language: str) -> dict[str, str]:
    """A store's own words, or its name."""
    words = (row.branding or {}).get(language, {})
    name = row.store_name or ""
    return {
        "sender": words.get("sender") or name,
        "opening": words.get("opening", ""),
        "signature": words.get("signature") or name,
    }


def _of_log(row: Any) -> dict[str, str]:
    """Of a request that has ended: that it is certified, and the head of the log, which whoever has the mail keeps."""
    return {
        "certified": _yes(row.state in {State.COMPLETED, State.REFUSED}),
        "log_size": str(row.log_size or ""),
        "log_root": row.log_root or "",
    }


def _authority(row: Any) -> str:
    if row.ground is None:
        return ""
    return authority(Ground(row.ground), Right(row.claim), Law(row.law)) or ""


def _part(row: Any, language: str) -> str:
    """Of an erasure that is not of everything."""
    if row.claim != Right.ERASURE:
        return ""
    if row.category is not None:
        return said(CATEGORIES, row.category, language)
    return said(PURPOSES, row.purpose, language) if row.purpose is not None else ""


def _yes(fact: bool) -> str:
    return "yes" if fact else ""


# --- What was done ---------------------------------------------------------------------------------------

_UNTIL = {"en": "until {}", "fr": "jusqu’au {}"}
_UNTIL_SETTLED = {
    "en": "as long as the answer can be disputed",
    "fr": "tant que la réponse peut être contestée",
}


def _of_answers(answers: Iterable[Answer], language: str, recipients: Recipients) -> dict[str, str]:
    """What was done, what was not and why, and who outside had received it, by everybody's answers."""
    given = [answer for answer in answers if answer["participant"] != KEYRING]
    refused = {category for answer in given for category in answer.get("refused") or ()}
    inside = [answer for answer in given if "recipient" not in answer]
    told = {
        said(RECIPIENTS, recipient, language)
        for answer in inside
        for table in answer.get("counts") or ()
        for recipient in recipients.get((answer["participant"], table), ())
    }
    # Those who could find nobody were told of nobody.
    told |= {one["recipient"] for one in given if "recipient" in one and one["outcome"] != "nothing-held"}
    return {
        "kept": "\n".join(_kept(given, language)),
        "refused": "\n".join(sorted(f"- {said(CATEGORIES, one, language)}" for one in refused)),
        "beside": _yes(any(answer.get("beside") for answer in given)),
        "changed": _yes(any(answer.get("counts") for answer in inside)),
        "told": ", ".join(sorted(told)),
    }


def _kept(answers: Iterable[Answer], language: str) -> list[str]:
    """A line for each thing that stays: what, until when, on what ground. The keyring's own rows say the same again."""
    lines: set[str] = set()
    for answer in answers:
        for kept in answer.get("retained") or ():
            what = KEPT.get(kept["retention"], {}).get(language, kept["kind"])
            until = (
                _UNTIL[language].format(day(date.fromisoformat(kept["until"]), language))
                if kept["until"]
                else _UNTIL_SETTLED[language]
            )
            whose = f"{answer['recipient']}: " if "recipient" in answer else ""
            lines.add(f"- {whose}{what}, {until} ({kept['ground']})")
    return sorted(lines)


# --- Days ------------------------------------------------------------------------------------------------


def day(day: date, language: str) -> str:
    """As people write it."""
    return format_date(day, format="long", locale=language)


def _moment(at: datetime | None, row: Any, language: str) -> str:
    """The day of an instant where the store is."""
    if at is None:
        return ""
    zone = calendar_for(Law(row.law), row.country).zone if row.country else UTC
    return day(at.astimezone(zone).date(), language)
