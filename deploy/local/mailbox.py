"""The local mailbox: whatever the platform mails arrives here by SMTP and stays on this machine."""

import asyncio
import os
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email import message_from_bytes
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.parser import BytesHeaderParser
from email.policy import compat32
from email.policy import default as modern
from email.utils import parsedate_to_datetime
from pathlib import Path

from aiosmtpd.smtp import SMTP, Envelope, Session  # pyright: ignore[reportMissingTypeStubs]

KEPT = 1000
"""Messages; older ones are deleted."""
_LARGEST = 25 * 2**20
_ENVELOPE_TO = "X-Envelope-To"
_LINK = re.compile(r"https?://[^\s<>\"']+[^\s<>\"'.,;:!?)\]]")


@dataclass(frozen=True, slots=True)
class Summary:
    """A line of the list. `to` are the envelope's recipients, `date` is ISO 8601."""

    id: str
    to: Sequence[str]
    subject: str
    date: str


@dataclass(frozen=True, slots=True)
class Message:
    """A whole mail: its text, and the addresses of web pages found in it."""

    summary: Summary
    sender: str
    text: str
    links: Sequence[str]


class Mailbox:
    """A folder of `.eml` files of mode 0600, their names in the order of arrival; the last 1,000 are kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._summaries = OrderedDict(
            (file.stem, _summary(file.stem, file.read_bytes())) for file in sorted(folder.glob("*.eml"))
        )

    def messages(self, to: str | None = None) -> list[Summary]:
        """Newest first; of one recipient if `to` is given."""
        wanted = to.casefold() if to else None
        return [
            summary
            for summary in reversed(self._summaries.values())
            if wanted is None or wanted in (recipient.casefold() for recipient in summary.to)
        ]

    def message(self, message_id: str) -> Message | None:
        """One message, None if there is none of this id."""
        if message_id not in self._summaries:
            return None
        mail = _parse(self._file(message_id))
        body = mail.get_body(("plain", "html"))
        text = str(body.get_content()) if body else ""
        links = list(dict.fromkeys(_LINK.findall(text)))
        return Message(self._summaries[message_id], str(mail["From"] or ""), text, links)

    async def keep(self, recipients: Sequence[str], content: bytes) -> None:
        """Write one message; it is listed once it is on disk."""
        message_id = f"{time.time_ns():020d}-{secrets.token_hex(4)}"
        content = f"{_ENVELOPE_TO}: {', '.join(recipients)}\r\n".encode() + content
        await asyncio.to_thread(_write, self._file(message_id), content)
        self._summaries[message_id] = _summary(message_id, content)
        while len(self._summaries) > KEPT:
            oldest, _ = self._summaries.popitem(last=False)
            self._file(oldest).unlink(missing_ok=True)

    def _file(self, message_id: str) -> Path:
        return self.folder / f"{message_id}.eml"

    # The name is aiosmtpd's.
    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Accept every mail for anybody."""
        content = envelope.original_content
        if not content:
            return "554 Empty message"
        await self.keep(envelope.rcpt_tos, content)
        return "250 Kept"


@asynccontextmanager
async def receive(mailbox: Mailbox, port: int) -> AsyncGenerator[None]:
    """Listen for SMTP on 127.0.0.1 while the block runs."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: SMTP(
            mailbox, data_size_limit=_LARGEST, enable_SMTPUTF8=True, ident="Vitrine mailbox", loop=loop
        ),
        "127.0.0.1",
        port,
    )
    try:
        yield
    finally:
        server.close()


def _write(file: Path, content: bytes) -> None:
    new = file.with_suffix(".new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as opened:
        opened.write(content)
    new.rename(file)


def _parse(file: Path) -> EmailMessage:
    return message_from_bytes(file.read_bytes(), policy=modern)


def _summary(message_id: str, content: bytes) -> Summary:
    """By the old policy, which takes a tenth of the time."""
    mail = BytesHeaderParser(policy=compat32).parsebytes(content)
    return Summary(
        id=message_id,
        to=[recipient.strip() for recipient in str(mail[_ENVELOPE_TO] or "").split(",")],
        subject=_decoded(str(mail["Subject"] or "")),
        date=_arrived(message_id, str(mail["Date"])),
    )


def _decoded(header: str) -> str:
    """RFC 2047; as it came where it is not what it says."""
    try:
        return str(make_header(decode_header(header)))
    except (HeaderParseError, LookupError, ValueError):
        return header


def _arrived(message_id: str, date: str) -> str:
    """The mail's own date, or the moment of arrival when it has none that can be read."""
    try:
        return parsedate_to_datetime(date).isoformat()
    except ValueError:
        return time.strftime(
            "%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(int(message_id.split("-", maxsplit=1)[0]) / 1e9)
        )
