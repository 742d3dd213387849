"""What is left of somebody who was erased: where to look, and what may be there."""

TABLES_NAMING_PEOPLE = """
    SELECT relation.relname FROM pg_class AS relation
    JOIN pg_attribute AS attribute ON attribute.attrelid = relation.oid
    WHERE relation.relkind = 'r' AND relation.relnamespace = 'public'::regnamespace
        AND attribute.attname IN ('store_id', 'subject_id', 'generation')
    GROUP BY relation.relname HAVING count(*) = 3 ORDER BY relation.relname
"""
EVIDENCE = frozenset({"delivery", "erased_subject", "expiry", "request"})
"""The tombstone, the request with its answer, and that somebody outside was told, are what proves an erasure."""
LIVE_KEYS = """
    SELECT count(*) FROM data_key WHERE store_id = $1 AND subject_id = $2 AND generation <= $3
        AND retention NOT IN ('request', 'accounting')
"""
