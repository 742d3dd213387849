"""Mail that is promised is sent: a letter is sealed and saved with the command, then sent by the worker.

A letter waits in a box under the person's key, so that a spool never holds an address in the clear and an
erasure takes what was not sent yet. It is deleted when the mail server has accepted it.
"""

import logging
from datetime import datetime, timedelta
from email.message import EmailMessage
from functools import cache
from importlib.resources import files
from typing import Annotated, Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import aiosmtplib
from jinja2 import Environment, FunctionLoader, StrictUndefined
from pydantic import EmailStr, Field
from sqlalchemy import Index, func, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from libs.common.db import Base, impersonal, ring_after_commit
from libs.common.personal.data import KINDS, PersonalData, Sealed
from libs.common.personal.errors import KeyDestroyed, KeyObjected, KeyRestricted
from libs.common.personal.vocabulary import Category, LegalBasis, Purpose, Retention
from libs.common.worker import Duty, Work

logger = logging.getLogger(__name__)

CHANNEL = "letters"
_LEASE = timedelta(minutes=2)
_GIVEN_UP_AFTER = 20
_LONGEST_PAUSE = 600


class Letter(
    PersonalData,
    retention=Retention.CORRESPONDENCE,
    purposes=[Purpose.SERVICE_MAIL],
    legal_basis=LegalBasis.CONTRACT,
    recipients=["mail provider"],
):
    """A mail about what the person does at the store."""

    to: Annotated[EmailStr, Category("user.contact.email")]
    template: Annotated[str, Category("user.content")]
    language: Annotated[str, Category("user.demographic.language"), Field(pattern=r"^(en|fr)$")] = "en"
    values: Annotated[dict[str, str], Category("user.content")] = {}


class RequestLetter(
    PersonalData,
    retention=Retention.REQUEST,
    purposes=[Purpose.RIGHTS_OF_THE_PERSON],
    legal_basis=LegalBasis.LEGAL_OBLIGATION,
    recipients=["mail provider"],
):
    """A mail about a privacy request; it outlives the erasure it reports."""

    to: Annotated[EmailStr, Category("user.contact.email")]
    template: Annotated[str, Category("user.content")]
    language: Annotated[str, Category("user.demographic.language"), Field(pattern=r"^(en|fr)$")] = "en"
    values: Annotated[dict[str, str], Category("user.content")] = {}


class WaitingLetter(Base):
    """A sealed letter that the mail server has not accepted yet."""

    __tablename__ = "waiting_letter"
    __table_args__ = (
        Index("ix_waiting_letter_next_try_at", "next_try_at"),
        Index("ix_waiting_letter_subject", "store_id", "subject_id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    store_id: Mapped[UUID]
    subject_id: Mapped[UUID]
    generation: Mapped[int]
    kind: Mapped[str] = mapped_column(info=impersonal("name of a kind of box"))
    box: Mapped[bytes] = mapped_column(info={"sealed": "Letter or RequestLetter"})
    attempts: Mapped[int] = mapped_column(default=0, server_default="0")
    next_try_at: Mapped[datetime] = mapped_column(server_default=func.now())
    written_at: Mapped[datetime] = mapped_column(server_default=func.now())


def post(
    session: AsyncSession,
    letter: Sealed[Letter] | Sealed[RequestLetter],
    *,
    store_id: UUID,
    subject_id: UUID,
    generation: int,
) -> None:
    """Send a sealed letter when, and only when, the session commits."""
    session.add(
        WaitingLetter(
            store_id=store_id,
            subject_id=subject_id,
            generation=generation,
            kind=letter.model.__name__,
            box=letter.payload,
        )
    )
    ring_after_commit(session, CHANNEL)


# Skipping locked rows reorders letters, which is harmless, and lets several workers share the spool.
_CLAIM = text("""
    UPDATE waiting_letter SET next_try_at = now() + make_interval(secs => :lease), attempts = attempts + 1
    WHERE id IN (SELECT id FROM waiting_letter WHERE next_try_at <= now()
                 ORDER BY next_try_at LIMIT 20 FOR UPDATE SKIP LOCKED)
    RETURNING id, store_id, subject_id, generation, kind, box, attempts
""")


async def send_waiting(work: Work) -> int:
    """Send what is due: claimed first, sent outside any transaction, deleted once accepted."""
    async with work.database.platform_session() as session:
        claimed = (await session.execute(_CLAIM, {"lease": _LEASE.total_seconds()})).all()
    for row in claimed:
        await _send(work, row)
    return len(claimed)


async def _send(work: Work, row: Any) -> None:
    try:
        box: Sealed[Any] = Sealed(KINDS[row.kind], row.box)
        letter = await work.vault.open(
            box, store_id=row.store_id, subject_id=row.subject_id, purpose=box.model.purposes[0]
        )
    except (KeyDestroyed, KeyObjected):
        return await _forget(work, row.id)
    except KeyRestricted:
        return await _hold(work, row.id)
    try:
        await _deliver(work, letter, row.id)
    except (aiosmtplib.SMTPException, OSError) as error:
        logger.warning("mail waits", extra={"error": type(error).__name__, "attempts": row.attempts})
        if row.attempts < _GIVEN_UP_AFTER:
            return await _try_again(work, row.id, row.attempts)
        logger.error("mail is given up", extra={"attempts": row.attempts})
    return await _forget(work, row.id)


async def _deliver(work: Work, letter: Letter | RequestLetter, letter_id: UUID) -> None:
    subject, body = render(work.service, letter.template, letter.language, letter.values)
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = work.settings.mail_from, letter.to, subject
    # The same letter sent twice after a crash is the same message to a mail reader.
    message["Message-ID"] = f"<{letter_id}@{work.settings.mail_from.partition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(body)
    server = urlsplit(work.settings.smtp_url)
    await aiosmtplib.send(
        message,
        hostname=server.hostname,
        port=server.port,
        username=server.username,
        password=server.password,
        use_tls=server.scheme == "smtps",
        timeout=20,
    )


def render(service: str, template: str, language: str, values: dict[str, str]) -> tuple[str, str]:
    """Subject and body: the first line of `services/{service}/mails/{template}.{language}.txt`, and the rest."""
    rendered = _templates(service).get_template(f"{template}.{language}.txt").render(values)
    subject, _, body = rendered.partition("\n")
    return subject.strip(), body.strip() + "\n"


@cache
def _templates(service: str) -> Environment:
    folder = files(f"services.{service}") / "mails"
    # Mails are plain text: there is no markup to escape.
    return Environment(
        loader=FunctionLoader(lambda name: (folder / name).read_text("utf-8")),
        undefined=StrictUndefined,
        autoescape=False,  # noqa: S701
    )


async def _try_again(work: Work, letter_id: UUID, attempts: int) -> None:
    async with work.database.platform_session() as session:
        await session.execute(
            text(
                "UPDATE waiting_letter SET next_try_at = now() + make_interval(secs => :pause) WHERE id = :id"
            ),
            {"id": letter_id, "pause": min(_LONGEST_PAUSE, 2**attempts)},
        )


async def _hold(work: Work, letter_id: UUID) -> None:
    """While its person is on hold a letter waits, however long that takes: not one of its attempts is used up."""
    async with work.database.platform_session() as session:
        await session.execute(
            text(
                "UPDATE waiting_letter SET next_try_at = now() + make_interval(secs => :pause), "
                "attempts = attempts - 1 WHERE id = :id"
            ),
            {"id": letter_id, "pause": _LONGEST_PAUSE},
        )


async def _forget(work: Work, letter_id: UUID) -> None:
    async with work.database.platform_session() as session:
        await session.execute(text("DELETE FROM waiting_letter WHERE id = :id"), {"id": letter_id})


SENDING = Duty("letters", send_waiting, timedelta(seconds=1), channel=CHANNEL)
"""The duty of every worker whose service writes letters."""
