"""What people do without an account: fill in a form, follow the link of a mail."""

import re
from typing import Any
from uuid import UUID

import httpx
from sqlalchemy import select, text

from libs.common.events.identity import StoreOpened
from libs.common.events.privacy import Verb
from libs.common.mail import RequestLetter, WaitingLetter
from libs.common.personal.data import Sealed
from libs.common.personal.vocabulary import Purpose
from services.privacy import letters
from tests.privacy.conftest import Person, Platform

PDF = b"%PDF-1.7\n" + b"canary-document " * 4
ACCEPTED = {"detail": "A mail is on its way to this address. Follow it to go on."}


async def open_store(platform: Platform, language: str = "en") -> None:
    """The privacy service hears of the test's store."""
    await platform.deliver(
        StoreOpened(
            store_id=platform.store_id, slug=f"s-{platform.store_id.hex}", name="Canary & Sons", country="FR",
            currency="EUR", language=language, version=1,
        )
    )  # fmt: skip


async def send_form(platform: Platform, email: str, right: str = "access", **more: Any) -> httpx.Response:
    headers = more.pop("headers", {})
    body = {"right": right, "email": email, "language": "en"} | more
    return await platform.client.post(f"{platform.path}/request-forms", json=body, headers=headers)


async def mails(platform: Platform, person: Person) -> list[tuple[str, str, str]]:
    """Template, subject and text of every mail under this person's keys, once those that are due are written."""
    while await letters.write(platform.work):
        pass
    return await platform.waiting(person.subject_id)


async def addressees(platform: Platform, person: Person) -> set[str]:
    """Who is written to under this person's keys."""
    async with platform.database.session(platform.store_id) as session:
        rows = await session.scalars(
            select(WaitingLetter.box).where(WaitingLetter.subject_id == person.subject_id)
        )
        boxes = [Sealed(RequestLetter, box) for box in rows]
    to: set[str] = set()
    for box in boxes:
        letter = await platform.work.vault.open(
            box,
            store_id=platform.store_id,
            subject_id=person.subject_id,
            purpose=Purpose.RIGHTS_OF_THE_PERSON,
        )
        to.add(letter.to)
    return to


async def token_of(platform: Platform, person: Person) -> str:
    """The secret of the link in the last mail to the person that has one."""
    link = r"/privacy/request\?language=\w\w#token=(\S+)"
    found = [re.search(link, body) for _, _, body in await mails(platform, person)]
    return [one.group(1) for one in found if one][-1]


async def requests_of(platform: Platform, person: Person) -> list[Any]:
    async with platform.database.session(platform.store_id) as session:
        rows = await session.execute(
            text("SELECT * FROM request WHERE subject_id = :subject ORDER BY opened_at, id"),
            {"subject": person.subject_id},
        )
        return list(rows.all())


async def asked(platform: Platform, right: str = "access", **more: Any) -> tuple[Person, str, UUID]:
    """Somebody who sent a form: they, the secret of their link, and their request."""
    person = await platform.person()
    assert (await send_form(platform, person.email, right, **more)).status_code == 202
    [request] = await requests_of(platform, person)
    return person, await token_of(platform, person), request.id


async def post(platform: Platform, path: str, **body: Any) -> httpx.Response:
    return await platform.client.post(f"/privacy/v1/{path}", json=body)


async def upload(
    platform: Platform, token: str, content: bytes = PDF, name: str = "card.pdf"
) -> httpx.Response:
    return await platform.client.post(
        "/privacy/v1/status/documents", data={"token": token}, files={"file": (name, content)}
    )


async def export(platform: Platform, request_id: UUID) -> None:
    """Everybody answers that they hold nothing, and the archive is made."""
    await platform.answer_all(request_id, Verb.EXPORT)
    await platform.assemble()
