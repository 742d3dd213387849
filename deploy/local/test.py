"""`make test`: every test, on real PostgreSQL and real Apache Kafka, and how long each part takes."""

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from deploy.local import cluster
from deploy.local.chromium import ensure_chromium
from deploy.local.errors import StartError
from deploy.local.kafka import fetch
from deploy.local.nursery import ROOT
from deploy.local.promtool import ensure_promtool

SEPARATE = ("contract", "conformance", "faults", "e2e")
"""Folders of `tests/` that are a part of their own; everything else is `unit`."""

_WHOLE_PLATFORMS = ("faults", "e2e")
"""Parts that keep a core busy for each of two processes; in the others a third of the time is spent waiting."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one part came to. `seconds` includes starting and stopping its servers."""

    part: str
    seconds: float
    exit_code: int
    counts: Mapping[str, int]


def parts() -> dict[str, list[str]]:
    """The parts in the order in which they run, with pytest's arguments."""
    separate = [name for name in SEPARATE if any((ROOT / "tests" / name).rglob("test_*.py"))]
    rest = ["tests", *(f"--ignore=tests/{name}" for name in separate)]
    everything = {"unit": rest} | {name: [f"tests/{name}"] for name in separate}
    return {name: [*arguments, *_side_by_side(name)] for name, arguments in everything.items()}


def _side_by_side(part: str) -> tuple[str, ...]:
    """Tests that share servers are a group (`tests/conftest.py`), and stay in one process."""
    return f"--numprocesses={2 if part in _WHOLE_PLATFORMS else 3}", "--dist=loadgroup"


def run(part: str, arguments: Sequence[str], report: Path) -> Outcome:
    """Run one part of the tests, its words on the terminal."""
    print(f"\n── {part} " + "─" * (70 - len(part)), flush=True)
    begin = time.monotonic()
    pytest = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            *arguments,
            "--durations=5",
            "--durations-min=2",
            f"--junitxml={report}",
        ],
        cwd=ROOT,
        check=False,
    )
    return Outcome(part, time.monotonic() - begin, pytest.returncode, _counts(report))


def summary(outcomes: Sequence[Outcome]) -> str:
    """One line as pytest closes with, over all parts."""
    total = {name: sum(outcome.counts[name] for outcome in outcomes) for name in _COUNTED}
    words = [f"{count} {name}" for name, count in total.items() if count] or ["no tests ran"]
    return f" {', '.join(words)} in {sum(outcome.seconds for outcome in outcomes):.2f}s ".center(80, "=")


_COUNTED = ("failed", "passed", "skipped", "errors")


def _counts(report: Path) -> dict[str, int]:
    """What pytest counted; nothing when it died before it could write its report."""
    if not report.exists():
        return dict.fromkeys(_COUNTED, 0)
    suites = list(ElementTree.parse(report).iter("testsuite"))  # noqa: S314 - we have just written it
    tests, failed, skipped, errors = (
        sum(int(suite.get(name, 0)) for suite in suites)
        for name in ("tests", "failures", "skipped", "errors")
    )
    return {
        "failed": failed,
        "passed": max(0, tests - failed - skipped - errors),
        "skipped": skipped,
        "errors": errors,
    }


def _prepare(folder: Path) -> None:
    asyncio.run(fetch())
    ensure_chromium()
    ensure_promtool()
    asyncio.run(cluster.build(folder / "cluster"))


def main() -> None:
    """Run the parts named on the command line, or all of them."""
    parser = argparse.ArgumentParser(prog="make test", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*parts(), []], metavar="part", help=", ".join(parts()))
    wanted = parser.parse_args().parts or list(parts())
    with tempfile.TemporaryDirectory(prefix="vitrine-test-") as folder:
        begin = time.monotonic()
        try:
            _prepare(Path(folder))
        except StartError as error:
            sys.exit(str(error))
        preparing = time.monotonic() - begin
        outcomes = [run(part, parts()[part], Path(folder) / f"{part}.xml") for part in wanted]
    print(f"\n{'Java, Kafka, Chromium, databases':<32}{preparing:7.1f} s")
    for outcome in outcomes:
        print(
            f"{outcome.part:<32}{outcome.seconds:7.1f} s   {'passed' if not outcome.exit_code else 'FAILED'}"
        )
    print("\n" + summary(outcomes))
    sys.exit(any(outcome.exit_code for outcome in outcomes))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
