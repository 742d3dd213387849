"""What a person is told, when, and in which language; and that nothing is said in the clear on the way."""

import re
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from email.message import EmailMessage
from importlib.resources import files
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select, text

from libs.common.errors import Unavailable
from libs.common.events.identity import StoreOpened
from libs.common.events.privacy import Outcome, Retained, Verb
from libs.common.mail import RequestLetter, WaitingLetter, render, send_waiting
from libs.common.personal.data import Sealed
from libs.common.personal.vocabulary import Purpose, Retention
from services.privacy import letters
from services.privacy.authorities import supervisor_of
from services.privacy.domain.decisions import Extension, Ground, authority, grounds_for
from services.privacy.domain.rights import Law, Right, RightName, named
from services.privacy.engine.phases import ANNOUNCED
from services.privacy.models import Download
from services.privacy.service import opening
from services.privacy.wording import TO_OFFICERS, for_officer, for_person
from services.privacy.words import (
    CATEGORIES,
    EXTENSIONS,
    GROUNDS,
    OBLIGATIONS,
    PURPOSES,
    RECIPIENTS,
    RIGHTS,
    SOURCES,
)
from services.privacy.words import KEPT as KEPT_WORDS
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


WRITTEN = TO_OFFICERS | {*ANNOUNCED.values()} | {
    "request-received", "request-acknowledged", "request-approved", "request-extended", "request-question",
    "request-refused", "lifting-announced",
}  # fmt: skip
"""Every template that the code can ask for."""
FRAMES = {"request", "desk"}


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


# --- Every template --------------------------------------------------------------------------------------


def a_row(**changes: Any) -> SimpleNamespace:
    """A request with everything that a mail could name, as `letters` reads it."""
    facts: dict[str, Any] = {
        "id": uuid4(), "store_id": uuid4(), "claim": "erasure", "law": "gdpr", "purpose": None, "category": None,
        "due_on": date(2027, 4, 1), "verified_at": datetime(2027, 3, 1, tzinfo=UTC),
        "begins_at": datetime(2027, 3, 8, 23, 30, tzinfo=UTC), "extension": "complexity", "ground": "excessive",
        "store_name": "Chez Ada", "country": "FR", "branding": {},
        "state": "completed", "log_size": 1207, "log_root": "5d" * 32,
        "answers": [
            {
                "participant": "shop", "counts": {"purchase": 1}, "beside": {"invoice": 1},
                "refused": ["user.contact.phone_number"], "retained": [KEPT.model_dump(mode="json")],
            },
            {"participant": "keyring", "counts": {"keys": 3}, "retained": [KEPT.model_dump(mode="json")]},
        ],
    }  # fmt: skip
    return SimpleNamespace(**facts | changes)


def rendered(template: str, language: str, row: SimpleNamespace) -> tuple[str, str]:
    if template in TO_OFFICERS:
        return render("privacy", template, language, for_officer(row, language, desk="https://desk"))
    link = {"link": "https://link", "expires_on": "x", "times": "5"} if template == "export-ready" else {}
    recipients = {("shop", "purchase"): ["carrier"]}
    values = for_person(
        row, language, text="What was written.", status="https://status", recipients=recipients, link=link
    )
    return render("privacy", template, language, values)


def test_every_template_exists_in_both_languages_and_no_other_does() -> None:
    found = {path.name for path in (files("services.privacy") / "mails").iterdir()}
    ours = {f"{name}.{language}.txt" for name in WRITTEN | FRAMES for language in ("en", "fr")}
    assert ours <= found
    noted = set[str]()
    for path in sorted(Path("services/privacy").rglob("*.py")):
        noted |= set(re.findall(r'notify\(\s*session, \w+, "([a-z-]+)"', path.read_text()))
    elsewhere = noted - WRITTEN
    assert {f"{name}.{language}.txt" for name in elsewhere - LATER for language in ("en", "fr")} <= found


LATER = {"confirm-request"}
"""Written by whoever verifies."""


@pytest.mark.parametrize("language", ["en", "fr"])
@pytest.mark.parametrize("template", sorted(WRITTEN))
def test_every_template_says_everything_it_can(template: str, language: str) -> None:
    for row in (
        a_row(),
        a_row(
            claim="portability",
            answers=None,
            branding={language: {"sender": "S", "opening": "O", "signature": "E"}},
        ),
        a_row(claim="objection", purpose="marketing.communications.email", law="ccpa", category=None),
        a_row(category="user.name", answers=[], store_name=None, country=None, branding=None),
        a_row(due_on=None, begins_at=None, verified_at=None, extension=None, ground=None, answers=[]),
        a_row(state="deciding", log_size=None, log_root=None),
    ):
        subject, body = rendered(template, language, row)
        assert subject and "\n" not in subject and len(subject) < 80
        assert str(row.id) in body
        for never in ("{{", "{%", "None", "Undefined", "\n\n\n", "[]", "user.", "essential."):
            assert never not in subject + body, never
        if template not in TO_OFFICERS:
            assert "https://status" in body
            assert (row.branding or {}).get(language, {}).get("opening", "") in body
            over = row.state == "completed"
            assert (("1207" in body), ("5d" * 32 in body), ("certif" in body)) == (over, over, over)


@pytest.mark.parametrize("language", ["en", "fr"])
def test_what_was_done_what_was_not_and_who_had_it_is_said(language: str) -> None:
    _, erased_ = rendered("erasure-done", language, a_row())
    assert erased_.count("L123-22") == 1, "the keyring says the same again"
    assert {"en": "the carrier", "fr": "le transporteur"}[language] in erased_
    assert "https://www.cnil.fr" in erased_
    _, part = rendered("erasure-done", language, a_row(category="user.name"))
    assert {"en": "as far as you asked for it: name", "fr": "dans la mesure que vous avez demandée : nom"}[
        language
    ] in part
    _, corrected = rendered("rectification-done", language, a_row(claim="rectification"))
    assert {"en": "- phone number", "fr": "- numéro de téléphone"}[language] in corrected
    assert {"en": "lies beside it", "fr": "placée à côté"}[language] in corrected
    _, nothing = rendered("rectification-done", language, a_row(claim="rectification", answers=[]))
    assert {"en": "nothing to correct", "fr": "rien à rectifier"}[language] in nothing
    _, ended = rendered(
        "objection-done", language, a_row(claim="objection", purpose="marketing.communications.email")
    )
    assert {"en": "marketing by e-mail", "fr": "la prospection par e-mail"}[language] in ended


@pytest.mark.parametrize("language", ["en", "fr"])
@pytest.mark.parametrize("right", [name for name in RightName if named(name).law is Law.CCPA])
def test_californias_rights_go_by_their_own_names(right: RightName, language: str) -> None:
    meant = named(right)
    row = a_row(claim=meant.right, law=meant.law, purpose=meant.purpose, answers=[])
    _, body = rendered("request-received", language, row)
    assert {"en": "(California)", "fr": "Californie"}[language] in body
    assert right.split("-")[0] in body
    _, refused = rendered(
        "request-refused", language, a_row(claim=meant.right, law=meant.law, purpose=meant.purpose)
    )
    assert "https://cppa.ca.gov" in refused and "1798.145" in refused


def test_a_day_is_that_of_the_store() -> None:
    # Half an hour before midnight in Greenwich it is the next day in Paris.
    _, body = rendered("lifting-announced", "en", a_row(claim="restriction-lifting"))
    assert "March 9, 2027" in body


def test_every_word_that_is_said_is_known_in_both_languages() -> None:
    for words, known in (
        (RIGHTS, RightName), (GROUNDS, Ground), (EXTENSIONS, Extension),
    ):  # fmt: skip
        assert {*words} == {*known}
    for words in (
        RIGHTS,
        GROUNDS,
        EXTENSIONS,
        OBLIGATIONS,
        KEPT_WORDS,
        CATEGORIES,
        PURPOSES,
        RECIPIENTS,
        SOURCES,
    ):
        assert all(meant.keys() == {"en", "fr"} and all(meant.values()) for meant in words.values())
    for right, law in product(Right, Law):
        for ground in grounds_for(right, law):
            assert authority(ground, right, law)
        assert Ground.EXCESSIVE in grounds_for(right, law)


def test_every_country_of_the_eea_has_an_authority() -> None:
    of_the_union = set(
        "AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK".split()  # noqa: SIM905
    )
    websites = [supervisor_of(Law.GDPR, country).website for country in [*of_the_union, "IS", "LI", "NO"]]
    assert len(set(websites)) == 30 and all(one.startswith("https://") for one in websites)
    assert "edpb" in supervisor_of(Law.GDPR, None).website
    assert supervisor_of(Law.CCPA, "FR").website == "https://cppa.ca.gov"


async def test_a_store_named_in_the_sender_writes_from_the_platforms_address(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[EmailMessage] = []

    class Server:
        async def __aenter__(self) -> "Server":
            return self

        async def __aexit__(self, *_: object) -> None:
            pass

        async def send_message(self, message: EmailMessage) -> None:
            sent.append(message)

    monkeypatch.setattr("libs.common.mail._server", lambda _work: Server())  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    await platform.deliver(
        StoreOpened(
            store_id=platform.store_id, slug=f"s-{platform.store_id.hex}", name="Chez Ada, Paris", country="FR",
            currency="EUR", language="fr", version=1,
        )
    )  # fmt: skip
    person = await platform.person()
    await exported(platform, person)
    await written(platform, person)
    while await send_waiting(platform.work):
        pass
    [mail] = [one for one in sent if one["To"] == person.email]
    assert mail["From"].addresses[0].display_name == "Chez Ada, Paris"
    assert mail["From"].addresses[0].addr_spec == platform.work.settings.mail_from
