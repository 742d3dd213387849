"""What a person gets of all five services: in the form they announced, and in schema.org's words for elsewhere."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.contract.life import Life

# https://schema.org/version/latest: the properties of these types that we use.
PROPERTIES: Mapping[str, set[str]] = {
    "Person": {"name", "email", "knowsLanguage", "address"},
    "PostalAddress": {"streetAddress", "extendedAddress", "postalCode", "addressLocality", "addressCountry"},
    "Order": {
        "orderNumber", "orderDate", "orderStatus", "paymentMethod", "customer", "acceptedOffer", "partOfInvoice",
    },
    "Offer": {"itemOffered", "eligibleQuantity", "price", "priceCurrency"},
    "Product": {"name", "sku"},
    "QuantitativeValue": {"value"},
    "MonetaryAmount": {"value", "currency"},
    "Invoice": {"identifier", "customer", "provider", "totalPaymentDue", "referencesOrder"},
    "Organization": {"name"},
}  # fmt: skip


def test_every_record_is_of_the_form_its_service_announced(lived: tuple[Life, Path]) -> None:
    life, _ = lived
    seen: set[str] = set()
    for name, content in life.archive.items():
        if name.endswith(".schema.json"):
            document = json.loads(life.archive[name.replace(".schema", "")])
            schema = json.loads(content)
            Draft202012Validator.check_schema(schema)
            assert list(Draft202012Validator(schema).iter_errors(document)) == [], name
            forms = schema["properties"]["records"]["items"]["anyOf"][:-1]
            for record in document["records"]:
                assert any(Draft202012Validator(form).is_valid(record) for form in forms), record["table"]
                seen.add(f"{document['service']}.{record['table']}")
    assert {"orders.orders", "billing.invoice", "identity.account", "privacy.request"} <= seen


def test_the_page_knows_why_everything_is_kept(lived: tuple[Life, Path]) -> None:
    life, _ = lived
    page = life.archive["index.html"].decode()
    assert page.count("<details>") == page.count("<h3>") > 5
    assert life.canaries.name in page and life.canaries.address["city"] in page
    assert "€" in page and "Bank transfer" in page


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from nodes(part)


def test_a_person_takes_along_what_they_gave_in_words_that_others_read(lived: tuple[Life, Path]) -> None:
    life, _ = lived
    document = json.loads(life.portable["portable.jsonld"])
    assert document["@context"] == {"@version": 1.1, "@vocab": "https://schema.org/"}, "nothing to fetch"
    graph = {node["@type"]: node for node in document["@graph"]}
    assert set(graph) == {"Person", "Order", "Invoice"}
    for node in nodes(document["@graph"]):
        if "@type" in node:
            assert node.keys() - {"@id", "@type"} <= PROPERTIES[node["@type"]], node["@type"]
        else:
            assert node.keys() == {"@id"} and node["@id"].startswith("https://schema.org/Order")
    assert len({node["@id"] for node in document["@graph"]}) == len(document["@graph"])
    assert graph["Person"]["email"] == life.canaries.email
    order, invoice = graph["Order"], graph["Invoice"]
    assert order["customer"]["address"]["streetAddress"] == life.canaries.address["line1"]
    [offer] = order["acceptedOffer"]
    assert (offer["itemOffered"]["name"], offer["price"], offer["priceCurrency"]) == (
        life.title,
        "2.50",
        "EUR",
    )
    assert offer["eligibleQuantity"]["value"] == 2
    assert order["partOfInvoice"]["totalPaymentDue"]["value"] == "5.00"
    assert invoice["totalPaymentDue"]["value"] == "5.00" and invoice["customer"]["name"] == life.canaries.name
    assert invoice["referencesOrder"]["acceptedOffer"][0]["price"] == "2.50"


@pytest.mark.parametrize("noted", ["account_session", "download"])
def test_what_was_only_noted_about_them_stays(lived: tuple[Life, Path], noted: str) -> None:
    life, _ = lived
    everything = b"".join(life.archive.values()).decode()
    assert f'"table":"{noted}"' in everything or noted == "download", "there was nothing to leave out"
    assert f'"table":"{noted}"' not in b"".join(life.portable.values()).decode()
    assert {"orders.json", "orders/orders.csv", "identity.json", "index.html"} <= set(life.portable)
    assert json.loads(life.portable["manifest.json"])["right"] == "portability"
