"""A measured figure, the floor it is read against, and how both are shown."""

import os
import platform
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

RESULTS = Path(__file__).parent / "results.json"


@dataclass(frozen=True, slots=True)
class Floor:
    """What the machine does at best for something that the figure cannot do without."""

    name: str
    value: float


@dataclass(frozen=True, slots=True)
class Figure:
    """A value with its unit. `aim` is what we want it to be; rates rise, milliseconds fall."""

    name: str
    value: float
    unit: str
    floor: Floor | None = None
    aim: float | None = None

    @property
    def share(self) -> float | None:
        """The figure as a part of its floor: this, not the value, is comparable between machines."""
        return self.value / self.floor.value if self.floor and self.floor.value else None


def percentile(values: Sequence[float], part: float) -> float:
    """The value below which `part` (0 to 1) of the values lie. Raises ValueError without any."""
    if not values:
        raise ValueError("nothing was measured")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def show(figures: Sequence[Figure]) -> str:
    """A table: name, value, aim, floor, share of the floor."""
    rows = [("what", "value", "unit", "aim", "floor in this run", "of it")]
    for figure in figures:
        floor = f"{figure.floor.value:,.0f}  {figure.floor.name}" if figure.floor else ""
        share = f"{figure.share:.0%}" if figure.share is not None else ""
        aim = f"{figure.aim:,.0f}" if figure.aim is not None else ""
        rows.append((figure.name, f"{figure.value:,.1f}", figure.unit, aim, floor, share))
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows
    )


def write(section: str, figures: Sequence[Figure]) -> None:
    """Put a section's figures into the file, with the machine and the commit, in place of what was measured before."""
    document: dict[str, Any] = orjson.loads(RESULTS.read_bytes()) if RESULTS.exists() else {}
    document[section] = {
        "measured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": _commit(),
        "machine": {
            "cores": os.cpu_count(),
            "processor": _processor(),
            "system": platform.platform(),
            "python": platform.python_version(),
        },
        "figures": [asdict(figure) | {"share_of_floor": figure.share} for figure in figures],
    }
    RESULTS.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
        cwd=RESULTS.parent,
    )
    return done.stdout.strip() or "unknown"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
