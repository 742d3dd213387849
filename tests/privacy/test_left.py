"""What an erasure leaves under the addresses of somebody who has several: its certificate is completed when that ends,
though nothing says any more whose they were.
"""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, text

from libs.common.personal.vocabulary import Clock
from libs.common.worker import Work
from services.privacy import key_tasks
from services.privacy.models import Expiry, PersonSubject
from tests.common.personal.shop import Invoice, Purchase
from tests.privacy.conftest import Person
from tests.privacy.evidence import fetched, issue
from tests.privacy.lasting import Lasting, lasting
from tests.privacy.test_certificates import keys_of
from tests.privacy.test_holds import held, lift
from vitrine.certificate import check

__all__ = ["lasting"]
BEFORE_ITS_END = datetime(2036, 6, 1, 9, tzinfo=UTC)
AFTER_2027 = datetime(2038, 1, 1, 9, tzinfo=UTC)


async def several(lasting: Lasting) -> tuple[Person, Person]:
    """Two subjects of one person."""
    one, other = await lasting.person(), await lasting.person()
    values = {"store_id": lasting.store_id, "generation": 1, "person_id": one.subject_id}
    async with lasting.platform.database.session(lasting.store_id) as session:
        session.add_all(
            PersonSubject(subject_id=each.subject_id, joined_at=lasting.now, **values)
            for each in (one, other)
        )
    return one, other


async def certified(lasting: Lasting, person: Person) -> UUID:
    request_id = UUID((await lasting.erase(person))["id"])
    assert (await certificate(lasting, request_id))["number"] == 1
    return request_id


async def certificate(lasting: Lasting, request_id: UUID) -> dict[str, Any]:
    await issue(lasting.platform)
    return (await fetched(lasting.platform, request_id))["certificate"]


def ended(said: dict[str, Any], retention: str) -> set[str | None]:
    return {one.get("ended_on") for one in said["kept"] if one["retention"] == retention}


async def linked(lasting: Lasting, request_id: UUID, person: Person) -> bool:
    """Whether a row of the privacy service's that is of this person names the request."""
    async with lasting.platform.database.session(lasting.store_id) as session:
        tables = await session.scalars(
            text("SELECT table_name FROM information_schema.columns WHERE column_name = 'subject_id'")
        )
        for table in tables.all():
            query = f"SELECT count(*) FROM {table} AS t WHERE subject_id = :subject AND t::text LIKE :request"
            values = {"subject": person.subject_id, "request": f"%{request_id}%"}
            if await session.scalar(text(query), values):
                return True
    return False


async def test_what_the_law_kept_under_a_further_address_completes_the_certificate_when_its_year_is_over(
    lasting: Lasting,
) -> None:
    one, other = await several(lasting)
    stranger = await lasting.person()
    for person in (other, stranger):
        await lasting.invoice(person, 2027)
        await lasting.start(person, Clock.INVOICE_ISSUED, 2027)
    request_id = await certified(lasting, one)
    assert not await linked(lasting, request_id, other)
    lasting.now = BEFORE_ITS_END
    hold_id = await held(lasting, stranger, until="2040-01-01")
    lasting.now = AFTER_2027
    await lasting.settle()
    # Theirs is gone, but who is asked only knows that one of the two is not.
    assert await lasting.left(Invoice) == 1
    assert ended(await certificate(lasting, request_id), "accounting") == {None}
    await lift(lasting, hold_id)
    await lasting.settle()
    assert ended(await certificate(lasting, request_id), "accounting") == {"2037-12-31"}


async def test_what_the_law_kept_of_somebody_with_one_address_waits_for_nobody(lasting: Lasting) -> None:
    one, stranger = await lasting.person(), await lasting.person()
    for person in (one, stranger):
        await lasting.invoice(person, 2027)
        await lasting.start(person, Clock.INVOICE_ISSUED, 2027)
    request_id = await certified(lasting, one)
    lasting.now = BEFORE_ITS_END
    await held(lasting, stranger, until="2040-01-01")
    lasting.now = AFTER_2027
    await lasting.settle()
    assert ended(await certificate(lasting, request_id), "accounting") == {"2037-12-31"}


async def test_what_a_hold_kept_under_each_address_completes_it_when_the_last_is_gone(
    lasting: Lasting,
) -> None:
    one, other = await several(lasting)
    for person in (one, other):
        await lasting.purchase(person)
    hold_id = await held(lasting, other)
    request_id = await certified(lasting, one)
    assert await lasting.left(Purchase) == 2
    # A second hold, on an erased address, is about what was kept of the person under the other too.
    again = await held(lasting, one)
    lasting.later(days=1)
    await lift(lasting, hold_id)
    await lasting.settle()
    assert await lasting.left(Purchase) == 2
    await lift(lasting, again)
    await lasting.settle()
    assert await lasting.left(Purchase) == 0
    assert ended(await certificate(lasting, request_id), "order") == {"2027-03-10"}
    async with lasting.platform.database.session(lasting.store_id) as session:
        states = await session.scalars(select(Expiry.state).where(Expiry.retention == "order"))
        assert set(states.all()) == {"over"}


async def test_what_a_hold_kept_and_ended_before_everybody_was_done_is_in_the_first_certificate(
    lasting: Lasting, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = await lasting.person()
    await lasting.purchase(person)
    hold_id = await held(lasting, person)
    ask_keyring = key_tasks.ask_keyring
    asked: list[None] = []

    async def and_the_hold_ends(work: Work) -> int:
        number = await ask_keyring(work)
        if not asked:
            asked.append(None)
            lasting.later(days=1)
            await lift(lasting, hold_id)
            await lasting.settle()
        return number

    monkeypatch.setattr(key_tasks, "ask_keyring", and_the_hold_ends)
    request_id = UUID((await lasting.erase(person))["id"])
    said = await certificate(lasting, request_id)
    assert said["number"] == 1 and ended(said, "order") == {"2027-03-10"}
    check(await fetched(lasting.platform, request_id), keys_of(lasting.platform))
