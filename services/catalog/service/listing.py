"""What visitors see. Each answer is one statement, and PostgreSQL writes the JSON that leaves.

Row-level security evaluates a text search after its own condition, which keeps an index on words from being
used: PostgreSQL trusts only operators that cannot leak. A store's products are found by its own index instead,
and their words compared one by one, which is quick for the tens of thousands of products a shop may have.
"""

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.db import Database
from libs.common.errors import NotFound
from libs.common.http import InvalidCursor, decode_cursor, encode_cursor
from services.catalog.domain.products import Status

_FACET_VALUES = 50


class Sort(StrEnum):
    """The orders of a list."""

    RELEVANCE = "relevance"
    NEWEST = "newest"
    PRICE = "price"
    PRICE_DESCENDING = "price-descending"
    TITLE = "title"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which products: all that is named must hold. Prices are minor units of the store's currency."""

    q: str | None = None
    vendor: str | None = None
    product_type: str | None = None
    tag: str | None = None
    min_price: int | None = None
    max_price: int | None = None
    available: bool | None = None
    status: Status = Status.ACTIVE


class _Query:
    """The arguments of a statement in the order of their places; the store is the first."""

    def __init__(self) -> None:
        self.arguments: list[object] = []

    def place(self, argument: object) -> str:
        """The place of an argument in the statement."""
        self.arguments.append(argument)
        return f"${len(self.arguments) + 1}"


# LIMIT keeps the planner from reading the stock of the whole store at once for a page of a few products.
_AVAILABLE = """
    coalesce((SELECT true FROM variant
              WHERE product_id = product.id AND (backorder OR on_hand > reserved) LIMIT 1), false)
"""


def _money(amount: str) -> str:
    return f"(SELECT row_to_json(money) FROM (SELECT {amount} AS amount, currency) AS money)"  # noqa: S608


# --- Lists -----------------------------------------------------------------------------------------------

_CARD = f"""
    (SELECT row_to_json(card)::text FROM (
        SELECT id, handle, title, vendor, product_type, tags, images -> 0 AS image,
               {_money("min_price")} AS min_price, {_money("max_price")} AS max_price, {_AVAILABLE} AS available
    ) AS card)
"""  # noqa: S608 - made of this module's words


async def list_products(
    database: Database,
    store_id: UUID,
    selection: Selection,
    *,
    sort: Sort | None,
    cursor: str | None,
    limit: int,
) -> bytes:
    """A page of products as JSON (`Page[ProductCard]`). Raises NotFound for an unknown store, InvalidCursor."""
    if sort is None or (sort is Sort.RELEVANCE and selection.q is None):
        sort = Sort.NEWEST if selection.q is None else Sort.RELEVANCE
    query = _Query()
    conditions = _conditions(query, selection)
    key, direction = _order(query, sort, selection)
    if cursor is not None:
        places = ", ".join(map(query.place, _position(cursor, sort)))
        conditions.append(f"({key}, sequence) {'<' if direction == 'DESC' else '>'} ({places})")
    page = await database.read(
        store_id, _page(" AND ".join(conditions), key, direction, limit), *query.arguments
    )
    if page is None:
        raise NotFound
    items, last_key, last_sequence, more = page
    following = f'"{_cursor(sort, last_key, last_sequence)}"' if more == "true" else "null"
    return f'{{"items":[{items or ""}],"next":{following}}}'.encode()


def _page(condition: str, key: str, direction: str, limit: int) -> str:
    """An array of texts: the cards, the last one's key and sequence, and whether more follow."""
    return f"""
        SELECT ARRAY[string_agg(card, ',' ORDER BY place) FILTER (WHERE place <= {limit}),
                     max(key::text) FILTER (WHERE place = {limit}),
                     max(sequence::text) FILTER (WHERE place = {limit}),
                     (count(place) > {limit})::text]
        FROM known_store LEFT JOIN (
            SELECT {_CARD} AS card, key, sequence,
                   row_number() OVER (ORDER BY key {direction}, sequence {direction}) AS place
            FROM (SELECT *, {key} AS key FROM product WHERE {condition}
                  ORDER BY key {direction}, sequence {direction} LIMIT {limit + 1}) AS product
        ) AS page ON true
        WHERE known_store.store_id = $1::uuid GROUP BY known_store.store_id
    """  # noqa: S608 - made of this module's words; what callers send is an argument


def _conditions(query: _Query, selection: Selection) -> list[str]:
    conditions = ["store_id = $1::uuid", f"status = {query.place(selection.status.value)}"]
    if selection.q is not None:
        conditions.append(f"search @@ {_searched(query, selection.q)}")
    if selection.vendor is not None:
        conditions.append(f"vendor = {query.place(selection.vendor)}")
    if selection.product_type is not None:
        conditions.append(f"product_type = {query.place(selection.product_type)}")
    if selection.tag is not None:
        conditions.append(f"{query.place(selection.tag)} = ANY(tags)")
    if selection.min_price is not None:
        conditions.append(f"max_price >= {query.place(selection.min_price)}")
    if selection.max_price is not None:
        conditions.append(f"min_price <= {query.place(selection.max_price)}")
    if selection.available is not None:
        conditions.append(_AVAILABLE if selection.available else f"NOT {_AVAILABLE}")
    return conditions


def _searched(query: _Query, q: str | None) -> str:
    """What is searched for; a query of its own, so that it is not taken apart anew for every product."""
    return f"(SELECT product_query({query.place(q)}))"


def _order(query: _Query, sort: Sort, selection: Selection) -> tuple[str, str]:
    """What a list is sorted by; `sequence` decides between equals."""
    match sort:
        case Sort.RELEVANCE:
            # A whole number, so that a cursor holds exactly what is compared.
            return f"(1000000 * ts_rank(search, {_searched(query, selection.q)}))::bigint", "DESC"
        case Sort.NEWEST:
            return "sequence", "DESC"
        case Sort.PRICE:
            return "min_price", "ASC"
        case Sort.PRICE_DESCENDING:
            return "min_price", "DESC"
        case Sort.TITLE:
            return "title", "ASC"


def _cursor(sort: Sort, key: str, sequence: str) -> str:
    return encode_cursor(sort.value, key if sort is Sort.TITLE else int(key), int(sequence))


def _position(cursor: str, sort: Sort) -> tuple[str | int, int]:
    """Where a page begins. A cursor of another order is none of this list."""
    name, key, sequence = decode_cursor(cursor, str, str if sort is Sort.TITLE else int, int)
    if name != sort.value:
        raise InvalidCursor
    return key, sequence


# --- Facets ----------------------------------------------------------------------------------------------


async def count_facets(database: Database, store_id: UUID, selection: Selection) -> bytes:
    """How the selected products spread over vendors, types, tags and prices, as JSON (`Facets`)."""
    query = _Query()
    condition = " AND ".join(_conditions(query, selection))
    facets = await database.read(store_id, _facets(condition), *query.arguments)
    if facets is None:
        raise NotFound
    return facets.encode()


def _facets(condition: str) -> str:
    return f"""
        WITH found AS MATERIALIZED (
            SELECT vendor, product_type, tags, min_price, max_price, {_AVAILABLE} AS available
            FROM product WHERE {condition}
        )
        SELECT (SELECT row_to_json(facets)::text FROM (
            SELECT (SELECT count(*) FROM found) AS total,
                   (SELECT count(*) FROM found WHERE available) AS available,
                   {_counts("vendor", "found")} AS vendors,
                   {_counts("product_type", "found")} AS product_types,
                   {_counts("tag", "found, unnest(tags) AS tag")} AS tags,
                   (SELECT row_to_json(span) FROM (
                       SELECT min(min_price) AS min, max(max_price) AS max, known_store.currency FROM found
                   ) AS span) AS prices
        ) AS facets) FROM known_store WHERE store_id = $1::uuid
    """  # noqa: S608 - made of this module's words


def _counts(value: str, source: str) -> str:
    return f"""(SELECT coalesce(json_agg(counted), '[]') FROM (
        SELECT {value} AS value, count(*) AS count FROM {source} WHERE {value} <> ''
        GROUP BY {value} ORDER BY count(*) DESC, {value} LIMIT {_FACET_VALUES}
    ) AS counted)"""  # noqa: S608


# --- One product -----------------------------------------------------------------------------------------

_DOCUMENT = f"""
    SELECT ARRAY[version::text, (SELECT row_to_json(document)::text FROM (
        SELECT id, handle, title, description, vendor, category, product_type, tags, status, options, images,
               {_money("min_price")} AS min_price, {_money("max_price")} AS max_price, {_AVAILABLE} AS available,
               (SELECT coalesce(json_agg(offered ORDER BY offered.position), '[]') FROM (
                   SELECT id, position, sku, array_remove(ARRAY[option1, option2, option3], NULL) AS choice,
                          {_money("price")} AS price,
                          CASE WHEN compare_at IS NOT NULL THEN {_money("compare_at")} END AS compare_at,
                          grams, greatest(0, on_hand - reserved) AS available, backorder
                   FROM variant WHERE product_id = product.id
               ) AS offered) AS variants,
               version, to_char(updated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS updated_at
    ) AS document)]
    FROM product WHERE store_id = $1::uuid
"""  # noqa: S608 - made of this module's words
_VISIBLE = "status = ANY($3::text[])"


async def read_product(
    database: Database,
    store_id: UUID,
    *,
    product_id: UUID | None = None,
    handle: str | None = None,
    drafts: bool,
) -> tuple[int, bytes]:
    """A product's version and its JSON (`ProductDocument`), by id or by handle; `drafts` shows all states.

    Raises NotFound.
    """
    statuses = [status.value for status in Status] if drafts else [Status.ACTIVE.value]
    which, name = ("id = $2", product_id) if product_id is not None else ("handle = $2", handle)
    found = await database.read(store_id, f"{_DOCUMENT} AND {which} AND {_VISIBLE}", name, statuses)
    if found is None:
        raise NotFound
    version, document = found
    return int(version), document.encode()


async def document_of(session: AsyncSession, store_id: UUID, product_id: UUID) -> bytes:
    """As `read_product`, within a transaction that may have changed it."""
    await session.flush()
    connection = await session.connection()
    row = await connection.exec_driver_sql(f"{_DOCUMENT} AND id = $2", (store_id, product_id))
    return row.scalar_one()[1].encode()
