"""The page a person reads, on a phone and without a network: what is kept about them, in their language, and why."""

import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime, time
from decimal import Decimal
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any, NamedTuple
from urllib.parse import quote

import orjson
from babel import Locale
from babel.dates import format_date, format_time
from babel.numbers import format_currency, format_decimal
from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from libs.common.money import as_decimal
from services.privacy.archive.export import DataMap, Export, Record
from services.privacy.archive.survey import Table, Tables, says_something

SHOWN = 500
"""Records of a table on the page. A phone that opens more shows nothing; the whole is in the table's CSV file."""

Words = Mapping[str, Mapping[str, str]]
_AMOUNT = re.compile(r"(.*_)?(amount|price)")
_ADDRESS = {"line1", "city", "country"}
_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d.*")
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_REMEMBERED = 4096


async def page(export: Export, tables: Tables) -> AsyncIterator[bytes]:
    """`index.html`."""
    words, parts = _words(export.language), _parts()
    yield parts.beginning(
        words["page"],
        language=export.language,
        kind="portable" if export.is_portable else "access",
        request_id=export.request_id,
        day=format_date(export.made_at.date(), format="long", locale=export.language),
        services=[(service, label(words, service)) for service in tables],
    ).encode()
    for service, by_name in tables.items():
        yield parts.chapter(service, label(words, service)).encode()
        for name, table in by_name.items():
            yield parts.heading(words["page"], _heading(export, words, service, name, table)).encode()
            async for article in _shown(export, words, service, name, table):
                yield article.encode()
        yield b"</section>\n"
    yield parts.end(words["page"]).encode()


def _heading(export: Export, words: Words, service: str, name: str, table: Table) -> dict[str, Any]:
    return {
        "label": label(words, name),
        "rows": _number(table.rows, Locale(export.language)),
        "one": table.rows == 1,
        "shown": SHOWN if table.rows > SHOWN else None,
        "sheet": f"{service}/{name}.csv",
        "about": _about(export.data_map, export.language, service, name, frozenset(table.columns)),
    }


@lru_cache(_REMEMBERED)
def _about(data_map: DataMap, language: str, service: str, name: str, columns: frozenset[str]) -> Markup:
    """Why all this is kept; the columns that are shown say whether anything of it is not in a box."""
    words = _words(language)
    entries = data_map.of_table(service, name)
    shown = [one for one in entries if one.get("kind") or not columns - set(one.get("impersonal", ()))]
    return _parts().about([reason(words, language, entry) for entry in shown], words["page"]["about"])


async def _shown(
    export: Export, words: Words, service: str, name: str, table: Table
) -> AsyncIterator[Markup]:
    readable, shown = Readable(words, export.language), 0
    async for _, record, _ in export.entries(service, among=table.chunks):
        if record["table"] == name and says_something(record):
            yield _parts().article(readable.record(record))
            shown += 1
            if shown == SHOWN:
                return


# --- Why it is kept --------------------------------------------------------------------------------------


def reason(words: Words, language: str, entry: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What, why, on what ground, how long, shared with whom and from where, by the data map."""
    if not entry.get("kind"):
        return [(words["page"]["source"], _said(words, "sources", [entry.get("source", "person")]))]
    retention = entry["retention"]
    kept = words["periods"].get(retention["name"], retention["period"])
    categories = sorted({one for found in entry["categories"].values() for one in found})
    return [
        (words["page"]["what"], _said(words, "categories", categories)),
        (words["page"]["why"], _said(words, "purposes", entry["purposes"])),
        (words["page"]["ground"], _said(words, "grounds", [entry["legal_basis"]])),
        (words["page"]["how_long"], f"{kept} ({retention['law']})"),
        (
            words["page"]["recipients"],
            _said(words, "recipients", entry["recipients"]) or words["page"]["nobody"],
        ),
        (words["page"]["source"], _said(words, "sources", [entry.get("source", "person")])),
    ]


def _said(words: Words, section: str, values: Sequence[str]) -> str:
    """These values of a vocabulary in the reader's language; one that has no word there stands for itself."""
    said = ", ".join(dict.fromkeys(words[section].get(value, value) for value in values))
    return said[:1].upper() + said[1:]


def label(words: Words, name: str) -> str:
    """A name of a service, a table or a column in the reader's language, or as it is."""
    last = name.rsplit(".", 1)[-1]
    known = words["labels"].get(name) or words["labels"].get(last)
    return known or last.replace("_", " ").replace("-", " ").capitalize()


# --- Values ----------------------------------------------------------------------------------------------


class Field(NamedTuple):
    """A name and a value as they are read: a text, or again fields, or a list."""

    label: str
    value: Any


class Readable:
    """Records in a language: dates, amounts, countries, words."""

    def __init__(self, words: Words, language: str) -> None:
        self._words = words
        self._locale = Locale(language)

    def record(self, record: Record) -> dict[str, Any]:
        """What the template shows of it."""
        facts = record["facts"]
        currency = facts.get("currency")
        unreadable = record.get("unreadable")
        return {
            "facts": self._fields(facts, currency, self._fact),
            "data": self._fields(record["data"] or {}, None, self._given),
            "unreadable": self._words["page"].get(unreadable, unreadable) if unreadable else None,
            "attached": [
                {
                    "label": label(self._words, name),
                    "rows": [self._fields(row, currency, self._fact) for row in rows],
                }
                for name, rows in record["attached"].items()
                if rows
            ],
        }

    def _fields(self, values: Mapping[str, Any], currency: Any, leaf: Callable[..., Any]) -> list[Field]:
        own = values.get("currency", currency)
        found = [
            Field(label(self._words, name), self._value(name, value, own, leaf))
            for name, value in values.items()
            if value not in (None, "", [], {}) and not (name == "currency" and _has_amount(values))
        ]
        return [one for one in found if one.value not in (None, "")]

    def _value(self, name: str, value: Any, currency: Any, leaf: Callable[..., Any]) -> Any:
        if isinstance(value, dict):
            return self._object(value, currency, leaf)
        if isinstance(value, list):
            shown = [self._value(name, one, currency, leaf) for one in value]
            return ", ".join(shown) if all(type(one) is str for one in shown) else shown
        return leaf(name, value, currency)

    def _object(self, value: Mapping[str, Any], currency: Any, leaf: Callable[..., Any]) -> Any:
        members = set(value)
        if members == {"amount", "currency"}:
            return self._money(value["amount"], value["currency"])
        if members == {"name", "media_type", "file"}:
            return Markup('<a href="{}">{}</a>').format(quote(value["file"]), value["name"])
        if members >= _ADDRESS:
            return self._address(value)
        return self._fields(value, currency, leaf)

    def _address(self, value: Mapping[str, Any]) -> str:
        """As on an envelope."""
        town = f"{value.get('postcode', '')} {value['city']}".strip()
        country = self._given("country", value["country"], None)
        return "\n".join(str(line) for line in (value["line1"], value.get("line2"), town, country) if line)

    def _fact(self, name: str, value: Any, currency: Any) -> str:
        """A column's value: what it means is known by its form."""
        if isinstance(value, int) and not isinstance(value, bool) and currency and _AMOUNT.fullmatch(name):
            return self._money(value, currency)
        if isinstance(value, str) and _TIME.fullmatch(value):
            return self._time(value)
        if isinstance(value, str) and _DAY.fullmatch(value):
            return _day(date.fromisoformat(value), self._locale)
        if isinstance(value, str):
            return self._words["values"].get(value) or self._given(name, value, currency)
        return self._given(name, value, currency)

    def _given(self, name: str, value: Any, _currency: Any) -> str:
        """What the person gave, as they gave it; codes are spelled out."""
        if isinstance(value, bool):
            return self._words["page"]["yes" if value else "no"]
        if isinstance(value, (int, float)):
            return _number(value, self._locale)
        if name.endswith("country"):
            return self._locale.territories.get(value, value)
        if name == "language":
            return self._locale.languages.get(value, value)
        return str(value)

    def _money(self, value: Any, currency: Any) -> str:
        with suppress(ValueError, TypeError, ArithmeticError):
            return _amount(value, currency, self._locale)
        return f"{value} {currency}"

    def _time(self, value: str) -> str:
        with suppress(ValueError):
            at = datetime.fromisoformat(value)
            minute = at.timetz().replace(second=0, microsecond=0)
            return f"{_day(at.date(), self._locale)}, {_time(minute, self._locale)} UTC"
        return value


# A store's prices and days come again and again, and a locale's rules for them take longer than all else of a page.


@lru_cache(_REMEMBERED)
def _day(value: date, locale: Locale) -> str:
    return format_date(value, format="long", locale=locale)


@lru_cache(_REMEMBERED)
def _time(value: time, locale: Locale) -> str:
    return format_time(value, format="short", locale=locale)


@lru_cache(_REMEMBERED, typed=True)
def _number(value: float, locale: Locale) -> str:
    return format_decimal(value, locale=locale)


@lru_cache(_REMEMBERED, typed=True)
def _amount(value: Any, currency: str, locale: Locale) -> str:
    return format_currency(Decimal(as_decimal(value, currency)), currency, locale=locale)


def _has_amount(values: Mapping[str, Any]) -> bool:
    return any(_AMOUNT.fullmatch(name) for name in values)


# --- Words and pages -------------------------------------------------------------------------------------


@cache
def _words(language: str) -> Words:
    return orjson.loads((files("services.privacy") / "pages" / f"words.{language}.json").read_bytes())


@cache
def _parts() -> Any:
    """The macros of `export.html`: a page is put together from what they make, so that no more than a record waits."""
    folder = files("services.privacy") / "pages"
    pages = Environment(
        loader=FunctionLoader(lambda name: (folder / name).read_text("utf-8")),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return pages.get_template("export.html").module
