"""Mail that is promised is sent: a letter is sealed and saved with the command, then sent by the worker.

A letter waits in a box under the person's key, so that a spool never holds an address in the clear and an
erasure takes what was not sent yet. It is deleted when the mail server has accepted it.
"""

import logging
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from email.headerregistry import Address
from email.message import EmailMessage
from functools import cache
from importlib.resources import files
from typing import Annotated, Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import aiosmtplib
from jinja2 import Environment, FunctionLoader, StrictUndefined
from pydantic import EmailStr, Field
from sqlalchemy import Index, func
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from libs.common.db import ALL_STORES, Base, Query, Row, impersonal, ring_after_commit
from libs.common.errors import Problem, Unavailable
from libs.common.events.privacy import ClockStarted
from libs.common.outbox import publish_all
from libs.common.personal.data import KINDS, PersonalData, Sealed
from libs.common.personal.errors import KeyDestroyed, KeyObjected, KeyRestricted
from libs.common.personal.vault import ToOpen
from libs.common.personal.vocabulary import Category, Clock, LegalBasis, Purpose, Retention
from libs.common.worker import Duty, Work

logger = logging.getLogger(__name__)

CHANNEL = "letters"
_LEASE = timedelta(minutes=2)
_GIVEN_UP_AFTER = 20
_LONGEST_PAUSE = 600
_LONGEST_LINE = 998
_BLANKS = re.compile(r"\n\s*\n")
"""What a template leaves where it says nothing."""


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
_CLAIM = Query("""
    UPDATE waiting_letter SET next_try_at = now() + make_interval(secs => :lease), attempts = attempts + 1
    WHERE id IN (SELECT id FROM waiting_letter WHERE next_try_at <= now()
                 ORDER BY next_try_at LIMIT 20 FOR UPDATE SKIP LOCKED)
    RETURNING id, store_id, subject_id, generation, kind, box, attempts
""")


_FORGET = Query("DELETE FROM waiting_letter WHERE id = ANY(CAST(:ids AS uuid[]))")
_TRY_AGAIN = Query("""
    UPDATE waiting_letter SET next_try_at = now() + make_interval(secs => least(:longest, 2 ^ attempts))
    WHERE id = ANY(CAST(:ids AS uuid[]))
""")
# While its person is on hold a letter waits, however long that takes: not one of its attempts is used up.
_HOLD = Query("""
    UPDATE waiting_letter SET next_try_at = now() + make_interval(secs => :longest), attempts = attempts - 1
    WHERE id = ANY(CAST(:ids AS uuid[]))
""")


async def send_waiting(work: Work) -> int:
    """Send what is due: claimed first, sent outside any transaction, deleted once accepted."""
    async with work.database.transaction(ALL_STORES) as transaction:
        claimed = await _CLAIM.rows(transaction, lease=_LEASE.total_seconds())
    if claimed:
        opened = await _opened(work, claimed)
        held = {row.id for row, letter in opened if _is_held(letter)}
        ended = {row.id for row, letter in opened if isinstance(letter, (KeyDestroyed, KeyObjected))}
        letters = [(row, letter) for row, letter in opened if not isinstance(letter, Problem)]
        ended |= await _deliver(work, letters) if letters else set()
        again = [row.id for row in claimed if row.id not in ended | held]
        async with work.database.platform_session() as session:
            await _FORGET.rows(session, ids=[*ended])
            await _HOLD.rows(session, ids=[*held], longest=_LONGEST_PAUSE)
            await _TRY_AGAIN.rows(session, ids=again, longest=_LONGEST_PAUSE)
            await _start_clocks(session, work, [row for row, letter in letters if isinstance(letter, Letter)])
    return len(claimed)


async def _start_clocks(session: AsyncSession, work: Work, rows: Sequence[Row]) -> None:
    """What somebody was last written about is kept for its period from now on; a letter that waits is under way."""
    now, people = work.clock(), dict.fromkeys((row.store_id, row.subject_id, row.generation) for row in rows)
    for store_id in dict.fromkeys(store_id for store_id, *_ in people):
        started = [
            ClockStarted(
                subject_id=subject_id,
                generation=generation,
                retention=Retention.CORRESPONDENCE,
                clock=Clock.MESSAGE_SETTLED,
                started_at=now,
            )
            for store, subject_id, generation in people
            if store == store_id
        ]
        await publish_all(session, started, store_id=store_id, source=work.service)


async def _opened(work: Work, rows: Sequence[Row]) -> list[tuple[Row, Letter | RequestLetter | Problem]]:
    """Each with its letter, or the problem in its place; one that should open and does not holds no other back.

    Raises KeyringUnavailable.
    """
    opened: list[tuple[Row, Letter | RequestLetter | Problem]] = []
    for kind in dict.fromkeys(row.kind for row in rows):
        model: Any = KINDS[kind]
        some = [row for row in rows if row.kind == kind]
        boxes = [ToOpen(Sealed[Any](model, row.box), row.store_id, row.subject_id) for row in some]
        letters = await work.vault.open_many(boxes, purpose=model.purposes[0])
        opened += zip(some, letters, strict=True)
    for _, letter in opened:
        if isinstance(letter, Unavailable):
            raise letter
        if isinstance(letter, Problem) and not isinstance(letter, (KeyDestroyed, KeyRestricted)):
            logger.error("mail cannot be opened", extra={"error": letter.slug})
    return opened


def _is_held(letter: Letter | RequestLetter | Problem) -> bool:
    return isinstance(letter, KeyRestricted) and not isinstance(letter, KeyObjected)


async def _deliver(work: Work, letters: Sequence[tuple[Row, Letter | RequestLetter]]) -> set[UUID]:
    """Those that the server accepted, or that are given up; a server that is away takes none."""
    ended: set[UUID] = set()
    try:
        async with _server(work) as server:
            for row, letter in letters:
                try:
                    await server.send_message(_message(work, letter, row.id))
                except (aiosmtplib.SMTPResponseException, aiosmtplib.SMTPRecipientsRefused) as error:
                    ended |= _after_failure(row, error)
                else:
                    ended.add(row.id)
    except (aiosmtplib.SMTPException, OSError) as error:
        for row, _ in letters:
            if row.id not in ended:
                ended |= _after_failure(row, error)
    return ended


def _server(work: Work) -> aiosmtplib.SMTP:
    server = urlsplit(work.settings.smtp_url)
    return aiosmtplib.SMTP(
        hostname=server.hostname,
        port=server.port,
        username=server.username,
        password=server.password,
        use_tls=server.scheme == "smtps",
        timeout=20,
    )


def _after_failure(row: Row, error: Exception) -> set[UUID]:
    """The letter, if it is given up now."""
    logger.warning("mail waits", extra={"error": type(error).__name__, "attempts": row.attempts})
    if row.attempts < _GIVEN_UP_AFTER:
        return set()
    logger.error("mail is given up", extra={"attempts": row.attempts})
    return {row.id}


def _message(work: Work, letter: Letter | RequestLetter, letter_id: UUID) -> EmailMessage:
    subject, body = render(work.service, letter.template, letter.language, letter.values)
    message = EmailMessage()
    # A store's own name, where a template has one, before the one address that the platform sends from.
    sender = Address(letter.values.get("sender", ""), addr_spec=work.settings.mail_from)
    message["From"], message["To"], message["Subject"] = sender, letter.to, subject
    # The same letter sent twice after a crash is the same message to a mail reader.
    message["Message-ID"] = f"<{letter_id}@{work.settings.mail_from.partition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(body, cte="7bit" if _needs_no_encoding(body) else "base64")
    return message


def _needs_no_encoding(body: str) -> bool:
    """Whether a mail may carry it as it is (RFC 5321, 4.5.3.1.6): quoted-printable takes a hundred times longer."""
    return body.isascii() and max(map(len, body.splitlines()), default=0) < _LONGEST_LINE


def render(service: str, template: str, language: str, values: dict[str, str]) -> tuple[str, str]:
    """Subject and body: the first line of `services/{service}/mails/{template}.{language}.txt`, and the rest."""
    rendered = _templates(service).get_template(f"{template}.{language}.txt").render(values)
    subject, _, body = rendered.partition("\n")
    return subject.strip(), _BLANKS.sub("\n\n", body.strip()) + "\n"


@cache
def _templates(service: str) -> Environment:
    folder = files(f"services.{service}") / "mails"
    # Mails are plain text: there is no markup to escape.
    return Environment(
        loader=FunctionLoader(lambda name: (folder / name).read_text("utf-8")),
        undefined=StrictUndefined,
        autoescape=False,  # noqa: S701
    )


SENDING = Duty("letters", send_waiting, timedelta(seconds=1), channel=CHANNEL)
"""The duty of every worker whose service writes letters."""
