"""Accounts, sign-ups, sessions, stores, members, attempts, signing keys; and the platform's own store."""

import zlib
from uuid import UUID

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from libs.common.events import envelope_of, headers_of
from libs.common.events.identity import StoreOpened
from libs.common.migrations import isolate_stores
from libs.common.tables import create_first

revision = "0001"
down_revision = None

PLATFORM = StoreOpened(
    store_id=UUID("00000000-0000-4000-8000-000000000001"),
    slug="vitrine",
    name="Vitrine",
    country="FR",
    currency="EUR",
    language="en",
    version=1,
)


def upgrade() -> None:
    create_first()
    _create_people()
    _create_stores()
    _create_machinery()
    _open_the_platforms_own_store()
    isolate_stores("account", "sign_up", "account_session", "store", "membership", "attempts")


def _create_people() -> None:
    op.create_table(
        "account",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("store_id", sa.Uuid(), nullable=False),
        sa.Column("subject_id", sa.Uuid(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("email_index", sa.LargeBinary(), nullable=False),
        sa.Column("profile", sa.LargeBinary(), nullable=False),
        sa.Column("credentials", sa.LargeBinary(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("confirmed_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_account"),
        sa.UniqueConstraint("store_id", "email_index", name="uq_account_store_id_email_index"),
    )
    op.create_index("ix_account_subject", "account", ["store_id", "subject_id"])
    op.create_table(
        "sign_up",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("store_id", sa.Uuid(), nullable=False),
        sa.Column("subject_id", sa.Uuid(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("email_index", sa.LargeBinary(), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("profile", sa.LargeBinary()),
        sa.Column("credentials", sa.LargeBinary()),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name="pk_sign_up"),
        sa.UniqueConstraint("store_id", "email_index", name="uq_sign_up_store_id_email_index"),
        sa.UniqueConstraint("store_id", "token_hash", name="uq_sign_up_store_id_token_hash"),
    )
    op.create_index("ix_sign_up_subject", "sign_up", ["store_id", "subject_id"])
    op.create_index("ix_sign_up_expires_at", "sign_up", ["expires_at"])
    # What is keyed by people's e-mails is not described to anybody: PostgreSQL keeps no statistics of it.
    op.execute("ALTER TABLE account ALTER COLUMN email_index SET STATISTICS 0")
    op.execute("ALTER TABLE sign_up ALTER COLUMN email_index SET STATISTICS 0")
    op.create_table(
        "account_session",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("store_id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("subject_id", sa.Uuid(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("family", sa.Uuid(), nullable=False),
        sa.Column("current_hash", sa.LargeBinary(), nullable=False),
        sa.Column("previous_hash", sa.LargeBinary()),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("rotated_at", sa.DateTime(timezone=True)),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name="pk_account_session"),
        sa.UniqueConstraint("family", name="uq_account_session_family"),
        sa.ForeignKeyConstraint(
            ["account_id"], ["account.id"], ondelete="CASCADE", name="fk_account_session_account_id"
        ),
    )
    op.create_index("ix_account_session_account_id", "account_session", ["account_id"])
    op.create_index("ix_account_session_subject", "account_session", ["store_id", "subject_id"])
    op.create_index("ix_account_session_expires_at", "account_session", ["expires_at"])


def _create_stores() -> None:
    op.create_table(
        "store",
        sa.Column("store_id", sa.Uuid(), nullable=False),
        sa.Column("slug", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("country", sa.String(), nullable=False),
        sa.Column("currency", sa.String(), nullable=False),
        sa.Column("language", sa.String(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("store_id", name="pk_store"),
        sa.UniqueConstraint("slug", name="uq_store_slug"),
    )
    op.create_table(
        "membership",
        sa.Column("store_id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("store_id", "account_id", name="pk_membership"),
        sa.ForeignKeyConstraint(
            ["store_id"], ["store.store_id"], ondelete="CASCADE", name="fk_membership_store_id"
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["account.id"], ondelete="CASCADE", name="fk_membership_account_id"
        ),
    )
    op.create_index("ix_membership_account_id", "membership", ["account_id"])


def _create_machinery() -> None:
    op.create_table(
        "attempts",
        sa.Column("store_id", sa.Uuid(), nullable=False),
        sa.Column("key_hash", sa.LargeBinary(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("store_id", "key_hash", name="pk_attempts"),
    )
    op.create_index("ix_attempts_expires_at", "attempts", ["expires_at"])
    op.create_table(
        "signing_key",
        sa.Column("key_id", sa.String(), nullable=False),
        sa.Column("public", postgresql.JSONB(), nullable=False),
        sa.Column("wrapped", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("active_from", sa.DateTime(timezone=True), nullable=False),
        sa.Column("retired_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("key_id", name="pk_signing_key"),
    )


def _open_the_platforms_own_store() -> None:
    """As any store is opened: a row, and the event that tells every service."""
    store = sa.table("store", *map(sa.column, PLATFORM.model_dump()))
    op.execute(sa.insert(store).values(PLATFORM.model_dump()))
    envelope = envelope_of(PLATFORM, store_id=PLATFORM.store_id, source="identity")
    outbox = sa.table(
        "outbox",
        *map(sa.column, ("store_id", "bucket", "topic", "key", "payload")),
        sa.column("headers", postgresql.JSONB()),
    )
    # Row-level security is forced upon the owner too, and the outbox has it already.
    op.execute(
        sa.text("SELECT set_config('app.store', :store, true)").bindparams(store=str(PLATFORM.store_id))
    )
    op.execute(
        sa.insert(outbox).values(
            store_id=PLATFORM.store_id,
            bucket=zlib.crc32(envelope.key.encode()) % 16,
            topic=PLATFORM.topic,
            key=envelope.key,
            headers=headers_of(envelope),
            payload=PLATFORM.model_dump_json().encode(),
        )
    )
    op.execute("SELECT set_config('app.store', '', true)")
