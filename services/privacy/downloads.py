"""Fetching an archive: the token of the link that came by mail is changed for an address that one browser may use.

A token is good for a few days and a few times. What comes of it, a random address and the secret in a cookie, is
good for a day: whoever has only the address meets nothing. All of it is dead once its person is erased.
"""

import hmac
import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Row, insert, text

from libs.common.db import Database
from libs.common.personal.data import Sealed
from libs.common.personal.errors import KeyDestroyed, SubjectErased
from libs.common.personal.tombstones import guard
from libs.common.personal.vault import Vault
from libs.common.personal.vocabulary import Purpose
from services.privacy.domain.problems import DownloadGone
from services.privacy.kinds import ArchivePiece
from services.privacy.models import DownloadGrant
from services.privacy.ranges import Part, wanted
from services.privacy.service.opening import hashed

GRANT = timedelta(days=1)
"""How long an address works: long enough to go on with a download after a night."""
_SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Granted:
    """An address, the secret it asks for, and what is there."""

    id: UUID
    secret: str
    size: int
    sha256: bytes
    expires_at: datetime
    remaining: int


@dataclass(frozen=True, slots=True)
class Fetching:
    """An archive of which a part, or all, is about to be sent."""

    request_id: UUID
    store_id: UUID
    subject_id: UUID
    size: int
    etag: str
    part: Part | None
    """None: the whole."""


# --- From the token to an address ------------------------------------------------------------------------

_LINK = text("""
    SELECT download.request_id, download.store_id, download.subject_id, download.generation, download.expires_at,
        download.remaining, archive.size, archive.sha256, piece.box
    FROM download
    JOIN archive ON archive.request_id = download.request_id AND archive.state = 'ready'
    JOIN archive_piece AS piece ON piece.request_id = archive.request_id AND piece.sequence = 0
    WHERE download.token_hash = :token_hash AND download.expires_at > :now AND download.remaining > 0
""")


async def grant(database: Database, vault: Vault, *, token: str, now: datetime) -> Granted:
    """Check a token, see that its archive opens, and make an address for it; nothing is counted yet.

    Raises DownloadGone, KeyringUnavailable.
    """
    token_hash = hashed(token)
    async with database.platform_session() as session:
        link = (await session.execute(_LINK, {"token_hash": token_hash, "now": now})).one_or_none()
    if link is None:
        raise DownloadGone
    secret = secrets.token_urlsafe(_SECRET_BYTES)
    granted = Granted(
        uuid4(), secret, link.size, link.sha256, min(link.expires_at, now + GRANT), link.remaining
    )
    try:
        await _open(vault, link, link.box)
        async with database.session(link.store_id) as session:
            await guard(session, link.store_id, link.subject_id, link.generation)
            await session.execute(insert(DownloadGrant).values(_row(granted, link, token_hash)))
    except (KeyDestroyed, SubjectErased):
        raise DownloadGone from None
    return granted


def _row(granted: Granted, link: Row[Any], token_hash: bytes) -> dict[str, Any]:
    return {
        "id": granted.id,
        "secret_hash": hashed(granted.secret),
        "token_hash": token_hash,
        "request_id": link.request_id,
        "store_id": link.store_id,
        "subject_id": link.subject_id,
        "generation": link.generation,
        "expires_at": granted.expires_at,
    }


# --- From the address to the archive ---------------------------------------------------------------------

_GRANTED = text("""
    SELECT granted.id, granted.secret_hash, granted.token_hash, granted.begun, granted.request_id,
        granted.store_id, granted.subject_id, archive.size, archive.sha256
    FROM download_grant AS granted
    JOIN archive ON archive.request_id = granted.request_id AND archive.state = 'ready'
    WHERE granted.id = :id AND granted.expires_at > :now
""")
_COUNT = text("""
    WITH counted AS (
        UPDATE download SET remaining = remaining - 1
        WHERE token_hash = :token_hash AND remaining > 0 AND expires_at > :now RETURNING token_hash
    )
    UPDATE download_grant SET begun = true FROM counted
    WHERE download_grant.id = :id AND download_grant.token_hash = counted.token_hash RETURNING download_grant.id
""")


async def begin(
    database: Database,
    vault: Vault,
    *,
    grant_id: UUID,
    secret: str,
    range_: str | None,
    if_range: str | None,
    now: datetime,
) -> Fetching:
    """Check an address and its secret, see that the archive opens, and count the download unless it goes on.

    Counted is what begins at the first byte, and the first use of an address wherever it begins.
    Raises DownloadGone, RangeNotSatisfiable, KeyringUnavailable; what is refused is not counted.
    """
    async with database.platform_session() as session:
        found = (await session.execute(_GRANTED, {"id": grant_id, "now": now})).one_or_none()
    if found is None or not hmac.compare_digest(found.secret_hash, hashed(secret)):
        raise DownloadGone
    etag = f'"{found.sha256.hex()}"'
    part = wanted(range_, if_range, size=found.size, etag=etag)
    fetching = Fetching(found.request_id, found.store_id, found.subject_id, found.size, etag, part)
    await _see_that_it_opens(database, vault, fetching)
    if part is None or part.first == 0 or not found.begun:
        async with database.session(found.store_id) as session:
            values = {"token_hash": found.token_hash, "id": grant_id, "now": now}
            if await session.scalar(_COUNT, values) is None:
                raise DownloadGone
    return fetching


_ARCHIVE = text("SELECT * FROM archive WHERE request_id = :id AND store_id = :store_id AND state = 'ready'")


async def whole(database: Database, vault: Vault, request_id: UUID, *, store_id: UUID) -> Fetching:
    """All of an archive, for somebody who was let in otherwise. Raises DownloadGone, KeyringUnavailable."""
    async with database.session(store_id) as session:
        found = (await session.execute(_ARCHIVE, {"id": request_id, "store_id": store_id})).one_or_none()
    if found is None:
        raise DownloadGone
    etag = f'"{found.sha256.hex()}"'
    fetching = Fetching(request_id, store_id, found.subject_id, found.size, etag, None)
    await _see_that_it_opens(database, vault, fetching)
    return fetching


async def _see_that_it_opens(database: Database, vault: Vault, fetching: Fetching) -> None:
    try:
        async with aclosing(content(database, vault, fetching)) as pieces:
            await anext(pieces)
    except KeyDestroyed:
        raise DownloadGone from None


_SIZES = text("SELECT sequence, size FROM archive_piece WHERE request_id = :id ORDER BY sequence")
_BOX = text("SELECT box FROM archive_piece WHERE request_id = :id AND sequence = :sequence")


async def content(database: Database, vault: Vault, fetching: Fetching) -> AsyncGenerator[bytes]:
    """The bytes that were asked for, a piece in memory at a time.

    Raises KeyDestroyed, KeyringUnavailable: then the connection breaks, and whoever reads knows that bytes are missing.
    """
    part = fetching.part or Part(0, fetching.size - 1)
    async with database.session(fetching.store_id) as session:
        pieces = (await session.execute(_SIZES, {"id": fetching.request_id})).all()
    if sum(piece.size for piece in pieces) != fetching.size:
        raise KeyDestroyed
    begins = 0
    for piece in pieces:
        ends = begins + piece.size
        if begins <= part.last and part.first < ends:
            async with database.session(fetching.store_id) as session:
                box = await session.scalar(_BOX, {"id": fetching.request_id, "sequence": piece.sequence})
            opened = await _open(vault, fetching, box)
            yield opened[max(0, part.first - begins) : part.last + 1 - begins]
        begins = ends


async def _open(vault: Vault, owner: Any, box: bytes | None) -> bytes:
    if box is None:
        raise KeyDestroyed
    opened = await vault.open(
        Sealed(ArchivePiece, box),
        store_id=owner.store_id,
        subject_id=owner.subject_id,
        purpose=Purpose.RIGHTS_OF_THE_PERSON,
    )
    return opened.content
