"""Whether a store is open, closed or has ended."""

from libs.common.tables import create_store_states

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    create_store_states()
