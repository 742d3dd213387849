"""Products, variants, reservations, imports."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from libs.common.migrations import isolate_stores
from libs.common.tables import create_first

revision = "0001"
down_revision = None

# A search should find `théière` for `theiere` and `mug` for `mugs`, in both languages of the platform: every text
# is stemmed in English and in French. What is short is kept as it is too, so that a word is found while it is
# still being typed.
_SEARCH = (
    r"""
    CREATE FUNCTION plain_letters(value text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
        translate(replace(replace(lower(value), 'œ', 'oe'), 'æ', 'ae'),
                  'àáâãäåçèéêëìíîïñòóôõöùúûüýÿ', 'aaaaaaceeeeiiiinooooouuuuyy')
    """,
    # OFFSET keeps the letters from being made plain once for every language.
    r"""
    CREATE FUNCTION stems_of(value text) RETURNS tsvector
    LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN (
        SELECT to_tsvector('pg_catalog.english', plain) || to_tsvector('pg_catalog.french', plain)
        FROM (SELECT plain_letters(value) AS plain OFFSET 0) AS letters)
    """,
    r"""
    CREATE FUNCTION words_of(value text) RETURNS tsvector
    LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
        stems_of(value) || to_tsvector('pg_catalog.simple', plain_letters(value))
    """,
    # Joining an array is only declared stable because the text of some types depends on settings; text's does not.
    r"""
    CREATE FUNCTION product_words(
        title text, vendor text, product_type text, category text, tags text[], description text
    ) RETURNS tsvector LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
        setweight(words_of(title), 'A')
        || setweight(words_of(vendor || ' ' || product_type || ' ' || array_to_string(tags, ' ')), 'B')
        || setweight(stems_of(category), 'C')
        || setweight(stems_of(description), 'D')
    """,
    # Plain words may also be beginnings of words, since people search while they type; a query with quotes or
    # a minus means what it says.
    r"""
    CREATE FUNCTION product_query(query text) RETURNS tsquery
    LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
        websearch_to_tsquery('pg_catalog.english', plain_letters(query))
        || websearch_to_tsquery('pg_catalog.french', plain_letters(query))
        || to_tsquery('pg_catalog.simple', coalesce(
            (SELECT string_agg(quote_literal(word) || ':*', ' & ')
             FROM regexp_split_to_table(plain_letters(query), '[^[:alnum:]]+') AS word
             WHERE word <> '' AND query !~ '"|(^|\s)-'), ''))
    """,
)


def upgrade() -> None:
    create_first()
    for function in _SEARCH:
        op.execute(function)
    _create_products()
    _create_variants()
    _create_reservations()
    _create_imports()
    isolate_stores("product", "variant", "reservation", "reservation_line", "import_run")


def _id(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.Uuid(), nullable=nullable)


def _text(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.String(), nullable=nullable)


def _number(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.BigInteger(), nullable=nullable)


def _moment(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False)


def _create_products() -> None:
    op.create_table(
        "product",
        _id("id"),
        _id("store_id"),
        sa.Column("sequence", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        *map(_text, ("handle", "title", "description", "vendor", "category", "product_type")),
        sa.Column("tags", postgresql.ARRAY(sa.String()), nullable=False),
        _text("status"),
        sa.Column("options", postgresql.ARRAY(sa.String()), nullable=False),
        sa.Column("images", postgresql.JSONB(), nullable=False),
        _text("currency"),
        *map(_number, ("min_price", "max_price", "version")),
        _moment("created_at"),
        _moment("updated_at"),
        sa.Column(
            "search",
            postgresql.TSVECTOR(),
            sa.Computed(
                "product_words(title, vendor, product_type, category, tags, description)", persisted=True
            ),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name="pk_product"),
        sa.UniqueConstraint("store_id", "handle", name="uq_product_store_id_handle"),
        sa.CheckConstraint("status IN ('active', 'draft', 'archived')", name="status"),
    )
    op.create_index("ix_product_newest", "product", ["store_id", "status", "sequence"])
    op.create_index("ix_product_price", "product", ["store_id", "status", "min_price", "sequence"])
    op.create_index("ix_product_title", "product", ["store_id", "status", "title", "sequence"])


def _create_variants() -> None:
    op.create_table(
        "variant",
        *map(_id, ("id", "store_id", "product_id")),
        _number("position"),
        *(_text(name, nullable=True) for name in ("sku", "option1", "option2", "option3")),
        _number("price"),
        _text("currency"),
        _number("compare_at", nullable=True),
        *map(_number, ("grams", "on_hand", "reserved")),
        sa.Column("backorder", sa.Boolean(), nullable=False),
        _number("version"),
        sa.PrimaryKeyConstraint("id", name="pk_variant"),
        sa.ForeignKeyConstraint(["product_id"], ["product.id"], name="fk_variant_product_id"),
        sa.UniqueConstraint(
            "store_id", "sku", name="uq_variant_store_id_sku", deferrable=True, initially="IMMEDIATE"
        ),
        sa.UniqueConstraint(
            "product_id", "option1", "option2", "option3",
            name="uq_variant_choice", deferrable=True, initially="IMMEDIATE", postgresql_nulls_not_distinct=True,
        ),
        sa.CheckConstraint("price >= 0 AND compare_at >= 0", name="price"),
        sa.CheckConstraint("reserved >= 0", name="reserved"),
    )  # fmt: skip


def _create_reservations() -> None:
    op.create_table(
        "reservation",
        *map(_id, ("store_id", "order_id")),
        _text("state"),
        _number("version"),
        _moment("updated_at"),
        sa.PrimaryKeyConstraint("store_id", "order_id", name="pk_reservation"),
        sa.CheckConstraint(
            "state IN ('reserved', 'refused', 'released', 'shipped', 'shipped-unseen')", name="state"
        ),
    )
    op.create_table(
        "reservation_line",
        *map(_id, ("store_id", "order_id", "variant_id")),
        _number("quantity"),
        sa.PrimaryKeyConstraint("store_id", "order_id", "variant_id", name="pk_reservation_line"),
        sa.ForeignKeyConstraint(
            ["store_id", "order_id"],
            ["reservation.store_id", "reservation.order_id"],
            name="fk_reservation_line_store_id_order_id",
        ),
        sa.CheckConstraint("quantity > 0", name="quantity"),
    )


def _create_imports() -> None:
    op.create_table(
        "import_run",
        *map(_id, ("id", "store_id")),
        _text("state"),
        *map(_number, ("products", "variants", "created", "updated")),
        sa.Column("errors", postgresql.JSONB(), nullable=False),
        _moment("created_at"),
        sa.PrimaryKeyConstraint("id", name="pk_import_run"),
        sa.CheckConstraint("state IN ('imported', 'refused')", name="state"),
    )
    op.create_index("ix_import_run_store_id", "import_run", ["store_id", "created_at"])
