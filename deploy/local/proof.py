"""What the demo looks at where it holds the machine: do the bytes that an erasure cannot reach still open?

A box begins with its version and the id of its key, so it is found by these seventeen bytes wherever it lies:
raw in Kafka's log, in base64 within an event, in hexadecimal within a dump. Whether it opens is the keyring's word.
"""

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from uuid import UUID

import httpx
import orjson

from deploy.local.databases import database
from deploy.local.environment import SERVICES
from deploy.local.platform import Platform
from libs.common.personal.data import VERSION
from libs.common.personal.errors import KeyDestroyed
from libs.common.personal.keys import KeyringClient
from libs.common.personal.vocabulary import Purpose

_PREFIX_IN_BASE64 = 22
"""Characters of base64 that seventeen bytes decide alone."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Boxes of one person in one place: how many lie there, and how many of them still open."""

    place: str
    boxes: int
    open: int


class Proof:
    """Begun before an erasure, compared after it."""

    def __init__(self, platform: Platform, key_ids: list[UUID], dumps: Mapping[str, bytes]) -> None:
        self._platform = platform
        self._key_ids = key_ids
        self._dumps = dumps

    @classmethod
    async def begin(cls, platform: Platform, *, store_id: str, access_token: str) -> Self:
        """Note which keys of the person open now and are not kept by law, and dump every service's database."""
        subject_id = UUID(_claims(access_token)["subject"])
        async with httpx.AsyncClient() as http:
            [live] = await _keyring(platform, http).status([(UUID(store_id), subject_id)])
        key_ids = [key.key_id for key in live if not key.retention.period.kept_by_law]
        dumps = {f"dump of {service} from before": await _dump(platform, service) for service in SERVICES}
        return cls(platform, key_ids, dumps)

    async def compare(self) -> list[Finding]:
        """Every place that holds boxes of the person, and what opens of them now."""
        open_now = await self._still_open()
        places = {**await self._topics(), **await self._outboxes(), **self._dumps}
        found = [_finding(place, content, self._key_ids, open_now) for place, content in places.items()]
        return [finding for finding in found if finding.boxes]

    async def _still_open(self) -> set[UUID]:
        async with httpx.AsyncClient() as http:
            answers = await _keyring(self._platform, http).open(
                self._key_ids, purpose=Purpose.RIGHTS_OF_THE_PERSON
            )
        return {
            key_id
            for key_id, answer in zip(self._key_ids, answers, strict=True)
            if answer is not KeyDestroyed
        }

    async def _topics(self) -> dict[str, bytes]:
        if self._platform.kafka is not None:
            return {"Kafka's topics": _logs(self._platform.kafka.data)}
        return {"the broker's topics": await _dump(self._platform, "broker")}

    async def _outboxes(self) -> dict[str, bytes]:
        return {
            f"outbox of {service}": await _dump(self._platform, service, "--table=outbox")
            for service in SERVICES
        }


def _logs(folder: Path) -> bytes:
    return b"\n".join(log.read_bytes() for log in sorted(folder.rglob("*.log")))


def _claims(access_token: str) -> dict[str, str]:
    body = access_token.split(".")[1]
    return orjson.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))


def _keyring(platform: Platform, http: httpx.AsyncClient) -> KeyringClient:
    """The keyring as the privacy service meets it."""
    return KeyringClient(
        url=platform.environment["KEYRING_URL"],
        service="privacy",
        private_key=platform.environment["PRIVACY_SERVICE_KEY"],
        http=http,
    )


async def _dump(platform: Platform, name: str, *options: str) -> bytes:
    return await platform.postgres.run("pg_dump", "--data-only", *options, database(name))


def _finding(place: str, content: bytes, key_ids: Iterable[UUID], open_now: set[UUID]) -> Finding:
    counts = {key_id: sum(content.count(form) for form in _forms(key_id)) for key_id in key_ids}
    return Finding(
        place, sum(counts.values()), sum(count for key_id, count in counts.items() if key_id in open_now)
    )


def _forms(key_id: UUID) -> list[bytes]:
    raw = bytes([VERSION]) + key_id.bytes
    text = base64.b64encode(raw + b"\0")[:_PREFIX_IN_BASE64]
    return [raw, text, raw.hex().encode(), text.hex().encode()]
