"""Secrets of stores, people, their keys, and how often these were opened."""

from alembic import op

from libs.common.migrations import isolate_stores

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE store_secret (
            store_id uuid CONSTRAINT pk_store_secret PRIMARY KEY,
            wrapped bytea NOT NULL,
            master_key_id varchar NOT NULL
        )
    """)
    op.execute("""
        CREATE TABLE subject (
            store_id uuid NOT NULL,
            subject_id uuid NOT NULL,
            generation bigint NOT NULL,
            generation_id uuid NOT NULL CONSTRAINT uq_subject_generation_id UNIQUE,
            begun_at timestamptz,
            erased_at timestamptz,
            CONSTRAINT pk_subject PRIMARY KEY (store_id, subject_id)
        )
    """)
    op.execute("""
        CREATE TABLE data_key (
            key_id uuid CONSTRAINT pk_data_key PRIMARY KEY,
            store_id uuid NOT NULL,
            subject_id uuid NOT NULL,
            generation bigint NOT NULL,
            retention varchar NOT NULL,
            bucket varchar NOT NULL,
            wrapped bytea NOT NULL,
            master_key_id varchar NOT NULL,
            state varchar NOT NULL DEFAULT 'active' CONSTRAINT ck_data_key_state
                CHECK (state IN ('active', 'restricted')),
            expires_on date,
            created_at timestamptz NOT NULL DEFAULT now(),
            CONSTRAINT uq_data_key_store_id_subject_id_generation_retention_bucket
                UNIQUE (store_id, subject_id, generation, retention, bucket)
        )
    """)
    # Every opening updates its counter: room in the page keeps those updates off the index.
    op.execute("""
        CREATE TABLE opening_count (
            day date NOT NULL,
            service varchar NOT NULL,
            purpose varchar NOT NULL,
            count bigint NOT NULL,
            CONSTRAINT pk_opening_count PRIMARY KEY (day, service, purpose)
        ) WITH (fillfactor = 25)
    """)
    isolate_stores("store_secret", "subject", "data_key")
