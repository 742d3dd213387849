"""Wrapping: people's keys and the secrets of stores are stored encrypted under a key of their store, and that one
under a master key from the environment.
"""

import binascii
import hashlib
import os
from base64 import b64decode
from collections.abc import Sequence
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from libs.common.errors import Unavailable

KEY_BYTES = 32
"""Of every key and secret, the master keys among them."""
_NONCE_BYTES = 12


class MasterKeyMissing(Unavailable):
    """503: a key is wrapped by a master key that this process was not given. Nothing is lost."""

    slug = "master-key-missing"


class TenantKey:
    """A store's own key, unwrapped for the length of one call."""

    def __init__(self, key_id: UUID, secret: bytes) -> None:
        self.key_id = key_id
        self._cipher = AESGCM(secret)

    def wrap(self, secret: bytes, bound_to: bytes) -> bytes:
        """Nonce, ciphertext and tag."""
        return _wrapped(self._cipher, secret, bound_to)

    def unwrap(self, wrapped: bytes, bound_to: bytes) -> bytes:
        """Raises MasterKeyMissing, as for a master key."""
        return _unwrapped(self._cipher, wrapped, bound_to)


class MasterKeys:
    """The present master key, and older ones that still unwrap. Each is 32 bytes in base64.

    Raises ValueError for anything else.
    """

    def __init__(self, present: str, older: Sequence[str] = ()) -> None:
        keys = [_decoded(key) for key in (present, *older)]
        self._ciphers = {_fingerprint(key): AESGCM(key) for key in keys}
        self.present_id = _fingerprint(keys[0])
        """Recorded beside what is wrapped."""

    def __contains__(self, master_key_id: str) -> bool:
        return master_key_id in self._ciphers

    def wrap(self, secret: bytes, bound_to: bytes) -> bytes:
        """Nonce, ciphertext and tag, under the present master key."""
        return _wrapped(self._ciphers[self.present_id], secret, bound_to)

    def unwrap(self, wrapped: bytes, master_key_id: str, bound_to: bytes) -> bytes:
        """Raises MasterKeyMissing, also when a row was altered or moved: neither is ever a destruction."""
        cipher = self._ciphers.get(master_key_id)
        if cipher is None:
            raise MasterKeyMissing
        return _unwrapped(cipher, wrapped, bound_to)


def _wrapped(cipher: AESGCM, secret: bytes, bound_to: bytes) -> bytes:
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + cipher.encrypt(nonce, secret, bound_to)


def _unwrapped(cipher: AESGCM, wrapped: bytes, bound_to: bytes) -> bytes:
    try:
        return cipher.decrypt(wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], bound_to)
    except InvalidTag:
        raise MasterKeyMissing from None


def tenant_key_binding(key_id: UUID, store_id: UUID) -> bytes:
    """The associated data of a store's own key."""
    return f"vitrine/tenant-key/1|{key_id}|{store_id}".encode()


def data_key_binding(key_id: UUID, store_id: UUID, subject_id: UUID) -> bytes:
    """The associated data of a data key: it cannot be moved to another person."""
    return f"vitrine/key/1|{key_id}|{store_id}|{subject_id}".encode()


def store_secret_binding(store_id: UUID) -> bytes:
    """The associated data of a store's secret."""
    return f"vitrine/store-secret/1|{store_id}".encode()


def index_secret_binding(store_id: UUID, epoch: int) -> bytes:
    """The associated data of an epoch's secret of a store."""
    return f"vitrine/index-secret/1|{store_id}|{epoch}".encode()


def _decoded(key: str) -> bytes:
    try:
        decoded = b64decode(key, validate=True)
    except binascii.Error:
        decoded = b""
    if len(decoded) != KEY_BYTES:
        raise ValueError("a master key is 32 bytes in base64")
    return decoded


def _fingerprint(key: bytes) -> str:
    return hashlib.blake2b(key, digest_size=8, person=b"vitrine-mk").hexdigest()
