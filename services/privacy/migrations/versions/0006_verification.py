"""Ways in without an account: agents, documents and what was seen in them, keys that end alone, attempts."""

import sqlalchemy as sa
from alembic import op

from libs.common.migrations import isolate_stores

revision = "0006"
down_revision = "0005"

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("request", sa.Column("agent", sa.LargeBinary))
    _keep_documents()
    _end_keys()
    _count_attempts()
    isolate_stores("verification_document", "document_check", "doomed_key", "attempts")


def _keep_documents() -> None:
    op.create_table(
        "verification_document",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("request_id", sa.Uuid, nullable=False),
        sa.Column("store_id", sa.Uuid, nullable=False),
        sa.Column("subject_id", sa.Uuid, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("media_type", sa.String, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("openings", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("uploaded_at", _TIME, nullable=False),
        sa.Column("box", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_verification_document"),
        sa.CheckConstraint(
            "media_type IN ('application/pdf', 'image/jpeg', 'image/png')",
            name="ck_verification_document_media_type",
        ),
    )
    op.create_index("ix_verification_document_request_id", "verification_document", ["request_id"])
    op.create_index("ix_verification_document_subject", "verification_document", ["store_id", "subject_id"])
    op.create_index("ix_verification_document_uploaded_at", "verification_document", ["uploaded_at"])
    op.create_table(
        "document_check",
        sa.Column("document_id", sa.Uuid, nullable=False),
        sa.Column("request_id", sa.Uuid, nullable=False),
        sa.Column("store_id", sa.Uuid, nullable=False),
        sa.Column("outcome", sa.String, nullable=False),
        sa.Column("checked_by", sa.Uuid),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("openings", sa.BigInteger, nullable=False),
        sa.Column("destroyed_at", _TIME),
        sa.PrimaryKeyConstraint("document_id", name="pk_document_check"),
        sa.CheckConstraint(
            "outcome IN ('accepted', 'rejected', 'unseen', 'erased')", name="ck_document_check_outcome"
        ),
    )
    op.create_index("ix_document_check_request_id", "document_check", ["request_id", "at"])


def _end_keys() -> None:
    op.create_table(
        "doomed_key",
        sa.Column("store_id", sa.Uuid, nullable=False),
        sa.Column("bucket", sa.Uuid, nullable=False),
        sa.Column("retention", sa.String, nullable=False),
        sa.Column("subject_id", sa.Uuid, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("next_try_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("store_id", "bucket", name="pk_doomed_key"),
    )
    op.create_index("ix_doomed_key_next_try_at", "doomed_key", ["next_try_at"])
    op.create_index("ix_doomed_key_subject", "doomed_key", ["store_id", "subject_id"])


def _count_attempts() -> None:
    op.create_table(
        "attempts",
        sa.Column("store_id", sa.Uuid, nullable=False),
        sa.Column("key_hash", sa.LargeBinary, nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("expires_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("store_id", "key_hash", name="pk_attempts"),
    )
    op.create_index("ix_attempts_expires_at", "attempts", ["expires_at"])
