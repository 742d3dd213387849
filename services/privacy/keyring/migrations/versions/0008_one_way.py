"""Keys are found by whose they are: the other index led through all keys of a store, while it had no statistics."""

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.execute("DROP INDEX ix_data_key_retention")
