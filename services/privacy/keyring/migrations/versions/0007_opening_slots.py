"""A counter of openings has a row for each of several connections, so that none waits for another's commit."""

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.execute("ALTER TABLE opening_count ADD COLUMN slot smallint NOT NULL DEFAULT 0")
    op.execute("ALTER TABLE opening_count ALTER COLUMN slot DROP DEFAULT")
    op.execute("ALTER TABLE opening_count DROP CONSTRAINT pk_opening_count")
    op.execute(
        "ALTER TABLE opening_count ADD CONSTRAINT pk_opening_count PRIMARY KEY (day, service, purpose, slot)"
    )
