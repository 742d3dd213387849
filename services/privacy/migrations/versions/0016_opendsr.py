"""Merchants' own privacy tools, and what they ask over OpenDSR."""

import sqlalchemy as sa
from alembic import op

from libs.common.migrations import isolate_stores

revision = "0016"
down_revision = "0015"

_TIME = sa.DateTime(timezone=True)
_STATUSES = "status IN ('pending', 'in_progress', 'completed', 'cancelled')"
_WAYS = ("session", "form", "staff", "agent", "restore", "closing", "opendsr")


def upgrade() -> None:
    _let_tools_ask()
    _register_tools()
    _keep_what_they_ask()
    _call_them_back()
    isolate_stores("opendsr_controller", "opendsr_key", "opendsr_request", "opendsr_part", "opendsr_callback")


def _let_tools_ask() -> None:
    op.drop_constraint("ck_request_way", "request")
    op.create_check_constraint("way", "request", f"way IN ({', '.join(repr(way) for way in _WAYS)})")
    op.drop_index("uq_request_open", "request")
    op.create_index(
        "uq_request_open",
        "request",
        [
            *("store_id", "subject_id", "generation", "claim"),
            sa.text("coalesce(purpose, '')"),
            sa.text("coalesce(category, '')"),
        ],
        unique=True,
        postgresql_where=sa.text(
            "state NOT IN ('cancelled', 'completed', 'refused') AND claim <> 'rectification' AND way <> 'opendsr'"
        ),
    )


def _register_tools() -> None:
    op.create_table(
        "opendsr_controller",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("store_id", sa.Uuid, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("callback_hosts", sa.ARRAY(sa.String), nullable=False),
        sa.Column("registered_by", sa.Uuid, nullable=False),
        sa.Column("registered_at", _TIME, nullable=False),
        sa.Column("revoked_at", _TIME),
        sa.Column("version", sa.BigInteger, server_default="1", nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_opendsr_controller"),
    )
    op.create_index(
        "ix_opendsr_controller_listing", "opendsr_controller", ["store_id", "registered_at", "id"]
    )
    op.create_table(
        "opendsr_key",
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.Column("store_id", sa.Uuid, nullable=False),
        sa.Column("controller_id", sa.Uuid, nullable=False),
        sa.Column("issued_at", _TIME, nullable=False),
        sa.Column("expires_at", _TIME),
        sa.PrimaryKeyConstraint("hash", name="pk_opendsr_key"),
    )
    op.create_index("ix_opendsr_key_controller_id", "opendsr_key", ["controller_id"])


def _keep_what_they_ask() -> None:
    op.create_table(
        "opendsr_request",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("store_id", sa.Uuid, nullable=False),
        sa.Column("controller_id", sa.Uuid, nullable=False),
        sa.Column("subject_request_id", sa.Uuid, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("regulation", sa.String, nullable=False),
        sa.Column("named", sa.ARRAY(sa.Uuid), nullable=False),
        sa.Column("callback_urls", sa.ARRAY(sa.String), nullable=False),
        sa.Column("received_at", _TIME, nullable=False),
        sa.Column("expected_at", _TIME, nullable=False),
        sa.Column("status", sa.String, server_default="pending", nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_opendsr_request"),
        sa.UniqueConstraint(
            "controller_id", "subject_request_id", name="uq_opendsr_request_controller_id_subject_request_id"
        ),
        sa.CheckConstraint("kind IN ('access', 'portability', 'erasure')", name="ck_opendsr_request_kind"),
        sa.CheckConstraint("regulation IN ('gdpr', 'ccpa')", name="ck_opendsr_request_regulation"),
        sa.CheckConstraint(_STATUSES, name="ck_opendsr_request_status"),
    )
    op.create_index(
        "ix_opendsr_request_open",
        "opendsr_request",
        ["id"],
        postgresql_where=sa.text("status IN ('pending', 'in_progress')"),
    )
    op.create_table(
        "opendsr_part",
        sa.Column("request_id", sa.Uuid, nullable=False),
        sa.Column("store_id", sa.Uuid, nullable=False),
        sa.Column("opendsr_id", sa.Uuid, nullable=False),
        sa.Column("token_hash", sa.LargeBinary),
        sa.PrimaryKeyConstraint("request_id", name="pk_opendsr_part"),
    )
    op.create_index("ix_opendsr_part_opendsr_id", "opendsr_part", ["opendsr_id"])


def _call_them_back() -> None:
    op.create_table(
        "opendsr_callback",
        sa.Column("id", sa.Uuid, server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("store_id", sa.Uuid, nullable=False),
        sa.Column("opendsr_id", sa.Uuid, nullable=False),
        sa.Column("url", sa.String, nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("made_at", _TIME, nullable=False),
        sa.Column("due_at", _TIME),
        sa.Column("attempts", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("delivered_at", _TIME),
        sa.Column("answer", sa.BigInteger),
        sa.Column("fault", sa.String),
        sa.PrimaryKeyConstraint("id", name="pk_opendsr_callback"),
        sa.CheckConstraint(_STATUSES, name="ck_opendsr_callback_status"),
    )
    op.create_index(
        "ix_opendsr_callback_due_at",
        "opendsr_callback",
        ["due_at"],
        postgresql_where=sa.text("due_at IS NOT NULL"),
    )
    op.create_index("ix_opendsr_callback_opendsr_id", "opendsr_callback", ["opendsr_id"])
