"""Receivables, payments, invoices and the ledger."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from libs.common.migrations import isolate_stores
from libs.common.tables import create_first

revision = "0001"
down_revision = None


def upgrade() -> None:
    create_first()
    _receivables()
    _payments_and_invoices()
    _ledger()
    isolate_stores(
        "receivable", "early_order", "payment", "invoice", "number_series", "journal_entry", "posting"
    )


def _receivables() -> None:
    op.create_table(
        "receivable",
        sa.Column("order_id", sa.Uuid),
        sa.Column("store_id", sa.Uuid, nullable=False),
        sa.Column("subject_id", sa.Uuid),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("number", sa.String, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("currency", sa.String, nullable=False),
        sa.Column("payment_method", sa.String, nullable=False),
        sa.Column("lines", JSONB, nullable=False),
        sa.Column("contact", sa.LargeBinary),
        sa.Column("placed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("order_id", name="pk_receivable"),
        sa.CheckConstraint("state IN ('expected', 'open', 'paid', 'void')", name="ck_receivable_state"),
        sa.CheckConstraint("amount >= 0", name="ck_receivable_amount"),
    )
    op.create_index("ix_receivable_listing", "receivable", ["store_id", "placed_at", "order_id"])
    op.create_index("ix_receivable_by_state", "receivable", ["store_id", "state", "placed_at", "order_id"])
    op.create_index("ix_receivable_subject", "receivable", ["store_id", "subject_id"])
    op.create_table(
        "early_order",
        sa.Column("order_id", sa.Uuid),
        sa.Column("store_id", sa.Uuid, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("heard_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.PrimaryKeyConstraint("order_id", name="pk_early_order"),
        sa.CheckConstraint("state IN ('open', 'void')", name="ck_early_order_state"),
    )


def _payments_and_invoices() -> None:
    op.create_table(
        "payment",
        sa.Column("id", sa.Uuid),
        sa.Column("store_id", sa.Uuid, nullable=False),
        sa.Column("order_id", sa.Uuid, nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("currency", sa.String, nullable=False),
        sa.Column("method", sa.String, nullable=False),
        sa.Column("received_on", sa.Date, nullable=False),
        sa.Column("external_id", sa.String),
        sa.Column("recorded_by", sa.Uuid, nullable=False),
        sa.Column("booked_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_payment"),
        sa.ForeignKeyConstraint(["order_id"], ["receivable.order_id"], name="fk_payment_order_id"),
        sa.CheckConstraint("amount >= 0", name="ck_payment_amount"),
    )
    op.create_index("ix_payment_order", "payment", ["store_id", "order_id"])
    op.create_table(
        "invoice",
        sa.Column("id", sa.Uuid),
        sa.Column("store_id", sa.Uuid, nullable=False),
        sa.Column("order_id", sa.Uuid, nullable=False),
        sa.Column("year", sa.BigInteger, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("number", sa.String, nullable=False),
        sa.Column("subject_id", sa.Uuid),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("contact", sa.LargeBinary),
        sa.Column("seller_name", sa.String, nullable=False),
        sa.Column("seller_country", sa.String, nullable=False),
        sa.Column("lines", JSONB, nullable=False),
        sa.Column("total_amount", sa.BigInteger, nullable=False),
        sa.Column("currency", sa.String, nullable=False),
        sa.Column("issued_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kept_until", sa.Date, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_invoice"),
        sa.ForeignKeyConstraint(["order_id"], ["receivable.order_id"], name="fk_invoice_order_id"),
        sa.UniqueConstraint("order_id", name="uq_invoice_order_id"),
        sa.UniqueConstraint("store_id", "year", "sequence", name="uq_invoice_store_id_year_sequence"),
    )
    op.create_index("ix_invoice_subject", "invoice", ["store_id", "subject_id"])
    op.create_table(
        "number_series",
        sa.Column("store_id", sa.Uuid, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("last", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("store_id", "name", name="pk_number_series"),
    )


def _ledger() -> None:
    op.create_table(
        "journal_entry",
        sa.Column("id", sa.Uuid),
        sa.Column("store_id", sa.Uuid, nullable=False),
        sa.Column("year", sa.BigInteger, nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("occurred_on", sa.Date, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("order_id", sa.Uuid, nullable=False),
        sa.Column("payment_id", sa.Uuid),
        sa.Column("invoice_id", sa.Uuid),
        sa.Column("booked_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_journal_entry"),
        sa.ForeignKeyConstraint(["order_id"], ["receivable.order_id"], name="fk_journal_entry_order_id"),
        sa.ForeignKeyConstraint(["payment_id"], ["payment.id"], name="fk_journal_entry_payment_id"),
        sa.ForeignKeyConstraint(["invoice_id"], ["invoice.id"], name="fk_journal_entry_invoice_id"),
        sa.UniqueConstraint("store_id", "id", name="uq_journal_entry_store_id_id"),
        sa.UniqueConstraint("store_id", "year", "number", name="uq_journal_entry_store_id_year_number"),
    )
    op.create_table(
        "posting",
        sa.Column("entry_id", sa.Uuid, nullable=False),
        sa.Column("position", sa.SmallInteger, nullable=False),
        sa.Column("store_id", sa.Uuid, nullable=False),
        sa.Column("account", sa.String, nullable=False),
        sa.Column("debit", sa.BigInteger, nullable=False),
        sa.Column("credit", sa.BigInteger, nullable=False),
        sa.Column("currency", sa.String, nullable=False),
        sa.PrimaryKeyConstraint("entry_id", "position", name="pk_posting"),
        sa.ForeignKeyConstraint(
            ["store_id", "entry_id"],
            ["journal_entry.store_id", "journal_entry.id"],
            name="fk_posting_store_id_entry_id",
        ),
        sa.CheckConstraint(
            "debit >= 0 AND credit >= 0 AND (debit = 0 OR credit = 0)", name="ck_posting_one_side"
        ),
    )
    op.create_index("ix_posting_account", "posting", ["store_id", "account", "currency"])
    _refuse_imbalance()
    _refuse_changes("payment", "journal_entry", "posting")


def _refuse_imbalance() -> None:
    """Checked when the transaction commits; an entry whose postings cannot be seen is refused as well."""
    op.execute("""
        CREATE FUNCTION refuse_imbalance() RETURNS trigger LANGUAGE plpgsql AS $$
        DECLARE entry uuid := CASE TG_TABLE_NAME WHEN 'posting' THEN to_jsonb(NEW)->>'entry_id'
                                                 ELSE to_jsonb(NEW)->>'id' END;
        BEGIN
            IF (SELECT count(*) FROM posting WHERE entry_id = entry) < 2
               OR EXISTS (SELECT FROM posting WHERE entry_id = entry
                          GROUP BY currency HAVING sum(debit) <> sum(credit)) THEN
                RAISE EXCEPTION 'the postings of an entry do not balance' USING ERRCODE = 'check_violation';
            END IF;
            RETURN NULL;
        END $$
    """)
    for table in ("journal_entry", "posting"):
        op.execute(f"""
            CREATE CONSTRAINT TRIGGER balanced AFTER INSERT ON {table}
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse_imbalance()
        """)


def _refuse_changes(*tables: str) -> None:
    op.execute("""
        CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
        END $$
    """)
    for table in tables:
        op.execute(f"""
            CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}
            FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
        """)
