"""What is left of somebody who was erased: where to look, and what may be there."""

from collections.abc import Iterable

TABLES_NAMING_PEOPLE = """
    SELECT relation.relname FROM pg_class AS relation
    JOIN pg_attribute AS attribute ON attribute.attrelid = relation.oid
    WHERE relation.relkind = 'r' AND relation.relnamespace = 'public'::regnamespace
        AND attribute.attname IN ('store_id', 'subject_id', 'generation')
    GROUP BY relation.relname HAVING count(*) = 3 ORDER BY relation.relname
"""
_EVIDENCE = frozenset({"delivery", "erased_subject", "expiry", "request"})
"""The tombstone, the request with its answer, and that somebody outside was told, are what proves an erasure."""
LIVE_KEYS = """
    SELECT count(*) FROM data_key WHERE store_id = $1 AND subject_id = $2 AND generation <= $3
        AND retention NOT IN ('request', 'accounting')
"""


def counts(tables: Iterable[str]) -> str:
    """In SQL: each `place` and the `number` of its rows that name somebody ($1 store, $2 subject) in lives up to $3."""
    return " UNION ALL ".join(_count(table) for table in tables if table not in _EVIDENCE)


def _count(table: str) -> str:
    query = f"""SELECT '{table}' AS place, count(*) AS number FROM {table}
        WHERE store_id = $1 AND subject_id = $2 AND generation <= $3"""
    return query + (" AND kind <> 'RequestLetter'" if table == "waiting_letter" else "")
