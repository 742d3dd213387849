"""Accounts and stores that are closed, how long their owners may come back, and the state of stores here too."""

import sqlalchemy as sa
from alembic import op

from libs.common.migrations import isolate_stores
from libs.common.tables import create_store_states

revision = "0004"
down_revision = "0003"

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    create_store_states()
    _close_accounts()
    _close_stores()
    _know_the_stores()


def _close_accounts() -> None:
    for name in ("closed_at", "ends_at", "remind_at", "ended_at"):
        op.add_column("account", sa.Column(name, _TIME))
    op.create_index(
        "ix_account_ends_at",
        "account",
        ["ends_at"],
        postgresql_where=sa.text("closed_at IS NOT NULL AND ended_at IS NULL"),
    )
    op.create_index(
        "ix_account_remind_at", "account", ["remind_at"], postgresql_where=sa.text("remind_at IS NOT NULL")
    )
    op.create_table(
        "account_settings",
        sa.Column("store_id", sa.Uuid, nullable=False),
        sa.Column("grace_days", sa.BigInteger, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("store_id", name="pk_account_settings"),
        sa.CheckConstraint("grace_days BETWEEN 0 AND 365", name="ck_account_settings_grace_days"),
    )
    isolate_stores("account_settings")


def _close_stores() -> None:
    op.add_column("store", sa.Column("state", sa.String, server_default="open", nullable=False))
    op.create_check_constraint("ck_store_state", "store", "state IN ('open', 'closed', 'ended')")
    for name in ("closed_at", "ends_at", "remind_at", "ended_at", "erased_at"):
        op.add_column("store", sa.Column(name, _TIME))
    op.add_column("store", sa.Column("closed_by", sa.Uuid))
    op.add_column("store", sa.Column("kept_until", sa.Date))
    op.create_index("ix_store_ends_at", "store", ["ends_at"], postgresql_where=sa.text("state = 'closed'"))
    op.create_index(
        "ix_store_remind_at", "store", ["remind_at"], postgresql_where=sa.text("remind_at IS NOT NULL")
    )
    op.create_index(
        "ix_store_untold",
        "store",
        ["store_id"],
        postgresql_where=sa.text("erased_at IS NOT NULL AND closed_by IS NOT NULL"),
    )


def _know_the_stores() -> None:
    # Row-level security is forced upon the owner too.
    op.execute("SELECT set_config('app.store', '*', true)")
    op.execute("""
        INSERT INTO known_store (store_id, slug, name, country, currency, language, version)
        SELECT store_id, slug, name, country, currency, language, version FROM store ON CONFLICT DO NOTHING
    """)
    op.execute("SELECT set_config('app.store', '', true)")
