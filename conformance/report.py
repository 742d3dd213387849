"""What the kit says: a line a check, or everything as JSON."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import orjson

from conformance.checks import Check, Finding, Verdict

_MARK = {Verdict.PASSED: "✓", Verdict.MISSING: "✗", Verdict.NOT_APPLICABLE: "–"}


def line(finding: Finding) -> str:
    """What was seen; of what is missing also what is expected, and where it is written."""
    said = f"{_MARK[finding.verdict]} {finding.verdict:<14} {finding.check}: {finding.seen}"
    if finding.verdict is Verdict.MISSING and finding.asked:
        said += f"\n    expected: {finding.expected}\n    read: {finding.link}"
    return said


def summary(findings: Sequence[Finding]) -> str:
    """How many of each, and the names of what could not be asked."""
    counts = Counter(finding.verdict for finding in findings)
    said = ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict)
    left = [one.check for one in findings if one.verdict is Verdict.NOT_APPLICABLE]
    return said + (f" ({', '.join(left)})" if left else "")


def as_json(findings: Sequence[Finding]) -> str:
    """For another program."""
    conforms = all(one.verdict is not Verdict.MISSING for one in findings)
    body = {"conforms": conforms, "findings": [asdict(one) for one in findings]}
    return orjson.dumps(body, option=orjson.OPT_INDENT_2).decode()


def listed(check: Check[Any]) -> str:
    """Its name, what it expects and where that is written."""
    return f"{check.name}\n    {check.expected}\n    {check.link}"
