"""`make test`: every test, on real PostgreSQL and real Apache Kafka, and how long each part takes."""

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from xml.etree import ElementTree

from deploy.local import cluster
from deploy.local.chromium import ensure_chromium
from deploy.local.errors import StartError
from deploy.local.kafka import keep_classes
from deploy.local.nursery import ROOT
from deploy.local.promtool import ensure_promtool

_TURNS = ({"unit": 3}, {"contract": 3}, {"faults": 3}, {"e2e": 2, "conformance": 2})
"""The parts that run side by side, each in so many processes: more than two cores, since tests wait for servers."""
_PROCESSES = {part: processes for turn in _TURNS for part, processes in turn.items()}
_SEPARATE = tuple(part for part in _PROCESSES if part != "unit")
"""Folders of `tests/` that are a part of their own; everything else is `unit`."""
_LONGEST_LINE = 16 * 2**20  # bytes


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one part came to. `seconds` includes starting and stopping its servers; `failed` names tests, and why."""

    part: str
    seconds: float
    exit_code: int
    counts: Mapping[str, int]
    failed: Sequence[str]


def _arguments(part: str) -> Sequence[str]:
    """Of pytest. Tests that share servers are a group, and stay in one process; `tests/conftest.py` puts the longest
    groups first.
    """
    rest = ["tests", *(f"--ignore=tests/{name}" for name in _SEPARATE)]
    paths = rest if part == "unit" else [f"tests/{part}"]
    return *paths, f"--numprocesses={_PROCESSES[part]}", "--dist=loadgroup", "--no-loadscope-reorder"


async def run(wanted: Collection[str], folder: Path) -> list[Outcome]:
    """Run these parts, and return what each came to."""
    outcomes: list[Outcome] = []
    for turn in _TURNS:
        running = (_run(part, folder / f"{part}.xml") for part in turn if part in wanted)
        outcomes += await asyncio.gather(*running)
    return outcomes


async def _run(part: str, report: Path) -> Outcome:
    """Run one part of the tests, its words on the terminal behind its name."""
    begin = time.monotonic()
    pytest = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", *_arguments(part)),
        *("--durations=5", "--durations-min=2", f"--junitxml={report}"),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        limit=_LONGEST_LINE,
        start_new_session=True,
    )
    try:
        async for line in cast(asyncio.StreamReader, pytest.stdout):
            print(f"{part:<11} │ {line.decode(errors='replace').rstrip()}".rstrip(), flush=True)
    except asyncio.CancelledError:
        # As Ctrl-C does it: it stops its servers before it ends.
        os.killpg(pytest.pid, signal.SIGINT)
        await pytest.communicate()
        raise
    exit_code, suites = await pytest.wait(), _suites(report)
    return Outcome(part, time.monotonic() - begin, exit_code, _counts(suites), _failed(suites))


def summary(outcomes: Sequence[Outcome], seconds: float) -> str:
    """One line as pytest closes with, over all parts."""
    total = {name: sum(outcome.counts[name] for outcome in outcomes) for name in _COUNTED}
    words = [f"{count} {name}" for name, count in total.items() if count] or ["no tests ran"]
    return f" {', '.join(words)} in {seconds:.2f}s ".center(80, "=")


_COUNTED = ("failed", "passed", "skipped", "errors")


def _suites(report: Path) -> list[ElementTree.Element]:
    """What pytest wrote down; nothing when it died before it could."""
    if not report.exists():
        return []
    return list(ElementTree.parse(report).iter("testsuite"))  # noqa: S314 - we have just written it


def _counts(suites: Sequence[ElementTree.Element]) -> dict[str, int]:
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


def _failed(suites: Sequence[ElementTree.Element]) -> list[str]:
    """A line for each test that did not pass: thousands of lines lie between what pytest says of it and the end."""
    return [
        f"FAILED {case.get('classname')} {case.get('name')}: {_first_line(problem.get('message', ''))}"
        for suite in suites
        for case in suite.iter("testcase")
        for problem in (*case.iter("failure"), *case.iter("error"))
    ]


def _first_line(words: str) -> str:
    return words.partition("\n")[0]


async def _prepare(folder: Path) -> None:
    await asyncio.gather(_fetch(folder / "kafka"), cluster.build(folder / "cluster"))


async def _fetch(kafka: Path) -> None:
    await keep_classes(kafka)
    # One after the other: apt-get lets nobody in beside itself.
    await asyncio.to_thread(ensure_chromium)
    await asyncio.to_thread(ensure_promtool)


def main() -> None:
    """Run the parts named on the command line, or all of them."""
    parser = argparse.ArgumentParser(prog="make test", description=__doc__)
    parser.add_argument(
        "parts", nargs="*", choices=[*_PROCESSES, []], metavar="part", help=", ".join(_PROCESSES)
    )
    wanted = parser.parse_args().parts or list(_PROCESSES)
    with tempfile.TemporaryDirectory(prefix="vitrine-test-") as folder:
        begin = time.monotonic()
        try:
            asyncio.run(_prepare(Path(folder)))
        except StartError as error:
            sys.exit(str(error))
        preparing = time.monotonic() - begin
        outcomes = asyncio.run(run(wanted, Path(folder)))
    print(f"\n{'Java, Kafka, Chromium, databases':<32}{preparing:7.1f} s")
    for outcome in outcomes:
        print(
            f"{outcome.part:<32}{outcome.seconds:7.1f} s   {'passed' if not outcome.exit_code else 'FAILED'}"
        )
    for outcome in outcomes:
        for line in outcome.failed:
            print(line)
    print("\n" + summary(outcomes, time.monotonic() - begin))
    sys.exit(any(outcome.exit_code for outcome in outcomes))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
