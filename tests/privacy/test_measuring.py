"""What is measured of requests, of who answers them, and of keys: figures that are true, and that fall to 0 again."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from opentelemetry.metrics import CallbackOptions
from sqlalchemy import text

from libs.common import telemetry
from libs.common.events.privacy import Outcome, Verb
from libs.common.personal.keys import KeyWanted, Life, Retirement
from libs.common.personal.vocabulary import Retention
from services.privacy import measuring
from services.privacy.domain.parts import RECEIVED_FOR, STUCK_AFTER, STUCK_ATTEMPTS, is_stuck
from services.privacy.domain.states import TERMINAL, TaskState
from services.privacy.engine import answers
from services.privacy.engine.tasks import IS_STUCK, measured_as
from services.privacy.keyring import measuring as keys
from tests.common.personal.shop import SHOP
from tests.privacy.conftest import Platform
from tests.privacy.keyring.conftest import RunningKeyring

Labels = frozenset[tuple[str, str]]


class Instrument:
    """Keeps what it is told, by its labels."""

    def __init__(self) -> None:
        self.told: dict[Labels, list[float]] = {}

    def _tell(self, value: float, labels: Mapping[str, str]) -> None:
        self.told.setdefault(frozenset((name, str(label)) for name, label in labels.items()), []).append(
            value
        )

    set = add = record = _tell

    def at(self, **labels: str) -> float:
        """What was told last; KeyError where nothing ever was."""
        return self.told[frozenset(labels.items())][-1]

    @property
    def labels(self) -> frozenset[str]:
        return frozenset(name for labels in self.told for name, _ in labels)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Instrument]]:
    """Instruments by the name they have in their modules, while telemetry is kept."""
    places: list[tuple[Any, str]] = [
        *(
            (measuring, name)
            for name in ("_open", "_age", "_by_age", "_due_soon", "_waiting", "_longest", "_stuck")
        ),
        (answers, "_latency"),
        (answers, "_failed"),
        (keys, "_keys"),
    ]
    found: dict[str, Instrument] = {}
    for module, name in places:
        found[name] = Instrument()
        monkeypatch.setattr(module, name, found[name])
    monkeypatch.setattr(telemetry, "is_kept", lambda: True)
    monkeypatch.setattr(measuring, "is_kept", lambda: True)
    yield found


async def forget_others(platform: Platform) -> None:
    """Requests that other tests left open are over: figures are of all stores."""
    async with platform.database.platform_session() as session:
        await session.execute(text("UPDATE task SET next_issue_at = NULL WHERE next_issue_at IS NOT NULL"))
        await session.execute(
            text(
                "UPDATE request SET state = 'cancelled' WHERE state NOT IN ('completed', 'refused', 'cancelled')"
            )
        )


# --- Requests --------------------------------------------------------------------------------------------


async def test_open_requests_are_told_by_right_state_age_and_distance(
    platform: Platform, told: dict[str, Instrument]
) -> None:
    await forget_others(platform)
    person = await platform.person()
    request_id = await platform.opened(person, "access")
    async with platform.database.session(platform.store_id) as session:
        over_at = (
            await session.execute(text("SELECT overdue_at FROM request WHERE id = :id"), {"id": request_id})
        ).scalar_one()
    now = datetime.now(UTC)
    ages = [(timedelta(0), "day"), (timedelta(days=2), "week"), (timedelta(days=8), "fortnight")]
    ages += [(timedelta(days=20), "month"), (timedelta(days=31), "older")]
    for later, age in ages:
        with platform.at(now + later) as work:
            await measuring.measure(work)
        assert told["_open"].at(right="access", state="running") == 1
        assert told["_age"].at(right="access", state="running") >= later.total_seconds()
        assert {word: told["_by_age"].at(state="running", age=word) for word in measuring.AGES} == {
            word: int(word == age) for word in measuring.AGES
        }
        distance = (over_at - now - later).total_seconds()
        [observed] = measuring._distances(CallbackOptions())  # pyright: ignore[reportPrivateUsage]
        assert observed.value == pytest.approx(distance)
        assert dict(observed.attributes or {}) == {"right": "access"}
        assert told["_due_soon"].at(right="access") == int(0 < distance <= measuring.SOON.total_seconds())
    await platform.answer_all(request_id, Verb.EXPORT)
    await platform.assemble()
    await measuring.measure(platform.work)
    assert told["_open"].at(right="access", state="running") == 0
    assert list(measuring._distances(CallbackOptions())) == []  # pyright: ignore[reportPrivateUsage]


async def test_nothing_is_measured_that_nobody_keeps(platform: Platform, told: dict[str, Instrument]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "is_kept", lambda: False)
        assert await measuring.measure(platform.work) == 0
    assert told["_open"].told == {}


# --- Participants ----------------------------------------------------------------------------------------


async def test_each_participant_is_told_with_what_it_has_to_answer(
    platform: Platform, told: dict[str, Instrument]
) -> None:
    await forget_others(platform)
    request_id = await platform.opened(await platform.person(), "access")
    later = datetime.now(UTC) + timedelta(minutes=30)
    with platform.at(later) as work:
        await measuring.measure(work)
    assert told["_waiting"].at(participant=SHOP) == 1
    assert told["_longest"].at(participant=SHOP) == pytest.approx(1800, abs=120)
    assert told["_stuck"].at(participant=SHOP) == 0
    with platform.at(later + timedelta(hours=1)) as work:
        await measuring.measure(work)
    assert told["_stuck"].at(participant=SHOP) == 1
    await platform.answer_all(request_id, Verb.EXPORT)
    await measuring.measure(platform.work)
    for name in ("_waiting", "_longest", "_stuck"):
        assert told[name].at(participant=SHOP) == 0
        assert told[name].at(participant="keyring") == 0


async def test_recipients_of_stores_are_told_together(
    platform: Platform, told: dict[str, Instrument]
) -> None:
    await forget_others(platform)
    request_id = await platform.opened(await platform.person(), "access")
    recipients = [uuid4(), uuid4()]
    async with platform.database.session(platform.store_id) as session:
        for recipient_id in recipients:
            await session.execute(
                text("""
                    INSERT INTO task (request_id, participant, verb, store_id, recipient_id, next_issue_at, asked_at)
                    VALUES (:id, :name, 'export', :store_id, :recipient_id, now(), now())
                """),
                {
                    "id": request_id,
                    "name": f"recipient-{recipient_id}",
                    "store_id": platform.store_id,
                    "recipient_id": recipient_id,
                },
            )
    await measuring.measure(platform.work)
    assert told["_waiting"].at(participant="recipient") == 2
    assert measured_as(f"recipient-{recipients[0]}") == "recipient"
    assert measured_as("orders") == "orders"
    names = {label for labels in told["_waiting"].told for _, label in labels}
    assert not [name for name in names if name.startswith("recipient-")]


async def test_latency_is_from_the_issue_to_the_answer_that_ends_a_task(
    platform: Platform, told: dict[str, Instrument]
) -> None:
    request_id = await platform.opened(await platform.person(), "access")
    async with platform.database.session(platform.store_id) as session:
        await session.execute(
            text("UPDATE task SET asked_at = now() - interval '90 seconds' WHERE request_id = :id"),
            {"id": request_id},
        )
    await platform.deliver(platform.answer(request_id, Verb.EXPORT, Outcome.FAILED, reason="box-unreadable"))
    assert told["_failed"].at(participant=SHOP, verb="export") == 1
    assert told["_latency"].told == {}
    answered = platform.answer(request_id, Verb.EXPORT)
    await platform.deliver(answered)
    assert told["_latency"].at(participant=SHOP, verb="export") == pytest.approx(90, abs=60)
    await platform.deliver(answered)
    assert [len(values) for values in told["_latency"].told.values()] == [1]
    assert told["_latency"].labels == {"participant", "verb"}


_STATES = sorted(set(TaskState) - TERMINAL)
_PATIENCE = (STUCK_AFTER, RECEIVED_FOR)


@pytest.mark.parametrize("state", _STATES)
@pytest.mark.parametrize("attempts", [0, STUCK_ATTEMPTS - 1, STUCK_ATTEMPTS])
@pytest.mark.parametrize(
    "asked", [None, timedelta(0), *(one + timedelta(seconds=by) for one in _PATIENCE for by in (-1, 0, 1))]
)
async def test_what_is_stuck_is_so_in_sql_too(
    state: TaskState, attempts: int, asked: timedelta | None, platform: Platform
) -> None:
    now = datetime(2027, 3, 1, tzinfo=UTC)
    asked_at = None if asked is None else now - asked
    query = f"""
        SELECT coalesce({IS_STUCK}, false) AND task.asked_at IS NOT NULL
        FROM (SELECT CAST(:state AS text), CAST(:attempts AS bigint), CAST(:asked_at AS timestamptz))
            AS task (state, attempts, asked_at)
    """
    async with platform.database.session(platform.store_id) as session:
        found = await session.scalar(
            text(query), {"state": state, "attempts": attempts, "asked_at": asked_at, "now": now}
        )
    assert found is is_stuck(state, attempts, asked_at, now)


# --- Keys ------------------------------------------------------------------------------------------------


async def test_keys_are_told_by_their_state(
    keyring: RunningKeyring, told: dict[str, Instrument], monkeypatch: pytest.MonkeyPatch
) -> None:
    before: dict[str, float] = {}

    async def changed() -> dict[str, float]:
        """By how much each figure has changed since it was last asked for."""
        await keys.measure(keyring.database, keyring.destructions)
        figures = {
            state: told["_keys"].at(state=state) for state in ("active", "restricted", "retired", "destroyed")
        }
        differences = {state: figure - before.get(state, 0) for state, figure in figures.items()}
        before.update(figures)
        return {state: difference for state, difference in differences.items() if difference}

    orders, privacy = keyring.client("orders"), keyring.client("privacy")
    store, kept, part = uuid4(), uuid4(), uuid4()
    await changed()
    await orders.mint([KeyWanted(store, person, Retention.ORDER, "", True) for person in (kept, part)])
    assert await changed() == {"active": 2}
    await privacy.restrict([Life(store, kept, 1)])
    assert await changed() == {"active": -1, "restricted": 1}
    [key_ids] = await privacy.retire([Retirement(store, part, 1, [Retention.ORDER])])
    assert await changed() == {"active": -1, "retired": 1}
    await privacy.destroy_retired(key_ids)
    assert await changed() == {"retired": -1, "destroyed": 1}
    # Beyond what is counted the planner's estimate is told, and never less than was counted.
    monkeypatch.setattr(keys, "_COUNTED", 0)
    await keys.measure(keyring.database, keyring.destructions)
    assert told["_keys"].at(state="destroyed") >= 1
