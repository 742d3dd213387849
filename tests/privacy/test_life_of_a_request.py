"""One request through whatever the person, the desk and time may do, in any order: the real service against the law as
one would write it on a page.
"""

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, ClassVar, TypeVar
from zoneinfo import ZoneInfo

import holidays
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from libs.common.events.privacy import Verb
from libs.common.personal.vocabulary import Purpose
from services.privacy import watching
from services.privacy.api import means
from services.privacy.domain.problems import NotDecidable
from services.privacy.domain.verification import Proof
from services.privacy.engine import decisions
from services.privacy.models import Request
from tests.privacy.conftest import EVERYBODY, Platform
from tests.privacy.test_desk import french

PARIS = ZoneInfo("Europe/Paris")
DAY = timedelta(days=1)
FRENCH: Any = holidays.country_holidays("FR")
T = TypeVar("T")


class Law:
    """What the law says of a request at a French store, day by day."""

    def __init__(self) -> None:
        self.state = "verifying"
        self.verified_on: date | None = None
        self.waited = 0
        self.answered_on: date | None = None
        self.stopped_on: date | None = None
        self.extended = False
        self.escalated = False

    @property
    def is_over(self) -> bool:
        return self.state in {"refused", "cancelled"}

    @property
    def due(self) -> date | None:
        """A month, or three, from verification, and the days that were waited; then the next working day."""
        if self.verified_on is None or self.stopped_on is not None:
            return None
        month = self.verified_on.month - 1 + (3 if self.extended else 1)
        year, month, day = self.verified_on.year + month // 12, month % 12 + 1, self.verified_on.day
        while True:
            try:
                last = date(year, month, day)
                break
            except ValueError:
                day -= 1
        last += DAY * self.waited
        if self.answered_on is not None:
            last = max(last, self.answered_on)
        while not works(last):
            last += DAY
        return last

    def last_working_day(self) -> date:
        day = self.due
        assert day is not None
        while not works(day):
            day -= DAY
        return day


def works(day: date) -> bool:
    return day.weekday() < 5 and day not in FRENCH


class Life(RuleBasedStateMachine):
    """`platform` and `loop` are given by the test."""

    platform: ClassVar[Platform]
    loop: ClassVar[asyncio.AbstractEventLoop]

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    @property
    def today(self) -> date:
        return self.now.astimezone(PARIS).date()

    @initialize(start=st.datetimes(datetime(2027, 1, 1), datetime(2029, 1, 1)), verified=st.booleans())
    def opened(self, start: datetime, verified: bool) -> None:
        self.now = start.replace(tzinfo=UTC)
        self.law = Law()
        self.platform.app.dependency_overrides[means.now] = lambda: self.now
        self.person = self.run(self.platform.person())
        self.request_id = self.run(self.platform.opened(self.person, "erasure"))
        self.token = self.run(self._token())
        if verified:
            self.proved(Proof.DOCUMENT)

    async def _token(self) -> str:
        async with self.platform.database.session(self.platform.store_id) as session:
            row = await session.get_one(Request, self.request_id)
        assert row.contact is not None
        contact = await self.platform.work.vault.open(
            row.contact,
            store_id=row.store_id,
            subject_id=row.subject_id,
            purpose=Purpose.RIGHTS_OF_THE_PERSON,
        )
        return contact.status_token

    def desk(self, what: str, body: Any) -> tuple[int, str]:
        response = self.run(self.platform.do(self.request_id, what, body))
        return response.status_code, response.json().get("type", "").removeprefix("/problems/")

    # --- What may happen ---------------------------------------------------------------------------------

    @rule(days=st.integers(0, 40), hours=st.integers(0, 23))
    def time_passes(self, days: int, hours: int) -> None:
        self.now += timedelta(days=days, hours=hours)
        law = self.law
        if law.due is not None and not law.is_over and self.today >= law.last_working_day():
            law.escalated = True
        self.run(self._watch())

    async def _watch(self) -> None:
        while await watching.watch(replace(self.platform.work, clock=lambda: self.now)):
            pass

    @rule(proof=st.sampled_from([Proof.DOCUMENT, Proof.ORDER]))
    def proved(self, proof: Proof) -> None:
        self.run(self._prove(proof))
        if self.law.state == "verifying" and proof is Proof.DOCUMENT:
            self.law.state, self.law.verified_on = "deciding", self.today

    async def _prove(self, proof: Proof) -> None:
        async with self.platform.database.session(self.platform.store_id) as session:
            row = await decisions.locked(session, self.platform.store_id, self.request_id)
            await decisions.prove(session, row, proof, now=self.now, expected=EVERYBODY)

    @rule()
    def everybody_counts(self) -> None:
        if self.run(self.platform.tasks(self.request_id, Verb.PREVIEW)):
            self.run(self.platform.answer_all(self.request_id, Verb.PREVIEW))

    @rule(how=st.sampled_from(["approve", "refuse", "refuse-wrongly", "cancel"]))
    def ended(self, how: str) -> None:
        match how:
            case "approve":
                self.approved()
            case "cancel":
                self.cancelled()
            case _:
                self.refused(fits=how == "refuse")

    def approved(self) -> None:
        if self.law.state != "deciding":
            assert self.desk("decision", {"approve": True}) == (409, "not-decidable")
            return
        assert self.desk("decision", {"approve": True}) == (200, "")
        self.law.state = "running"
        self._go_on()

    def refused(self, fits: bool) -> None:
        body = {"refuse": "excessive" if fits else "data-is-accurate", "explanation": "Because."}
        if self.law.state not in {"verifying", "deciding"}:
            assert self.desk("decision", body) == (409, "not-decidable")
        elif not fits:
            assert self.desk("decision", body) == (422, "ground-does-not-fit")
        else:
            assert self.desk("decision", body) == (200, "")
            self.law.state = "refused"

    @rule()
    def extended(self) -> None:
        found = self.desk("extension", {"reason": "complexity"})
        if self.law.is_over or self.law.verified_on is None:
            assert found == (409, "not-decidable")
        elif self.law.extended:
            assert found == (409, "extended-already")
        elif self.law.due is not None and self.today > self.law.due:
            assert found == (409, "deadline-passed")
        else:
            assert found == (200, "")
            self.law.extended = True

    @rule()
    def asked(self) -> None:
        found = self.desk("question", {"text": "Which order do you mean?"})
        if self.law.state != "deciding":
            assert found == (409, "not-decidable")
        elif self.law.stopped_on is None and self.law.due is not None and self.today > self.law.due:
            assert found == (409, "deadline-passed")
        else:
            assert found == (200, "")
            self.law.stopped_on = self.law.stopped_on or self.today

    @rule()
    def answered(self) -> None:
        body = {"token": self.token, "text": "The one of Monday."}
        response = self.run(self.platform.client.post("/privacy/v1/status/answers", json=body))
        if self.law.stopped_on is None or self.law.is_over:
            assert response.status_code == 409
        else:
            assert response.status_code == 204
            self._go_on()

    def _go_on(self) -> None:
        if self.law.stopped_on is not None:
            self.law.waited += (self.today - self.law.stopped_on).days
            self.law.answered_on, self.law.stopped_on = self.today, None

    def cancelled(self) -> None:
        allowed = self.law.state in {"verifying", "deciding"}
        assert self.run(self._cancel()) is allowed
        if allowed:
            self.law.state = "cancelled"

    async def _cancel(self) -> bool:
        try:
            async with self.platform.database.session(self.platform.store_id) as session:
                row = await decisions.locked(session, self.platform.store_id, self.request_id)
                await decisions.cancel(session, row, now=self.now)
        except NotDecidable:
            return False
        return True

    # --- What is always so -------------------------------------------------------------------------------

    @invariant()
    def the_service_says_what_the_law_says(self) -> None:
        if not hasattr(self, "law"):
            return
        found, _ = self.run(self.platform.seen(self.request_id))
        law = self.law
        assert found["state"] == law.state
        if not law.is_over:
            assert found["due_on"] == (law.due.isoformat() if law.due else None)
            assert (found["stopped_since"] is not None) == (law.stopped_on is not None)
            assert found["overdue"] == (law.due is not None and self.today > law.due)
        assert (found["extension"] is not None) == law.extended
        assert (found["desk"]["escalated_at"] is not None) == law.escalated
        assert (found["desk"]["watch"] is None) or not law.is_over
        entered = [step["state"] for step in found["steps"]]
        assert entered[-1] == law.state and len(entered) == len(set(entered))


async def test_a_request_lives_as_the_law_says(platform: Platform) -> None:
    await french(platform)
    await platform.decides(passing={"erasure": "officer"}, enough={"erasure": ["document"]})
    Life.platform, Life.loop = platform, asyncio.get_running_loop()
    bounds = settings(
        max_examples=8,
        stateful_step_count=20,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    try:
        await asyncio.to_thread(run_state_machine_as_test, Life, settings=bounds)
    finally:
        platform.app.dependency_overrides.clear()
