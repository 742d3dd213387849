"""The log of destroyed keys."""

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE destroyed_key (
            key_id uuid CONSTRAINT pk_destroyed_key PRIMARY KEY,
            destroyed_at timestamptz NOT NULL DEFAULT now()
        )
    """)
    # A row that could be taken back would let a restored keyring open what was promised to be gone.
    op.execute("""
        CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'the destruction log only grows'; END $$
    """)
    op.execute("""
        CREATE TRIGGER only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON destroyed_key
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
    """)
