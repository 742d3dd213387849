# pyright: reportUnusedImport=false
"""The tables every service's database has, as its first migration creates them.

What is created here is frozen: a later change to a common table is a new function beside this one, called
by a new migration of every service.
"""

from alembic.op import execute

import libs.common.idempotency
import libs.common.inbox
import libs.common.mail
import libs.common.outbox
import libs.common.personal.expiry
import libs.common.personal.jobs
import libs.common.personal.restorations
import libs.common.personal.restrictions
import libs.common.personal.tombstones
import libs.common.stores  # noqa: F401 - each declares common tables
from libs.common.db import Base
from libs.common.migrations import isolate_stores

METADATA = Base.metadata
"""The common tables as the code knows them: what `env.py` of every service gives to `run`."""

_FIRST = (
    """
    CREATE TABLE outbox (
        id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_outbox PRIMARY KEY,
        store_id uuid NOT NULL,
        bucket smallint NOT NULL,
        topic varchar NOT NULL,
        key varchar NOT NULL,
        headers jsonb NOT NULL,
        payload bytea NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        sent_at timestamptz
    )
    """,
    "CREATE INDEX ix_outbox_unsent ON outbox (bucket, id) WHERE sent_at IS NULL",
    "CREATE INDEX ix_outbox_sent_at ON outbox (sent_at) WHERE sent_at IS NOT NULL",
    """
    CREATE TABLE broker_seen (
        id smallint CONSTRAINT pk_broker_seen PRIMARY KEY,
        cluster_id varchar NOT NULL
    )
    """,
    """
    CREATE TABLE inbox (
        event_id uuid CONSTRAINT pk_inbox PRIMARY KEY,
        store_id uuid NOT NULL,
        handled_at timestamptz NOT NULL DEFAULT now()
    )
    """,
    "CREATE INDEX ix_inbox_handled_at ON inbox (handled_at)",
    """
    CREATE TABLE dead_event (
        id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_dead_event PRIMARY KEY,
        topic varchar NOT NULL,
        key varchar NOT NULL,
        partition bigint NOT NULL,
        position bigint NOT NULL,
        headers jsonb NOT NULL,
        value bytea NOT NULL,
        blocking boolean NOT NULL,
        reason varchar NOT NULL,
        trace_id varchar,
        attempts bigint NOT NULL,
        next_try_at timestamptz,
        parked_at timestamptz NOT NULL DEFAULT now()
    )
    """,
    "CREATE INDEX ix_dead_event_key ON dead_event (key, id)",
    """
    CREATE TABLE idempotency_record (
        store_id uuid NOT NULL,
        key_hash bytea NOT NULL,
        request_hash bytea NOT NULL,
        status smallint,
        reply bytea,
        location varchar,
        created_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT pk_idempotency_record PRIMARY KEY (store_id, key_hash)
    )
    """,
    """
    CREATE TABLE known_store (
        store_id uuid CONSTRAINT pk_known_store PRIMARY KEY,
        slug varchar NOT NULL,
        name varchar NOT NULL,
        country varchar NOT NULL,
        currency varchar NOT NULL,
        language varchar NOT NULL,
        version bigint NOT NULL
    )
    """,
    """
    CREATE TABLE waiting_letter (
        id uuid CONSTRAINT pk_waiting_letter PRIMARY KEY,
        store_id uuid NOT NULL,
        subject_id uuid NOT NULL,
        generation bigint NOT NULL,
        kind varchar NOT NULL,
        box bytea NOT NULL,
        attempts bigint NOT NULL DEFAULT 0,
        next_try_at timestamptz NOT NULL DEFAULT now(),
        written_at timestamptz NOT NULL DEFAULT now()
    )
    """,
    "CREATE INDEX ix_waiting_letter_next_try_at ON waiting_letter (next_try_at)",
    "CREATE INDEX ix_waiting_letter_subject ON waiting_letter (store_id, subject_id)",
    """
    CREATE TABLE erased_subject (
        store_id uuid NOT NULL,
        subject_id uuid NOT NULL,
        generation bigint NOT NULL,
        erased_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT pk_erased_subject PRIMARY KEY (store_id, subject_id)
    )
    """,
    """
    CREATE TABLE participant_job (
        request_id uuid NOT NULL,
        verb varchar NOT NULL,
        store_id uuid NOT NULL,
        round bigint NOT NULL,
        subject_id uuid,
        generation bigint,
        answer jsonb,
        attempts bigint NOT NULL DEFAULT 0,
        next_try_at timestamptz,
        traceparent varchar,
        issued_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT pk_participant_job PRIMARY KEY (request_id, verb)
    )
    """,
    "CREATE INDEX ix_participant_job_next_try_at ON participant_job (next_try_at) WHERE answer IS NULL",
    "CREATE INDEX ix_participant_job_subject_id ON participant_job (subject_id) WHERE subject_id IS NOT NULL",
    "CREATE INDEX ix_participant_job_issued_at ON participant_job (issued_at)",
    """
    CREATE TABLE announcement (
        participant varchar CONSTRAINT pk_announcement PRIMARY KEY,
        digest bytea NOT NULL,
        version bigint NOT NULL,
        announced_at timestamptz NOT NULL
    )
    """,
)


def create_first() -> None:
    """Outbox, inbox, parked events, idempotency, known stores, letters, tombstones, privacy tasks."""
    for statement in _FIRST:
        execute(statement)
    isolate_stores(
        "outbox", "inbox", "idempotency_record", "known_store", "waiting_letter", "erased_subject",
        "participant_job",
    )  # fmt: skip


_SECOND = (
    """
    ALTER TABLE participant_job
        ADD COLUMN portable boolean NOT NULL DEFAULT false,
        ADD COLUMN proposal bytea,
        ADD COLUMN purpose varchar,
        ADD COLUMN category varchar,
        ADD COLUMN retired uuid[] NOT NULL DEFAULT '{}'
    """,
    """
    CREATE TABLE restricted_subject (
        store_id uuid NOT NULL,
        subject_id uuid NOT NULL,
        generation bigint NOT NULL,
        restricted_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT pk_restricted_subject PRIMARY KEY (store_id, subject_id, generation)
    )
    """,
)


def create_second() -> None:
    """Whose data is on hold, and what a task to correct something comes with."""
    for statement in _SECOND:
        execute(statement)
    isolate_stores("restricted_subject")


_RESTORATIONS = """
    CREATE TABLE restoration (
        id uuid CONSTRAINT pk_restoration PRIMARY KEY DEFAULT gen_random_uuid(),
        taken_at timestamptz NOT NULL,
        restored_at timestamptz NOT NULL DEFAULT now(),
        announced_at timestamptz,
        indexed_at timestamptz
    )
"""


def create_restorations() -> None:
    """From which backups this database was restored, and when."""
    execute(_RESTORATIONS)


_STORE_STATES = (
    """
    ALTER TABLE known_store
        ADD COLUMN state varchar NOT NULL DEFAULT 'open'
            CONSTRAINT ck_known_store_state CHECK (state IN ('open', 'closed', 'ended')),
        ADD COLUMN clean_at timestamptz,
        ADD COLUMN cleaned_at timestamptz
    """,
    "CREATE INDEX ix_known_store_not_open ON known_store (store_id) WHERE state <> 'open'",
    "CREATE INDEX ix_known_store_clean_at ON known_store (clean_at) WHERE clean_at IS NOT NULL",
)


def create_store_states() -> None:
    """Whether a store is open, closed or has ended, and what is left to remove of it."""
    for statement in _STORE_STATES:
        execute(statement)


_THIRD = ("ALTER TABLE participant_job ADD COLUMN also jsonb NOT NULL DEFAULT '[]'",)


def create_third() -> None:
    """The other subjects of the person whom a task is about."""
    for statement in _THIRD:
        execute(statement)


_EXPIRY = (
    """
    CREATE TABLE expired_bucket (
        store_id uuid NOT NULL,
        subject_id uuid NOT NULL,
        generation bigint NOT NULL,
        retention varchar NOT NULL,
        bucket varchar NOT NULL,
        key_ids uuid[] NOT NULL,
        counts jsonb NOT NULL DEFAULT '{}',
        next_try_at timestamptz NOT NULL DEFAULT now(),
        cleaned_at timestamptz,
        CONSTRAINT pk_expired_bucket PRIMARY KEY (store_id, subject_id, generation, retention, bucket)
    )
    """,
    "CREATE INDEX ix_expired_bucket_due ON expired_bucket (next_try_at) WHERE cleaned_at IS NULL",
    "CREATE INDEX ix_expired_bucket_cleaned_at ON expired_bucket (cleaned_at) WHERE cleaned_at IS NOT NULL",
)


def create_expiry() -> None:
    """What is past the time for which it is kept."""
    for statement in _EXPIRY:
        execute(statement)
    isolate_stores("expired_bucket")
