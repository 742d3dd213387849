"""What is measured of open requests: how many and how old, how far their last days are, and who keeps them waiting.

Labels are fixed words and the names of services; a store or a person is never one.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from itertools import product
from typing import Any

from opentelemetry.metrics import CallbackOptions, Observation
from sqlalchemy import Row, text

from libs.common.telemetry import is_kept, meter
from libs.common.worker import Work
from services.privacy.domain.rights import Right
from services.privacy.domain.states import KEYRING, OPEN
from services.privacy.engine.tasks import IS_STUCK, RECIPIENTS

SOON = timedelta(days=7)
"""A last day that is so near is soon."""
AGES: Mapping[str, int] = {"day": 0, "week": 1, "fortnight": 7, "month": 14, "older": 30}
"""By the word for an age, the days at which it begins: `week` is from one day to seven."""

# --- Requests --------------------------------------------------------------------------------------------

_open = meter.create_gauge("privacy.requests.open", description="Requests that have not ended.")
_age = meter.create_gauge("privacy.requests.age", unit="s", description="Age of the oldest open request.")
_by_age = meter.create_gauge(
    "privacy.requests.by_age", description="Requests that have not ended, by their age."
)
_due_soon = meter.create_gauge(
    "privacy.requests.due_soon", description="Open requests whose last day is over within a week."
)
_nearest: dict[Right, float] = {}


def _distances(_: CallbackOptions) -> Iterable[Observation]:
    """Of a right without open requests nothing is told: no distance would be true."""
    return [Observation(distance, {"right": right}) for right, distance in _nearest.items()]


meter.create_observable_gauge(
    "privacy.requests.deadline",
    [_distances],
    unit="s",
    description="Until the nearest last day of an open request is over; negative once it is.",
)
_COUNT_OPEN = text("""
    SELECT claim, state, width_bucket(
            (extract(epoch FROM :now - opened_at) / 86400)::float8, CAST(:ages AS float8[])) AS age_bucket,
        count(*) AS number, extract(epoch FROM :now - min(opened_at))::float8 AS age,
        extract(epoch FROM min(overdue_at) - :now)::float8 AS distance,
        count(*) FILTER (WHERE overdue_at > :now AND overdue_at <= :soon) AS due_soon
    FROM request WHERE state NOT IN ('completed', 'refused', 'cancelled') GROUP BY 1, 2, 3
""")


def _measure_requests(rows: Sequence[Row[Any]]) -> None:
    number: Counter[tuple[str, str]] = Counter()
    by_age: Counter[tuple[str, str]] = Counter()
    due_soon: Counter[str] = Counter()
    oldest: dict[tuple[str, str], float] = {}
    for row in rows:
        place, age = (row.claim, row.state), [*AGES][max(0, row.age_bucket - 1)]
        number[place] += row.number
        by_age[row.state, age] += row.number
        due_soon[row.claim] += row.due_soon
        oldest[place] = max(row.age, oldest.get(place, 0))
    for right, state in product(Right, sorted(OPEN)):
        _open.set(number[right, state], {"right": right, "state": state})
        _age.set(oldest.get((right, state), 0), {"right": right, "state": state})
    for state, age in product(sorted(OPEN), AGES):
        _by_age.set(by_age[state, age], {"state": state, "age": age})
    for right in Right:
        _due_soon.set(due_soon[right], {"right": right})
    _nearest.clear()
    for row in rows:
        if row.distance is not None:
            right = Right(row.claim)
            _nearest[right] = min(row.distance, _nearest.get(right, row.distance))


# --- Participants ----------------------------------------------------------------------------------------

_waiting = meter.create_gauge("privacy.tasks.waiting", description="Tasks issued and not answered.")
_longest = meter.create_gauge(
    "privacy.tasks.age", unit="s", description="Since when the oldest of these is waited for."
)
_stuck = meter.create_gauge(
    "privacy.tasks.stuck",
    description="Those of them that somebody should look at: see `vitrine requests list --stuck`.",
)
# The keyring announces nothing and answers all the same. Each part of the union has an index of its own.
_COUNT_TASKS = text(f"""
    SELECT name AS participant, count(task.request_id) AS number,
        count(task.request_id) FILTER (WHERE {IS_STUCK}) AS stuck,
        coalesce(extract(epoch FROM CAST(:now AS timestamptz) - min(task.asked_at)), 0)::float8 AS age
    FROM (
        SELECT name FROM participant UNION SELECT :keyring UNION SELECT '{RECIPIENTS}'
    ) AS known (name)
    LEFT JOIN (
        SELECT participant AS whose, task.* FROM task
        WHERE next_issue_at IS NOT NULL AND participant <> 'keyring' AND recipient_id IS NULL
        UNION ALL
        SELECT participant, task.* FROM task WHERE next_issue_at IS NOT NULL AND participant = 'keyring'
        UNION ALL
        SELECT '{RECIPIENTS}', task.* FROM task WHERE next_issue_at IS NOT NULL AND recipient_id IS NOT NULL
    ) AS task ON task.whose = known.name
    GROUP BY name
""")  # noqa: S608 - constants of the engine


async def measure(work: Work) -> int:
    """Open requests, and what each participant has still to answer; 0 is told too, or the last figure would stay."""
    if not is_kept():
        return 0
    now = work.clock()
    ages = {"now": now, "soon": now + SOON, "ages": [float(days) for days in AGES.values()]}
    async with work.database.platform_session() as session:
        _measure_requests((await session.execute(_COUNT_OPEN, ages)).all())
        for row in await session.execute(_COUNT_TASKS, {"keyring": KEYRING, "now": now}):
            labels = {"participant": row.participant}
            _waiting.set(row.number, labels)
            _longest.set(max(0, row.age), labels)
            _stuck.set(row.stuck, labels)
    return 0
