"""What an erasure left under further addresses, and what is under a period that was begun anew."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    op.add_column(
        "request", sa.Column("several", sa.Boolean, server_default=sa.text("false"), nullable=False)
    )
    op.create_index("ix_request_several", "request", ["store_id"], postgresql_where=sa.text("several"))
    # Of a bucket that went on after it had expired: the keys that went then.
    for name in ("left_by", "past_key_ids"):
        op.add_column("expiry", sa.Column(name, sa.ARRAY(sa.Uuid), server_default="{}", nullable=False))
    op.create_index("ix_expiry_past", "expiry", ["over_at"], postgresql_where=sa.text("past_key_ids <> '{}'"))
