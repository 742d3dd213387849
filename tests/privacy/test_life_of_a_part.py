"""Everybody's part of one request through whatever participants, operators and the keyring may do, in any order: the
real engine over the real database, against its rules as one would write them on a page.
"""

import asyncio
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any, ClassVar, TypeVar

import httpx
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from joserfc.jwk import ECKey
from sqlalchemy import text

from libs.common.events.privacy import Outcome, TaskAnswered, Verb
from libs.common.personal.answers import sign
from services.privacy import consumer
from services.privacy.domain.states import TERMINAL, TaskState
from services.privacy.engine.answers import record
from services.privacy.engine.tasks import Answer
from tests.common.personal.shop import SHOP
from tests.privacy.conftest import EVERYBODY, Platform
from tests.privacy.joined import Sixth, hand_over, settle_down
from tests.privacy.test_engine import make_due
from tests.privacy.test_parts import drive, settle

T = TypeVar("T")
RUNS = {"erasure": Verb.ERASE, "restriction": Verb.RESTRICT, "access": Verb.EXPORT}
WHO = st.integers(0, 5)
"""Of everybody there has been: the shop, the privacy service, and those who joined."""


class Rules:
    """Who is asked what in a request, and what follows from an answer."""

    def __init__(self, right: str, everybody: list[str]) -> None:
        self.right, self.state, self.round = right, "running", 1
        self.is_led = right != "access"
        self.here = list(everybody)
        self.gone: dict[str, str | None] = {}
        """Who left, and who has its data."""
        names = [*everybody, "keyring"] if self.is_led else everybody
        self.rows: dict[tuple[str, Verb], TaskState] = {
            (name, RUNS[right]): TaskState.WAITING for name in names
        }

    @property
    def verb(self) -> Verb | None:
        return {"running": RUNS[self.right], "checking": Verb.VERIFY_ERASED}.get(self.state)

    def phase(self) -> dict[str, TaskState]:
        return {name: state for (name, verb), state in self.rows.items() if verb is self.verb}

    def is_asked(self, name: str) -> bool:
        """Whether an answer of it is waited for now."""
        phase = self.phase()
        if name not in phase or phase[name] in TERMINAL:
            return False
        leads = self.is_led and self.state == "running" and name != "keyring"
        return not leads or phase["keyring"] in TERMINAL

    def said(self, name: str, state: TaskState) -> None:
        assert self.verb is not None
        self.rows[name, self.verb] = state
        self.move_on()

    def move_on(self) -> None:
        phase = set(self.phase().values())
        if self.state == "checking" and TaskState.FAILED in phase:
            self._anew()
        elif phase <= TERMINAL and self.state == "running" and self.right == "erasure":
            there = {"keyring", *self.here}
            did = [
                name
                for name, state in self.phase().items()
                if state is not TaskState.SETTLED and name in there
            ]
            self.state = "checking"
            self.rows |= {(name, Verb.VERIFY_ERASED): TaskState.WAITING for name in did}
        elif phase <= TERMINAL and self.state in {"running", "checking"}:
            self.state = "completed"

    def _anew(self) -> None:
        """Everybody for whom nobody answered erases again, and whoever joined for the check does too."""
        checked = [name for name, verb in self.rows if verb is Verb.VERIFY_ERASED]
        self.rows = {place: state for place, state in self.rows.items() if place[1] is Verb.ERASE}
        self.rows = {(name, Verb.ERASE): TaskState.WAITING for name in checked} | {
            place: state if state is TaskState.SETTLED else TaskState.WAITING
            for place, state in self.rows.items()
        }
        self.state, self.round = "running", self.round + 1

    def joins(self, name: str) -> None:
        self.here.append(name)
        if self.verb is not None and not set(self.phase().values()) <= TERMINAL:
            self.rows[name, self.verb] = TaskState.WAITING

    def leaves(self, name: str, heir: str | None) -> None:
        self.here.remove(name)
        self.gone[name] = heir
        self.hand_over()

    def hand_over(self) -> None:
        """What those who left are asked, by another round too, is their successors'."""
        while waiting := [one for one in self.gone if self.phase().get(one, TaskState.DONE) not in TERMINAL]:
            self._hand_over(waiting[0])

    def _hand_over(self, name: str) -> None:
        assert self.verb is not None
        self.rows[name, self.verb] = TaskState.SETTLED
        heir, phase = self._heir(name), self.phase()
        if heir is not None:
            if heir in phase and phase[heir] in TERMINAL:
                self.round += 1
                if self.right == "access":
                    others = [one for one, state in phase.items() if state is not TaskState.SETTLED]
                    self.rows |= {(one, self.verb): TaskState.WAITING for one in others}
            if heir not in phase or phase[heir] in TERMINAL:
                self.rows[heir, self.verb] = TaskState.WAITING
        self.move_on()

    def _heir(self, name: str) -> str | None:
        """Who has the data by now."""
        heir = self.gone[name]
        return self._heir(heir) if heir in self.gone else heir


class Parts(RuleBasedStateMachine):
    """`platform` and `loop` are given by the test."""

    platform: ClassVar[Platform]
    loop: ClassVar[asyncio.AbstractEventLoop]

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(120)

    @initialize(right=st.sampled_from(["erasure", "erasure", "erasure", *RUNS]), more=st.integers(0, 2))
    def opened(self, right: str, more: int) -> None:
        self.keys: dict[str, ECKey] = {SHOP: self.platform.shop_key, "privacy": consumer.PARTICIPANT.key}
        self.joined: list[Sixth] = []
        self.run(self._forget_who_just_came())
        for _ in range(more):
            self._announce()
        person = self.run(self.platform.person())
        self.request_id = self.run(self.platform.opened(person, right))
        # In the order in which they came: whom a choice means must not hang on a random name.
        self.model = Rules(right, list(self.keys))

    async def _forget_who_just_came(self) -> None:
        """Whoever came within a minute is given a part of what is checked, even where it was answered for."""
        async with self.platform.database.platform_session() as session:
            await session.execute(text("UPDATE participant SET joining_until = NULL"))

    def teardown(self) -> None:
        self.run(self._remove())

    async def _remove(self) -> None:
        async with self.platform.database.platform_session() as session:
            for one in getattr(self, "joined", []):
                await session.execute(text("DELETE FROM participant WHERE name = :name"), {"name": one.name})
                await session.execute(text("DELETE FROM departure WHERE name = :name"), {"name": one.name})

    def _announce(self) -> str:
        one = Sixth(self.platform)
        self.run(one.announce())
        self.run(settle_down(self.platform))
        self.joined.append(one)
        self.keys[one.name] = one.key
        return one.name

    def _name(self, who: int) -> str:
        return [*EVERYBODY, *(one.name for one in self.joined)][who % (2 + len(self.joined))]

    def _follow(self) -> None:
        """Archives are made by a duty."""
        if self.model.state == "completed":
            self.run(self.platform.assemble())

    # --- What may happen ---------------------------------------------------------------------------------

    @rule()
    def the_keyring_does_its_part(self) -> None:
        self.run(make_due(self.platform, self.request_id))
        self.run(self.platform.ask_keyring())
        if self.model.is_led and self.model.is_asked("keyring"):
            self.model.said("keyring", TaskState.DONE)

    @rule(
        who=WHO,
        says=st.sampled_from(Outcome),
        behind=st.sampled_from([0, 0, 0, 0, 1, -1]),
        twice=st.booleans(),
    )
    def somebody_answers(self, who: int, says: Outcome, behind: int, twice: bool) -> None:
        name, verb = self._name(who), self.model.verb or RUNS[self.model.right]
        is_taken = self.model.is_asked(name) and behind == 0 and name in self.model.here
        self.run(self._answer(name, verb, says, self.model.round - behind, twice))
        if is_taken:
            self.model.said(name, TaskState(says))
            self._follow()

    @precondition(lambda self: self.model.verb is not None)
    @rule(who=WHO)
    def everybody_answers_but_one(self, who: int) -> None:
        """So that all that can happen in a phase is tried in the next ones too."""
        self.the_keyring_does_its_part()
        for name in [*self.model.here]:
            if name != self._name(who) and self.model.is_asked(name) and self.model.verb is not None:
                self.run(self._answer(name, self.model.verb, Outcome.DONE, self.model.round, twice=False))
                self.model.said(name, TaskState.DONE)
        self._follow()

    @precondition(lambda self: self.model.state == "checking")
    @rule(who=WHO)
    def a_check_finds_something(self, who: int) -> None:
        name = self._name(who)
        is_taken = self.model.is_asked(name) and name in self.model.here
        self.run(self._answer(name, Verb.VERIFY_ERASED, Outcome.FAILED, self.model.round, twice=False))
        if is_taken:
            self.model.said(name, TaskState.FAILED)

    @rule(who=WHO, says=st.sampled_from(Outcome))
    def somebody_answers_what_was_asked_before(self, who: int, says: Outcome) -> None:
        if self.model.state == "checking":
            self.run(self._answer(self._name(who), Verb.ERASE, says, self.model.round, twice=False))

    async def _answer(self, name: str, verb: Verb, says: Outcome, round_: int, twice: bool) -> None:
        if round_ < 1:
            return
        answer = TaskAnswered(
            request_id=self.request_id, verb=verb, participant=name, outcome=says, round=round_
        )
        signed = sign(answer, store_id=self.platform.store_id, key=self.keys[name])
        await self.platform.deliver(*[signed] * (1 + twice))

    @rule(who=WHO)
    def somebody_has_received_it(self, who: int) -> None:
        """Which is never the end."""
        name, verb = self._name(who), self.model.verb
        if verb is None or not self.model.is_asked(name):
            return
        self.run(self._receive(Answer(self.request_id, name, verb, self.model.round, TaskState.RECEIVED, {})))
        self.model.said(name, TaskState.RECEIVED)
        assert self.model.state != "completed"

    async def _receive(self, answer: Answer) -> None:
        store_id = self.platform.store_id
        async with self.platform.database.session(store_id) as session:
            await record(session, store_id, [answer], expected=EVERYBODY, now=datetime.now(UTC))

    @rule(who=WHO)
    def somebody_else_signs_for_one(self, who: int) -> None:
        name, verb = self._name(who), self.model.verb or RUNS[self.model.right]
        answer = TaskAnswered(
            request_id=self.request_id,
            verb=verb,
            participant=name,
            outcome=Outcome.DONE,
            round=self.model.round,
        )
        stranger = ECKey.generate_key("P-256")
        self.run(self.platform.deliver(sign(answer, store_id=self.platform.store_id, key=stranger)))

    @rule(who=st.integers(0, 6))
    def an_operator_drives(self, who: int) -> None:
        name = "keyring" if who == 6 else self._name(who)
        verb = self.model.verb or RUNS[self.model.right]
        response = self.run(drive(self.platform, self.request_id, name, verb))
        self._allowed(response, name, verb, 202)

    @rule(who=WHO)
    def an_operator_answers_for_one(self, who: int) -> None:
        name, verb = self._name(who), self.model.verb or RUNS[self.model.right]
        officer = self.platform.of_platform() if name in EVERYBODY else self.platform.officer()
        response = self.run(settle(self.platform, self.request_id, name, verb, officer))
        if self._allowed(response, name, verb, 200):
            self.model.said(name, TaskState.SETTLED)
            self._follow()

    def _allowed(self, response: httpx.Response, name: str, verb: Verb, status: int) -> bool:
        if (name, verb) not in self.model.rows:
            assert response.status_code == 404, response.text
        elif not self.model.is_asked(name):
            assert response.status_code == 409, response.text
        else:
            assert response.status_code == status, response.text
            return True
        return False

    @rule()
    def nobody_answers_for_the_keyring(self) -> None:
        verb = self.model.verb or RUNS[self.model.right]
        response = self.run(settle(self.platform, self.request_id, "keyring", verb))
        assert response.json()["type"] == "/problems/keyring-answers-itself"

    @precondition(lambda self: len(self.joined) < 3)
    @rule()
    def one_joins(self) -> None:
        self.model.joins(self._announce())

    @precondition(lambda self: any(one.name in self.model.here for one in self.joined))
    @rule(who=WHO, heir=st.none() | WHO)
    def one_leaves(self, who: int, heir: int | None) -> None:
        leaving = [one.name for one in self.joined if one.name in self.model.here]
        name = leaving[who % len(leaving)]
        staying = [one for one in self.model.here if one != name]
        successor = None if heir is None else staying[heir % len(staying)]
        body = {"ground": "erased"} if successor is None else {"successor": successor}
        response = self.run(
            self.platform.client.post(
                f"/privacy/v1/participants/{name}/departure", json=body, headers=self.platform.of_platform()
            )
        )
        assert response.status_code == 202, response.text
        self.run(settle_down(self.platform))
        self.model.leaves(name, successor)
        self._follow()

    # --- What is always so -------------------------------------------------------------------------------

    @invariant()
    def everybody_has_the_part_that_the_rules_say(self) -> None:
        if not hasattr(self, "model"):
            return
        self.run(hand_over(self.platform.work))
        self.model.hand_over()
        state, round_, rows = self.run(self._found())
        assert (state, round_) == (self.model.state, self.model.round)
        assert _told(rows) == _told(self.model.rows)
        assert state != "completed" or TERMINAL.issuperset(rows.values())

    async def _found(self) -> tuple[str, int, dict[tuple[str, Verb], TaskState]]:
        async with self.platform.database.session(self.platform.store_id) as session:
            request = (
                await session.execute(
                    text("SELECT state, round FROM request WHERE id = :id"), {"id": self.request_id}
                )
            ).one()
            tasks = await session.execute(
                text("SELECT participant, verb, state FROM task WHERE request_id = :id"),
                {"id": self.request_id},
            )
            return (
                request.state,
                request.round,
                {(one.participant, Verb(one.verb)): TaskState(one.state) for one in tasks},
            )


def _told(rows: dict[tuple[str, Verb], TaskState]) -> dict[tuple[str, Verb], str]:
    """Of the keyring it is enough whether it has answered."""
    return {
        place: str(state in TERMINAL) if place[0] == "keyring" else state for place, state in rows.items()
    }


async def test_parts_live_by_their_rules(platform: Platform) -> None:
    await platform.decides(passing={"erasure": "at-once", "restriction": "at-once", "access": "at-once"})
    Parts.platform, Parts.loop = platform, asyncio.get_running_loop()
    bounds = settings(
        max_examples=12,
        stateful_step_count=25,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    await asyncio.to_thread(run_state_machine_as_test, Parts, settings=bounds)
