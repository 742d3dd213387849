"""Cards."""

import sqlalchemy as sa
from alembic import op

from libs.common.migrations import isolate_stores
from libs.common.tables import create_first

revision = "0001"
down_revision = None


def upgrade() -> None:
    create_first()
    op.create_table(
        "card",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("store_id", sa.Uuid(), nullable=False),
        sa.Column("subject_id", sa.Uuid(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("holder", sa.LargeBinary(), nullable=False),
        sa.Column("points", sa.BigInteger(), nullable=False),
    )
    op.create_index("ix_card_store_id_subject_id", "card", ["store_id", "subject_id"])
    isolate_stores("card")
