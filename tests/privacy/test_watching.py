"""Deadlines are watched by a clock that tests move: once each, never lost, whatever stops in between."""

import asyncio
import logging
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from libs.common.auth import PLATFORM_STORE
from libs.common.events.privacy import Verb
from services.privacy import letters, watching
from services.privacy.domain.deadlines import Word
from services.privacy.engine import clock, decisions
from services.privacy.kinds import DeskAddress
from services.privacy.models import PrivacyDesk
from tests.privacy.conftest import Person, Platform
from tests.privacy.test_desk import MONDAY, deciding_on, french

DUE = date(2027, 4, 1)
"""Of what is verified on MONDAY in France: a Thursday, in summer time."""


def paris(day: date) -> datetime:
    """When a day of this summer begins there."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC) - timedelta(hours=2)


async def decided_by_nobody(platform: Platform, **more: Any) -> tuple[Person, UUID]:
    await french(platform)
    with platform.at(MONDAY):
        return await deciding_on(platform, **more)


async def watched(platform: Platform, now: datetime) -> None:
    with platform.at(now) as work:
        while await watching.watch(work):
            pass


async def noted(platform: Platform, request_id: UUID) -> list[tuple[str, str]]:
    """What is to be written about a request besides its beginning."""
    async with platform.database.session(platform.store_id) as session:
        rows = await session.execute(
            text(
                "SELECT template, reader FROM notice WHERE request_id = :id"
                " AND template NOT IN ('request-received', 'decision-wanted') ORDER BY due_at, template"
            ),
            {"id": request_id},
        )
    return [(row.template, row.reader) for row in rows]


async def row_of(platform: Platform, request_id: UUID) -> Any:
    async with platform.database.session(platform.store_id) as session:
        rows = await session.execute(text("SELECT * FROM request WHERE id = :id"), {"id": request_id})
        return rows.one()


async def test_a_silent_officer_is_reminded_then_the_platform_told_then_the_alarm_raised(
    platform: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    person, request_id = await decided_by_nobody(platform)
    reminders = [("decision-reminder", "officer")]
    await watched(platform, paris(DUE - timedelta(days=14)) - timedelta(seconds=1))
    assert await noted(platform, request_id) == []
    for count, days in enumerate((14, 7, 2), start=1):
        for _ in range(2):
            await watched(platform, paris(DUE - timedelta(days=days)) + timedelta(hours=1))
        # The 18th and the 25th are in winter time, an hour later.
        assert await noted(platform, request_id) == reminders * count, days
    assert (await row_of(platform, request_id)).escalated_at is None
    before = (await platform.seen(request_id))[1]
    await watched(platform, paris(DUE))
    assert (await noted(platform, request_id))[3:] == [
        ("decision-escalated", "officer"), ("request-escalated", "platform"),
    ]  # fmt: skip
    found, etag = await platform.seen(request_id)
    assert found["desk"]["may_decide"] == ["store", "platform"] and etag != before
    with caplog.at_level(logging.ERROR, logger="services.privacy.watching"):
        await watched(platform, paris(DUE + timedelta(days=1)))
        await watched(platform, paris(DUE + timedelta(days=2)))
    [record] = [one for one in caplog.records if getattr(one, "request_id", "") == str(request_id)]
    assert record.getMessage() == "a request is overdue" and person.email not in str(vars(record))
    assert len(await noted(platform, request_id)) == 5
    assert (await row_of(platform, request_id)).watch_at is None


async def test_after_an_outage_one_reminder_is_enough_and_nothing_else_is_left_out(
    platform: Platform,
) -> None:
    _, request_id = await decided_by_nobody(platform)
    await watched(platform, paris(DUE - timedelta(days=1)))
    assert await noted(platform, request_id) == [("decision-reminder", "officer")]
    await watched(platform, paris(DUE + timedelta(days=3)))
    assert [template for template, _ in await noted(platform, request_id)] == [
        "decision-reminder", "decision-escalated", "request-escalated",
    ]  # fmt: skip


async def test_a_crash_between_saying_and_having_said_loses_and_doubles_nothing(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, request_id = await decided_by_nobody(platform)
    go_on: Any = watching._go_on  # pyright: ignore[reportPrivateUsage]

    async def crash(*_: Any) -> None:
        raise RuntimeError("the process ends here")

    monkeypatch.setattr(watching, "_go_on", crash)
    with pytest.raises(RuntimeError):
        await watched(platform, paris(DUE))
    assert await noted(platform, request_id) == []
    monkeypatch.setattr(watching, "_go_on", go_on)
    await watched(platform, paris(DUE))
    assert [template for template, _ in await noted(platform, request_id)] == [
        "decision-escalated", "request-escalated",
    ]  # fmt: skip


async def test_two_watchers_at_once_say_it_once(platform: Platform) -> None:
    _, request_id = await decided_by_nobody(platform)
    with platform.at(paris(DUE)) as work:
        await asyncio.gather(*(watching.watch(work) for _ in range(4)))
        while await watching.watch(work):
            pass
    assert len(await noted(platform, request_id)) == 2


@pytest.mark.parametrize("end", ["refuse", "approve", "cancel"])
async def test_the_end_of_a_request_ends_its_watch(platform: Platform, end: str) -> None:
    person, request_id = await decided_by_nobody(platform)
    if end == "refuse":
        body = {"refuse": "excessive", "explanation": "Again."}
        assert (await platform.do(request_id, "decision", body)).status_code == 200
    elif end == "approve":
        assert (await platform.do(request_id, "decision", {"approve": True})).status_code == 200
        await platform.ask_keyring()
        await platform.answer_all(request_id, Verb.ERASE)
        await platform.ask_keyring()
        await platform.answer_all(request_id, Verb.VERIFY_ERASED)
        assert await platform.state(person, request_id) == "completed"
    else:
        async with platform.database.session(platform.store_id) as session:
            row = await decisions.locked(session, platform.store_id, request_id)
            await decisions.cancel(session, row, now=MONDAY)
    before = await noted(platform, request_id)
    await watched(platform, paris(DUE + timedelta(days=90)))
    assert await noted(platform, request_id) == before
    assert (await row_of(platform, request_id)).escalated_at is None


async def test_a_decided_request_that_services_hold_up_is_escalated_without_reminders(
    platform: Platform,
) -> None:
    _, request_id = await decided_by_nobody(platform)
    assert (await platform.do(request_id, "decision", {"approve": True})).status_code == 200
    await watched(platform, paris(DUE - timedelta(days=1)))
    assert [template for template, _ in await noted(platform, request_id)] == ["request-approved"]
    await watched(platform, paris(DUE))
    assert ("request-escalated", "platform") in await noted(platform, request_id)


async def test_a_stopped_clock_is_not_watched_and_goes_on_where_it_was(platform: Platform) -> None:
    _, request_id = await decided_by_nobody(platform)
    with platform.at(MONDAY + timedelta(days=10)):
        assert (await platform.do(request_id, "question", {"text": "Which order?"})).status_code == 200
    await watched(platform, paris(DUE + timedelta(days=100)))
    assert [one for one in await noted(platform, request_id) if one[1] != "person"] == []
    async with platform.database.session(platform.store_id) as session:
        row = await decisions.locked(session, platform.store_id, request_id)
        await clock.answered(session, row, now=MONDAY + timedelta(days=20))
    assert (await row_of(platform, request_id)).due_on == date(2027, 4, 12)
    await watched(platform, paris(date(2027, 4, 12)))
    assert ("request-escalated", "platform") in await noted(platform, request_id)


async def test_what_was_due_before_the_clock_was_stopped_is_said_when_it_goes_on(platform: Platform) -> None:
    """The worker was away on the last day, when the officer asked something that was answered the same hour."""
    _, request_id = await decided_by_nobody(platform)
    noon = paris(DUE) + timedelta(hours=12)
    with platform.at(noon):
        assert (await platform.do(request_id, "question", {"text": "Which order?"})).status_code == 200
    async with platform.database.session(platform.store_id) as session:
        row = await decisions.locked(session, platform.store_id, request_id)
        await clock.answered(session, row, now=noon + timedelta(hours=1))
    assert (await row_of(platform, request_id)).due_on == DUE
    await watched(platform, noon + timedelta(hours=2))
    assert ("request-escalated", "platform") in await noted(platform, request_id)


async def test_california_is_told_of_the_receipt_even_before_anybody_is_verified(platform: Platform) -> None:
    await platform.decides(enough={"erasure": ["document"]})
    person = await platform.person()
    with platform.at(MONDAY):
        request_id = UUID((await platform.ask(person, "delete")).json()["id"])
    row = await row_of(platform, request_id)
    assert (row.acknowledge_by, row.acknowledged_at, row.watch) == (
        date(2027, 3, 15), None, Word.ACKNOWLEDGEMENT_REMINDER,
    )  # fmt: skip
    await watched(platform, MONDAY + timedelta(days=11))
    assert ("request-acknowledged", "person") in await noted(platform, request_id)
    row = await row_of(platform, request_id)
    assert row.acknowledged_at == MONDAY + timedelta(days=11)
    assert row.watch == Word.REMINDER
    # Nobody is to blame for what was never shown to be theirs.
    await watched(platform, MONDAY + timedelta(days=60))
    assert (await row_of(platform, request_id)).escalated_at is None
    assert [one for one in await noted(platform, request_id) if one[1] != "person"] == []


async def test_the_platforms_desk_is_written_to(platform: Platform) -> None:
    email = f"canary-{uuid4().hex[:12]}@vitrine.example"
    vault = platform.work.vault
    subject_id = await vault.subject_id(PLATFORM_STORE, email)
    made = await vault.seal(
        DeskAddress(email=email, language="en"), store_id=PLATFORM_STORE, subject_id=subject_id, begin=True
    )
    async with platform.database.session(PLATFORM_STORE) as session:
        await session.merge(
            PrivacyDesk(
                store_id=PLATFORM_STORE, subject_id=subject_id, generation=made.generation, box=made.box
            )
        )
    person, request_id = await decided_by_nobody(platform)
    await watched(platform, paris(DUE))
    with platform.at(paris(DUE)) as work:
        while await letters.write(work):
            pass
    told = [
        (template, body)
        for template, _, body in await platform.waiting(subject_id, PLATFORM_STORE)
        if str(request_id) in body
    ]
    [(template, body)] = told
    assert template == "request-escalated" and "Chez Ada" in body and person.email not in body
    assert "April 1, 2027" in body
    async with platform.database.session(PLATFORM_STORE) as session:
        await session.execute(text("DELETE FROM privacy_desk WHERE store_id = :id"), {"id": PLATFORM_STORE})
