"""What is on its way to recipients is counted without looking at all that has arrived."""

from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    op.execute("""
        CREATE INDEX ix_delivery_on_its_way ON delivery (recipient_id)
        WHERE state IN ('collecting', 'sending', 'received', 'stuck')
    """)
