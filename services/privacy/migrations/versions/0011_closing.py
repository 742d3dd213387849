"""Closed accounts whose erasure is to be opened, stores that end, and everybody's part in it."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from libs.common.migrations import isolate_stores
from libs.common.tables import create_store_states

revision = "0011"
down_revision = "0010"

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    create_store_states()
    op.drop_constraint("ck_request_way", "request")
    op.create_check_constraint(
        "ck_request_way", "request", "way IN ('session', 'form', 'staff', 'agent', 'restore', 'closing')"
    )
    op.create_table(
        "closed_account",
        sa.Column("account_id", sa.Uuid, nullable=False),
        sa.Column("store_id", sa.Uuid, nullable=False),
        sa.Column("subject_id", sa.Uuid, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("contact", sa.LargeBinary, nullable=False),
        sa.Column("next_try_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("account_id", name="pk_closed_account"),
    )
    op.create_index("ix_closed_account_next_try_at", "closed_account", ["next_try_at"])
    op.create_index("ix_closed_account_subject", "closed_account", ["store_id", "subject_id"])
    op.create_table(
        "store_ending",
        sa.Column("store_id", sa.Uuid, nullable=False),
        sa.Column("ended_at", _TIME, nullable=False),
        sa.Column("waits_for", sa.String),
        sa.Column("keys_destroyed_at", _TIME),
        sa.Column("erased_at", _TIME),
        sa.Column("next_step_at", _TIME),
        sa.PrimaryKeyConstraint("store_id", name="pk_store_ending"),
        sa.CheckConstraint(
            "waits_for IN ('requests', 'restrictions', 'holds')", name="ck_store_ending_waits_for"
        ),
    )
    op.create_index("ix_store_ending_next_step_at", "store_ending", ["next_step_at"])
    op.create_index("ix_store_ending_listing", "store_ending", ["ended_at", "store_id"])
    op.create_table(
        "store_ending_part",
        sa.Column("store_id", sa.Uuid, nullable=False),
        sa.Column("participant", sa.String, nullable=False),
        sa.Column("kept", postgresql.JSONB, server_default=sa.text("'[]'::jsonb"), nullable=False),
        sa.Column("cleaned_at", _TIME),
        sa.PrimaryKeyConstraint("store_id", "participant", name="pk_store_ending_part"),
    )
    isolate_stores("closed_account", "store_ending", "store_ending_part")
