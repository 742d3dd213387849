"""From which backups this database was restored, and when."""

from libs.common.tables import create_restorations

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    create_restorations()
