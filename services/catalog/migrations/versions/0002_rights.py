"""Whose data is on hold, and what a task to correct something comes with."""

from libs.common.tables import create_second

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    create_second()
