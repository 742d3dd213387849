"""The events: a valid AsyncAPI document, and no personal data outside a sealed box."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import pytest
from jsonschema import Draft7Validator
from pydantic import BaseModel

from deploy.local.documents import asyncapi
from libs.common.events import REGISTRY, Event, PersonalEvent
from libs.common.events.orders import OrderContact
from libs.common.personal.data import Sealed

SCHEMA = Path(__file__).parent / "schemas" / "asyncapi-3.0.0.json"
PERSONAL = re.compile(
    r"name|mail|address|phone|postcode|zip|street|city|line\d|birth|iban|contact|person|customer|password|language",
    re.IGNORECASE,
)
IMPERSONAL: Mapping[str, str] = {
    "StoreOpened.name": "a trading name",
    "StoreOpened.language": "the store's",
}
"""Fields of such a name that say nothing of a person."""
OPEN: Mapping[str, str] = {
    "ParticipantAnnounced.public_key": "a public JWK",
    "ParticipantAnnounced.data_map[]": "declarations, computed from code",
    "TaskAnswered.counts": "numbers by the name of a table",
    "RowsCleaned.counts": "numbers by the name of a table",
    "TaskAnswered.beside": "numbers by the name of a table",
    "TaskAnswered.skipped": "names of tables, and fixed words",
}
"""Fields whose members no contract names."""


def contracts() -> list[type[Event]]:
    """Our own; other tests may have made some up."""
    asyncapi()
    return [one for one in REGISTRY.values() if one.__module__.startswith("libs.")]


def fields_of(model: type[BaseModel]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every field of a contract, with those of the models in it, as `OrderPlaced.lines[].sku`, and its schema."""
    schema = model.model_json_schema(mode="serialization")
    yield from _fields(model.__name__, schema, schema.get("$defs", {}))


def _fields(
    path: str, schema: dict[str, Any], models: Mapping[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    if "$ref" in schema:
        schema = models[schema["$ref"].rsplit("/", 1)[-1]]
    yield path, schema
    for name, part in schema.get("properties", {}).items():
        yield from _fields(f"{path}.{name}", part, models)
    for part in [schema["items"]] if "items" in schema else []:
        yield from _fields(f"{path}[]", part, models)
    for part in schema.get("anyOf", []):
        yield from _fields(path, part, models)


def exposed(model: type[BaseModel]) -> list[str]:
    """Fields that could carry personal data in the clear, by their names."""
    return [
        path
        for path, schema in fields_of(model)
        if PERSONAL.search(path.rsplit(".", 1)[-1])
        and "." in path
        and schema.get("contentEncoding") != "base64"
        and path not in IMPERSONAL
    ]


def open_ended(model: type[BaseModel]) -> list[str]:
    """Fields that could carry anything."""
    return [
        path
        for path, schema in fields_of(model)
        if (schema.get("type") == "object" and "properties" not in schema)
        or not {"type", "anyOf", "enum", "const"} & schema.keys()
    ]


def test_the_document_is_valid_asyncapi() -> None:
    validator = Draft7Validator(json.loads(SCHEMA.read_text()))
    document = asyncapi()
    assert [error.message for error in validator.iter_errors(document)] == []
    # The schema itself must be able to refuse.
    assert list(validator.iter_errors({**document, "asyncapi": "2.6.0"}))


def test_every_contract_is_in_the_document_and_says_what_happened() -> None:
    messages = asyncapi()["components"]["messages"]
    assert {message["name"] for message in messages.values()} == {one.type for one in contracts()}
    assert all(len(message["summary"]) > 10 for message in messages.values())


def test_every_reference_of_the_document_leads_somewhere() -> None:
    document = asyncapi()
    references = re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(document))
    assert references
    for reference in references:
        place: Any = document
        for step in reference.split("/"):
            place = place[step.replace("~1", "/")]


def test_somebody_sends_every_event_and_somebody_else_or_an_integrator_reads_it() -> None:
    operations = asyncapi()["operations"].values()

    def told(action: str) -> list[str]:
        chosen = [operation for operation in operations if operation["action"] == action]
        return [message["$ref"] for operation in chosen for message in operation["messages"]]

    sent, read = told("send"), told("receive")
    assert len(sent) == len(set(sent)) == len(contracts())
    assert set(read) <= set(sent)


@pytest.mark.parametrize("contract", contracts(), ids=lambda contract: contract.__name__)
def test_a_contract_carries_personal_data_in_boxes_only(contract: type[Event]) -> None:
    assert exposed(contract) == []
    assert set(open_ended(contract)) <= OPEN.keys()


def test_what_is_excused_exists() -> None:
    paths = {path for contract in contracts() for path, _ in fields_of(contract)}
    assert {*IMPERSONAL, *OPEN} <= paths


def test_a_field_in_the_clear_would_be_found() -> None:
    class Parcel(BaseModel):
        recipient_name: str
        postcodes: list[str]

    class Sent(PersonalEvent):
        contact: Sealed[OrderContact]
        email: str | None = None
        parcels: list[Parcel]
        more: dict[str, Any]
        whatever: Annotated[Any, "anything"]

    assert set(exposed(Sent)) == {
        "Sent.email",
        "Sent.parcels[].recipient_name",
        "Sent.parcels[].postcodes",
        "Sent.parcels[].postcodes[]",
    }
    assert open_ended(Sent) == ["Sent.more", "Sent.whatever"]
