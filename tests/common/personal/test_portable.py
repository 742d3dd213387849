"""Templates of other vocabularies, filled from records."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.personal.portable import amount, each, fill, pointed, postal_address, word

RECORD: dict[str, Any] = {
    "facts": {"total": 1999, "currency": "EUR", "state": "paid", "a/b": 1, "note": ""},
    "data": {"name": "Zoé", "address": {"line1": "1 rue", "city": "Orléans", "country": "FR"}},
    "attached": {"line": [{"title": "Tea"}, {"other": 1}]},
}


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        ("a text", "a text"),
        ("/data/name", "Zoé"),
        ("/facts/a~1b", 1),
        ("/attached/line/0/title", "Tea"),
        ("/attached/line/7/title", None),
        ("/nowhere/at/all", None),
        (amount("/facts/total", "/facts/currency"), "19.99"),
        (amount("/facts/none", "/facts/currency"), None),
        (word("/facts/state", {"paid": "Paid"}), "Paid"),
        (word("/facts/state", {}), None),
        (each("/attached/line", {"@type": "Product", "name": "/item/title"}), [{"@type": "Product", "name": "Tea"}]),
        (each("/facts/state", {"name": "/item"}), None),
        ({"@type": "Person", "name": "/data/name", "note": "/facts/note"}, {"@type": "Person", "name": "Zoé"}),
        ({"@type": "Person", "name": "/data/none"}, None),
        (
            postal_address("/data/address"),
            {"@type": "PostalAddress", "streetAddress": "1 rue", "addressLocality": "Orléans", "addressCountry": "FR"},
        ),
    ],
)  # fmt: skip
def test_a_template_is_filled_with_what_is_there(template: Any, filled: Any) -> None:
    assert fill(template, RECORD) == filled


@given(st.dictionaries(st.text(), st.integers() | st.text(), min_size=1), st.data())
def test_a_pointer_finds_every_member_whatever_it_is_called(
    members: dict[str, Any], data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(members)))
    escaped = name.replace("~", "~0").replace("/", "~1")
    assert pointed(f"/data/{escaped}", {"data": members}) == members[name]
