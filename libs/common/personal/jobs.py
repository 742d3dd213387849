"""What a participant was asked and what it answered: a task issued again gets the same answer again."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

import orjson
from sqlalchemy import ARRAY, Index, PrimaryKeyConstraint, Uuid, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from libs.common.db import ALL_STORES, Base, Database, Query, fetch, impersonal, ring_after_commit
from libs.common.events.privacy import Proposal, TaskAnswered, TaskIssued, Verb
from libs.common.personal.data import Sealed, SealedColumn
from libs.common.personal.erasure import Asked
from libs.common.personal.scope import WHOLE, Scope
from libs.common.personal.vocabulary import Category, Purpose
from libs.common.telemetry import traceparent_of

_LEASE_SECONDS = 60.0
_LONGEST_PAUSE_SECONDS = 600.0
AT_ONCE = 50
"""Jobs that are taken up together."""


def channel(verb: Verb) -> str:
    """NOTIFY channel: a task that opens boxes is waiting for the duty that does what `verb` asks. A preview that opens
    them is of a correction.
    """
    return f"participant_jobs_{Verb.RECTIFY if verb is Verb.PREVIEW else verb}"


class ParticipantJob(Base):
    """A task, waiting while it has no answer. The person is named only while it waits."""

    __tablename__ = "participant_job"
    __table_args__ = (
        PrimaryKeyConstraint("request_id", "verb"),
        Index("ix_participant_job_next_try_at", "next_try_at", postgresql_where=text("answer IS NULL")),
        Index("ix_participant_job_subject_id", "subject_id", postgresql_where=text("subject_id IS NOT NULL")),
        Index("ix_participant_job_issued_at", "issued_at"),
    )

    request_id: Mapped[UUID]
    verb: Mapped[str] = mapped_column(info=impersonal("what is asked"))
    store_id: Mapped[UUID]
    round: Mapped[int]
    subject_id: Mapped[UUID | None]
    generation: Mapped[int | None]
    answer: Mapped[dict[str, Any] | None] = mapped_column(JSONB, info=impersonal("an outcome and counts"))
    attempts: Mapped[int] = mapped_column(server_default="0")
    next_try_at: Mapped[datetime | None]
    traceparent: Mapped[str | None] = mapped_column(info=impersonal("W3C trace context"))
    issued_at: Mapped[datetime] = mapped_column(server_default=func.now())
    portable: Mapped[bool] = mapped_column(server_default="false")
    proposal: Mapped[Sealed[Proposal] | None] = mapped_column(SealedColumn(Proposal))
    purpose: Mapped[str | None] = mapped_column(info=impersonal("a word of the vocabulary"))
    category: Mapped[str | None] = mapped_column(info=impersonal("a word of the vocabulary"))
    retired: Mapped[list[UUID]] = mapped_column(
        ARRAY(Uuid), server_default="{}", info=impersonal("ids of keys")
    )
    also: Mapped[list[dict[str, Any]]] = mapped_column(
        JSONB, server_default=text("'[]'::jsonb"), info=impersonal("ids of subjects")
    )


class Announcement(Base):
    """What this service last announced of itself."""

    __tablename__ = "announcement"

    participant: Mapped[str] = mapped_column(primary_key=True, info=impersonal("name of a service"))
    digest: Mapped[bytes] = mapped_column(info=impersonal("hash of a public key and a data map"))
    version: Mapped[int]
    announced_at: Mapped[datetime]


# --- Answering -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Known:
    """What was noted before about some requests."""

    _jobs: Mapping[tuple[UUID, str], Any]

    def round_of(self, task: TaskIssued) -> int:
        """The newest round this task was asked in before; 0 for never."""
        job = self._jobs.get((task.request_id, task.verb))
        return job["round"] if job is not None else 0

    def answer_to(self, task: TaskIssued) -> TaskAnswered | None:
        """What was answered to exactly this task."""
        job = self._jobs.get((task.request_id, task.verb))
        if job is None or job["round"] != task.round or job["answer"] is None:
            return None
        return TaskAnswered.model_validate_json(job["answer"])


_KNOWN = """
    SELECT request_id, verb, round, CAST(answer AS text) AS answer FROM participant_job
    WHERE request_id = ANY($1::uuid[])
"""


async def known(session: AsyncSession, requests: Sequence[UUID]) -> Known:
    """What was noted before about these requests."""
    rows = await fetch(session, _KNOWN, requests)
    return Known({(row["request_id"], row["verb"]): row for row in rows})


_SAVE = """
    INSERT INTO participant_job AS job (request_id, verb, store_id, round, answer)
    SELECT request_id, verb, $1, round, CAST(answer AS jsonb)
    FROM unnest($2::uuid[], $3::text[], $4::bigint[], $5::text[]) AS given (request_id, verb, round, answer)
    ON CONFLICT (request_id, verb) DO UPDATE SET round = excluded.round, answer = excluded.answer,
        subject_id = NULL, generation = NULL, also = '[]', next_try_at = NULL, proposal = NULL
    WHERE job.round <= excluded.round
"""


async def save(session: AsyncSession, store_id: UUID, answers: Sequence[TaskAnswered]) -> None:
    """Keep answers, to give them again; from now on nothing here names the person."""
    if not answers:
        return
    await fetch(
        session, _SAVE, store_id,
        [answer.request_id for answer in answers],
        [answer.verb.value for answer in answers],
        [answer.round for answer in answers],
        [answer.model_dump_json() for answer in answers],
    )  # fmt: skip


_NOTE = """
    INSERT INTO participant_job AS job
        (request_id, verb, store_id, round, subject_id, generation, traceparent, portable, proposal,
         purpose, category, retired, also, issued_at, next_try_at)
    SELECT request_id, verb, $1, round, subject_id, generation, traceparent, portable, proposal,
        purpose, category, CAST(retired AS uuid[]), CAST(also AS jsonb), clock_timestamp(), now()
    FROM unnest($2::uuid[], $3::text[], $4::bigint[], $5::uuid[], $6::bigint[], $7::text[], $8::boolean[], $9::bytea[],
            $10::text[], $11::text[], $12::text[], $13::text[])
        AS task (request_id, verb, round, subject_id, generation, traceparent, portable, proposal,
            purpose, category, retired, also)
    ON CONFLICT (request_id, verb) DO UPDATE SET round = excluded.round, subject_id = excluded.subject_id,
        generation = excluded.generation, answer = NULL, attempts = 0, next_try_at = excluded.next_try_at,
        issued_at = excluded.issued_at, portable = excluded.portable, proposal = excluded.proposal,
        purpose = excluded.purpose, category = excluded.category, retired = excluded.retired, also = excluded.also
    WHERE job.round < excluded.round
"""


async def note(session: AsyncSession, store_id: UUID, tasks: Sequence[TaskIssued]) -> None:
    """Keep what takes opening boxes, and wake the duties that do it."""
    if not tasks:
        return
    await fetch(
        session, _NOTE, store_id,
        [task.request_id for task in tasks],
        [task.verb.value for task in tasks],
        [task.round for task in tasks],
        [task.subject_id for task in tasks],
        [task.generation for task in tasks],
        [traceparent_of(str(task.request_id)) for task in tasks],
        [task.portable for task in tasks],
        [task.proposal.payload if task.proposal is not None else None for task in tasks],
        [task.purpose for task in tasks],
        [task.category for task in tasks],
        # An array of arrays must be rectangular, so each comes as text.
        ["{" + ",".join(map(str, task.retired)) + "}" for task in tasks],
        [orjson.dumps([life.model_dump(mode="json") for life in task.also]).decode() for task in tasks],
    )  # fmt: skip
    for verb in {task.verb for task in tasks}:
        ring_after_commit(session, channel(verb))


# --- Under way -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Job:
    """A task that takes opening boxes."""

    asked: Asked
    verb: Verb
    round: int
    traceparent: str | None = None
    """The trace that the task came with."""
    portable: bool = False
    proposal: Sealed[Proposal] | None = None
    scope: Scope = WHOLE
    retired: Sequence[UUID] = ()
    also: Sequence[Asked] = ()
    """The other subjects of the same person."""

    @property
    def lives(self) -> list[Asked]:
        """All subjects that the task is about."""
        return [self.asked, *self.also]


class UnderWay(Protocol):
    """What is being done for one request: a job, or what became of it."""

    @property
    def asked(self) -> Asked: ...  # noqa: D102
    @property
    def verb(self) -> Verb: ...  # noqa: D102
    @property
    def round(self) -> int: ...  # noqa: D102
    @property
    def traceparent(self) -> str | None: ...  # noqa: D102


# Of two corrections of one person the one that came last is the last word, so it waits for the first.
_CLAIM = Query("""
    UPDATE participant_job SET next_try_at = now() + make_interval(secs => :lease), attempts = attempts + 1
    WHERE (request_id, verb) IN (
        SELECT request_id, verb FROM participant_job AS job
        WHERE answer IS NULL AND next_try_at <= now() AND verb = ANY(CAST(:verbs AS text[]))
            AND (verb <> 'rectify' OR NOT EXISTS (
                SELECT FROM participant_job AS earlier
                WHERE earlier.verb = 'rectify' AND earlier.answer IS NULL AND earlier.store_id = job.store_id
                    AND (earlier.subject_id = job.subject_id OR earlier.also
                        @> jsonb_build_array(jsonb_build_object('subject_id', job.subject_id)))
                    AND (earlier.issued_at, earlier.request_id) < (job.issued_at, job.request_id)))
        ORDER BY next_try_at LIMIT :limit FOR UPDATE SKIP LOCKED)
    RETURNING request_id, verb, store_id, subject_id, generation, round, traceparent, portable, proposal,
        purpose, category, retired, also
""")


async def claim(database: Database, verbs: Iterable[Verb]) -> list[Job]:
    """Jobs whose time has come, for this worker alone until the lease ends."""
    async with database.transaction(ALL_STORES) as transaction:
        rows = await _CLAIM.rows(transaction, lease=_LEASE_SECONDS, limit=AT_ONCE, verbs=list(verbs))
        return [
            Job(
                Asked(row.request_id, row.store_id, row.subject_id, row.generation),
                Verb(row.verb),
                row.round,
                row.traceparent,
                row.portable,
                Sealed(Proposal, row.proposal) if row.proposal is not None else None,
                Scope(
                    Purpose(row.purpose) if row.purpose else None,
                    Category(row.category) if row.category else None,
                ),
                row.retired,
                [
                    Asked(row.request_id, row.store_id, UUID(one["subject_id"]), one["generation"])
                    for one in row.also
                ],
            )
            for row in rows
        ]


_HOLD = text("""
    UPDATE participant_job SET next_try_at = now() + make_interval(secs => :lease)
    WHERE (request_id, verb) IN (
        SELECT job.request_id, job.verb FROM participant_job AS job
        JOIN unnest(CAST(:requests AS uuid[]), CAST(:verbs AS text[]), CAST(:rounds AS bigint[]))
            AS held (request_id, verb, round) USING (request_id, verb, round)
        WHERE job.answer IS NULL ORDER BY job.request_id, job.verb FOR UPDATE OF job)
    RETURNING request_id
""")


async def hold(session: AsyncSession, under_way: Iterable[UnderWay]) -> set[UUID]:
    """The requests that are still to be answered, locked, and theirs for another lease."""
    return await _pause(session, under_way, _LEASE_SECONDS)


async def _pause(session: AsyncSession, under_way: Iterable[UnderWay], seconds: float) -> set[UUID]:
    jobs = list(under_way)
    values = {
        "requests": [one.asked.request_id for one in jobs],
        "verbs": [one.verb for one in jobs],
        "rounds": [one.round for one in jobs],
        "lease": seconds,
    }
    return set((await session.scalars(_HOLD, values)).all())


async def put_back(database: Database, under_way: Iterable[UnderWay]) -> None:
    """Let these be taken up again in a moment: what they needed was away."""
    async with database.platform_session() as session:
        await _pause(session, under_way, 2.0)


async def postpone(session: AsyncSession, one: UnderWay) -> bool:
    """Try this one again much later. Returns whether it is still to be answered."""
    return bool(await _pause(session, [one], _LONGEST_PAUSE_SECONDS))


async def purge(database: Database, *, kept_seconds: float) -> int:
    """Forget answers that no topic, retry or replay can ask for again."""
    async with database.platform_session() as session:
        gone: Any = await session.execute(
            text("DELETE FROM participant_job WHERE issued_at < now() - make_interval(secs => :seconds)"),
            {"seconds": kept_seconds},
        )
        return int(gone.rowcount)
