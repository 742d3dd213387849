"""What is past the time for which it is kept."""

from libs.common.tables import create_expiry

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    create_expiry()
