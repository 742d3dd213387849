"""Which log this is: a keyring opens nothing beside another one."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE log_identity (
            only_row boolean CONSTRAINT pk_log_identity PRIMARY KEY DEFAULT true
                CONSTRAINT ck_log_identity_only_row CHECK (only_row),
            id uuid NOT NULL DEFAULT gen_random_uuid()
        )
    """)
    op.execute("INSERT INTO log_identity DEFAULT VALUES")
