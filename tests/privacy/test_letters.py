"""What a person is told, when, and in which language; and that nothing is said in the clear on the way."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit
from uuid import UUID

import pytest
from sqlalchemy import select, text

from libs.common.errors import Unavailable
from libs.common.events.privacy import Outcome, Retained, Verb
from libs.common.mail import RequestLetter, WaitingLetter, render
from libs.common.personal.data import Sealed
from libs.common.personal.vocabulary import Purpose, Retention
from services.privacy import letters
from services.privacy.models import Download
from services.privacy.service import opening
from tests.privacy.conftest import Person, Platform
from tests.privacy.keyring.conftest import RunningKeyring

KEPT = Retained(
    kind="ShopInvoice",
    retention=Retention.ACCOUNTING,
    bucket="2026",
    count=2,
    ground="Code de commerce, art. L123-22",
    until=datetime(2036, 12, 31, tzinfo=UTC).date(),
)


async def written(platform: Platform, person: Person) -> list[tuple[str, str]]:
    """Subjects and texts of the mails that wait for this person."""
    while await letters.write(platform.work):
        pass
    async with platform.database.session(platform.store_id) as session:
        rows = (
            await session.scalars(
                select(WaitingLetter)
                .where(WaitingLetter.subject_id == person.subject_id)
                .order_by(WaitingLetter.written_at)
            )
        ).all()
    mails: list[tuple[str, str]] = []
    for row in rows:
        box = Sealed(RequestLetter, row.box)
        letter = await platform.work.vault.open(
            box, store_id=row.store_id, subject_id=row.subject_id, purpose=Purpose.SERVICE_MAIL
        )
        assert letter.to == person.email
        mails.append(render("privacy", letter.template, letter.language, letter.values))
    return mails


async def erased(platform: Platform, person: Person, **changes: str) -> UUID:
    response = await platform.ask(person, "erasure", **changes)
    request_id = UUID(response.json()["id"])
    await platform.ask_keyring()
    await platform.answer_itself(request_id, Verb.ERASE)
    await platform.deliver(platform.answer(request_id, Verb.ERASE, Outcome.RETAINED, retained=[KEPT]))
    await platform.ask_keyring()
    await platform.answer_itself(request_id, Verb.VERIFY_ERASED)
    await platform.deliver(platform.answer(request_id, Verb.VERIFY_ERASED))
    assert await platform.state(person, request_id) == "completed"
    return request_id


async def exported(platform: Platform, person: Person) -> UUID:
    request_id = await platform.opened(person, "access")
    await platform.deliver(platform.answer(request_id, Verb.EXPORT))
    await platform.answer_itself(request_id, Verb.EXPORT)
    assert await written(platform, person) == [], "a link to an archive that is not made"
    await platform.assemble()
    assert await platform.state(person, request_id) == "completed"
    return request_id


@pytest.mark.parametrize(
    ("language", "subject", "kept"),
    [
        (
            "en",
            "Your data has been erased",
            "- accounting records, invoices among them, until December 31, 2036 (Code de commerce, art. L123-22)",
        ),
        (
            "fr",
            "Vos données ont été effacées",
            "- les pièces comptables, dont les factures, jusqu’au 31 décembre 2036 (Code de commerce, art. L123-22)",
        ),
    ],
)
async def test_an_erasure_says_what_is_kept_why_and_until_when(
    platform: Platform, language: str, subject: str, kept: str
) -> None:
    person = await platform.person()
    request_id = await erased(platform, person, language=language)
    [(found, body)] = await written(platform, person)
    assert found == subject
    assert kept in body and str(request_id) in body
    assert body.count("GDPR, Art. 5(2)") == 1, "the request itself is kept too, and is said once"


async def test_a_mail_of_receipt_is_written_only_for_what_takes_longer(platform: Platform) -> None:
    person = await platform.person()
    request_id = await platform.opened(person, "access")
    assert await written(platform, person) == []
    async with platform.database.session(platform.store_id) as session:
        await session.execute(
            text("UPDATE notice SET due_at = due_at - interval '61 s' WHERE request_id = :id"),
            {"id": request_id},
        )
    [(subject, body)] = await written(platform, person)
    assert subject == "We received your request" and "copy of your data" in body
    assert len(await written(platform, person)) == 1


async def test_an_export_is_announced_with_a_link_whose_token_is_kept_nowhere(platform: Platform) -> None:
    person = await platform.person()
    await exported(platform, person)
    [(_, body)] = await written(platform, person)
    [link] = [word for word in body.split() if "/download" in word]
    token = urlsplit(link).fragment.removeprefix("token=")
    assert len(token) == 43 and urlsplit(link).query == "language=en"
    async with platform.database.session(platform.store_id) as session:
        row = await session.get_one(Download, opening.hashed(token))
        assert row.remaining == 5
        assert timedelta(days=6, hours=23) < row.expires_at - datetime.now(UTC) <= timedelta(days=7)
        for table in ("download", "waiting_letter", "request", "outbox"):
            found = await session.scalar(
                text(f"SELECT count(*) FROM {table} AS t WHERE t::text LIKE '%' || :token || '%'"),
                {"token": token},
            )
            assert found == 0


async def test_a_mail_waits_for_the_keyring_and_is_written_once(
    platform: Platform, own_keyring: RunningKeyring
) -> None:
    person = await platform.person()
    await exported(platform, person)
    away = own_keyring.vault("privacy")
    await own_keyring.stop()
    with pytest.raises(Unavailable):
        await letters.write(replace(platform.work, vault=away))
    assert await written(platform, person) == [], "the lease of the first attempt was ignored"
    async with platform.database.platform_session() as session:
        await session.execute(text("UPDATE notice SET due_at = now() WHERE template = 'export-ready'"))
    assert len(await written(platform, person)) == 1
    assert await letters.write(platform.work) == 0


async def test_a_person_who_was_erased_meanwhile_is_written_to_about_that_alone(platform: Platform) -> None:
    person = await platform.person()
    await exported(platform, person)
    await erased(platform, person)
    mails = await written(platform, person)
    assert [subject for subject, _ in mails] == ["Your data has been erased"]
