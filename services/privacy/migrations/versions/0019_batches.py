"""The next of many buckets whose day has come are found without reading all of them."""

from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    op.execute("DROP INDEX ix_expiry_under_way")
    op.execute("""
        CREATE INDEX ix_expiry_under_way ON expiry (state, next_try_at) WHERE state IN ('destroying', 'cleaning')
    """)
    op.execute("""
        CREATE INDEX ix_expiry_clean ON expiry (destroyed_at) WHERE state = 'cleaning' AND waiting = '{}'
    """)
