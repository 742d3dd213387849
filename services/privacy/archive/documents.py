"""What machines read: the records as JSON, their form as JSON Schema 2020-12, and schema.org's words for them."""

from collections.abc import AsyncIterator, Mapping
from functools import lru_cache
from typing import Any
from uuid import UUID

import orjson

from libs.common.personal.portable import fill
from services.privacy.archive.export import DataMap, Export
from services.privacy.archive.survey import Tables

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
# Names that identify and are never fetched: whatever expands this document needs no network.
_CONTEXT = {"@version": 1.1, "@vocab": "https://schema.org/"}


async def records(export: Export, service: str) -> AsyncIterator[bytes]:
    """Everything of one service."""
    separator = b'{"service":' + orjson.dumps(service) + b',"records":[\n'
    async for _, record, _ in export.entries(service):
        yield separator + orjson.dumps(record)
        separator = b",\n"
    yield b"\n]}\n"


def schema(export: Export, service: str) -> bytes:
    """What the service announced of its records; a table that it said nothing of may look like any record."""
    return _schema(export.data_map, service).replace(_NOBODY, str(export.request_id).encode())


_NOBODY = str(UUID(int=0)).encode()
"""Stands for the request until there is one."""


@lru_cache(64)
def _schema(data_map: DataMap, service: str) -> bytes:
    announced = [entry for entry in data_map.of(service) if entry.get("schema") is not None]
    forms = [_form(service, entry) for entry in announced]
    undeclared = _undeclared({entry["table"] for entry in announced})
    document = {
        "$schema": _DIALECT,
        "$id": _name(service),
        "title": service,
        "type": "object",
        "properties": {
            "service": {"const": service},
            "records": {"type": "array", "items": {"anyOf": [*forms, undeclared]}},
        },
        "required": ["service", "records"],
        "additionalProperties": False,
    }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _form(service: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """A schema resource of its own, so that its `$defs` are its own too (2020-12, 8.2.1)."""
    return {
        "$id": _name(service, entry["table"], entry.get("kind") or ""),
        "description": entry.get("description", ""),
        **entry["schema"],
    }


def _name(*parts: str) -> str:
    return ":".join((f"urn:uuid:{_NOBODY.decode()}", *parts))


def _undeclared(declared: set[str]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "table": {"type": "string", "not": {"enum": sorted(declared)}},
            "kind": {"type": ["string", "null"]},
            "facts": {"type": "object"},
            "data": {"type": ["object", "null"]},
            "attached": {"type": "object", "additionalProperties": {"type": "array"}},
        },
        "required": ["table", "facts", "data"],
    }


async def linked_data(export: Export, tables: Tables) -> AsyncIterator[bytes]:
    """JSON-LD 1.1: a node for every record whose service says what it is in schema.org's words."""
    separator = b'{"@context":' + orjson.dumps(_CONTEXT) + b',"@graph":[\n'
    empty = separator
    for service in tables:
        templates = {
            (entry["table"], entry.get("kind")): entry["portable"]
            for entry in export.data_map.of(service)
            if entry.get("portable")
        }
        async for row, record, _ in export.entries(service):
            template = templates.get((record["table"], record["kind"]))
            if template is not None and (node := fill(template, record)) is not None:
                name = f"urn:uuid:{export.request_id}#{service}-{record['table']}-{row}"
                yield separator + orjson.dumps({"@id": name, **node})
                separator = b",\n"
    yield (separator if separator is empty else b"") + b"\n]}\n"
