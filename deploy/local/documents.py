"""`make docs`: the documents that are computed from the code, written where readers look for them.

    docs/events/asyncapi.json     every event, who sends it, who reads it (AsyncAPI 3.0)
    docs/api/{service}.json       every route (OpenAPI 3.1)
    docs/data-map.json            every piece of personal data: where, why, on what ground, how long
    docs/problems.md              every refusal: its type, its status, and what to do about it

`--check` writes nothing and fails when a document is not what the code says.
"""

import argparse
import re
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import orjson
from joserfc.jwk import ECKey
from pydantic.json_schema import models_json_schema

from libs.common.errors import Problem
from libs.common.events import REGISTRY, Event
from libs.common.personal.datamap import data_map

SERVICES = ("catalog", "orders", "identity", "billing", "privacy")
DOCS = Path(__file__).parents[2] / "docs"


def documents() -> dict[Path, bytes]:
    """The path and the bytes of every generated document."""
    made: dict[Path, Any] = {DOCS / "events" / "asyncapi.json": asyncapi()}
    made |= {DOCS / "api" / f"{service}.json": openapi(service) for service in SERVICES}
    made[DOCS / "data-map.json"] = {service: _data_map(service) for service in SERVICES}
    return {path: _json(document) for path, document in made.items()} | {
        DOCS / "problems.md": problems().encode()
    }


def _data_map(service: str) -> Any:
    participant = import_module(f"services.{service}.consumer").PARTICIPANT
    return data_map(service, participant.holdings, participant.copies)


def openapi(service: str) -> dict[str, Any]:
    """The OpenAPI document of a service; its settings name servers that are never called."""
    settings = import_module(f"services.{service}.settings").Settings
    app = import_module(f"services.{service}.app").create_app(settings(**_placeholders(settings)))
    return app.openapi()


def _placeholders(settings: Any) -> dict[str, Any]:
    """A value for every setting that has no default: the routes do not depend on any of them."""
    key = ECKey.generate_key("P-256").as_dict(private=True)
    known = {"service_key": orjson.dumps(key).decode(), "database_url": "postgresql://nobody@127.0.0.1/none"}
    required = [name for name, field in settings.model_fields.items() if field.is_required()]
    return {name: known.get(name, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=") for name in required}


def asyncapi() -> dict[str, Any]:
    """The AsyncAPI 3.0 document of every contract in `libs.common.events`."""
    for service in SERVICES:
        import_module(f"libs.common.events.{service}")
    contracts = dict(
        sorted((t, c) for t, c in REGISTRY.items() if c.__module__.startswith("libs.common.events."))
    )
    _, schemas = models_json_schema(
        [(contract, "serialization") for contract in contracts.values()],
        ref_template="#/components/schemas/{model}",
    )
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Vitrine events",
            "version": "1",
            "description": (
                "CloudEvents 1.0 in binary mode. A record's key is `store:aggregate id`, which orders the events of "
                "one aggregate. Events carry ids and sealed boxes, never personal data in the clear."
            ),
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": _channels(contracts),
        "operations": _operations(contracts),
        "components": {
            "schemas": schemas["$defs"],
            "messages": {_id(contract): _message(contract) for contract in contracts.values()},
            "messageTraits": {"cloudEvent": {"headers": _CLOUD_EVENT}},
        },
    }


_CLOUD_EVENT: dict[str, Any] = {
    "type": "object",
    "required": ["ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "ce_subject", "ce_store"],
    "properties": {
        "ce_specversion": {"const": "1.0"},
        "ce_id": {"type": "string", "format": "uuid", "description": "Handle each id once."},
        "ce_source": {"type": "string", "description": "`/` and the service."},
        "ce_type": {"type": "string"},
        "ce_time": {"type": "string", "format": "date-time"},
        "ce_subject": {"type": "string", "description": "The aggregate's id."},
        "ce_store": {"type": "string", "format": "uuid"},
        "traceparent": {"type": "string", "description": "W3C trace context."},
    },
}


def _id(contract: type[Event]) -> str:
    return contract.type.removeprefix("vitrine.")


def _channels(contracts: Mapping[str, type[Event]]) -> dict[str, Any]:
    channels: dict[str, Any] = {}
    for contract in contracts.values():
        channel = channels.setdefault(contract.topic, {"address": contract.topic, "messages": {}})
        channel["messages"][_id(contract)] = {"$ref": f"#/components/messages/{_id(contract)}"}
    return channels


def _message(contract: type[Event]) -> dict[str, Any]:
    return {
        "name": contract.type,
        "title": contract.__name__,
        "summary": (contract.__doc__ or "").strip().split("\n\n")[0],
        "traits": [{"$ref": "#/components/messageTraits/cloudEvent"}],
        "payload": {"$ref": f"#/components/schemas/{contract.__name__}"},
    }


def _operations(contracts: Mapping[str, type[Event]]) -> dict[str, Any]:
    """Who sends and who receives: publishers by the file of the contract, readers by their handlers."""
    operations: dict[str, Any] = {}
    for contract in contracts.values():
        publisher = contract.__module__.rsplit(".", 1)[-1]
        _add(operations, publisher, "send", contract)
    for service in SERVICES:
        for contract in import_module(f"services.{service}.consumer").HANDLERS:
            _add(operations, service, "receive", contract)
    return operations


def _add(operations: dict[str, Any], service: str, action: str, contract: type[Event]) -> None:
    operation = operations.setdefault(
        f"{service}.{action}.{contract.topic}",
        {
            "action": action,
            "channel": {"$ref": f"#/channels/{contract.topic}"},
            "tags": [{"name": service}],
            "messages": [],
        },
    )
    operation["messages"].append({"$ref": f"#/channels/{contract.topic}/messages/{_id(contract)}"})


# --- Problems --------------------------------------------------------------------------------------------

_ABOUT_PROBLEMS = """\
# Problems

Every refusal is an `application/problem+json` document (RFC 9457) whose `type` is `/problems/` and one of these names.
Titles and details are for people and may change; types and statuses do not. Where a service answers with a problem
that has no name of its own here, its `type` is `about:blank` and its `title` says what the status means.

| status | type | title | when | what to do |
| --- | --- | --- | --- | --- |
"""

_WHAT_TO_DO = {
    400: "Mend the request; as it is, it will be refused again.",
    401: "Sign in, or exchange the refresh token, and send the request with the new access token.",
    403: "Ask somebody with the right role.",
    404: "Check the address. What belongs to another store is never shown.",
    409: "Read the object again and decide anew.",
    410: "Do not ask again.",
    413: "Send less.",
    415: "Send another media type.",
    422: "Mend what `errors`, or another member of the document, names.",
    429: "Wait as many seconds as `Retry-After` says.",
    500: "Tell the operator; the log has the trace.",
    503: "Nothing was changed: send the same request again after `Retry-After` seconds.",
}


def problems() -> str:
    """A table of every type of problem that a service can answer with."""
    rows = [
        f"| {one.status} | `{one.slug}` | {one.title} | {_when(one)} | {one.detail or _WHAT_TO_DO[one.status]} |"
        for one in sorted(problem_types(), key=lambda one: (one.status, one.slug))
    ]
    return _ABOUT_PROBLEMS + "\n".join(rows) + "\n"


def _when(problem: type[Problem]) -> str:
    """What its class says, without the status."""
    words = " ".join((problem.__doc__ or "").split("\n\n")[0].split())
    words = re.sub(r"^(RFC|[45]\d\d)\b[^:.]*[:.] ?", "", words) or "No other type says it better."
    return words[0].upper() + words[1:]


def problem_types() -> list[type[Problem]]:
    """The class of each type; subclasses that are not to be told apart share that of their parent."""
    for service in SERVICES:
        import_module(f"services.{service}.app")
    import_module("services.privacy.keyring.app")
    found: dict[str, type[Problem]] = {}
    waiting: list[type[Problem]] = [Problem]
    while waiting:
        one = waiting.pop(0)
        waiting += one.__subclasses__()
        if one.__module__.startswith(("libs.", "services.")):
            found.setdefault(one.slug, one)
    return list(found.values())


def _json(document: Any) -> bytes:
    return orjson.dumps(
        document, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE
    )


def main() -> None:
    """Write the documents, or with `--check` compare them."""
    parser = argparse.ArgumentParser(description="Write the documents that are computed from the code.")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail if a document is out of date"
    )
    check = parser.parse_args().check
    made = documents()
    stale = [path for path, content in made.items() if not path.exists() or path.read_bytes() != content]
    for path in stale:
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(made[path])
        print(("out of date: " if check else "written: ") + str(path.relative_to(DOCS.parent)))
    if check and stale:
        sys.exit("Run `make docs` and commit what it writes.")


if __name__ == "__main__":
    main()
