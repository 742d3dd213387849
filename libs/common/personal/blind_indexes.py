"""Values by which what is sealed can be looked up: equal for equal values of a field at one store, and no more.

A store's secret changes by epochs (`docs/adr/0015-secrets-rotate.md`). An index begins with the two bytes of its epoch,
so that a row shows which secret it needs; those of epoch 0 have none, and are two bytes shorter.
"""

import hashlib
import hmac
from dataclasses import dataclass
from uuid import UUID

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

EPOCH_BYTES = 2
MAC_BYTES = 32
LARGEST_EPOCH = 2 ** (8 * EPOCH_BYTES) - 1


@dataclass(frozen=True, slots=True, repr=False)
class IndexSecret:
    """Of one epoch of a store; `writes_in` seconds it is what new rows are indexed by, until then only looked up by."""

    epoch: int
    secret: bytes
    writes_in: float = 0.0


def blind_index(epoch: int, secret: bytes, field: str, normal: str) -> bytes:
    """The index of a value in its normal form."""
    return prefix(epoch) + hmac.digest(secret, f"{field}\0{normal}".encode(), hashlib.sha256)


def prefix(epoch: int) -> bytes:
    """What every index of an epoch begins with."""
    return epoch.to_bytes(EPOCH_BYTES) if epoch else b""


def derived(secret: bytes, info: str) -> bytes:
    """A secret of its own for one use (RFC 5869)."""
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=info.encode()).derive(secret)


def secret_of_epoch_0(store_secret: bytes, store_id: UUID) -> bytes:
    """What a store's indexes were derived from before they had secrets of their own."""
    return derived(store_secret, f"vitrine/blind-index/1|{store_id}")
