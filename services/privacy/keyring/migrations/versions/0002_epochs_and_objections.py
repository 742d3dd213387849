"""Several keys of a place, one after the other, and purposes that people objected to."""

from alembic import op

from libs.common.migrations import isolate_stores

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute("""
        ALTER TABLE data_key
            ADD COLUMN epoch bigint NOT NULL DEFAULT 1,
            ADD COLUMN retired_at timestamptz,
            DROP CONSTRAINT uq_data_key_store_id_subject_id_generation_retention_bucket,
            ADD CONSTRAINT uq_data_key_place
                UNIQUE (store_id, subject_id, generation, retention, bucket, epoch)
    """)
    op.execute("""
        CREATE TABLE objection (
            store_id uuid NOT NULL,
            subject_id uuid NOT NULL,
            generation bigint NOT NULL,
            purpose varchar NOT NULL,
            objected_at timestamptz NOT NULL DEFAULT now(),
            CONSTRAINT pk_objection PRIMARY KEY (store_id, subject_id, generation, purpose)
        )
    """)
    isolate_stores("objection")
