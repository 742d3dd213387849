"""Signed heads of a log: how many entries it has, and the hash over all of them."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from vitrine import merkle, signing
from vitrine.signing import Keys, NotSigned


@dataclass(frozen=True, slots=True)
class Head:
    """A log at one moment."""

    log: str
    """The id of the store."""
    size: int
    root: bytes
    at: datetime

    def sign(self, key: Any) -> str:
        """The head as it is published."""
        said = {"log": self.log, "size": self.size, "root": self.root.hex(), "at": self.at.isoformat()}
        return signing.signed(signing.canonical(said), typ=signing.HEAD, key=key)

    @classmethod
    def read(cls, signature: str, keys: Keys) -> "Head":
        """A published head. Raises NotSigned."""
        said = json.loads(keys.check(signature, typ=signing.HEAD))
        try:
            at = datetime.fromisoformat(said["at"])
            head = cls(str(said["log"]), int(said["size"]), bytes.fromhex(said["root"]), at)
        except (KeyError, TypeError, ValueError) as error:
            raise NotSigned from error
        if head.size < 0 or len(head.root) != merkle.HASH_BYTES:
            raise NotSigned
        return head
