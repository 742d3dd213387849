"""Buckets whose time is over: nothing is sealed in them again."""

from alembic import op

from libs.common.migrations import isolate_stores

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE ended_bucket (
            store_id uuid NOT NULL,
            subject_id uuid NOT NULL,
            generation bigint NOT NULL,
            retention varchar NOT NULL,
            bucket varchar NOT NULL,
            ended_at timestamptz NOT NULL DEFAULT now(),
            CONSTRAINT pk_ended_bucket PRIMARY KEY (store_id, subject_id, generation, retention, bucket)
        )
    """)
    op.execute("CREATE INDEX ix_ended_bucket_ended_at ON ended_bucket (ended_at)")
    isolate_stores("ended_bucket")
