"""Further e-mail addresses of an account, and tasks about several subjects of one person."""

import sqlalchemy as sa
from alembic import op

from libs.common.migrations import isolate_stores
from libs.common.tables import create_third

revision = "0005"
down_revision = "0004"

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    create_third()
    op.create_table(
        "account_email",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("store_id", sa.Uuid, nullable=False),
        sa.Column("account_id", sa.Uuid, nullable=False),
        sa.Column("subject_id", sa.Uuid, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("email_subject_id", sa.Uuid, nullable=False),
        sa.Column("email_generation", sa.BigInteger, nullable=False),
        sa.Column("token_hash", sa.LargeBinary, nullable=False),
        sa.Column("box", sa.LargeBinary, nullable=False),
        sa.Column("asked_at", _TIME, nullable=False),
        sa.Column("expires_at", _TIME, nullable=False),
        sa.Column("confirmed_at", _TIME),
        sa.PrimaryKeyConstraint("id", name="pk_account_email"),
        sa.ForeignKeyConstraint(
            ["account_id"], ["account.id"], name="fk_account_email_account_id_account", ondelete="CASCADE"
        ),
        sa.UniqueConstraint(
            "account_id", "email_subject_id", name="uq_account_email_account_id_email_subject_id"
        ),
        sa.UniqueConstraint("store_id", "token_hash", name="uq_account_email_store_id_token_hash"),
    )
    op.create_index("ix_account_email_subject", "account_email", ["store_id", "subject_id"])
    op.create_index("ix_account_email_expires_at", "account_email", ["expires_at"])
    op.create_index(
        "uq_account_email_confirmed",
        "account_email",
        ["store_id", "email_subject_id"],
        unique=True,
        postgresql_where=sa.text("confirmed_at IS NOT NULL"),
    )
    isolate_stores("account_email")
