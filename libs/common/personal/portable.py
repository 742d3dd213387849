"""How a row reads in a vocabulary that other systems know: a template that a service declares and anybody can fill.

    {"@type": "Order", "orderNumber": "/facts/number", "customer": {"@type": "Person", "name": "/data/name"}}

A text that begins with a slash is a JSON pointer (RFC 6901) into the record of an export; any other stands for
itself. Three objects are computed: `amount` (minor units as a decimal), `each` (a list, whose entries are at
`/item`) and `word` (a word of ours in theirs). What is not there is left out, and so is an object of which nothing
but its type would be left. A template is JSON, so that it travels in the data map.
"""

from collections.abc import Mapping
from typing import Any

from libs.common.money import as_decimal

Template = Mapping[str, Any]


def amount(of: str, currency: str) -> Template:
    """Minor units at one pointer, of the currency at another, as a decimal text: `19.99`."""
    return {"$amount": of, "$currency": currency}


def each(of: str, template: Template) -> Template:
    """The template filled for every entry of a list."""
    return {"$each": of, "$as": template}


def word(of: str, words: Mapping[str, str]) -> Template:
    """What a fixed word means there; one that is not listed is left out."""
    return {"$word": of, "$in": words}


def postal_address(at: str) -> Template:
    """The `Address` at a pointer."""
    return {
        "@type": "PostalAddress",
        "streetAddress": f"{at}/line1",
        "extendedAddress": f"{at}/line2",
        "postalCode": f"{at}/postcode",
        "addressLocality": f"{at}/city",
        "addressCountry": f"{at}/country",
    }


def fill(template: Any, record: Mapping[str, Any]) -> Any:
    """The template with the record's values; None when nothing of it is there."""
    match template:
        case str():
            return pointed(template, record) if template.startswith("/") else template
        case {"$amount": of, "$currency": currency}:
            return _amount(pointed(of, record), pointed(currency, record))
        case {"$each": of, "$as": inner}:
            found = pointed(of, record)
            entries = found if isinstance(found, list) else []
            filled = [fill(inner, {**record, "item": entry}) for entry in entries]
            return [one for one in filled if one is not None] or None
        case {"$word": of, "$in": words}:
            return words.get(str(pointed(of, record)))
        case Mapping():
            return _object(template, record)
        case _:
            return template


def _object(template: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any] | None:
    filled = {name: fill(inner, record) for name, inner in template.items()}
    present = {name: value for name, value in filled.items() if value not in (None, "", [])}
    return present if present.keys() - {"@type"} else None


def _amount(value: Any, currency: Any) -> str | None:
    if not isinstance(value, int) or not isinstance(currency, str):
        return None
    return as_decimal(value, currency)


def pointed(pointer: str, value: Any) -> Any:
    """What a JSON pointer leads to; None when it leads nowhere."""
    for step in pointer.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(value, Mapping):
            value = value.get(name)
        elif isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        else:
            return None
    return value
