"""The clock of a worker: real unless a test brings its own and moves it."""

from datetime import UTC, datetime, timedelta

from libs.common.settings import ServiceSettings
from libs.common.worker import Duty, Work


def work(**changes: object) -> Work:
    return Work("shop", ServiceSettings, None, None, None, None, **changes)  # type: ignore[arg-type]


async def test_duties_take_the_time_from_a_clock_that_a_test_moves() -> None:
    seen: list[datetime] = []

    async def look(work: Work) -> int:
        seen.append(work.clock())
        return 0

    duty = Duty("look", look, timedelta(seconds=1))
    time = datetime(2028, 2, 29, 12, tzinfo=UTC)
    moving = work(clock=lambda: time)
    await duty.step(moving)
    time += timedelta(days=365)
    await duty.step(moving)
    assert seen == [datetime(2028, 2, 29, 12, tzinfo=UTC), datetime(2029, 2, 28, 12, tzinfo=UTC)]


def test_without_one_it_is_now_in_utc() -> None:
    before = datetime.now(UTC)
    told = work().clock()
    assert before <= told <= datetime.now(UTC) and told.tzinfo is UTC
