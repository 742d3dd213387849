"""A task may be about several subjects of one person."""

from libs.common.tables import create_third

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    create_third()
