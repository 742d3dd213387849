"""Recipients outside, what is sent to them, and by what they know the person."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from libs.common.migrations import isolate_stores

revision = "0015"
down_revision = "0014"

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "recipient",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("store_id", sa.Uuid, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("role", sa.String, nullable=False),
        sa.Column("protocol", sa.String, nullable=False),
        sa.Column("state", sa.String, server_default="testing", nullable=False),
        sa.Column("why", sa.String),
        sa.Column("url", sa.String, nullable=False),
        sa.Column("verbs", postgresql.ARRAY(sa.String), nullable=False),
        sa.Column("options", postgresql.JSONB, server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("category", sa.String, server_default="", nullable=False),
        sa.Column("country", sa.String),
        sa.Column("contract", sa.String, server_default="", nullable=False),
        sa.Column("contract_on", sa.Date),
        sa.Column("safeguards", sa.String, server_default="", nullable=False),
        sa.Column("registered_at", _TIME, nullable=False),
        sa.Column("reached_at", _TIME),
        sa.Column("version", sa.BigInteger, server_default="1", nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_recipient"),
        sa.CheckConstraint("role IN ('processor', 'controller')", name="ck_recipient_role"),
        sa.CheckConstraint("protocol IN ('webhook', 'shopify', 'opendsr')", name="ck_recipient_protocol"),
        sa.CheckConstraint("state IN ('testing', 'active', 'paused', 'disabled')", name="ck_recipient_state"),
    )
    op.create_index("ix_recipient_listing", "recipient", ["store_id", "registered_at", "id"])
    op.create_table(
        "recipient_secret",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("recipient_id", sa.Uuid, nullable=False),
        sa.Column("store_id", sa.Uuid, nullable=False),
        sa.Column("wrapped", sa.LargeBinary, nullable=False),
        sa.Column("made_at", _TIME, nullable=False),
        sa.Column("ends_at", _TIME),
        sa.PrimaryKeyConstraint("id", name="pk_recipient_secret"),
    )
    op.create_index("ix_recipient_secret_recipient_id", "recipient_secret", ["recipient_id", "made_at"])
    _create_deliveries()
    op.create_table(
        "request_reference",
        sa.Column("request_id", sa.Uuid, nullable=False),
        sa.Column("participant", sa.String, nullable=False),
        sa.Column("round", sa.BigInteger, nullable=False),
        sa.Column("store_id", sa.Uuid, nullable=False),
        sa.Column("subject_id", sa.Uuid, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("box", sa.LargeBinary, nullable=False),
        sa.Column("kept_at", _TIME, server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("request_id", "participant", "round", name="pk_request_reference"),
    )
    op.create_index("ix_request_reference_subject", "request_reference", ["store_id", "subject_id"])
    isolate_stores("recipient", "recipient_secret", "delivery", "delivery_attempt", "request_reference")


def _create_deliveries() -> None:
    op.create_table(
        "delivery",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("store_id", sa.Uuid, nullable=False),
        sa.Column("recipient_id", sa.Uuid, nullable=False),
        sa.Column("what", sa.String, nullable=False),
        sa.Column("request_id", sa.Uuid),
        sa.Column("subject_id", sa.Uuid),
        sa.Column("generation", sa.BigInteger),
        sa.Column("round", sa.BigInteger, server_default="1", nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("body", sa.LargeBinary),
        sa.Column("memo", postgresql.JSONB),
        sa.Column("attempts", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("failures", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("next_try_at", _TIME),
        sa.Column("made_at", _TIME, nullable=False),
        sa.Column("taken_at", _TIME),
        sa.Column("answered_at", _TIME),
        sa.Column("answer_hash", sa.LargeBinary),
        sa.PrimaryKeyConstraint("id", name="pk_delivery"),
        sa.CheckConstraint(
            "state IN ('collecting', 'sending', 'received', 'done', 'stuck', 'void')",
            name="ck_delivery_state",
        ),
        sa.CheckConstraint("(request_id IS NULL) = (subject_id IS NULL)", name="ck_delivery_person"),
    )
    op.create_index(
        "uq_delivery_part", "delivery", ["request_id", "recipient_id", "what", "round"], unique=True,
        postgresql_where=sa.text("request_id IS NOT NULL"),
    )  # fmt: skip
    op.create_index(
        "uq_delivery_store_ended", "delivery", ["recipient_id"], unique=True,
        postgresql_where=sa.text("what = 'store-ended'"),
    )  # fmt: skip
    op.create_index(
        "ix_delivery_due", "delivery", ["next_try_at"], postgresql_where=sa.text("next_try_at IS NOT NULL")
    )
    op.create_index("ix_delivery_listing", "delivery", ["store_id", "recipient_id", "made_at", "id"])
    op.create_index("ix_delivery_subject", "delivery", ["store_id", "subject_id"])
    op.create_table(
        "delivery_attempt",
        sa.Column("delivery_id", sa.Uuid, nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("store_id", sa.Uuid, nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("status", sa.BigInteger),
        sa.Column("milliseconds", sa.BigInteger, nullable=False),
        sa.Column("word", sa.String, nullable=False),
        sa.PrimaryKeyConstraint("delivery_id", "number", name="pk_delivery_attempt"),
    )
