"""The rules of a request: its states against every order of answers, and its deadline against the calendar."""

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from services.privacy.domain.rights import Right
from services.privacy.domain.states import OPEN, OVER, TERMINAL, TURNS, State, TaskState, after
from services.privacy.engine.tasks import verb_of

PARTICIPANTS = ("catalog", "orders", "identity", "billing", "privacy")


class OneRequest(RuleBasedStateMachine):
    """One request, its participants answering in any order, again, late and wrongly."""

    @initialize(right=st.sampled_from(Right))
    def opened(self, right: Right) -> None:
        self.right = right
        self.state: State = State.RUNNING
        self.way: list[State] = [State.RECEIVED, State.VERIFYING, State.DECIDING, State.RUNNING]
        self.round = 1
        self._wait()

    def _wait(self) -> None:
        self.tasks: dict[str, TaskState] = dict.fromkeys(PARTICIPANTS, TaskState.WAITING)

    @rule(
        who=st.sampled_from(PARTICIPANTS), says=st.sampled_from(sorted(set(TaskState) - {TaskState.WAITING}))
    )
    def answers_come(self, who: str, says: TaskState) -> None:
        if self.tasks[who] not in TERMINAL and self.state not in OVER:
            self.tasks[who] = says
        following = after(self.right, self.state, set(self.tasks.values()))
        if following is self.state:
            return
        assert following in TURNS[self.state]
        if following is State.RUNNING:
            assert TaskState.FAILED in self.tasks.values()
            self.round += 1
        else:
            assert all(state in TERMINAL for state in self.tasks.values()), "ended before everybody answered"
        self.state = following
        self.way.append(following)
        if following is not State.COMPLETED:
            self._wait()

    @invariant()
    def never_completed_without_a_check(self) -> None:
        if getattr(self, "state", None) is State.COMPLETED and self.right is Right.ERASURE:
            assert self.way[-2] is State.CHECKING

    @invariant()
    def each_step_is_allowed(self) -> None:
        for one, following in zip(getattr(self, "way", []), getattr(self, "way", [])[1:], strict=False):
            assert following in TURNS[one]

    @invariant()
    def what_is_over_stays_over(self) -> None:
        if getattr(self, "state", None) in OVER:
            for says in TaskState:
                assert after(self.right, self.state, [says]) is self.state


TestOneRequest = OneRequest.TestCase


def test_every_state_is_open_or_over_and_can_be_left_or_not() -> None:
    assert set(State) == OPEN | OVER and not OPEN & OVER
    assert all(bool(TURNS[state]) == (state in OPEN) for state in State)


@given(st.sampled_from(Right), st.sampled_from(State))
def test_something_is_asked_in_every_phase_that_waits_and_in_no_other(right: Right, state: State) -> None:
    waits = state in {State.VERIFYING, State.DECIDING, State.RUNNING, State.CHECKING}
    assert (verb_of(right, state) is not None) == waits
