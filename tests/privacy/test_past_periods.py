"""A database that comes back from before a day: what went on that day goes again, and what came since stays."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import select, text

from libs.common.events.privacy import DatabaseRestored
from libs.common.mail import Letter, WaitingLetter
from libs.common.personal.vocabulary import Clock
from services.privacy import redoing
from services.privacy.domain.states import KEYRING
from services.privacy.retention import expiring
from tests.privacy.conftest import Person
from tests.privacy.keyring.conftest import RunningKeyring
from tests.privacy.lasting import Lasting, lasting

__all__ = ["lasting"]


async def restored(lasting: Lasting, participant: str, *, days: int = 1) -> None:
    """Somebody's database is as it was so long ago, and all that follows from it."""
    taken_at = lasting.now - timedelta(days=days)
    told = DatabaseRestored(restoration_id=uuid4(), participant=participant, taken_at=taken_at)
    await lasting.platform.deliver(told)
    await redoing.compare(lasting.work)
    lasting.later(minutes=1)
    await lasting.remind()
    await lasting.settle()


async def write(lasting: Lasting, person: Person) -> bytes:
    """A letter that waits, under the key of what is written to its person."""
    lasting.shop.vault.drop(lasting.store_id, [person.subject_id])
    letter = Letter(template="anything", to=person.email)
    place: dict[str, Any] = {"store_id": lasting.store_id, "subject_id": person.subject_id}
    sealed = await lasting.shop.vault.seal(letter, begin=True, **place)
    await put_back(lasting, person, sealed.box.payload)
    await lasting.start(person, Clock.MESSAGE_SETTLED)
    return sealed.box.payload


async def put_back(lasting: Lasting, person: Person, box: bytes) -> None:
    async with lasting.shop.database.session(lasting.store_id) as session:
        values = {"store_id": lasting.store_id, "subject_id": person.subject_id, "generation": 1}
        session.add(WaitingLetter(kind="Letter", box=box, **values))


async def forget(lasting: Lasting) -> None:
    """The participant has not heard of any day that is over, and no topic keeps what was said of it."""
    async with lasting.shop.database.session(lasting.store_id) as session:
        await session.execute(text("DELETE FROM expired_bucket"))
    async with lasting.platform.database.session(lasting.store_id) as session:
        await session.execute(text("DELETE FROM outbox"))


async def letters(lasting: Lasting) -> set[bytes]:
    async with lasting.shop.database.session(lasting.store_id) as session:
        return set((await session.scalars(select(WaitingLetter.box))).all())


async def test_what_was_before_a_period_that_runs_is_cleaned_again_and_what_came_since_stays(
    lasting: Lasting,
) -> None:
    """What is written to somebody goes on: after a year of silence keys go, and the next letter has a new one."""
    person = await lasting.person()
    before = await write(lasting, person)
    lasting.later(days=367)
    await lasting.settle()
    assert await letters(lasting) == set()
    since = await write(lasting, person)
    row = await lasting.row(person)
    assert row is not None and row.state == "running"
    ends_on = row.expires_on
    # The participant's database is from before the day.
    await put_back(lasting, person, before)
    await forget(lasting)
    await restored(lasting, "test-shop")
    assert await letters(lasting) == {since}
    row = await lasting.row(person)
    assert row is not None and (row.state, row.expires_on) == ("running", ends_on)
    # It may be restored once more; and the day of what came since comes all the same.
    await put_back(lasting, person, before)
    await forget(lasting)
    await restored(lasting, "test-shop")
    assert await letters(lasting) == {since}
    lasting.later(days=367)
    await lasting.settle()
    assert await letters(lasting) == set()


async def test_past_periods_are_forgotten_when_no_backup_could_be_from_before(lasting: Lasting) -> None:
    person = await lasting.person()
    await write(lasting, person)
    lasting.later(days=367)
    await lasting.settle()
    await write(lasting, person)
    row = await lasting.row(person)
    assert row is not None and len(row.past_key_ids) == 1
    lasting.later(days=31)
    await expiring.purge(lasting.work)
    row = await lasting.row(person)
    assert row is not None and (row.state, row.past_key_ids) == ("running", [])


async def test_who_had_cleaned_and_is_restored_while_others_clean_is_waited_for_again(
    lasting: Lasting,
) -> None:
    person = await lasting.person()
    order = await lasting.purchase(person)
    await lasting.start(person, Clock.ORDER_CANCELLED, order, at=lasting.now - timedelta(days=12))
    await lasting.tell()
    await lasting.expire()
    await lasting.hear()
    row = await lasting.row(person, order)
    assert row is not None and (row.state, row.waiting) == ("cleaning", [])
    told = DatabaseRestored(restoration_id=uuid4(), participant="test-shop", taken_at=lasting.now)
    await lasting.platform.deliver(told)
    await redoing.compare(lasting.work)
    row = await lasting.row(person, order)
    assert row is not None and (row.state, row.waiting) == ("cleaning", ["test-shop"])


async def test_a_restored_keyring_learns_every_last_day_anew_and_what_is_over(
    lasting: Lasting, keyring: RunningKeyring
) -> None:
    over, runs = await lasting.person(), await lasting.person()
    order = await lasting.purchase(over)
    await lasting.start(over, Clock.ORDER_CANCELLED, order)
    await write(lasting, runs)
    lasting.later(days=12)
    await lasting.settle()
    # As a backup has it.
    async with keyring.database.platform_session() as session:
        await session.execute(
            text("UPDATE data_key SET expires_on = NULL WHERE retention = 'correspondence'")
        )
        await session.execute(text("DELETE FROM ended_bucket"))
    await restored(lasting, KEYRING, days=13)
    async with keyring.database.platform_session() as session:
        ended = await session.scalars(text("SELECT bucket FROM ended_bucket"))
        assert str(order) in ended.all()
    lasting.later(days=356)
    await lasting.settle()
    assert await lasting.live(runs) == set() and await letters(lasting) == set()
