"""Periods that run, what a store has chosen of them, and legal holds."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from libs.common.migrations import isolate_stores
from libs.common.tables import create_expiry

revision = "0013"
down_revision = "0012"

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    create_expiry()
    _count_periods()
    _let_stores_choose()
    _hold()
    # Of an erasure: what a legal hold kept from it, and until when.
    op.add_column("request", sa.Column("held", JSONB))
    isolate_stores("expiry", "retention_settings", "legal_hold")


def _count_periods() -> None:
    op.create_table(
        "expiry",
        sa.Column("store_id", sa.Uuid, nullable=False),
        sa.Column("subject_id", sa.Uuid, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("retention", sa.String, nullable=False),
        sa.Column("bucket", sa.String, nullable=False),
        sa.Column("clock", sa.String, nullable=False),
        sa.Column("started_at", _TIME, nullable=False),
        sa.Column("version", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("expires_on", sa.Date),
        sa.Column("due_at", _TIME),
        sa.Column("revision", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("told_on", sa.Date),
        sa.Column("next_try_at", _TIME),
        sa.Column("attempts", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("key_ids", sa.ARRAY(sa.Uuid), server_default="{}", nullable=False),
        sa.Column("waiting", sa.ARRAY(sa.String), server_default="{}", nullable=False),
        sa.Column("destroyed_at", _TIME),
        sa.Column("over_at", _TIME),
        sa.Column("next_clock", sa.String),
        sa.Column("next_started_at", _TIME),
        sa.Column("others", sa.ARRAY(sa.Uuid), server_default="{}", nullable=False),
        sa.PrimaryKeyConstraint(
            "store_id", "subject_id", "generation", "retention", "bucket", name="pk_expiry"
        ),
        sa.CheckConstraint(
            "state IN ('running', 'stopped', 'destroying', 'cleaning', 'over')", name="ck_expiry_state"
        ),
    )
    op.create_index("ix_expiry_due", "expiry", ["due_at"], postgresql_where=sa.text("state = 'running'"))
    op.create_index(
        "ix_expiry_untold",
        "expiry",
        ["store_id", "subject_id"],
        postgresql_where=sa.text("told_on IS DISTINCT FROM expires_on AND state IN ('running', 'stopped')"),
    )
    op.create_index(
        "ix_expiry_under_way",
        "expiry",
        ["next_try_at"],
        postgresql_where=sa.text("state IN ('destroying', 'cleaning')"),
    )
    op.create_index(
        "ix_expiry_revision",
        "expiry",
        ["store_id", "revision"],
        postgresql_where=sa.text("state IN ('running', 'stopped')"),
    )
    op.create_index(
        "ix_expiry_forecast",
        "expiry",
        ["store_id", "expires_on"],
        postgresql_where=sa.text("state = 'running'"),
    )
    op.create_index("ix_expiry_over_at", "expiry", ["over_at"], postgresql_where=sa.text("state = 'over'"))


def _let_stores_choose() -> None:
    op.create_table(
        "retention_settings",
        sa.Column("store_id", sa.Uuid, nullable=False),
        sa.Column("lengths", JSONB, server_default=sa.text("'{}'"), nullable=False),
        sa.Column("zone", sa.String, server_default="UTC", nullable=False),
        sa.Column("revision", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("version", sa.BigInteger, server_default="1", nullable=False),
        sa.PrimaryKeyConstraint("store_id", name="pk_retention_settings"),
    )


def _hold() -> None:
    op.create_table(
        "legal_hold",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("store_id", sa.Uuid, nullable=False),
        sa.Column("subject_id", sa.Uuid),
        sa.Column("retentions", sa.ARRAY(sa.String), nullable=False),
        sa.Column("ground", sa.String, nullable=False),
        sa.Column("until", sa.Date, nullable=False),
        sa.Column("ends_at", _TIME, nullable=False),
        sa.Column("placed_by", sa.Uuid, nullable=False),
        sa.Column("placed_at", _TIME, nullable=False),
        sa.Column("lifted_by", sa.Uuid),
        sa.Column("lifted_at", _TIME),
        sa.PrimaryKeyConstraint("id", name="pk_legal_hold"),
        sa.CheckConstraint(
            "ground IN ('litigation', 'claim-announced', 'order-of-an-authority', 'investigation')",
            name="ck_legal_hold_ground",
        ),
    )
    op.create_index("ix_legal_hold_listing", "legal_hold", ["store_id", "placed_at", "id"])
    op.create_index(
        "ix_legal_hold_in_force",
        "legal_hold",
        ["store_id", "subject_id"],
        postgresql_where=sa.text("lifted_at IS NULL"),
    )
