"""What a check is, and what became of it.

    @check
    async def ignores_what_others_are_asked(scene: Scene) -> str:
        \"\"\"A task whose `participants` does not name you stays without an answer.\"\"\"

Its name comes from its function, what it expects from its docstring. It returns what was seen, or raises `Missing` with
what was seen instead, or `NotApplicable` with why nobody can ask for it.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from inspect import getdoc
from typing import Generic, TypeVar

DOCUMENT = "docs/adding-a-participant.md"

S = TypeVar("S")
Body = Callable[[S], Awaitable[str]]


class Missing(Exception):
    """What was seen is not what is expected."""


class NotApplicable(Exception):
    """What is to be checked does not exist here, and why."""


class Verdict(StrEnum):
    """What a check comes to."""

    PASSED = "passed"
    MISSING = "missing"
    NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True, slots=True)
class Check(Generic[S]):
    """One thing that a participant does."""

    name: str
    expected: str
    anchor: str
    body: Body[S]

    @property
    def link(self) -> str:
        """The section that says what is asked for."""
        return f"{DOCUMENT}#{self.anchor}"


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of one check."""

    check: str
    verdict: Verdict
    expected: str
    seen: str
    link: str
    asked: bool = True


class Checks(Generic[S]):
    """The checks of one subject, which one section of the docs is about, in the order in which they run."""

    def __init__(self, section: str) -> None:
        self.anchor = re.sub(r"[^a-z0-9 -]", "", section.lower()).replace(" ", "-")
        self.all: list[Check[S]] = []

    def __call__(self, body: Body[S]) -> Body[S]:
        """Take a function for a check."""
        expected = " ".join((getdoc(body) or "").split())
        if not expected:
            raise TypeError(f"{body.__name__} does not say what it expects")
        self.all.append(Check(body.__name__.replace("_", "-"), expected, self.anchor, body))
        return body


async def judge(check: Check[S], scene: S) -> Finding:
    """Run one check. Whatever goes wrong within it is something missing, in the participant or before it."""
    try:
        seen, verdict = await check.body(scene), Verdict.PASSED
    except Missing as error:
        seen, verdict = str(error), Verdict.MISSING
    except NotApplicable as error:
        seen, verdict = str(error), Verdict.NOT_APPLICABLE
    except Exception as error:
        seen, verdict = f"the check broke: {type(error).__name__}: {error}", Verdict.MISSING
    return Finding(check.name, verdict, check.expected, seen, check.link)


async def judge_all(
    checks: Iterable[Check[S]], scene: S, *, report: Callable[[Finding], None]
) -> Sequence[Finding]:
    """One after the other, each told as soon as it is known. Nobody can be asked anything before the first passes."""
    findings: list[Finding] = []
    for check in checks:
        if findings and findings[0].verdict is not Verdict.PASSED:
            why = f"could not be asked: {findings[0].check} is missing"
            finding = Finding(check.name, Verdict.MISSING, check.expected, why, check.link, asked=False)
        else:
            finding = await judge(check, scene)
        findings.append(finding)
        report(finding)
        await asyncio.sleep(0)
    return findings


def expect(condition: object, seen: str) -> None:
    """Raises Missing with what was seen."""
    if not condition:
        raise Missing(seen)
