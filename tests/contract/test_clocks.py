"""Every kind of data that a service declares has a clock, and some service starts it."""

from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from deploy.local.environment import SERVICES
from libs.common import mail
from libs.common.mail import SENDING
from libs.common.personal.datamap import data_map
from libs.common.personal.participant import Participant
from libs.common.personal.vocabulary import RULES, Clock, Retention

SERVICES_FOLDER = Path(import_module("services").__path__[0])


def participant_of(service: str) -> Participant:
    return import_module(f"services.{service}.consumer").PARTICIPANT


def starters() -> Mapping[Clock, set[str]]:
    """By clock, the services that declare that they start it."""
    return {
        clock: {service for service in SERVICES if clock in participant_of(service).clocks} for clock in RULES
    }


def never_started(entries: Iterable[Mapping[str, Any]], started: Iterable[Clock]) -> list[str]:
    """Kinds whose data would stay for ever: no clock of theirs is started by anybody."""
    known = {clock.value for clock in started}
    return sorted(
        entry["kind"]
        for entry in entries
        if "kind" in entry and not known & set(entry["retention"].get("clocks", ()))
    )


def test_every_kind_that_is_kept_has_a_clock_that_somebody_starts() -> None:
    entries = [
        entry
        for service in SERVICES
        for entry in data_map(service, participant_of(service).holdings, participant_of(service).copies)
    ]
    assert len({entry["kind"] for entry in entries if "kind" in entry}) > 10
    assert never_started(entries, [clock for clock, names in starters().items() if names]) == []


def test_a_kind_that_nobody_would_ever_let_go_is_found() -> None:
    entry = {"kind": "Diary", "retention": {"name": "account", "clocks": {"account-closed": "P3M"}}}
    assert never_started([entry], [Clock.ORDER_PAID]) == ["Diary"]
    assert never_started([{"kind": "Diary", "retention": {"name": "diary"}}], RULES) == ["Diary"]
    assert never_started([entry], [Clock.ACCOUNT_CLOSED]) == []


@pytest.mark.parametrize("clock", list(RULES))
def test_every_clock_is_started_by_a_service(clock: Clock) -> None:
    assert starters()[clock]


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_starts_what_it_says_and_nothing_else(service: str) -> None:
    source = "\n".join(
        path.read_text()
        for path in (SERVICES_FOLDER / service).rglob("*.py")
        if path.name not in {"personal.py", "words.py"} and "retention" not in path.parts
    )
    named = {clock for clock in RULES if f"Clock.{clock.name}" in source}
    # Whoever writes letters starts this one with each.
    if SENDING in import_module(f"services.{service}.consumer").DUTIES:
        assert f"Clock.{Clock.MESSAGE_SETTLED.name}" in Path(mail.__file__).read_text()
        named.add(Clock.MESSAGE_SETTLED)
    assert named == participant_of(service).clocks


def test_the_law_and_the_length_are_in_the_data_map() -> None:
    [invoice] = [
        entry
        for entry in data_map("billing", participant_of("billing").holdings, ())
        if entry.get("kind") == "InvoiceContact"
    ]
    assert invoice["retention"]["name"] == Retention.ACCOUNTING
    assert invoice["retention"]["clocks"] == {Clock.INVOICE_ISSUED: "P10Y"}
