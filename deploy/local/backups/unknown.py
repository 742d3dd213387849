"""Boxes whose key is neither kept nor destroyed: made after the backup that the keyring was restored from."""

from collections.abc import Mapping
from typing import Any

from deploy.local.backups.servers import Place
from deploy.local.environment import SERVICES
from libs.common.personal.data import VERSION

_COLUMNS = """
    SELECT quote_ident(relation.relname) AS name, quote_ident(attribute.attname) AS box
    FROM pg_class AS relation JOIN pg_attribute AS attribute ON attribute.attrelid = relation.oid
    WHERE relation.relnamespace = 'public'::regnamespace AND relation.relkind IN ('r', 'p')
        AND attribute.atttypid = 'bytea'::regtype AND attribute.attnum > 0 AND NOT attribute.attisdropped
        AND EXISTS (SELECT FROM pg_attribute AS person WHERE person.attrelid = relation.oid
                    AND person.attname = 'subject_id' AND NOT person.attisdropped)
    ORDER BY relation.relname, attribute.attnum
"""
# A box is more than its version, the id of its key, a nonce and a tag; an index is shorter than that.
_KEYS = """
    SELECT encode(substr({box}, 2, 16), 'hex')::uuid AS key_id, count(*) AS number FROM {name}
    WHERE octet_length({box}) > 45 AND get_byte({box}, 0) = $1 GROUP BY 1
"""
_KNOWN = {
    "keyring": "SELECT key_id FROM data_key WHERE key_id = ANY($1::uuid[])",
    "destructions": "SELECT key_id FROM destroyed_key WHERE key_id = ANY($1::uuid[])",
}
_AT_ONCE = 10_000


async def unknown_boxes(variables: Mapping[str, str]) -> dict[str, int]:
    """How many there are, by `service.table`, of the services whose databases can be reached from here."""
    found: dict[str, int] = {}
    for service in SERVICES:
        if f"{service.upper()}_MIGRATION_DATABASE_URL" not in variables:
            continue
        async with Place.of(variables, service).connected() as connection:
            for column in await connection.fetch(_COLUMNS):
                query = _KEYS.format(name=column["name"], box=column["box"])
                numbers = {row["key_id"]: row["number"] for row in await connection.fetch(query, VERSION)}
                if number := sum(numbers[key_id] for key_id in await _unknown(variables, list(numbers))):
                    place = f"{service}.{column['name']}"
                    found[place] = found.get(place, 0) + number
    return found


async def _unknown(variables: Mapping[str, str], key_ids: list[Any]) -> set[Any]:
    left = set(key_ids)
    for name, query in _KNOWN.items():
        async with Place.of(variables, name).connected() as connection:
            for start in range(0, len(key_ids), _AT_ONCE):
                some = key_ids[start : start + _AT_ONCE]
                left -= {row["key_id"] for row in await connection.fetch(query, some)}
    return left
