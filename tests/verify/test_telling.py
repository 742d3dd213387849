"""What `vitrine requests` says, word for word, in the zone of whoever reads it."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitrine.telling import Telling, duration

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)
PARIS = Telling(NOON, ZoneInfo("Europe/Paris"))
ID = "5f3c2f9e-0000-4000-8000-000000000007"
PART: Mapping[str, Any] = {
    "participant": "billing", "task": "erase", "state": "failed", "waits": "answer", "after": [],
    "since": "2026-11-27T13:02:00Z", "tries": 3, "next_try_at": "2026-11-27T13:32:00Z",
    "error": None, "error_at": None, "stuck": False, "ended_by": ["answer"],
}  # fmt: skip
ROW: Mapping[str, Any] = {
    "request_id": ID, "store_id": "a-store", "store": "Papeterie", "right": "erasure", "state": "running",
    "opened_at": "2026-11-26T08:00:00Z", "due_on": "2026-12-28", "overdue": False, "escalated_at": None,
    "waits_for": "participants", "participants": ["billing", "orders"], "since": "2026-11-27T11:00:00Z",
    "failing": ["billing"], "stuck": ["orders"],
}  # fmt: skip
DEADLINE: Mapping[str, Any] = {
    "due_on": "2026-12-28", "over_at": "2026-12-28T23:00:00Z", "seconds_left": 2_718_000, "stopped_since": None
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "waiting for billing (erase) since 14:02, try 3, next try 14:32"),
        (
            {"error": "left-over", "error_at": "2026-11-27T13:12:00Z"},
            "waiting for billing (erase) since 14:02, try 3, next try 14:32, last error left-over at 14:12",
        ),
        (
            {"since": "2026-11-20T13:02:00+00:00", "next_try_at": "2026-11-27T11:59:00Z", "stuck": True},
            "waiting for billing (erase) since 20 Nov 14:02, try 3, next try now  STUCK",
        ),
        (
            {"since": "2025-12-31T23:30:00Z"},
            "waiting for billing (erase) since 1 Jan 00:30, try 3, next try 14:32",
        ),
        (
            {"since": "2025-12-31T22:30:00Z"},
            "waiting for billing (erase) since 31 Dec 2025 23:30, try 3, next try 14:32",
        ),
        (
            {"since": None, "next_try_at": None},
            "waiting for billing (erase) since ?, try 3, repeated only by hand",
        ),
        ({"waits": "turn", "after": ["keyring"]}, "billing (erase) comes after keyring"),
        ({"waits": "turn"}, "billing (erase) comes after others"),
        ({"waits": "time"}, "billing (erase) is asked at 14:32"),
        (
            {"waits": "completion"},
            "billing (erase) has had it since 14:02, and must still say that it is done",
        ),
        ({"waits": "something-newer"}, "waiting for billing (erase) since 14:02, try 3, next try 14:32"),
    ],
)
def test_a_part_is_told_in_a_line(changes: dict[str, Any], words: str) -> None:
    assert PARIS.part({**PART, **changes}) == words


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "its last day is 2026-12-28, 31 days 11 hours left"),
        ({"seconds_left": -7200}, "its last day was 2026-12-28: 2 hours LATE"),
        ({"due_on": None, "seconds_left": None}, "the law's period has not begun"),
        ({"seconds_left": None}, "its last day was 2026-12-28"),
        ({"stopped_since": "2026-11-27T09:00:00Z"}, "the clock stands still since 10:00"),
    ],
)
def test_a_deadline_is_told_by_its_distance(changes: dict[str, Any], words: str) -> None:
    assert PARIS.deadline({**DEADLINE, **changes}) == words


def test_a_list_is_a_table() -> None:
    other = {**ROW, "right": "access", "state": "deciding", "waits_for": "decision", "overdue": True}
    assert PARIS.table([ROW, other]) == [
        "REQUEST                               RIGHT    STATE     OPENED        LAST DAY            WAITS FOR",
        f"{ID}  erasure  running   26 Nov 09:00  2026-12-28          "
        "billing (failing), orders (STUCK) since 12:00",
        f"{ID}  access   deciding  26 Nov 09:00  2026-12-28 OVERDUE  a decision of the store",
    ]


def test_a_request_is_told_with_the_commands_that_would_end_it() -> None:
    ways = ["answer", "drive", "settlement", "departure"]
    one = {**ROW, "deadline": DEADLINE, "parts": [{**PART, "ended_by": ways}], "ended": 4}
    one["escalated_at"] = "2026-11-27T08:00:00Z"
    assert PARIS.request(one) == [
        "erasure at Papeterie (a-store)",
        "  running, opened 26 Nov 09:00; its last day is 2026-12-28, 31 days 11 hours left",
        "  escalated 09:00: the platform may decide it",
        "  waiting for billing (erase) since 14:02, try 3, next try 14:32",
        "  4 of 5 parts of this phase have ended",
        "",
        f"ask again at once:  vitrine requests drive {ID}",
        f"answer for one:     vitrine requests settle {ID} --participant billing --verb erase …",
        "it is gone for good: vitrine participants leave billing …",
    ]


def test_a_request_that_waits_for_nobody_of_these_says_whom_it_waits_for() -> None:
    for word, said in (("person", "its person"), ("worker", "the privacy worker"), ("new-word", "new-word")):
        one = {**ROW, "store": None, "waits_for": word, "deadline": DEADLINE, "parts": [], "ended": 0}
        assert PARIS.request(one)[2:] == [f"  waits for {said}"]


def test_participants_are_told_with_who_left() -> None:
    known = {
        "items": [
            {"name": "billing", "announced_at": "2026-11-27T08:00:00Z", "waiting": 3},
            {"name": "sixth", "announced_at": None, "waiting": 0},
        ],
        "departed": [
            {
                "name": "loyalty",
                "departed_at": "2026-11-27T09:00:00Z",
                "ground": "taken-over",
                "successor": "sixth",
            },
            {"name": "old", "departed_at": "2026-11-26T09:00:00Z", "ground": "erased", "successor": None},
        ],
    }
    assert PARIS.participants(known) == [
        "billing  announced 09:00; 3 to answer",
        "sixth    expected, and never heard of; 0 to answer",
        "loyalty left 10:00: sixth has its data",
        "old left 26 Nov 10:00: erased",
    ]
    assert PARIS.participants({"items": []}) == []


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 seconds"), (1, "1 second"), (61, "1 minute 1 second"), (3600, "1 hour"), (90_061, "1 day 1 hour"),
     (86_460, "1 day")],
)  # fmt: skip
def test_a_duration_has_its_two_largest_units(seconds: int, words: str) -> None:
    assert duration(seconds) == words


@given(st.integers(0, 10**9))
def test_a_duration_is_never_longer_than_it_was_and_never_wrong_by_a_tenth(seconds: int) -> None:
    lengths = {"day": 86_400, "hour": 3_600, "minute": 60, "second": 1}
    words = duration(seconds).split()
    told = sum(int(n) * lengths[unit.rstrip("s")] for n, unit in zip(words[::2], words[1::2], strict=True))
    assert told <= seconds
    assert timedelta(seconds=seconds - told) <= max(timedelta(seconds=seconds) / 10, timedelta(0))
