"""The secrets of recipients, encrypted where they lie: with one anybody can speak as the store, or as the recipient.

AES-256-GCM under a key that HKDF makes from the service's master key, bound to the recipient and the secret.
"""

import os
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from services.privacy.recipients.models import RecipientSecret
from services.privacy.recipients.signatures import new_secret

OVERLAP = timedelta(days=1)
"""While a secret is replaced, so long the one before counts as well."""
_NONCE_BYTES = 12


def cipher(master_key: bytes) -> AESGCM:
    """What wraps and unwraps secrets."""
    derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"vitrine/recipient-secrets/1")
    return AESGCM(derived.derive(master_key))


def _bound_to(recipient_id: UUID, id_: UUID) -> bytes:
    return f"{recipient_id}|{id_}".encode()


def make(
    session: AsyncSession, recipient: Any, master_key: bytes, *, now: datetime, given: str | None = None
) -> str:
    """A new secret, which is shown this once; or what the recipient has `given` the store."""
    secret, id_, nonce = given or new_secret(), uuid4(), os.urandom(_NONCE_BYTES)
    sealed = cipher(master_key).encrypt(nonce, secret.encode(), _bound_to(recipient.id, id_))
    session.add(
        RecipientSecret(
            id=id_,
            recipient_id=recipient.id,
            store_id=recipient.store_id,
            wrapped=nonce + sealed,
            made_at=now,
        )
    )
    return secret


_REPLACE = text("""
    WITH over AS (
        DELETE FROM recipient_secret
        WHERE recipient_id = :recipient_id AND store_id = :store_id AND (:at_once OR ends_at <= :now)
    )
    UPDATE recipient_secret SET ends_at = :ends_at
    WHERE recipient_id = :recipient_id AND store_id = :store_id AND NOT :at_once AND ends_at IS NULL
""")


async def rotate(
    session: AsyncSession,
    recipient: Any,
    master_key: bytes,
    *,
    at_once: bool,
    now: datetime,
    given: str | None = None,
) -> str:
    """A new secret. The one before counts for another day, or not any more where that is to be `at_once`."""
    replace = {"recipient_id": recipient.id, "store_id": recipient.store_id, "at_once": at_once}
    await session.execute(_REPLACE, replace | {"ends_at": now + OVERLAP, "now": now})
    return make(session, recipient, master_key, now=now, given=given)


_IN_FORCE = text("""
    SELECT id, recipient_id, wrapped FROM recipient_secret
    WHERE recipient_id = :recipient_id AND (ends_at IS NULL OR ends_at > :now)
    ORDER BY ends_at IS NOT NULL, made_at DESC
""")


async def in_force(
    session: AsyncSession, recipient_id: UUID, master_key: bytes, *, now: datetime
) -> Sequence[str]:
    """The secrets that count, the newest first."""
    rows = await session.execute(_IN_FORCE, {"recipient_id": recipient_id, "now": now})
    unwrap = cipher(master_key).decrypt
    return [
        unwrap(
            row.wrapped[:_NONCE_BYTES], row.wrapped[_NONCE_BYTES:], _bound_to(row.recipient_id, row.id)
        ).decode()
        for row in rows
    ]
