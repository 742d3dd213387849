"""The evidence log: steps, their places in a tree, signed heads; certificates."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from libs.common.migrations import isolate_stores

revision = "0008"
down_revision = "0007"

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    _log()
    _heads()
    _certificates()
    isolate_stores(
        "evidence_pending",
        "evidence_leaf",
        "evidence_entry",
        "evidence_head",
        "certificate_due",
        "certificate",
    )
    _refuse_changes("evidence_leaf", "evidence_head", "certificate", "published_key")
    _refuse_changes("evidence_pending", "evidence_entry", but="DELETE")
    _keep_a_year()


def _log() -> None:
    op.create_table(
        "evidence_pending",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("store_id", sa.Uuid, nullable=False),
        sa.Column("entry_id", sa.Uuid, server_default=sa.func.gen_random_uuid(), nullable=False),
        sa.Column("request_id", sa.Uuid, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("facts", JSONB, nullable=False),
        sa.Column("at", _TIME, server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("store_id", "id", name="pk_evidence_pending"),
    )
    op.create_table(
        "evidence_leaf",
        sa.Column("store_id", sa.Uuid, nullable=False),
        sa.Column("index", sa.BigInteger, nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.Column("nodes", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("store_id", "index", name="pk_evidence_leaf"),
        sa.UniqueConstraint("store_id", "hash", name="uq_evidence_leaf_hash"),
    )
    op.create_table(
        "evidence_entry",
        sa.Column("store_id", sa.Uuid, nullable=False),
        sa.Column("index", sa.BigInteger, nullable=False),
        sa.Column("request_id", sa.Uuid, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("store_id", "index", name="pk_evidence_entry"),
    )
    op.create_index("ix_evidence_entry_request_id", "evidence_entry", ["request_id", "index"])
    op.create_index("ix_evidence_entry_at", "evidence_entry", ["at"])
    op.create_index(
        "ix_evidence_entry_ended",
        "evidence_entry",
        ["store_id", "at"],
        postgresql_where=sa.text("kind IN ('completed', 'refused', 'cancelled')"),
    )


def _heads() -> None:
    op.create_table(
        "evidence_head",
        sa.Column("store_id", sa.Uuid, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("root", sa.LargeBinary, nullable=False),
        sa.Column("signed_at", _TIME, nullable=False),
        sa.Column("signature", sa.String, nullable=False),
        sa.PrimaryKeyConstraint("store_id", "size", name="pk_evidence_head"),
    )
    op.create_table(
        "published_key",
        sa.Column("kid", sa.String, nullable=False),
        sa.Column("key", JSONB, nullable=False),
        sa.Column("since", _TIME, server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("kid", name="pk_published_key"),
    )


def _certificates() -> None:
    op.create_table(
        "certificate_due",
        sa.Column("request_id", sa.Uuid, nullable=False),
        sa.Column("store_id", sa.Uuid, nullable=False),
        sa.Column("due_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("request_id", name="pk_certificate_due"),
    )
    op.create_index("ix_certificate_due_due_at", "certificate_due", ["due_at"])
    op.create_table(
        "certificate",
        sa.Column("request_id", sa.Uuid, nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("store_id", sa.Uuid, nullable=False),
        sa.Column("issued_at", _TIME, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.Column("signature", sa.String, nullable=False),
        sa.PrimaryKeyConstraint("request_id", "number", name="pk_certificate"),
    )


def _refuse_changes(*tables: str, but: str = "") -> None:
    """Statements are refused, whoever makes them: the tables' owner would have to take the trigger away first."""
    op.execute("""
        CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
        END $$
    """)
    events = " OR ".join(one for one in ("UPDATE", "DELETE", "TRUNCATE") if one != but)
    for table in tables:
        op.execute(f"""
            CREATE TRIGGER append_only BEFORE {events} ON {table}
            FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
        """)


def _keep_a_year() -> None:
    """What an entry says may go, and only once it is old: its hash stays."""
    op.execute("""
        CREATE TRIGGER kept_a_year BEFORE DELETE ON evidence_entry
        FOR EACH ROW WHEN (OLD.at > now() - interval '1 year') EXECUTE FUNCTION refuse_change()
    """)
