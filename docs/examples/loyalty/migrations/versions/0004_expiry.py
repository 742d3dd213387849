"""What is past the time for which it is kept."""

from libs.common.tables import create_expiry

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    create_expiry()
