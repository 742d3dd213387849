"""Archives that are assembled once and kept sealed, and addresses they are fetched from."""

import sqlalchemy as sa
from alembic import op

from libs.common.migrations import isolate_stores

revision = "0004"
down_revision = "0003"

_TIME = sa.DateTime(timezone=True)


def _person() -> list[sa.Column[object]]:
    return [
        sa.Column("store_id", sa.Uuid, nullable=False),
        sa.Column("subject_id", sa.Uuid, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
    ]


def upgrade() -> None:
    op.create_table(
        "archive",
        sa.Column("request_id", sa.Uuid, nullable=False),
        *_person(),
        sa.Column("round", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String, server_default="making", nullable=False),
        sa.Column("attempts", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("due_at", _TIME, server_default=sa.func.now(), nullable=False),
        sa.Column("pieces", sa.BigInteger),
        sa.Column("size", sa.BigInteger),
        sa.Column("sha256", sa.LargeBinary),
        sa.Column("ready_at", _TIME),
        sa.PrimaryKeyConstraint("request_id", name="pk_archive"),
        sa.CheckConstraint("state IN ('making', 'ready')", name="ck_archive_state"),
    )
    op.create_index("ix_archive_due", "archive", ["due_at"], postgresql_where=sa.text("state = 'making'"))
    op.create_index("ix_archive_subject", "archive", ["store_id", "subject_id"])
    op.create_table(
        "archive_piece",
        sa.Column("request_id", sa.Uuid, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        *_person(),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("box", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("request_id", "sequence", name="pk_archive_piece"),
    )
    op.create_index("ix_archive_piece_subject", "archive_piece", ["store_id", "subject_id"])
    op.create_table(
        "download_grant",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("secret_hash", sa.LargeBinary, nullable=False),
        sa.Column("token_hash", sa.LargeBinary, nullable=False),
        sa.Column("request_id", sa.Uuid, nullable=False),
        *_person(),
        sa.Column("expires_at", _TIME, nullable=False),
        sa.Column("begun", sa.Boolean, server_default=sa.false(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_download_grant"),
    )
    op.create_index("ix_download_grant_expires_at", "download_grant", ["expires_at"])
    op.create_index("ix_download_grant_subject", "download_grant", ["store_id", "subject_id"])
    isolate_stores("archive", "archive_piece", "download_grant")
