"""What is signed, and with which key: JSON in one form, and signatures as JWS (RFC 7515) with ES256.

Canonical is: keys sorted, no blanks, UTF-8. RFC 8785 gives the same bytes, since nothing here has fractions.
"""

import json
from base64 import urlsafe_b64decode
from collections.abc import Iterable, Mapping
from typing import Any

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

ALGORITHM = "ES256"
HEAD = "vitrine-head"
CERTIFICATE = "vitrine-certificate"
PAGE = "vitrine-page"
"""The `typ` of each thing that is signed, so that no signature can stand under something else."""


class NotSigned(ValueError):
    """The signature does not belong to this, or not to a key that is trusted."""


def canonical(value: Any) -> bytes:
    """The bytes that are hashed and signed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


class Keys:
    """Public keys by their ids; a key without one goes by its thumbprint (RFC 7638)."""

    def __init__(self, keys: Iterable[Mapping[str, Any]]) -> None:
        imported = [ECKey.import_key({name: one[name] for name in one if name != "d"}) for one in keys]
        self._keys = {kid: key for key in imported for kid in {key_id(key), key.thumbprint()}}

    def __len__(self) -> int:
        return len({key.thumbprint() for key in self._keys.values()})

    def check(self, signature: str, *, typ: str, content: bytes | None = None) -> bytes:
        """What was signed; `content` of a detached signature (RFC 7515, appendix F). Raises NotSigned."""
        try:
            header = _header(signature)
            key = self._keys[header["kid"]]
            signed = jws.deserialize_compact(signature, key, algorithms=[ALGORITHM], payload=content)
        except (JoseError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise NotSigned from error
        if header.get("typ") != typ:
            raise NotSigned
        return signed.payload


def key_id(key: ECKey) -> str:
    """The name of a key in signatures."""
    return key.kid or key.thumbprint()


def signed(content: bytes, *, typ: str, key: ECKey) -> str:
    """A JWS that carries its content."""
    return jws.serialize_compact({"alg": ALGORITHM, "kid": key_id(key), "typ": typ}, content, key)


def detached(content: bytes, *, typ: str, key: ECKey) -> str:
    """A JWS without its content, which lies beside it."""
    head, _, signature = signed(content, typ=typ, key=key).split(".")
    return f"{head}..{signature}"


def _header(signature: str) -> Mapping[str, Any]:
    head = signature.split(".", 1)[0]
    header = json.loads(urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    if not isinstance(header, dict):
        raise NotSigned
    return header
