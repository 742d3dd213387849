"""Parts of requests that others answer for, participants that leave, and recipients outside."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0014"
down_revision = "0013"

_TIME = sa.DateTime(timezone=True)
_DUE = "next_issue_at IS NOT NULL AND participant <> 'keyring' AND recipient_id IS NULL"


def upgrade() -> None:
    _know_more_states()
    _tell_recipients_apart()
    _let_participants_come_and_go()


def _know_more_states() -> None:
    op.drop_constraint("ck_task_state", "task")
    op.create_check_constraint(
        "ck_task_state",
        "task",
        "state IN ('waiting', 'done', 'nothing-held', 'retained', 'failed', 'received', 'told', 'settled')",
    )
    op.drop_constraint("ck_request_note_about", "request_note")
    op.create_check_constraint(
        "ck_request_note_about",
        "request_note",
        "about IN ('note', 'evidence', 'question', 'answer', 'reason', 'settlement')",
    )


def _tell_recipients_apart() -> None:
    op.add_column("task", sa.Column("recipient_id", sa.Uuid))
    op.add_column("task", sa.Column("asked_at", _TIME))
    op.execute("UPDATE task SET asked_at = now() WHERE next_issue_at IS NOT NULL")
    op.drop_index("ix_task_due", "task")
    op.create_index("ix_task_due", "task", ["next_issue_at"], postgresql_where=sa.text(_DUE))
    op.create_index(
        "ix_task_recipient",
        "task",
        ["recipient_id", "next_issue_at"],
        postgresql_where=sa.text("next_issue_at IS NOT NULL AND recipient_id IS NOT NULL"),
    )


def _let_participants_come_and_go() -> None:
    op.add_column("participant", sa.Column("joining_until", _TIME))
    op.create_table(
        "departure",
        sa.Column("name", sa.String, nullable=False),
        sa.Column("departed_at", _TIME, nullable=False),
        sa.Column("departed_by", sa.Uuid, nullable=False),
        sa.Column("ground", sa.String, nullable=False),
        sa.Column("successor", sa.String),
        sa.Column("public_key", JSONB, nullable=False),
        sa.Column("data_map", JSONB, nullable=False),
        sa.Column("handed_over_at", _TIME),
        sa.Column("readmitted_at", _TIME),
        sa.Column("readmitted_by", sa.Uuid),
        sa.PrimaryKeyConstraint("name", "departed_at", name="pk_departure"),
        sa.CheckConstraint("ground IN ('taken-over', 'never-held', 'erased')", name="ck_departure_ground"),
    )
