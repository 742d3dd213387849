"""Offers, carts, orders."""

import sqlalchemy as sa
from alembic import op

from libs.common.migrations import isolate_stores
from libs.common.tables import create_first

revision = "0001"
down_revision = None

NOW = sa.text("now()")


def upgrade() -> None:
    create_first()
    create_offers()
    create_carts()
    create_orders()
    isolate_stores("offered_product", "offer", "cart", "cart_line", "order_counter", "orders", "order_line")


def create_offers() -> None:
    op.create_table(
        "offered_product",
        sa.Column("store_id", sa.Uuid(), nullable=False),
        sa.Column("product_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("store_id", "product_id", name="pk_offered_product"),
    )
    op.create_table(
        "offer",
        sa.Column("store_id", sa.Uuid(), nullable=False),
        sa.Column("variant_id", sa.Uuid(), nullable=False),
        sa.Column("product_id", sa.Uuid(), nullable=False),
        sa.Column("sku", sa.String(), nullable=False),
        sa.Column("title", sa.String(), nullable=False),
        sa.Column("price", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.String(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("store_id", "variant_id", name="pk_offer"),
    )
    op.create_index("ix_offer_product", "offer", ["store_id", "product_id"])


def create_carts() -> None:
    op.create_table(
        "cart",
        sa.Column("store_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(), nullable=False),
        sa.Column("currency", sa.String(), nullable=False),
        sa.Column("checked_out_order_id", sa.Uuid()),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.Column("version", sa.BigInteger(), server_default="1", nullable=False),
        sa.PrimaryKeyConstraint("store_id", "id", name="pk_cart"),
    )
    op.create_table(
        "cart_line",
        sa.Column("store_id", sa.Uuid(), nullable=False),
        sa.Column("cart_id", sa.Uuid(), nullable=False),
        sa.Column("variant_id", sa.Uuid(), nullable=False),
        sa.Column("quantity", sa.SmallInteger(), nullable=False),
        sa.Column("added_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.PrimaryKeyConstraint("store_id", "cart_id", "variant_id", name="pk_cart_line"),
        sa.ForeignKeyConstraint(
            ["store_id", "cart_id"],
            ["cart.store_id", "cart.id"],
            name="fk_cart_line_store_id_cart_id",
            ondelete="CASCADE",
        ),
        sa.CheckConstraint("quantity BETWEEN 1 AND 999", name="ck_cart_line_quantity"),
    )


def create_orders() -> None:
    op.create_table(
        "order_counter",
        sa.Column("store_id", sa.Uuid(), nullable=False),
        sa.Column("last_number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("store_id", name="pk_order_counter"),
    )
    op.create_table(
        "orders",
        sa.Column("store_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("number", sa.String(), nullable=False),
        sa.Column("subject_id", sa.Uuid()),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("contact", sa.LargeBinary()),
        sa.Column("email_index", sa.LargeBinary()),
        sa.Column("view_secret_hash", sa.LargeBinary()),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("total_amount", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.String(), nullable=False),
        sa.Column("payment_method", sa.String(), nullable=False),
        sa.Column("placed_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.Column("paid_at", sa.DateTime(timezone=True)),
        sa.Column("fulfilled_at", sa.DateTime(timezone=True)),
        sa.Column("cancelled_at", sa.DateTime(timezone=True)),
        sa.Column("version", sa.BigInteger(), server_default="1", nullable=False),
        sa.PrimaryKeyConstraint("store_id", "id", name="pk_orders"),
        sa.UniqueConstraint("store_id", "number", name="uq_orders_store_id_number"),
    )
    op.create_index("ix_orders_position", "orders", ["store_id", "position"])
    op.create_index("ix_orders_subject", "orders", ["store_id", "subject_id"])
    op.create_index("ix_orders_email", "orders", ["store_id", "email_index"])
    op.create_index("ix_orders_placed_at", "orders", ["store_id", "placed_at"])
    op.create_table(
        "order_line",
        sa.Column("store_id", sa.Uuid(), nullable=False),
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.SmallInteger(), nullable=False),
        sa.Column("variant_id", sa.Uuid(), nullable=False),
        sa.Column("sku", sa.String(), nullable=False),
        sa.Column("title", sa.String(), nullable=False),
        sa.Column("quantity", sa.SmallInteger(), nullable=False),
        sa.Column("unit_price", sa.BigInteger(), nullable=False),
        sa.Column("short", sa.Boolean(), server_default="false", nullable=False),
        sa.PrimaryKeyConstraint("store_id", "order_id", "position", name="pk_order_line"),
        sa.ForeignKeyConstraint(
            ["store_id", "order_id"],
            ["orders.store_id", "orders.id"],
            name="fk_order_line_store_id_order_id",
        ),
    )
