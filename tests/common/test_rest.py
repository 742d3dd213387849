"""How long whoever works on what waits rests from it."""

import time
from types import SimpleNamespace

import pytest

from libs.common import rest


@pytest.mark.parametrize(
    ("worked", "done", "rests"),
    [
        (0.1, None, 0.1),
        (0.1, 500, 0.1),
        (0.1, 1, 0.002),
        (0.1, 0, 0.0),
        (60.0, None, 0.25),
        (60.0, 500, 0.25),
    ],
)  # fmt: skip
async def test_as_long_as_it_worked_but_never_long_and_for_little_hardly_at_all(
    worked: float, done: int | None, rests: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    rested: list[float] = []

    async def sleep(seconds: float) -> None:
        rested.append(seconds)

    monkeypatch.setattr(rest, "asyncio", SimpleNamespace(sleep=sleep))
    await rest.rest(time.monotonic() - worked, done=done)

    assert rested == [pytest.approx(rests, abs=0.02)]
