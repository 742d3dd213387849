"""A participant signs what it answers, so that no other can answer for it and anybody can check it later.

The signature is a detached JWS (RFC 7515, appendix F) with ES256 and the key the participant announced. What is
signed is the JSON as it was sent, without `signature`, `version` and `references` and with `store_id`: keys sorted, no
blanks, UTF-8 (RFC 8785 gives the same bytes, since an answer has no fractions). A box of references is signed by its
`digest`, so that whoever checks an answer later needs no box.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, TypeVar
from uuid import UUID

import orjson
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from libs.common.events import Received
from libs.common.events.privacy import RowsCleaned, StoreCleaned, TaskAnswered

ALGORITHM = "ES256"
UNSIGNED = frozenset({"signature", "version", "references"})
"""What is left out of what is signed."""
A = TypeVar("A", TaskAnswered, RowsCleaned, StoreCleaned)


class Forged(Exception):
    """The signature does not belong to this answer, or not to the participant it names."""


def sign(answer: A, *, store_id: UUID, key: ECKey) -> A:
    """The answer with its signature."""
    signature = detached(_signed(answer.model_dump(mode="json"), store_id), key)
    return answer.model_copy(update={"signature": signature})


def detached(content: bytes, key: ECKey) -> str:
    """A JWS of the content, without the content."""
    header = {"alg": ALGORITHM} | ({"kid": key.kid} if key.kid else {})
    head, _, signature = jws.serialize_compact(header, content, key).split(".")
    return f"{head}..{signature}"


def check(answer: Received[A], *, public_key: Mapping[str, Any]) -> None:
    """Raises Forged unless the owner of `public_key` signed exactly what was received, for the store it came for.

    The bytes received count, not what was understood of them: a newer participant may have signed more fields.
    """
    try:
        body = _signed(orjson.loads(answer.record.value), answer.envelope.store_id)
        key = _imported(orjson.dumps(public_key))
        jws.deserialize_compact(answer.data.signature, key, algorithms=[ALGORITHM], payload=body)
    except (JoseError, ValueError, TypeError, KeyError) as error:
        raise Forged from error


@lru_cache(maxsize=1000)
def _imported(public_key: bytes) -> ECKey:
    """To import a key takes longer than to check a signature with it."""
    return ECKey.import_key(orjson.loads(public_key))


def _signed(body: Mapping[str, Any], store_id: UUID) -> bytes:
    unsigned = {name: value for name, value in body.items() if name not in UNSIGNED}
    return orjson.dumps(unsigned | {"store_id": str(store_id)}, option=orjson.OPT_SORT_KEYS)
