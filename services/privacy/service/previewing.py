"""What a request would do, and what is processed about a person: from the data map and counts, no box opened."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.auth import Caller
from libs.common.errors import NotFound
from libs.common.events.privacy import Verb
from libs.common.personal.vocabulary import Source
from services.privacy.authorities import supervisor_of
from services.privacy.desk_schemas import (
    Explanation,
    Held,
    Language,
    Obligation,
    Preview,
    PreviewPart,
    Processing,
)
from services.privacy.domain.rights import Law, Right
from services.privacy.domain.states import KEYRING, TERMINAL, State, TaskState
from services.privacy.engine.tasks import RUNS, is_part
from services.privacy.models import Request, Task
from services.privacy.policies import policy_of
from services.privacy.recipients import registry
from services.privacy.service.reading import own
from services.privacy.words import SOURCES, obligation, said

Entry = Mapping[str, Any]
_BECOMES: Mapping[Right, str] = {
    Right.ACCESS: "copied",
    Right.PORTABILITY: "copied",
    Right.RECTIFICATION: "corrected",
    Right.RESTRICTION: "on-hold",
    Right.LIFTING: "in-use",
    Right.OBJECTION: "unused",
    Right.WITHDRAWAL: "unused",
    Right.EXPLANATION: "kept",
}
_ERASED = {"delete": "deleted", "clear": "emptied", "keep": "kept"}


# What was answered by somebody who left is still to be read.
_DATA_MAPS = text("""
    SELECT DISTINCT ON (name) name, data_map FROM (
        SELECT name, data_map, departed_at AS until FROM departure
        UNION ALL SELECT name, data_map, 'infinity' FROM participant
    ) AS known ORDER BY name, until DESC
""")


async def _asked(
    session: AsyncSession, store_id: UUID, request_id: UUID, *conditions: Any
) -> tuple[Request, Sequence[Task], dict[str, list[Entry]]]:
    request = await session.scalar(
        select(Request).where(Request.id == request_id, Request.store_id == store_id, *conditions)
    )
    if request is None:
        raise NotFound
    tasks = await session.scalars(
        select(Task)
        .where(Task.request_id == request_id, Task.store_id == store_id, Task.verb == Verb.PREVIEW)
        .order_by(Task.participant)
    )
    maps = {row.name: row.data_map for row in await session.execute(_DATA_MAPS)}
    return request, tasks.all(), maps


# --- The preview -----------------------------------------------------------------------------------------


async def preview(session: AsyncSession, *, store_id: UUID, request_id: UUID, language: Language) -> Preview:
    """What everybody holds, what would go, what must stay and why, and who outside will be told. Raises NotFound."""
    request, tasks, maps = await _asked(session, store_id, request_id)
    parts = [_part(request, task, maps.get(task.participant, []), language) for task in tasks]
    unanswered = [one.participant for one in parts if one.state not in TERMINAL]
    told = {
        recipient
        for task in tasks
        for entry, _ in _concerned(request, task, maps.get(task.participant, []))
        for recipient in entry.get("recipients", [])
    }
    told |= set(
        await registry.names_for(session, store_id, RUNS[Right(request.claim)], in_part=is_part(request))
    )
    speaks_against = any(one.obligations or one.refused for one in parts)
    return Preview(
        asked=bool(parts),
        round=request.round,
        clear=bool(parts) and not unanswered and not speaks_against,
        parts=parts,
        unanswered=unanswered,
        recipients=sorted(told),
    )


def _part(request: Request, task: Task, entries: Sequence[Entry], language: Language) -> PreviewPart:
    answer = task.answer or {}
    return PreviewPart.model_validate(
        {
            "participant": task.participant,
            "state": task.state,
            "answered_at": task.answered_at,
            "held": [_held(request, entry, count) for entry, count in _concerned(request, task, entries)],
            "obligations": [
                Obligation(word=word, explanation=obligation(word, language))
                for word in answer.get("obligations", [])
            ],
            **{name: answer[name] for name in ("retained", "refused", "beside") if name in answer},
        }
    )


def _concerned(request: Request, task: Task, entries: Sequence[Entry]) -> list[tuple[Entry, int]]:
    """What a participant counted and the request is about, with what its data map says of it."""
    counts: Mapping[str, int] = (task.answer or {}).get("counts", {})
    known: dict[str, list[Entry]] = {}
    for entry in entries:
        if "table" in entry:
            known.setdefault(entry["table"], []).append(entry)
    return [
        (entry, count)
        for table, count in sorted(counts.items())
        if count
        for entry in known.get(table, [{"table": table}])
        if _is_about(request, entry)
    ]


def _is_about(request: Request, entry: Entry) -> bool:
    """A request may be about one use of data, or about one category."""
    if request.category is not None:
        return any(
            one == request.category or one.startswith(f"{request.category}.") for one in _categories(entry)
        )
    return request.purpose is None or request.purpose in entry.get("purposes", [request.purpose])


def _categories(entry: Entry) -> list[str]:
    return sorted({one for of_field in entry.get("categories", {}).values() for one in of_field})


def _held(request: Request, entry: Entry, count: int) -> Held:
    right = Right(request.claim)
    on_erase = _ERASED.get(entry.get("on_erase", ""), "kept")
    becomes = on_erase if right is Right.ERASURE else _BECOMES[right]
    return Held.model_validate(
        {
            "table": entry["table"],
            "count": count,
            "kind": entry.get("kind"),
            "description": entry.get("description", ""),
            "categories": _categories(entry),
            "purposes": entry.get("purposes", []),
            "legal_basis": entry.get("legal_basis"),
            "becomes": becomes,
            "why": entry.get("retention", {}).get("law", "") if becomes == "kept" else "",
        }
    )


# --- The explanation -------------------------------------------------------------------------------------


async def explanation(
    session: AsyncSession, *, store_id: UUID, request_id: UUID, of: Caller | None, language: Language
) -> Explanation:
    """What a request for an explanation is answered with. Raises NotFound, also before it is answered."""
    answered = [Request.claim == Right.EXPLANATION, Request.state == State.COMPLETED]
    request, tasks, maps = await _asked(session, store_id, request_id, *answered, *own(of))
    policy = await policy_of(session, store_id)
    supervisor = supervisor_of(Law(request.law), policy.country)
    return Explanation(
        request_id=request.id,
        answered_at=_completed(request),
        processing=[
            _processing(task.participant, entry, count, language)
            for task in tasks
            if task.participant != KEYRING and task.state == TaskState.DONE
            for entry, count in _concerned(request, task, maps.get(task.participant, []))
            if "kind" in entry
        ],
        supervisor=supervisor.name,
        supervisor_website=supervisor.website,
    )


def _completed(request: Request) -> datetime:
    if request.completed_at is None:
        raise NotFound
    return request.completed_at


def _processing(service: str, entry: Entry, count: int, language: Language) -> Processing:
    return Processing.model_validate(
        {
            "service": service,
            "kind": entry["kind"],
            "description": entry["description"],
            "count": count,
            "categories": _categories(entry),
            "purposes": entry["purposes"],
            "legal_basis": entry["legal_basis"],
            "period": entry["retention"]["period"],
            "law": entry["retention"]["law"],
            "recipients": entry["recipients"],
            "source": said(SOURCES, entry.get("source", Source.PERSON), language),
        }
    )
