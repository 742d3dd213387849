"""Every right, by whom it is asked, who decides and when; what a store has decided; mails that are to be written."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from libs.common.migrations import isolate_stores

revision = "0002"
down_revision = "0001"

_OPEN = "state NOT IN ('cancelled', 'completed', 'refused')"
_TIME = sa.DateTime(timezone=True)
_EMPTY_LIST = sa.text("'[]'::jsonb")


def upgrade() -> None:
    _widen_requests()
    _note_notices()
    _keep_settings()


def _widen_requests() -> None:
    for column in (
        sa.Column("law", sa.String, server_default="gdpr", nullable=False),
        sa.Column("purpose", sa.String),
        sa.Column("category", sa.String),
        sa.Column("proposal", sa.LargeBinary),
        sa.Column("way", sa.String, server_default="session", nullable=False),
        sa.Column("proofs", JSONB, server_default=_EMPTY_LIST, nullable=False),
        sa.Column("order_number", sa.String),
        sa.Column("status_hash", sa.LargeBinary),
        sa.Column("verified_at", _TIME),
        sa.Column("decision", sa.String),
        sa.Column("decided_at", _TIME),
        sa.Column("decided_by", sa.Uuid),
        sa.Column("ground", sa.String),
        sa.Column("assignee", sa.Uuid),
        sa.Column("acknowledge_by", sa.Date),
        sa.Column("extended_at", _TIME),
        sa.Column("extension", sa.String),
        sa.Column("stops", JSONB, server_default=_EMPTY_LIST, nullable=False),
        sa.Column("watch", sa.String),
        sa.Column("watch_at", _TIME),
        sa.Column("escalated_at", _TIME),
        sa.Column("begins_at", _TIME),
    ):
        op.add_column("request", column)
    op.alter_column("request", "due_on", nullable=True)
    op.drop_constraint("ck_request_claim", "request")
    op.drop_index("uq_request_open", "request")
    for name, words in {
        "claim": "'access', 'portability', 'rectification', 'erasure', 'restriction', 'restriction-lifting',"
        " 'objection', 'consent-withdrawal', 'explanation'",
        "law": "'gdpr', 'ccpa'",
        "way": "'session', 'form', 'staff', 'agent'",
        "decision": "'by-itself', 'approved', 'refused'",
    }.items():
        op.create_check_constraint(op.f(f"ck_request_{name}"), "request", f"{name} IN ({words})")
    op.create_index(
        "uq_request_open",
        "request",
        [
            "store_id", "subject_id", "generation", "claim",
            sa.text("coalesce(purpose, '')"), sa.text("coalesce(category, '')"),
        ],
        unique=True,
        postgresql_where=sa.text(f"{_OPEN} AND claim <> 'rectification'"),
    )  # fmt: skip
    op.create_index(
        "ix_request_watch", "request", ["watch_at"], postgresql_where=sa.text("watch_at IS NOT NULL")
    )
    op.create_index("uq_request_status_hash", "request", ["status_hash"], unique=True)


def _note_notices() -> None:
    op.create_table(
        "notice",
        sa.Column("id", sa.Uuid, server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("store_id", sa.Uuid, nullable=False),
        sa.Column("request_id", sa.Uuid, nullable=False),
        sa.Column("template", sa.String, nullable=False),
        sa.Column("reader", sa.String, server_default="person", nullable=False),
        sa.Column("due_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_notice"),
        sa.CheckConstraint("reader IN ('person', 'officer', 'agent')", name="ck_notice_reader"),
    )
    op.create_index("ix_notice_due_at", "notice", ["due_at"])
    op.create_index("ix_notice_request_id", "notice", ["request_id"])
    op.execute(
        "INSERT INTO notice (store_id, request_id, template, due_at)"
        " SELECT store_id, id, notice, notice_at FROM request WHERE notice IS NOT NULL"
    )
    op.drop_index("ix_request_notice", "request")
    op.drop_column("request", "notice")
    op.drop_column("request", "notice_at")
    isolate_stores("notice")


def _keep_settings() -> None:
    op.create_table(
        "privacy_settings",
        sa.Column("store_id", sa.Uuid, nullable=False),
        sa.Column("passing", JSONB, server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("enough", JSONB, server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("version", sa.BigInteger, server_default="1", nullable=False),
        sa.PrimaryKeyConstraint("store_id", name="pk_privacy_settings"),
    )
    isolate_stores("privacy_settings")
