"""Whose data is on hold, what a task to correct something comes with, and corrections beside invoices."""

import sqlalchemy as sa
from alembic import op

from libs.common.migrations import isolate_stores
from libs.common.tables import create_second

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    create_second()
    op.create_index(
        "ix_receivable_on_hold",
        "receivable",
        ["order_id"],
        postgresql_where=sa.text("state = 'paid' AND contact IS NOT NULL"),
    )
    op.create_table(
        "invoice_correction",
        sa.Column("request_id", sa.Uuid, nullable=False),
        sa.Column("invoice_id", sa.Uuid, nullable=False),
        sa.Column("store_id", sa.Uuid, nullable=False),
        sa.Column("subject_id", sa.Uuid, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("year", sa.BigInteger, nullable=False),
        sa.Column("box", sa.LargeBinary, nullable=False),
        sa.Column("noted_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("request_id", "invoice_id", name="pk_invoice_correction"),
        sa.ForeignKeyConstraint(["invoice_id"], ["invoice.id"], name="fk_invoice_correction_invoice_id"),
    )
    op.create_index("ix_invoice_correction_invoice", "invoice_correction", ["store_id", "invoice_id"])
    op.create_index("ix_invoice_correction_subject", "invoice_correction", ["store_id", "subject_id"])
    isolate_stores("invoice_correction")
