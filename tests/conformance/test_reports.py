"""What the kit says: every check is explained, nothing passes silently, and the exit code is what was found."""

import json
import re
import subprocess
import sys
from typing import Any

import pytest

from conformance import over_kafka, over_webhook
from conformance.__main__ import main
from conformance.checks import (
    Check,
    Checks,
    Finding,
    Missing,
    NotApplicable,
    Verdict,
    expect,
    judge,
    judge_all,
)
from conformance.report import as_json, line, summary
from deploy.local.nursery import ROOT

ALL: list[Check[Any]] = [*over_kafka.CHECKS, *over_webhook.STANDARD, *over_webhook.SHOPIFY]
some = Checks[str]("What a test's checks say")


@some
async def passes(scene: str) -> str:
    """It is there."""
    expect(scene, "nothing")
    return scene


@some
async def lacks(_scene: str) -> str:
    """It should be there."""
    raise Missing("it is not")


@some
async def cannot_be_asked(_scene: str) -> str:
    """It would be there."""
    raise NotApplicable("nobody has it")


@some
async def breaks(_scene: str) -> str:
    """It does not break."""
    raise RuntimeError("at once")


# --- Documents -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("check", ALL, ids=lambda check: f"{check.anchor}-{check.name}")
def test_every_check_is_explained_where_its_link_leads(check: Check[Any]) -> None:
    path, _, anchor = check.link.partition("#")
    _, *sections = re.split(r"^##+ ", (ROOT / path).read_text(), flags=re.MULTILINE)
    [section] = [one for one in sections if _anchor(one.partition("\n")[0]) == anchor]

    assert f"| `{check.name}` | {check.expected} |" in section


def _anchor(title: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


@pytest.mark.parametrize("checks", [over_kafka.CHECKS, over_webhook.STANDARD, over_webhook.SHOPIFY])
def test_names_are_different(checks: list[Check[Any]]) -> None:
    assert len({check.name for check in checks}) == len(checks)


def test_a_check_that_expects_nothing_is_refused() -> None:
    async def silent(_scene: str) -> str:
        return ""

    with pytest.raises(TypeError):
        some(silent)


# --- Findings ------------------------------------------------------------------------------------------------


async def test_each_check_comes_to_what_it_saw() -> None:
    found = [await judge(check, "here") for check in some.all]

    assert [(one.check, one.verdict, one.seen) for one in found] == [
        ("passes", Verdict.PASSED, "here"),
        ("lacks", Verdict.MISSING, "it is not"),
        ("cannot-be-asked", Verdict.NOT_APPLICABLE, "nobody has it"),
        ("breaks", Verdict.MISSING, "the check broke: RuntimeError: at once"),
    ]


async def test_nobody_is_asked_before_the_first_passes() -> None:
    told: list[Finding] = []

    found = await judge_all(some.all, "", report=told.append)

    assert told == list(found)
    assert {one.verdict for one in found} == {Verdict.MISSING}
    assert [one.asked for one in found] == [True, False, False, False]
    assert found[2].seen == "could not be asked: passes is missing"


async def test_what_is_missing_says_what_is_expected_and_where_to_read_it() -> None:
    found = [await judge(check, "here") for check in some.all]

    assert "expected" not in line(found[0])
    assert "expected: It should be there." in line(found[1])
    assert "read: docs/adding-a-participant.md#what-a-tests-checks-say" in line(found[1])
    assert summary(found) == "1 passed, 2 missing, 1 not applicable (cannot-be-asked)"
    assert json.loads(as_json(found))["conforms"] is False
    assert json.loads(as_json(found[:1]))["conforms"] is True


# --- The command ---------------------------------------------------------------------------------------------


def kit(*arguments: str) -> int | str | None:
    """What the command exits with."""
    try:
        main(arguments)
    except SystemExit as end:
        return end.code
    return 0


def test_the_list_names_every_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert kit("--list") == 0

    listed = capsys.readouterr().out.splitlines()
    assert [one for one in listed if not one.startswith(" ")] == [check.name for check in ALL]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name either a --participant on a broker or a --webhook outside"),
        (["--participant=one", "--webhook=http://127.0.0.1:1/"], "name either"),
        (["--webhook=http://127.0.0.1:1/"], "--secret is what deliveries"),
        (["--participant=one", "--only=no-such-thing"], "no such check: no-such-thing"),
    ],
)
def test_what_cannot_be_run_is_said(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    code = kit(*arguments)

    assert code not in {0, None}
    # What is no number is said by the interpreter at the end.
    assert said in (code if isinstance(code, str) else capsys.readouterr().err)


def test_nobody_at_the_address_is_missing_and_not_a_crash() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "conformance", "--webhook=http://127.0.0.1:1/hook", "--secret=whsec_AAAA",
         "--only=answers-exports"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert found.returncode == 1
    assert "✗ missing        takes-a-test" in found.stdout
    assert "could not be asked: takes-a-test is missing" in found.stdout
