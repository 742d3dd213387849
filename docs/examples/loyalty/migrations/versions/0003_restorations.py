"""From which backups this database was restored, and when."""

from libs.common.tables import create_restorations

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    create_restorations()
