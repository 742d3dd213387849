"""Bounded in number and in time, and forgetful on demand."""

from libs.common.personal.memory import Memory


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_nothing_outlives_its_seconds() -> None:
    clock = Clock()
    memory = Memory[str, int](seconds=10, capacity=5, clock=clock)
    memory.put("a", 1, since=0)
    clock.now = 4
    memory.put("b", 2, since=1)
    clock.now = 9.9
    assert (memory.get("a"), memory.get("b")) == (1, 2)
    clock.now = 10
    assert (memory.get("a"), memory.get("b")) == (None, 2)
    clock.now = 11
    memory.expire()
    assert len(memory) == 0


def test_the_least_recently_used_goes_first() -> None:
    memory = Memory[int, int](seconds=10, capacity=3, clock=Clock())
    for number in (1, 2, 3):
        memory.put(number, number, since=0)
    memory.get(1)
    memory.put(4, 4, since=0)
    assert [memory.get(number) for number in (1, 2, 3, 4)] == [1, None, 3, 4]
    assert len(memory) == 3


def test_a_tag_forgets_all_that_bear_it_and_nothing_else() -> None:
    memory = Memory[int, int](seconds=10, capacity=100, clock=Clock())
    for number in range(10):
        memory.put(number, number, since=0, tags=("even" if number % 2 == 0 else "odd", number))
    memory.forget("even")
    memory.forget(3)
    memory.forget("never seen")
    assert [number for number in range(10) if memory.get(number) is not None] == [1, 5, 7, 9]


def test_tags_of_what_is_gone_do_not_pile_up() -> None:
    memory = Memory[int, int](seconds=10, capacity=3, clock=Clock())
    for number in range(100):
        memory.put(number % 5, number, since=0, tags=(("tag", number),))
    assert len(memory._tagged) == len(memory) == 3  # pyright: ignore[reportPrivateUsage]
