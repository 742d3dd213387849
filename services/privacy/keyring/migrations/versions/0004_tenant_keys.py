"""A store's own two keys, under which its people's keys lie; what was wrapped before stays as it is, and opens."""

from alembic import op

from libs.common.migrations import isolate_stores

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE tenant_key (
            key_id uuid CONSTRAINT pk_tenant_key PRIMARY KEY,
            store_id uuid NOT NULL,
            kind varchar NOT NULL CONSTRAINT ck_tenant_key_kind CHECK (kind IN ('ordinary', 'kept-by-law')),
            wrapped bytea,
            master_key_id varchar,
            created_at timestamptz NOT NULL DEFAULT now(),
            retired_at timestamptz,
            CONSTRAINT uq_tenant_key_store_id_kind UNIQUE (store_id, kind),
            CONSTRAINT ck_tenant_key_wrapped CHECK ((wrapped IS NULL) = (master_key_id IS NULL))
        )
    """)
    isolate_stores("tenant_key")
    for table in ("data_key", "store_secret"):
        op.execute(f"""
            ALTER TABLE {table}
                ADD COLUMN tenant_key_id uuid,
                ALTER COLUMN master_key_id DROP NOT NULL,
                ADD CONSTRAINT ck_{table}_wrapped_by_one CHECK (num_nonnulls(master_key_id, tenant_key_id) = 1)
        """)
    # By which the people's keys of a store that ended are found.
    op.execute("CREATE INDEX ix_data_key_retention ON data_key (store_id, retention)")
