"""What is in the archive: for people, for spreadsheets, for machines, and proof that it is whole."""

import csv
import hashlib
import io
import json
import re
from base64 import b64encode
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws
from joserfc.errors import BadSignatureError
from joserfc.jwk import KeySet
from jsonschema import Draft202012Validator

from services.privacy.archive.export import safe_name
from services.privacy.archive.page import SHOWN, _words  # pyright: ignore[reportPrivateUsage]
from tests.common.personal.shop import SHOP
from tests.privacy.archives import announce, archive_of, invoice, purchase
from tests.privacy.conftest import Platform


def rows_of(sheet: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(sheet.decode("utf-8-sig"))))


async def test_the_archive_is_for_people_spreadsheets_and_machines(platform: Platform) -> None:
    await announce(platform)
    person = await platform.person()
    files = await archive_of(platform, person, [[purchase()], [purchase("1002", name="=1+1"), invoice()]])
    assert files.testzip() is None
    assert files.namelist() == [
        "index.html", "privacy.json", "privacy.schema.json", "privacy/request.csv", "test-shop.json",
        "test-shop.schema.json", "test-shop/purchase.csv", "test-shop/purchase.purchase_line.csv",
        "test-shop/invoice.csv", "manifest.json", "manifest.json.jws",
    ]  # fmt: skip
    records = json.loads(files.read("test-shop.json"))
    assert records == {
        "service": SHOP, "records": [purchase(), purchase("1002", name="=1+1"), invoice()],
    }  # fmt: skip
    rows = rows_of(files.read("test-shop/purchase.csv"))
    assert [row["number"] for row in rows] == ["1001", "1002"]
    assert rows[0]["name"] == "Zoé <b>Canary</b>"
    assert rows[1]["name"] == "'=1+1", "a spreadsheet would run this"
    lines = rows_of(files.read("test-shop/purchase.purchase_line.csv"))
    assert [(line["row"], line["title"]) for line in lines] == [
        ("1", "Tea"), ("1", "'=cmd()"), ("2", "Tea"), ("2", "'=cmd()"),
    ]  # fmt: skip


async def test_an_export_of_nothing_says_so(platform: Platform) -> None:
    files = await archive_of(platform, await platform.person(), [])
    # What is known of them is the request itself.
    assert files.namelist() == [
        "index.html", "privacy.json", "privacy.schema.json", "privacy/request.csv", "manifest.json",
        "manifest.json.jws",
    ]  # fmt: skip


# --- The manifest ----------------------------------------------------------------------------------------


async def test_the_manifest_names_every_file_and_anybody_can_check_who_wrote_it(platform: Platform) -> None:
    person = await platform.person()
    files = await archive_of(platform, person, [[purchase()]])
    manifest = json.loads(files.read("manifest.json"))
    assert manifest["store"] == str(platform.store_id) and manifest["right"] == "access"
    assert manifest["services"][SHOP] == {"purchase": 1}
    assert manifest["files"] == [
        {
            "name": name,
            "size": len(files.read(name)),
            "sha256": hashlib.sha256(files.read(name)).hexdigest(),
        }
        for name in files.namelist()
        if not name.startswith("manifest.json")
    ]
    published = await platform.client.get("/privacy/v1/keys.json")
    assert published.status_code == 200 and "d" not in published.json()["keys"][0]
    keys = KeySet.import_key_set(published.json())
    signature = files.read("manifest.json.jws").decode()
    content = files.read("manifest.json")
    assert jws.deserialize_compact(signature, keys, algorithms=["ES256"], payload=content)
    with pytest.raises(BadSignatureError):
        jws.deserialize_compact(signature, keys, algorithms=["ES256"], payload=content + b" ")


# --- JSON Schema -----------------------------------------------------------------------------------------


async def test_every_record_is_of_the_form_its_service_announced(platform: Platform) -> None:
    await announce(platform)
    closed = purchase("1003") | {"data": None, "unreadable": "erased"}
    files = await archive_of(platform, await platform.person(), [[purchase(), closed], [invoice()]])
    schema = json.loads(files.read("test-shop.schema.json"))
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    document = json.loads(files.read("test-shop.json"))
    assert len(document["records"]) == 3
    assert list(validator.iter_errors(document)) == []
    for changes in ({"facts": {}}, {"data": {"name": 1, "email": "x"}}, {"kind": "Other"}, {"more": 1}):
        broken = document | {"records": [purchase() | changes]}
        assert not validator.is_valid(broken), changes


async def test_what_a_participant_announced_nothing_of_is_kept_in_the_form_it_came(
    platform: Platform,
) -> None:
    record = {"table": "../../purchase", "n": 1, "attached": {"../x": [{"a": 1}]}}
    files = await archive_of(platform, await platform.person(), [[record]])
    assert f"{SHOP}/purchase.csv" in files.namelist() and f"{SHOP}/purchase.x.csv" in files.namelist()
    document = json.loads(files.read("test-shop.json"))
    [kept] = document["records"]
    assert kept["facts"] == {"n": 1}
    assert Draft202012Validator(json.loads(files.read("test-shop.schema.json"))).is_valid(document)


# --- Attachments -----------------------------------------------------------------------------------------

PHOTO = b"\x89PNG\r\n\x1a\n" + bytes(range(256))


def with_files(*names: str) -> dict[str, Any]:
    content = b64encode(PHOTO).decode()
    attachments = [{"name": name, "media_type": "image/png", "content": content} for name in names]
    record = purchase()
    return record | {"data": record["data"] | {"photos": attachments, "portrait": attachments[0]}}


async def test_attachments_are_files_of_their_own_with_harmless_names(platform: Platform) -> None:
    names = ("../../etc/passwd", "photo d’été.png", "photo d’été.png")
    files = await archive_of(platform, await platform.person(), [[purchase(), with_files(*names)]])
    expected = [
        f"{SHOP}/files/purchase-2-1-etc-passwd",
        f"{SHOP}/files/purchase-2-2-photo-d-été.png",
        f"{SHOP}/files/purchase-2-3-photo-d-été.png",
        f"{SHOP}/files/purchase-2-4-etc-passwd",
    ]
    assert [name for name in files.namelist() if "/files/" in name] == expected
    assert all(files.read(name) == PHOTO for name in expected)
    text = b64encode(PHOTO)
    for name in ("index.html", "test-shop.json", "test-shop/purchase.csv"):
        assert text not in files.read(name), f"{name} repeats what is in a file of its own"
    assert rows_of(files.read("test-shop/purchase.csv"))[1]["portrait.file"] == expected[3]
    [record] = json.loads(files.read("test-shop.json"))["records"][1:]
    assert [one["file"] for one in record["data"]["photos"]] == expected[:3]
    page = files.read("index.html").decode()
    assert f'<a href="{SHOP}/files/purchase-2-1-etc-passwd">../../etc/passwd</a>' in page


@given(st.text(max_size=300))
def test_no_name_of_a_file_leads_anywhere(name: str) -> None:
    safe = safe_name(name)
    assert 0 < len(safe) <= 71
    assert not safe.startswith((".", "-")) and not set(safe) & set('/\\:*?"<>|\0\n \u202e')


# --- The page --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("language", "title"), [("en", "Your data"), ("fr", "Vos données")])
async def test_the_page_is_read_without_a_network_in_the_persons_language(
    platform: Platform, language: str, title: str
) -> None:
    await announce(platform)
    person = await platform.person()
    files = await archive_of(platform, person, [[purchase()]], language=language)
    page = files.read("index.html").decode()
    assert page.startswith("<!doctype html>")
    assert f'<html lang="{language}">' in page and f"<h1>{title}</h1>" in page
    assert "Zoé &lt;b&gt;Canary&lt;/b&gt;" in page and "<b>Canary" not in page
    assert person.email in page
    assert not re.search(r"(src|href)=\"(?!#|data:,)", page) and "http" not in page.replace("http-equiv", "")
    assert "default-src 'none'" in page


@pytest.mark.parametrize(
    ("language", "said"),
    [
        ("en", ["E-mail address, name", "To carry out your order", "a contract with you", "the carrier",
                "You gave it", "Until the order is settled"]),
        ("fr", ["Adresse e-mail, nom", "Exécuter votre commande", "Un contrat avec vous", "Le transporteur",
                "Vous l’avez donné", "Jusqu’au règlement de la commande"]),
    ],
)  # fmt: skip
async def test_the_page_says_what_why_on_what_ground_how_long_with_whom_and_from_where(
    platform: Platform, language: str, said: list[str]
) -> None:
    await announce(platform)
    files = await archive_of(platform, await platform.person(), [[purchase()]], language=language)
    page = files.read("index.html").decode()
    for words in said:
        assert words.lower() in page.lower(), words


@pytest.mark.parametrize(
    ("language", "shown"),
    [
        ("en", ["€1,234.50", "¥1,200", "March 5, 2026", "Waiting for payment", "France"]),
        ("fr", ["1 234,50 €", "1 200 JPY", "5 mars 2026", "En attente de paiement", "France"]),
    ],
)  # fmt: skip
async def test_the_page_has_dates_amounts_and_words_in_the_form_of_the_language(
    platform: Platform, language: str, shown: list[str]
) -> None:
    euros = purchase(
        total_amount=123450, currency="EUR", placed_at="2026-03-05T10:00:00+00:00", state="awaiting_payment"
    )
    euros["data"]["address"] = {
        "line1": "1 rue du Port", "line2": "", "postcode": "45000", "city": "Orléans", "country": "FR",
    }  # fmt: skip
    yen = purchase(lines=[{"title": "Tea", "unit_price": {"amount": 1200, "currency": "JPY"}}])
    files = await archive_of(platform, await platform.person(), [[euros, yen]], language=language)
    page = files.read("index.html").decode().replace("\u202f", " ").replace("\xa0", " ")
    for value in [*shown, "1 rue du Port\n45000 Orléans"]:
        assert value in page, value


async def test_the_page_of_somebody_with_much_data_stays_small_and_says_where_the_rest_is(
    platform: Platform,
) -> None:
    many = [purchase(str(number)) for number in range(SHOWN + 3)]
    files = await archive_of(platform, await platform.person(), [many])
    page = files.read("index.html").decode()
    assert page.count("<article>") == SHOWN + 1, "and the request itself"
    assert f'<a href="{SHOP}/purchase.csv">{SHOP}/purchase.csv</a>' in page and f"{SHOWN + 3} entries" in page
    assert len(rows_of(files.read(f"{SHOP}/purchase.csv"))) == SHOWN + 3


async def test_a_word_on_the_page_that_nobody_translated_stands_for_itself(platform: Platform) -> None:
    record = purchase(loyalty_points=7, tier=f"gold-{uuid4()}")
    page = (await archive_of(platform, await platform.person(), [[record]])).read("index.html").decode()
    assert "Loyalty points" in page and record["facts"]["tier"] in page


@pytest.mark.parametrize("language", ["en", "fr"])
def test_both_languages_have_the_same_words(language: str) -> None:
    words, english = _words(language), _words("en")
    assert {name: set(section) for name, section in words.items()} == {
        name: set(section) for name, section in english.items()
    }


# --- Portability -----------------------------------------------------------------------------------------


async def test_portability_gives_what_the_person_gave_and_schema_orgs_words_for_it(
    platform: Platform,
) -> None:
    person_of_shop = {"@type": "Person", "name": "/data/name", "email": "/data/email"}
    await announce(platform, purchase={"portable": person_of_shop}, invoice={"source": "derived"})
    person = await platform.person()
    chunks = [
        [purchase(), invoice()],
        [{"table": "visit", "kind": None, "facts": {}, "data": None, "attached": {}}],
    ]
    files = await archive_of(platform, person, chunks, right="portability")
    names = files.namelist()
    assert "portable.jsonld" in names and f"{SHOP}/purchase.csv" in names
    assert f"{SHOP}/invoice.csv" not in names, "it was computed"
    assert f"{SHOP}/visit.csv" not in names, "it was noted"
    graph = json.loads(files.read("portable.jsonld"))["@graph"]
    [node] = [one for one in graph if "test-shop" in one["@id"]]
    assert (node["@type"], node["name"]) == ("Person", "Zoé <b>Canary</b>")
    assert "The data you gave us" in files.read("index.html").decode()
    assert json.loads(files.read("manifest.json"))["right"] == "portability"


async def test_access_gives_everything_and_no_linked_data(platform: Platform) -> None:
    await announce(platform, invoice={"source": "derived"})
    files = await archive_of(platform, await platform.person(), [[purchase(), invoice()]])
    assert f"{SHOP}/invoice.csv" in files.namelist() and "portable.jsonld" not in files.namelist()
