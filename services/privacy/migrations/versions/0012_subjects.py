"""A person may have several subjects, which their requests are about together; who is asked before an erasure."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from libs.common.migrations import isolate_stores
from libs.common.tables import create_third

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    create_third()
    op.add_column("request", sa.Column("also", JSONB))
    op.add_column(
        "participant", sa.Column("prepares", sa.Boolean, server_default=sa.text("false"), nullable=False)
    )
    op.create_table(
        "person_subject",
        sa.Column("store_id", sa.Uuid, nullable=False),
        sa.Column("subject_id", sa.Uuid, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("person_id", sa.Uuid, nullable=False),
        sa.Column("joined_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("store_id", "subject_id", "generation", name="pk_person_subject"),
    )
    op.create_index("ix_person_subject_person", "person_subject", ["store_id", "person_id"])
    op.create_table(
        "removed_email",
        sa.Column("email_id", sa.Uuid, nullable=False),
        sa.Column("store_id", sa.Uuid, nullable=False),
        sa.Column("removed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("email_id", name="pk_removed_email"),
    )
    op.create_index("ix_removed_email_removed_at", "removed_email", ["removed_at"])
    isolate_stores("person_subject", "removed_email")
