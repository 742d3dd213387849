"""Keys on hold, closed to a purpose, retired: what opens then, what seals then, and that it can be ended."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from sqlalchemy import text

from deploy.local.waiting import until
from libs.common.personal.data import DataKey
from libs.common.personal.errors import KeyDestroyed, KeyObjected, KeyRestricted
from libs.common.personal.keys import Bucketful, Erasure, Life, Objection, Outcome, Retirement
from libs.common.personal.vocabulary import Purpose, Retention
from services.privacy.keyring.domain import OPENS_DESPITE_RESTRICTION
from tests.privacy.keyring.conftest import RunningKeyring
from tests.privacy.keyring.test_keys import erase, made, mint, open_one, scalar, status

ORDER, ACCOUNTING, REQUEST = Retention.ORDER, Retention.ACCOUNTING, Retention.REQUEST
ORDINARY, RIGHTS = Purpose.FULFIL_ORDER, Purpose.RIGHTS_OF_THE_PERSON


async def restrict(keyring: RunningKeyring, store: UUID, subject: UUID, generation: int = 1) -> int:
    [keys] = await keyring.client("privacy").restrict([Life(store, subject, generation)])
    return keys


async def lift(keyring: RunningKeyring, store: UUID, subject: UUID) -> int:
    [keys] = await keyring.client("privacy").lift([Life(store, subject, 1)])
    return keys


async def object_to(
    keyring: RunningKeyring, store: UUID, subject: UUID, purpose: Purpose, *, objected: bool = True
) -> int:
    [keys] = await keyring.client("privacy").object([Objection(store, subject, 1, purpose, objected)])
    return keys


async def retire(keyring: RunningKeyring, store: UUID, subject: UUID, *retentions: Retention) -> list[UUID]:
    [key_ids] = await keyring.client("privacy").retire([Retirement(store, subject, 1, retentions)])
    return key_ids


# --- On hold ---------------------------------------------------------------------------------------------


async def test_what_is_on_hold_opens_for_rights_claims_and_the_own_sign_in(keyring: RunningKeyring) -> None:
    store, subject = uuid4(), uuid4()
    order = made(await mint(keyring, "orders", store, subject, ORDER))
    account = made(await mint(keyring, "identity", store, subject, Retention.ACCOUNT))
    bill = made(await mint(keyring, "billing", store, subject, ACCOUNTING, "2026"))
    assert await restrict(keyring, store, subject) == 3
    for service, key, purpose, opens in (
        ("orders", order, ORDINARY, False),
        ("orders", order, Purpose.SERVICE_MAIL, False),
        ("orders", order, RIGHTS, True),
        ("orders", order, Purpose.LEGAL_CLAIMS, True),
        ("billing", bill, Purpose.ACCOUNTING, False),
        ("billing", bill, Purpose.LEGAL_CLAIMS, True),
        ("identity", account, Purpose.PROVIDE_ACCOUNT, False),
        ("identity", account, Purpose.AUTHENTICATION, True),
    ):
        outcome = await open_one(keyring, service, key.key_id, purpose)
        assert outcome == (key if opens else KeyRestricted), (service, purpose)


async def test_who_is_on_hold_gets_new_keys_and_a_lift_opens_the_old_and_the_new(
    keyring: RunningKeyring,
) -> None:
    store, subject = uuid4(), uuid4()
    old = made(await mint(keyring, "orders", store, subject, ORDER))
    await restrict(keyring, store, subject)
    new = made(await mint(keyring, "orders", store, subject, ORDER, begin=True))
    assert (new.generation, new.key_id != old.key_id) == (1, True)
    assert await mint(keyring, "orders", store, subject, ORDER) == new
    assert await open_one(keyring, "orders", new.key_id, ORDINARY) == new
    assert await open_one(keyring, "orders", old.key_id, ORDINARY) is KeyRestricted
    assert await lift(keyring, store, subject) == 2
    assert await open_one(keyring, "orders", old.key_id, ORDINARY) == old
    assert await mint(keyring, "orders", store, subject, ORDER) == new


async def test_a_race_of_buyers_on_hold_makes_one_new_key(keyring: RunningKeyring) -> None:
    store, subject = uuid4(), uuid4()
    old = made(await mint(keyring, "orders", store, subject, ORDER))
    await restrict(keyring, store, subject)
    minted = await asyncio.gather(*(mint(keyring, "orders", store, subject, ORDER) for _ in range(20)))
    assert len({made(one).key_id for one in minted}) == 1
    assert made(minted[0]).key_id != old.key_id


async def test_whoever_waits_for_a_key_that_comes_restricted_gets_the_next_one(
    keyring: RunningKeyring,
) -> None:
    store, subject = uuid4(), uuid4()
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'"
    async with keyring.database.platform_session() as session:
        person = {"store": store, "subject": subject, "id": uuid4()}
        await session.execute(
            text(
                "INSERT INTO subject (store_id, subject_id, generation, generation_id)"
                " VALUES (:store, :subject, 1, :id)"
            ),
            person,
        )
        await session.execute(
            text(
                "INSERT INTO data_key (key_id, store_id, subject_id, generation, retention, bucket, wrapped, "
                "master_key_id, state) VALUES (:id, :store, :subject, 1, 'order', '', '', '', 'restricted')"
            ),
            person,
        )
        minting = asyncio.create_task(mint(keyring, "orders", store, subject, ORDER))

        async def waits() -> bool:
            return await scalar(keyring.database, waiting) > 0

        await until(waits, 10, "nobody waits for the person's row")
    key = made(await minting)
    assert key.key_id != person["id"]
    assert await open_one(keyring, "orders", key.key_id, ORDINARY) == key


async def test_requests_and_exports_are_never_on_hold_and_neighbours_are_not_touched(
    keyring: RunningKeyring,
) -> None:
    store, subject, request = uuid4(), uuid4(), str(uuid4())
    asked = made(await mint(keyring, "privacy", store, subject, REQUEST, request))
    answer = made(await mint(keyring, "privacy", store, subject, Retention.EXPORT, request))
    neighbour = made(await mint(keyring, "orders", store, uuid4(), ORDER))
    elsewhere = made(await mint(keyring, "orders", uuid4(), subject, ORDER))
    assert await restrict(keyring, store, subject) == 0
    for service, key in (("privacy", asked), ("privacy", answer)):
        assert await open_one(keyring, service, key.key_id, RIGHTS) == key
    for key in (neighbour, elsewhere):
        assert await open_one(keyring, "orders", key.key_id, ORDINARY) == key


async def test_a_restriction_and_its_end_may_be_repeated(keyring: RunningKeyring) -> None:
    store, subject = uuid4(), uuid4()
    await mint(keyring, "orders", store, subject, ORDER)
    assert [await restrict(keyring, store, subject) for _ in range(2)] == [1, 1]
    assert [key.restricted for key in await status(keyring, store, subject)] == [True]
    assert [await lift(keyring, store, subject) for _ in range(2)] == [1, 1]
    assert [key.restricted for key in await status(keyring, store, subject)] == [False]


async def test_another_generation_is_not_put_on_hold(keyring: RunningKeyring) -> None:
    store, subject = uuid4(), uuid4()
    await mint(keyring, "orders", store, subject, ORDER)
    await erase(keyring, store, subject)
    key = made(await mint(keyring, "orders", store, subject, ORDER, begin=True))
    assert await restrict(keyring, store, subject, generation=1) == 0
    assert await open_one(keyring, "orders", key.key_id, ORDINARY) == key


async def test_every_service_may_open_what_is_to_be_corrected(keyring: RunningKeyring) -> None:
    asked = made(await mint(keyring, "privacy", uuid4(), uuid4(), REQUEST, str(uuid4())))
    for service in ("catalog", "orders", "identity", "billing", "privacy"):
        assert await open_one(keyring, service, asked.key_id, RIGHTS) == asked


# --- Objected to -----------------------------------------------------------------------------------------


async def test_an_objection_closes_one_purpose_of_all_keys_also_later_ones(keyring: RunningKeyring) -> None:
    store, subject = uuid4(), uuid4()
    key = made(await mint(keyring, "orders", store, subject, ORDER))
    assert await object_to(keyring, store, subject, Purpose.SUPPORT) == 1
    later = made(await mint(keyring, "orders", store, subject, Retention.CORRESPONDENCE))
    neighbour = made(await mint(keyring, "orders", store, uuid4(), ORDER))
    for one in (key, later):
        assert await open_one(keyring, "orders", one.key_id, Purpose.SUPPORT) is KeyObjected
        assert await open_one(keyring, "orders", one.key_id, ORDINARY) == one
    assert await open_one(keyring, "orders", neighbour.key_id, Purpose.SUPPORT) == neighbour
    [objections] = await keyring.client("privacy").objections([(store, subject)])
    assert objections == [Objection(store, subject, 1, Purpose.SUPPORT)]
    for _ in range(2):
        await object_to(keyring, store, subject, Purpose.SUPPORT, objected=False)
        assert await open_one(keyring, "orders", key.key_id, Purpose.SUPPORT) == key


async def test_the_last_word_of_a_batch_counts(keyring: RunningKeyring) -> None:
    store, subject = uuid4(), uuid4()
    key = made(await mint(keyring, "orders", store, subject, ORDER))
    words = [Objection(store, subject, 1, Purpose.SUPPORT, objected) for objected in (True, False, True)]
    assert await keyring.client("privacy").object(words) == [1, 1, 1]
    assert await open_one(keyring, "orders", key.key_id, Purpose.SUPPORT) is KeyObjected


async def test_an_objection_ends_with_the_generation(keyring: RunningKeyring) -> None:
    store, subject = uuid4(), uuid4()
    await mint(keyring, "orders", store, subject, ORDER)
    await object_to(keyring, store, subject, Purpose.SUPPORT)
    await erase(keyring, store, subject)
    count = "SELECT count(*) FROM objection WHERE subject_id = :subject"
    assert await scalar(keyring.database, count, subject=subject) == 0
    again = made(await mint(keyring, "orders", store, subject, ORDER, begin=True))
    assert await open_one(keyring, "orders", again.key_id, Purpose.SUPPORT) == again


@pytest.mark.parametrize("purpose", sorted(OPENS_DESPITE_RESTRICTION))
async def test_nobody_objects_to_what_serves_their_rights(keyring: RunningKeyring, purpose: Purpose) -> None:
    item = {
        "store_id": str(uuid4()), "subject_id": str(uuid4()), "generation": 1, "purpose": purpose, "objected": True,
    }  # fmt: skip
    assert await refused(keyring, "keys/object", item) == 422


# --- Retired ---------------------------------------------------------------------------------------------


async def test_a_retired_key_opens_and_seals_no_more_until_it_is_destroyed(keyring: RunningKeyring) -> None:
    store, subject = uuid4(), uuid4()
    old = made(await mint(keyring, "orders", store, subject, ORDER))
    other = made(await mint(keyring, "orders", store, subject, Retention.CORRESPONDENCE))
    assert await retire(keyring, store, subject, ORDER) == [old.key_id]
    new = made(await mint(keyring, "orders", store, subject, ORDER))
    assert new.key_id != old.key_id
    assert await open_one(keyring, "orders", old.key_id, ORDINARY) == old
    destroy = keyring.client("privacy").destroy_retired
    assert await destroy([old.key_id, new.key_id, other.key_id]) == [True, False, False]
    assert await destroy([old.key_id]) == [True]
    assert await open_one(keyring, "orders", old.key_id, ORDINARY) is KeyDestroyed
    assert await open_one(keyring, "orders", new.key_id, ORDINARY) == new
    assert await open_one(keyring, "orders", other.key_id, ORDINARY) == other


async def test_a_retirement_survives_a_restriction(keyring: RunningKeyring) -> None:
    store, subject = uuid4(), uuid4()
    old = made(await mint(keyring, "orders", store, subject, ORDER))
    await retire(keyring, store, subject, ORDER)
    await restrict(keyring, store, subject)
    await lift(keyring, store, subject)
    assert made(await mint(keyring, "orders", store, subject, ORDER)).key_id != old.key_id
    assert await retire(keyring, store, subject, Retention.CORRESPONDENCE) == []


@pytest.mark.parametrize("retention", [ACCOUNTING, REQUEST, Retention.EXPORT])
async def test_what_the_law_keeps_is_not_retired(keyring: RunningKeyring, retention: Retention) -> None:
    item = {
        "store_id": str(uuid4()), "subject_id": str(uuid4()), "generation": 1, "retentions": ["order", retention],
    }  # fmt: skip
    assert await refused(keyring, "keys/retire", item) == 422


async def test_a_bucket_that_ends_alone_takes_nothing_else_with_it(keyring: RunningKeyring) -> None:
    store, subject, seen, other = uuid4(), uuid4(), str(uuid4()), str(uuid4())
    document = made(await mint(keyring, "privacy", store, subject, Retention.VERIFICATION, seen))
    kept = [
        made(await mint(keyring, "privacy", store, subject, Retention.VERIFICATION, other)),
        made(await mint(keyring, "privacy", store, subject, REQUEST, seen)),
        made(await mint(keyring, "orders", store, subject, ORDER)),
    ]
    destroy = keyring.client("privacy").destroy_buckets
    asked = [Bucketful(store, subject, 1, Retention.VERIFICATION, one) for one in (seen, str(uuid4()))]
    assert await destroy(asked) == [[document.key_id], []]
    assert await destroy(asked) == [[], []]
    assert await open_one(keyring, "privacy", document.key_id, RIGHTS) is KeyDestroyed
    for key, service in zip(kept, ("privacy", "privacy", "orders"), strict=True):
        assert await open_one(keyring, service, key.key_id, RIGHTS) == key


@pytest.mark.parametrize(
    ("retention", "bucket"),
    [
        (ACCOUNTING, "2026"),
        (ORDER, ""),
        (REQUEST, ""),
        (REQUEST, "nonsense"),
        (Retention.VERIFICATION, "2026"),
    ],
)
async def test_what_does_not_end_alone_is_no_bucket(
    keyring: RunningKeyring, retention: Retention, bucket: str
) -> None:
    item = {
        "store_id": str(uuid4()), "subject_id": str(uuid4()), "generation": 1, "retention": retention,
        "bucket": bucket,
    }  # fmt: skip
    assert await refused(keyring, "keys/destroy-buckets", item) == 422


async def refused(keyring: RunningKeyring, path: str, item: dict[str, Any]) -> int:
    token = keyring.client("privacy")._signed()  # pyright: ignore[reportPrivateUsage]
    answer = await keyring.http.post(
        f"{keyring.url}/keyring/v1/{path}",
        json={"items": [item]},
        headers={"authorization": f"Bearer {token}"},
    )
    return answer.status_code


# --- All of it, in any order -----------------------------------------------------------------------------


@dataclass
class Modelled:
    """A key as it should be."""

    key: DataKey
    place: tuple[Retention, str]
    restricted: bool = False
    retired: bool = False
    destroyed: bool = False


PLACES = {
    (ORDER, ""): "orders", (Retention.CORRESPONDENCE, ""): "orders", (ACCOUNTING, "2001"): "billing",
    (ACCOUNTING, "2999"): "billing",
}  # fmt: skip
PURPOSES = [ORDINARY, Purpose.SUPPORT, Purpose.ACCOUNTING, RIGHTS, Purpose.LEGAL_CLAIMS]
CAN_BE_OBJECTED = [ORDINARY, Purpose.SUPPORT, Purpose.ACCOUNTING]


class Keys(RuleBasedStateMachine):
    """A person's keys, beside a plain model of them."""

    keyring: RunningKeyring
    run: Callable[[Coroutine[Any, Any, Any]], Any]

    def __init__(self) -> None:
        super().__init__()
        self.store, self.subject, self.generation, self.ended = uuid4(), uuid4(), 1, False
        self.keys: list[Modelled] = []
        self.objected: set[Purpose] = set()

    def _living(self) -> list[Modelled]:
        return [one for one in self.keys if not one.destroyed and one.key.generation == self.generation]

    def _sealing(self, place: tuple[Retention, str]) -> Modelled | None:
        keys = [
            one for one in self._living() if one.place == place and not one.restricted and not one.retired
        ]
        return keys[-1] if keys else None

    @rule(place=st.sampled_from(list(PLACES)), begin=st.booleans())
    def mint(self, place: tuple[Retention, str], begin: bool) -> None:
        outcome: Outcome = self.run(
            mint(self.keyring, PLACES[place], self.store, self.subject, *place, begin=begin)
        )
        if self.ended and not begin:
            assert not isinstance(outcome, DataKey)
            return
        if self.ended:
            self.generation, self.ended, self.objected = self.generation + 1, False, set()
        key = made(outcome)
        known = self._sealing(place)
        assert key.generation == self.generation
        if known is not None:
            assert key == known.key
            return
        assert all(key.key_id != one.key.key_id for one in self.keys)
        self.keys.append(Modelled(key, place))

    @rule()
    def restrict(self) -> None:
        count = self.run(restrict(self.keyring, self.store, self.subject, self.generation))
        assert count == len(self._living())
        for one in self._living():
            one.restricted = True

    @rule()
    def lift(self) -> None:
        life = Life(self.store, self.subject, self.generation)
        assert self.run(self.keyring.client("privacy").lift([life])) == [len(self._living())]
        for one in self._living():
            one.restricted = False

    @rule(purpose=st.sampled_from(CAN_BE_OBJECTED), objected=st.booleans())
    def object_to(self, purpose: Purpose, objected: bool) -> None:
        if not self.ended:
            objection = Objection(self.store, self.subject, self.generation, purpose, objected)
            self.run(self.keyring.client("privacy").object([objection]))
            (self.objected.add if objected else self.objected.discard)(purpose)

    @rule(retention=st.sampled_from([ORDER, Retention.CORRESPONDENCE]))
    def retire(self, retention: Retention) -> None:
        retirement = Retirement(self.store, self.subject, self.generation, [retention])
        [key_ids] = self.run(self.keyring.client("privacy").retire([retirement]))
        concerned = [one for one in self._living() if one.place[0] is retention]
        for one in concerned:
            one.retired = True
        assert key_ids == [one.key.key_id for one in concerned]

    @rule()
    def destroy_retired(self) -> None:
        key_ids = [one.key.key_id for one in self.keys]
        for one in self.keys:
            one.destroyed |= one.retired
        if key_ids:
            destroyed = self.run(self.keyring.client("privacy").destroy_retired(key_ids))
            assert destroyed == [one.destroyed for one in self.keys]

    @rule()
    def erase(self) -> None:
        erasure = Erasure(self.store, self.subject, self.generation, uuid4())
        self.run(self.keyring.client("privacy").destroy([erasure]))
        self.ended = True
        for one in self.keys:
            one.destroyed |= one.place != (ACCOUNTING, "2999")
        self.objected = set()

    @rule(purpose=st.sampled_from(PURPOSES))
    def open_all(self, purpose: Purpose) -> None:
        for one in self.keys:
            service = PLACES[one.place]
            if purpose in {ORDINARY, Purpose.SUPPORT} and service == "billing":
                continue
            if purpose is Purpose.ACCOUNTING and service == "orders":
                continue
            assert self.run(open_one(self.keyring, service, one.key.key_id, purpose)) == self._expected(
                one, purpose
            )

    def _expected(self, one: Modelled, purpose: Purpose) -> Outcome:
        if one.destroyed:
            return KeyDestroyed
        if one.restricted and purpose not in OPENS_DESPITE_RESTRICTION:
            return KeyRestricted
        if purpose in self.objected and one.key.generation == self.generation:
            return KeyObjected
        return one.key


async def test_keys_are_as_a_plain_model_says_whatever_happens_to_them(keyring: RunningKeyring) -> None:
    loop = asyncio.get_running_loop()

    def run(work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(30)

    machine = type("KeysOfAPerson", (Keys,), {"keyring": keyring, "run": staticmethod(run)})
    often = settings(max_examples=12, stateful_step_count=25, deadline=None)
    await asyncio.to_thread(run_state_machine_as_test, machine, settings=often)
