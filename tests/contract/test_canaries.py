"""A person's data is in sealed boxes and in their own mails: not in a log, a table, an error or a span."""

import base64
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from uuid import uuid4

import pytest

from tests.contract.life import Life, forms, lies_in, living
from tests.contract.otlp import Collector, collecting


@pytest.mark.parametrize("offset", range(7))
def test_a_word_is_found_in_every_form(offset: int) -> None:
    word = f"qz{uuid4().hex[:14]}"
    text = b"x" * offset + word.encode() + b"and more"
    coded = base64.b64encode(text)
    for content in (
        text,
        text.upper(),
        text.hex().encode(),
        coded,
        base64.urlsafe_b64encode(text),
        coded.hex().encode(),
    ):
        assert lies_in(content, word), content
    assert not lies_in(os.urandom(10_000).hex().encode(), word)
    assert all(len(form) >= 16 for form in forms(word).values())


def test_no_database_holds_a_person_in_the_clear(lived: tuple[Life, Path]) -> None:
    life, _ = lived
    assert len(life.dumps) == 16
    assert places(life.dumps, life.canaries.word) == {}


def test_what_is_not_personal_is_found_in_the_same_places(lived: tuple[Life, Path]) -> None:
    life, _ = lived
    found = places(life.dumps, life.title.split()[1])
    assert {
        "catalog before the erasure",
        "orders before the erasure",
        "broker before the erasure",
    } <= found.keys()
    assert "hexadecimal" in found["broker before the erasure"]


def test_nothing_on_the_disk_but_the_mailbox_holds_a_person_in_the_clear(lived: tuple[Life, Path]) -> None:
    """Logs of all processes, PostgreSQL's own files and write-ahead log, temporary files, and whatever else is left."""
    life, folder = lived
    logs = {path.name for path in files(folder) if path.suffix == ".log"}
    assert {"gateway.log", "keyring.log", "orders-worker.log", "postgres.log"} <= logs
    contents = {str(path.relative_to(folder)): path.read_bytes() for path in files(folder)}
    found = places(contents, life.canaries.word)
    assert any(name.startswith("mailbox/") for name in found), "their own mails name them"
    assert {name: lying for name, lying in found.items() if not name.startswith("mailbox/")} == {}


def test_no_refusal_repeats_what_it_refuses(lived: tuple[Life, Path]) -> None:
    life, _ = lived
    assert len(life.refusals) >= 18
    assert [refusal for refusal in life.refusals if lies_in(refusal, life.canaries.word)] == []


def test_no_span_or_metric_carries_a_person(lived: tuple[Life, Path], collector: Collector) -> None:
    life, _ = lived
    assert life.requests["access"] and len(list(collector.spans())) > 100
    assert lies_in(collector.raw, life.canaries.word) == []


async def test_kafkas_log_holds_nobody_in_the_clear_either() -> None:
    async with collecting() as collector, living("kafka", collector) as (life, folder):
        contents = {str(path.relative_to(folder)): path.read_bytes() for path in files(folder)}
    in_topics = places(contents, life.title.split()[1])
    assert any(name.startswith("kafka/") for name in in_topics), "what is not personal is found there"
    assert all(name.startswith("mailbox/") for name in places(contents, life.canaries.word))


def places(contents: Mapping[str, bytes], word: str) -> dict[str, list[str]]:
    """Where a word lies, and in which forms."""
    return {place: lying for place, content in contents.items() if (lying := lies_in(content, word))}


def files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())
