"""The form of a record of an export, as JSON Schema 2020-12, computed from the declaration it is made from."""

from typing import Any

from sqlalchemy import JSON, Column, DateTime
from sqlalchemy.types import BigInteger, Boolean, Date, Integer, TypeEngine, Uuid

from libs.common.personal.attachments import Attachment
from libs.common.personal.data import PersonalData, secret_fields
from libs.common.personal.holdings import Holding

UNREADABLE = ("erased", "on-hold")
"""Why a box in an export may be closed."""

_FILE: dict[str, Any] = {
    "type": "object",
    "description": "A file of the archive; `file` is its path there.",
    "properties": {
        "name": {"type": "string"},
        "media_type": {"type": "string"},
        "file": {"type": "string"},
    },
    "required": ["name", "media_type", "file"],
    "additionalProperties": False,
}
_FORMS: list[tuple[type[TypeEngine[Any]], dict[str, Any]]] = [
    (Uuid, {"type": "string", "format": "uuid"}),
    (Boolean, {"type": "boolean"}),
    (BigInteger, {"type": "integer"}),
    (Integer, {"type": "integer"}),
    (DateTime, {"type": "string", "format": "date-time"}),
    (Date, {"type": "string", "format": "date"}),
    (JSON, {}),
]


def record_schema(holding: Holding) -> dict[str, Any]:
    """What a record of this holding looks like in an archive: `ExportedRecords` says what its members mean."""
    data, definitions = _data(holding.kind) if holding.kind is not None else ({"type": "null"}, {})
    attached = {
        str(one.sql.name): {"type": "array", "items": _row(one.sql.c[name] for name in one.describe)}
        for one in holding.attached
    }
    schema = _object(
        {
            "table": {"const": holding.name},
            "kind": {"const": holding.kind.__name__ if holding.kind is not None else None},
            "facts": _row(holding.sql.c[name] for name in holding.describe),
            "data": data,
            "attached": _object(attached),
        }
    )
    schema["properties"]["unreadable"] = {"enum": list(UNREADABLE)}
    return schema | ({"$defs": definitions} if definitions else {})


def _data(kind: type[PersonalData]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The box's own model, but for what is never shown."""
    schema = kind.model_json_schema(mode="serialization")
    definitions = schema.pop("$defs", {})
    if Attachment.__name__ in definitions:
        definitions[Attachment.__name__] = _FILE
    for name in secret_fields(kind):
        del schema["properties"][name]
    if "required" in schema:
        schema["required"] = [name for name in schema["required"] if name in schema["properties"]]
    return {"anyOf": [schema, {"type": "null"}]}, definitions


def _row(columns: Any) -> dict[str, Any]:
    return _object({str(column.name): _form(column) for column in columns})


def _form(column: Column[Any]) -> dict[str, Any]:
    form = next((form for kind, form in _FORMS if isinstance(column.type, kind)), {"type": "string"})
    if column.nullable and "type" in form:
        return form | {"type": [form["type"], "null"]}
    return dict(form)


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
