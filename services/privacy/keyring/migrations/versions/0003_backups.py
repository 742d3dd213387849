"""What shows that a keyring was restored, the log it belongs to, and secrets of blind indexes that can change."""

from alembic import op

from libs.common.migrations import isolate_stores
from libs.common.tables import create_restorations

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    create_restorations()
    op.execute("""
        CREATE TABLE log_seen (
            only_row boolean CONSTRAINT pk_log_seen PRIMARY KEY DEFAULT true
                CONSTRAINT ck_log_seen_only_row CHECK (only_row),
            log_id uuid,
            key_id uuid
        )
    """)
    op.execute("INSERT INTO log_seen DEFAULT VALUES")
    op.execute("""
        CREATE TABLE index_secret (
            store_id uuid NOT NULL,
            epoch bigint NOT NULL,
            wrapped bytea NOT NULL,
            master_key_id varchar NOT NULL,
            writes_from timestamptz NOT NULL DEFAULT now(),
            CONSTRAINT pk_index_secret PRIMARY KEY (store_id, epoch)
        )
    """)
    op.execute("""
        CREATE TABLE index_report (
            store_id uuid NOT NULL,
            epoch bigint NOT NULL,
            service varchar NOT NULL,
            reported_at timestamptz NOT NULL DEFAULT now(),
            CONSTRAINT pk_index_report PRIMARY KEY (store_id, epoch, service)
        )
    """)
    isolate_stores("index_secret", "index_report")
