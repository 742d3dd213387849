"""Requests, tasks, exports."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from libs.common import tables
from libs.common.migrations import isolate_stores

revision = "0001"
down_revision = None

_OPEN = sa.text("state NOT IN ('completed', 'refused', 'cancelled')")
_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    tables.create_first()
    op.create_table(
        "participant",
        sa.Column("name", sa.String, nullable=False),
        sa.Column("public_key", JSONB, nullable=False),
        sa.Column("data_map", JSONB, nullable=False),
        sa.Column("announced_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_participant"),
    )
    op.create_table(
        "request",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("store_id", sa.Uuid, nullable=False),
        sa.Column("subject_id", sa.Uuid, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("claim", sa.String, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("steps", JSONB, nullable=False),
        sa.Column("round", sa.BigInteger, server_default="1", nullable=False),
        sa.Column("opened_at", _TIME, nullable=False),
        sa.Column("due_on", sa.Date, nullable=False),
        sa.Column("completed_at", _TIME),
        sa.Column("contact", sa.LargeBinary),
        sa.Column("notice", sa.String),
        sa.Column("notice_at", _TIME),
        sa.Column("traceparent", sa.String),
        sa.Column("version", sa.BigInteger, server_default="1", nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_request"),
        sa.CheckConstraint("claim IN ('access', 'erasure')", name="ck_request_claim"),
        sa.CheckConstraint(
            "state IN ('received', 'verifying', 'deciding', 'running', 'checking', 'completed', 'refused',"
            " 'cancelled')",
            name="ck_request_state",
        ),
    )
    op.create_index(
        "uq_request_open",
        "request",
        ["store_id", "subject_id", "generation", "claim"],
        unique=True,
        postgresql_where=_OPEN,
    )
    op.create_index("ix_request_listing", "request", ["store_id", "opened_at", "id"])
    op.create_index("ix_request_subject", "request", ["store_id", "subject_id", "opened_at", "id"])
    op.create_index(
        "ix_request_notice", "request", ["notice_at"], postgresql_where=sa.text("notice IS NOT NULL")
    )
    op.create_index("ix_request_state", "request", ["state"], postgresql_where=_OPEN)
    op.create_table(
        "task",
        sa.Column("request_id", sa.Uuid, nullable=False),
        sa.Column("participant", sa.String, nullable=False),
        sa.Column("verb", sa.String, nullable=False),
        sa.Column("store_id", sa.Uuid, nullable=False),
        sa.Column("state", sa.String, server_default="waiting", nullable=False),
        sa.Column("attempts", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("next_issue_at", _TIME),
        sa.Column("answer", JSONB),
        sa.Column("answered_at", _TIME),
        sa.PrimaryKeyConstraint("request_id", "participant", "verb", name="pk_task"),
        sa.CheckConstraint(
            "state IN ('waiting', 'done', 'nothing-held', 'retained', 'failed')", name="ck_task_state"
        ),
    )
    op.create_index(
        "ix_task_due",
        "task",
        ["next_issue_at"],
        postgresql_where=sa.text("next_issue_at IS NOT NULL AND participant <> 'keyring'"),
    )
    op.create_index(
        "ix_task_keyring",
        "task",
        ["next_issue_at"],
        postgresql_where=sa.text("next_issue_at IS NOT NULL AND participant = 'keyring'"),
    )
    op.create_table(
        "export_chunk",
        sa.Column("request_id", sa.Uuid, nullable=False),
        sa.Column("participant", sa.String, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("store_id", sa.Uuid, nullable=False),
        sa.Column("subject_id", sa.Uuid, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("round", sa.BigInteger, nullable=False),
        sa.Column("box", sa.LargeBinary, nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("request_id", "participant", "sequence", name="pk_export_chunk"),
    )
    op.create_index("ix_export_chunk_subject", "export_chunk", ["store_id", "subject_id"])
    op.create_table(
        "download",
        sa.Column("token_hash", sa.LargeBinary, nullable=False),
        sa.Column("request_id", sa.Uuid, nullable=False),
        sa.Column("store_id", sa.Uuid, nullable=False),
        sa.Column("subject_id", sa.Uuid, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("expires_at", _TIME, nullable=False),
        sa.Column("remaining", sa.BigInteger, nullable=False),
        sa.Column("created_at", _TIME, server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("token_hash", name="pk_download"),
    )
    op.create_index("ix_download_expires_at", "download", ["expires_at"])
    op.create_index("ix_download_subject", "download", ["store_id", "subject_id"])
    isolate_stores("request", "task", "export_chunk", "download")
