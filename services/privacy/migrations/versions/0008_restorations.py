"""From which backups this database was restored, and when."""

from libs.common.tables import create_restorations

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    create_restorations()
