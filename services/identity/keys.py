"""The keys that sign access tokens: made on first use, published before they sign and after they stopped.

Private keys are stored under the master key (AES-256-GCM, bound to their key id); everybody else needs only
the key set.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import orjson
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from joserfc import jwt
from joserfc.jwk import ECKey
from sqlalchemy import or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.auth import ALGORITHM, TOKEN_TYPE
from libs.common.db import Database
from services.identity.domain import PUBLISHED_AFTER_USE, PUBLISHED_BEFORE_USE
from services.identity.models import SigningKey

_REMEMBERED = timedelta(seconds=5)
_LOCK = text("SELECT pg_advisory_xact_lock(hashtext('vitrine signing keys'))")


@dataclass(frozen=True, slots=True)
class _KeySet:
    """What the table held at a moment, the newest key first."""

    read_at: datetime
    keys: Sequence[SigningKey]


class SigningKeys:
    """The key set as this process knows it, at most a few seconds old."""

    def __init__(self, database: Database, master_key: bytes, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._master = AESGCM(master_key)
        self._clock = clock
        self._known: _KeySet | None = None
        self._private: dict[str, ECKey] = {}

    async def sign(self, claims: Mapping[str, Any]) -> str:
        """An access token (RFC 9068) by the newest key whose time has come."""
        keys = await self._current()
        now = self._clock()
        key = next(key for key in keys if key.active_from <= now)
        header = {"alg": ALGORITHM, "typ": TOKEN_TYPE, "kid": key.key_id}
        return jwt.encode(header, dict(claims), self._unwrapped(key))

    async def published(self) -> list[dict[str, str]]:
        """The public keys: the one that signs, the next one, and those whose tokens may still be around."""
        return [key.public for key in await self._current()]

    async def rotate(self, *, lead: timedelta = PUBLISHED_BEFORE_USE) -> SigningKey:
        """Publish a new key that signs after `lead`; a rotation that is under way is not doubled."""
        async with self._database.platform_session() as session:
            await session.execute(_LOCK)
            now = self._clock()
            newest = await session.scalar(_published_at(now).limit(1))
            if newest is not None and newest.active_from > now:
                return newest
            fresh = self._make(active_from=now + lead)
            await session.execute(
                update(SigningKey)
                .where(SigningKey.retired_at.is_(None))
                .values(retired_at=fresh.active_from + PUBLISHED_AFTER_USE)
            )
            session.add(fresh)
        self._known = None
        return fresh

    async def _current(self) -> Sequence[SigningKey]:
        now = self._clock()
        if self._known is None or not timedelta(0) <= now - self._known.read_at < _REMEMBERED:
            async with self._database.platform_session() as session:
                keys = await self._at_least_one(session, now)
            self._known = _KeySet(now, keys)
        return self._known.keys

    async def _at_least_one(self, session: AsyncSession, now: datetime) -> Sequence[SigningKey]:
        keys = (await session.scalars(_published_at(now))).all()
        if keys:
            return keys
        await session.execute(_LOCK)
        # Another process may have made the first key while this one waited.
        keys = (await session.scalars(_published_at(now))).all()
        if not keys:
            first = self._make(active_from=now)
            session.add(first)
            keys = [first]
        return keys

    def _make(self, *, active_from: datetime) -> SigningKey:
        key = ECKey.generate_key("P-256", auto_kid=True)
        key_id = key.kid or ""
        nonce = os.urandom(12)
        private = orjson.dumps(key.as_dict(private=True))
        return SigningKey(
            key_id=key_id,
            public={**_texts(key.as_dict(private=False)), "use": "sig", "alg": ALGORITHM},
            wrapped=nonce + self._master.encrypt(nonce, private, key_id.encode()),
            active_from=active_from,
        )

    def _unwrapped(self, key: SigningKey) -> ECKey:
        """Raises InvalidTag under another master key than the one it was wrapped with."""
        if key.key_id not in self._private:
            private = self._master.decrypt(key.wrapped[:12], key.wrapped[12:], key.key_id.encode())
            self._private[key.key_id] = ECKey.import_key(orjson.loads(private))
        return self._private[key.key_id]


def _published_at(now: datetime) -> Any:
    return (
        select(SigningKey)
        .where(or_(SigningKey.retired_at.is_(None), SigningKey.retired_at > now))
        .order_by(SigningKey.active_from.desc(), SigningKey.key_id)
    )


def _texts(jwk: Mapping[str, Any]) -> dict[str, str]:
    return {name: value for name, value in jwk.items() if isinstance(value, str)}


async def forget_retired(database: Database, now: datetime) -> int:
    """Delete what has not been published for a while."""
    async with database.platform_session() as session:
        gone = await session.execute(
            text("DELETE FROM signing_key WHERE retired_at < :before"), {"before": now - PUBLISHED_AFTER_USE}
        )
        return int(gone.rowcount)
