"""Notes, deadlines that stop, what a store says of its mails, and where its privacy desk is."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from libs.common.migrations import isolate_stores

revision = "0005"
down_revision = "0004"

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    _time_requests()
    _keep_notes()
    _address_notices()
    _widen_settings()


def _time_requests() -> None:
    for name in ("received_at", "overdue_at", "acknowledged_at"):
        op.add_column("request", sa.Column(name, _TIME))


def _keep_notes() -> None:
    op.create_table(
        "request_note",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("request_id", sa.Uuid, nullable=False),
        sa.Column("store_id", sa.Uuid, nullable=False),
        sa.Column("subject_id", sa.Uuid, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("about", sa.String, nullable=False),
        sa.Column("author", sa.Uuid),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("box", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_request_note"),
        sa.CheckConstraint(
            "about IN ('note', 'evidence', 'question', 'answer', 'reason')", name="ck_request_note_about"
        ),
    )
    op.create_index("ix_request_note_request_id", "request_note", ["request_id", "at", "id"])
    op.create_index("ix_request_note_subject", "request_note", ["store_id", "subject_id"])
    isolate_stores("request_note")


def _address_notices() -> None:
    op.add_column("notice", sa.Column("note_id", sa.Uuid))
    op.drop_constraint("ck_notice_reader", "notice")
    op.create_check_constraint(
        op.f("ck_notice_reader"), "notice", "reader IN ('person', 'officer', 'agent', 'platform')"
    )


def _widen_settings() -> None:
    op.add_column("privacy_settings", sa.Column("lifting_notice_days", sa.BigInteger))
    op.add_column(
        "privacy_settings",
        sa.Column("branding", JSONB, server_default=sa.text("'{}'::jsonb"), nullable=False),
    )
    op.create_table(
        "privacy_desk",
        sa.Column("store_id", sa.Uuid, nullable=False),
        sa.Column("subject_id", sa.Uuid, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("box", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("store_id", name="pk_privacy_desk"),
    )
    op.create_index("ix_privacy_desk_subject", "privacy_desk", ["store_id", "subject_id"])
    isolate_stores("privacy_desk")
