"""Which participants were restored from a backup, and what they are asked again for that."""

from alembic import op

from libs.common.migrations import isolate_stores

revision = "0010"
down_revision = "0009"

_STATEMENTS = (
    """
    CREATE TABLE returned (
        restoration_id uuid CONSTRAINT pk_returned PRIMARY KEY,
        participant varchar NOT NULL,
        taken_at timestamptz NOT NULL,
        heard_at timestamptz NOT NULL DEFAULT now(),
        compared_at timestamptz
    )
    """,
    """
    CREATE TABLE redo (
        restoration_id uuid NOT NULL,
        request_id uuid NOT NULL,
        verb varchar NOT NULL,
        participant varchar NOT NULL,
        store_id uuid NOT NULL,
        round bigint NOT NULL,
        answered_at timestamptz NOT NULL,
        attempts bigint NOT NULL DEFAULT 0,
        next_issue_at timestamptz NOT NULL DEFAULT now(),
        failed boolean NOT NULL DEFAULT false,
        done_at timestamptz,
        CONSTRAINT pk_redo PRIMARY KEY (restoration_id, request_id, verb)
    )
    """,
    "CREATE INDEX ix_redo_due ON redo (next_issue_at) WHERE done_at IS NULL",
    "CREATE INDEX ix_redo_request_id ON redo (request_id) WHERE done_at IS NULL",
    "ALTER TABLE request DROP CONSTRAINT ck_request_way",
    """
    ALTER TABLE request ADD CONSTRAINT ck_request_way
        CHECK (way IN ('session', 'form', 'staff', 'agent', 'restore'))
    """,
)


def upgrade() -> None:
    for statement in _STATEMENTS:
        op.execute(statement)
    isolate_stores("redo")
