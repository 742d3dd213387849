"""Keys get a last day, which moves; on it they go for good, and nothing brings them back."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from libs.common.personal.errors import KeyDestroyed, KeyForbidden, KeyringUnavailable, PeriodOver
from libs.common.personal.keys import Erasure, Expiry, KeyWanted, Life
from libs.common.personal.vocabulary import Purpose, Retention
from services.privacy.keyring.service import expiring
from services.privacy.keyring.service.destroying import replay
from tests.privacy.keyring.conftest import RunningKeyring

ORDER, ACCOUNT, ACCOUNTING = Retention.ORDER, Retention.ACCOUNT, Retention.ACCOUNTING
TODAY = date(2031, 3, 1)


@pytest.fixture(autouse=True)
def on_this_day(keyring: RunningKeyring) -> Iterator[None]:
    before, keyring.today = keyring.today, lambda: TODAY
    yield
    keyring.today = before


async def mint(keyring: RunningKeyring, service: str, expiry: Expiry, **more: Any) -> Any:
    wanted = KeyWanted(expiry.store_id, expiry.subject_id, expiry.retention, expiry.bucket, **more)
    [key] = await keyring.client(service).mint([wanted])
    return key


def order(subject_id: UUID | None = None, expires_on: date | None = TODAY) -> Expiry:
    return Expiry(uuid4(), subject_id or uuid4(), 1, ORDER, str(uuid4()), expires_on)


async def days(keyring: RunningKeyring, expiry: Expiry) -> dict[str, date | None]:
    [keys] = await keyring.client("privacy").status([(expiry.store_id, expiry.subject_id)])
    return {key.bucket: key.expires_on for key in keys}


async def test_a_day_moves_later_and_earlier_and_is_taken_back(keyring: RunningKeyring) -> None:
    place, client = order(), keyring.client("privacy")
    await mint(keyring, "orders", place)
    for day in (TODAY, TODAY + timedelta(days=9), TODAY - timedelta(days=9), None, TODAY):
        moved = replace(place, expires_on=day)
        assert await client.expire([moved]) == await client.expire([moved]) == [1]
        assert await days(keyring, place) == {place.bucket: day}


async def test_of_two_days_in_a_batch_the_last_counts_and_others_stay(keyring: RunningKeyring) -> None:
    place = order()
    other = replace(place, bucket=str(uuid4()))
    for one in (place, other):
        await mint(keyring, "orders", one)
    later = replace(place, expires_on=TODAY + timedelta(days=1))
    nobody = order()
    assert await keyring.client("privacy").expire([place, later, nobody]) == [1, 1, 0]
    assert await days(keyring, place) == {place.bucket: later.expires_on, other.bucket: None}


async def test_on_its_day_one_order_goes_and_the_other_stays(keyring: RunningKeyring) -> None:
    place, client = order(), keyring.client("privacy")
    other = replace(place, bucket=str(uuid4()))
    gone, kept = await mint(keyring, "orders", place), await mint(keyring, "orders", other)
    await client.expire([place])
    [expired] = await client.destroy_expired([place])
    assert (expired.outcome, expired.destroyed) == ("destroyed", [gone.key_id])
    opened = await keyring.client("orders").open([gone.key_id, kept.key_id], purpose=Purpose.FULFIL_ORDER)
    assert opened[0] is KeyDestroyed and opened[1].key_id == kept.key_id  # type: ignore[union-attr]
    [again] = await client.destroy_expired([place])
    assert (again.outcome, again.destroyed) == ("destroyed", [])


async def test_a_bucket_that_is_over_is_never_sealed_in_again(keyring: RunningKeyring) -> None:
    place, client = order(), keyring.client("privacy")
    await mint(keyring, "orders", place)
    await client.destroy_expired([place])
    assert await mint(keyring, "orders", place) is PeriodOver
    assert await mint(keyring, "orders", place, begin=True) is PeriodOver
    assert (await mint(keyring, "orders", replace(place, bucket=str(uuid4())))).generation == 1
    assert await client.expire([replace(place, expires_on=TODAY + timedelta(days=100))]) == [0]


async def test_somebody_who_comes_back_has_buckets_of_their_own(keyring: RunningKeyring) -> None:
    place, client = order(), keyring.client("privacy")
    await mint(keyring, "orders", place)
    await client.destroy_expired([place])
    await client.destroy([Erasure(place.store_id, place.subject_id, 1, uuid4())])
    key = await mint(keyring, "orders", place, begin=True)
    assert key.generation == 2


async def test_nothing_goes_before_its_day_whoever_asks(keyring: RunningKeyring) -> None:
    place, client = order(), keyring.client("privacy")
    key = await mint(keyring, "orders", place)
    tomorrow = replace(place, expires_on=TODAY + timedelta(days=1))
    await client.expire([tomorrow])
    for asked in (place, tomorrow, replace(place, expires_on=None)):
        [expired] = await client.destroy_expired([asked])
        assert (expired.outcome, expired.destroyed) == ("early", [])
    [opened] = await keyring.client("orders").open([key.key_id], purpose=Purpose.FULFIL_ORDER)
    assert opened.key_id == key.key_id  # type: ignore[union-attr]


async def test_the_law_moves_for_nobody(keyring: RunningKeyring) -> None:
    place = Expiry(uuid4(), uuid4(), 1, ACCOUNTING, "2020", date(2030, 12, 31))
    client = keyring.client("privacy")
    await mint(keyring, "billing", place)
    assert await days(keyring, place) == {"2020": date(2030, 12, 31)}
    for day in (date(2030, 12, 30), None):
        with pytest.raises(KeyringUnavailable):
            await client.expire([replace(place, expires_on=day)])
        with pytest.raises(KeyringUnavailable):
            await client.destroy_expired([replace(place, expires_on=day)])
    [expired] = await client.destroy_expired([place])
    assert expired.outcome == "destroyed" and len(expired.destroyed) == 1


async def test_who_is_on_hold_keeps_everything_past_its_day(keyring: RunningKeyring) -> None:
    place, client = order(), keyring.client("privacy")
    await mint(keyring, "orders", place)
    await client.expire([place])
    life = Life(place.store_id, place.subject_id, 1)
    await client.restrict([life])
    assert [one.outcome for one in await client.destroy_expired([place])] == ["restricted"]
    await client.lift([life])
    assert [one.outcome for one in await client.destroy_expired([place])] == ["destroyed"]


async def test_a_key_of_the_person_goes_and_the_next_takes_over(keyring: RunningKeyring) -> None:
    place = Expiry(uuid4(), uuid4(), 1, ACCOUNT, "", TODAY - timedelta(days=1))
    client = keyring.client("privacy")
    old = await mint(keyring, "identity", place)
    await client.expire([place])
    new = await mint(keyring, "identity", place)
    assert new.key_id != old.key_id, "a key whose day is over seals no more"
    [expired] = await client.destroy_expired([place])
    assert expired.destroyed == [old.key_id]
    assert (await mint(keyring, "identity", place)).key_id == new.key_id


async def test_what_is_held_for_a_claim_is_kept_and_closed_and_goes_later(keyring: RunningKeyring) -> None:
    place, client = order(), keyring.client("privacy")
    other = Expiry(place.store_id, place.subject_id, 1, Retention.CORRESPONDENCE, "", None)
    kept = await mint(keyring, "orders", place)
    gone = await mint(keyring, "orders", other)
    hold = {"retention": "order", "until": TODAY + timedelta(days=30), "ground": "GDPR, Art. 17(3)(e)"}
    erasure = Erasure(place.store_id, place.subject_id, 1, uuid4(), [hold])
    for _ in range(2):
        [erased] = await client.destroy([erasure])
        [one] = erased.kept
        assert (one.retention, one.bucket, one.law, one.generation) == (
            ORDER, place.bucket, "GDPR, Art. 17(3)(e)", 1,
        )  # fmt: skip
        assert one.expires_on == hold["until"]
    orders = keyring.client("orders")
    ordinary = await orders.open([kept.key_id, gone.key_id], purpose=Purpose.FULFIL_ORDER)
    assert [getattr(one, "slug", "") for one in ordinary] == ["on-hold", "personal-data-erased"]
    [claim] = await orders.open([kept.key_id], purpose=Purpose.LEGAL_CLAIMS)
    assert claim.key_id == kept.key_id  # type: ignore[union-attr]
    [expired] = await client.destroy_expired([place])
    assert (expired.outcome, expired.destroyed) == ("destroyed", [kept.key_id])


async def test_only_who_governs_may(keyring: RunningKeyring) -> None:
    for service in ("orders", "billing", "identity", "catalog"):
        client = keyring.client(service)
        for call in (client.expire, client.destroy_expired):
            with pytest.raises(KeyForbidden):
                await call([order()])


async def test_a_key_that_is_minted_while_its_bucket_ends_is_taken_back(keyring: RunningKeyring) -> None:
    place, client = order(), keyring.client("privacy")
    minting = [mint(keyring, "orders", place) for _ in range(20)]
    *keys, _ = await asyncio.gather(*minting, client.destroy_expired([place]))
    await client.destroy_expired([place])
    assert await days(keyring, place) == {}
    for key in keys:
        assert (
            key is PeriodOver
            or (await keyring.client("orders").open([key.key_id], purpose=Purpose.FULFIL_ORDER))[0]
            is KeyDestroyed
        )


class Dies(Exception):
    """What a crash looks like from within."""


@pytest.mark.parametrize("where", ["append", "delete"])
async def test_a_crash_between_the_commits_only_delays(
    keyring: RunningKeyring, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    place = order()
    key = await mint(keyring, "orders", place)

    async def dies(*_: Any, **__: Any) -> None:
        raise Dies

    with monkeypatch.context() as patch:
        if where == "append":
            patch.setattr(expiring.destructions, "append", dies)
        else:
            patch.setattr(expiring.DELETE, "rows", dies, raising=False)
        asked = expiring.ExpiryAsked(
            store_id=place.store_id, subject_id=place.subject_id, generation=1, retention=ORDER,
            bucket=place.bucket, expires_on=TODAY,
        )  # fmt: skip
        with pytest.raises(Dies):
            await expiring.destroy_expired(
                keyring.database, keyring.destructions, expiries=[asked], today=TODAY
            )
    # Nothing new is sealed from the first commit on.
    assert await mint(keyring, "orders", place) is PeriodOver
    if where == "delete":
        # What is written down is gone, wherever a copy of the keyring comes from.
        assert await replay(keyring.database, keyring.destructions) >= 1
    else:
        [expired] = await keyring.client("privacy").destroy_expired([place])
        assert expired.destroyed == [key.key_id]
    [opened] = await keyring.client("orders").open([key.key_id], purpose=Purpose.FULFIL_ORDER)
    assert opened is KeyDestroyed


async def test_a_tombstone_says_which_order_was_whose_and_goes(keyring: RunningKeyring) -> None:
    place, client = order(), keyring.client("privacy")
    await client.destroy_expired([place])
    count = text("SELECT count(*) FROM ended_bucket WHERE store_id = :store_id")
    old = text("UPDATE ended_bucket SET ended_at = now() - interval '31 days' WHERE store_id = :store_id")
    async with keyring.database.session(place.store_id) as session:
        assert await session.scalar(count, {"store_id": place.store_id}) == 1
        await session.execute(old, {"store_id": place.store_id})
    await client.destroy_expired([order()])
    async with keyring.database.session(place.store_id) as session:
        assert await session.scalar(count, {"store_id": place.store_id}) == 0
