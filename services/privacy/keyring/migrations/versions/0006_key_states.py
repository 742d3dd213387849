"""Keys that are not simply active are counted without looking at all others."""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.execute("CREATE INDEX ix_data_key_restricted ON data_key (key_id) WHERE state = 'restricted'")
    op.execute("CREATE INDEX ix_data_key_retired ON data_key (key_id) WHERE retired_at IS NOT NULL")
