"""The keyring over HTTP: every call is a batch, signed with the service's own key, and may be repeated."""

import time
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, TypeVar
from uuid import UUID

import httpx
import orjson
from joserfc import jwt
from joserfc.jwk import ECKey

from libs.common.errors import Problem
from libs.common.personal.blind_indexes import IndexSecret
from libs.common.personal.data import DataKey
from libs.common.personal.errors import (
    KeyDestroyed,
    KeyForbidden,
    KeyObjected,
    KeyRestricted,
    KeyringUnavailable,
    KeyUnknown,
    PeriodOver,
    SubjectErased,
)
from libs.common.personal.vocabulary import Purpose, Retention
from libs.common.telemetry import current_traceparent

AUDIENCE = "keyring"
TOKEN_SECONDS = 60
BATCH = 1000
"""Items the keyring takes in one call; longer lists are cut here."""
_PLACE = ("store_id", "subject_id", "generation")
_TIMEOUT = httpx.Timeout(5, connect=2)
_RENEW_BEFORE = 15
_ERRORS: Mapping[str, type[Problem]] = {
    "destroyed": KeyDestroyed,
    "restricted": KeyRestricted,
    "objected": KeyObjected,
    "unknown": KeyUnknown,
    "forbidden": KeyForbidden,
    "subject-erased": SubjectErased,
    "period-over": PeriodOver,
}

T = TypeVar("T")
Outcome = DataKey | type[Problem]
"""A key, or the class of the problem that stands for it."""


@dataclass(frozen=True, slots=True)
class KeyWanted:
    """The key to seal with. `begin` is true in a live command only: it starts anew after an erasure."""

    store_id: UUID
    subject_id: UUID
    retention: Retention
    bucket: str = ""
    begin: bool = False


@dataclass(frozen=True, slots=True)
class Erasure:
    """A person's generations up to `generation`, to be erased for a request."""

    store_id: UUID
    subject_id: UUID
    generation: int
    request_id: UUID
    held: Sequence[Mapping[str, Any]] = ()
    """What a legal hold keeps: `retention`, `until` and `ground`."""


@dataclass(frozen=True, slots=True)
class KeptKey:
    """What erasure left in place, until when, and the law that says so; None: while the request lasts."""

    retention: Retention
    bucket: str
    expires_on: date | None
    law: str
    generation: int = 0


@dataclass(frozen=True, slots=True)
class Erased:
    """What an erasure did. A repetition destroys nothing and keeps the same."""

    store_id: UUID
    subject_id: UUID
    generation: int
    destroyed: Sequence[UUID]
    kept: Sequence[KeptKey]


@dataclass(frozen=True, slots=True)
class Life:
    """One generation of a person."""

    store_id: UUID
    subject_id: UUID
    generation: int


@dataclass(frozen=True, slots=True)
class Objection:
    """Whether data of a person's generation may be used for `purpose` any more."""

    store_id: UUID
    subject_id: UUID
    generation: int
    purpose: Purpose
    objected: bool = True


@dataclass(frozen=True, slots=True)
class Retirement:
    """Of a person's generation, the keys for what is kept for these reasons."""

    store_id: UUID
    subject_id: UUID
    generation: int
    retentions: Sequence[Retention]


@dataclass(frozen=True, slots=True)
class Bucketful:
    """Of a person's generation, what lies under one bucket of a retention: a request's boxes, or a document."""

    store_id: UUID
    subject_id: UUID
    generation: int
    retention: Retention
    bucket: str


@dataclass(frozen=True, slots=True)
class Expiry:
    """The last day on which one bucket of a person's generation is kept; None: nothing counts."""

    store_id: UUID
    subject_id: UUID
    generation: int
    retention: Retention
    bucket: str
    expires_on: date | None


@dataclass(frozen=True, slots=True)
class Expired:
    """What became of a bucket: `destroyed`, `restricted` or `early`, and the keys that this very call destroyed."""

    outcome: str
    destroyed: Sequence[UUID]


@dataclass(frozen=True, slots=True)
class LiveKey:
    """A key that still opens, without its material; one that is retired seals no more."""

    key_id: UUID
    retention: Retention
    bucket: str
    generation: int
    restricted: bool
    expires_on: date | None
    retired: bool = False


@dataclass(frozen=True, slots=True, repr=False)
class StoreSecrets:
    """What a store's services derive from: 32 bytes for subject ids, and the secrets of blind indexes, newest first."""

    secret: bytes
    indexes: Sequence[IndexSecret]


@dataclass(frozen=True, slots=True)
class Rotation:
    """A store whose rows are to be indexed by the secret of this epoch, and by no earlier one."""

    store_id: UUID
    epoch: int


@dataclass(frozen=True, slots=True)
class Returned:
    """The keyring's database is as it was at `taken_at`."""

    restoration_id: UUID
    taken_at: datetime


@dataclass(frozen=True, slots=True)
class Fate:
    """What the keyring knows of a generation of a person, whoever asked for it: it is over, or on hold."""

    store_id: UUID
    subject_id: UUID
    generation: int
    erased: bool
    restricted: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """A subject as the keyring knows it: the generation that lives, or was erased, and the keys that still open.
    Generation 0: the keyring has never met it.
    """

    generation: int
    erased: bool
    keys: Sequence[LiveKey]


class KeyringClient:
    """Raises KeyringUnavailable when there is no answer, KeyForbidden when this service may not ask."""

    def __init__(
        self,
        *,
        url: str,
        service: str,
        private_key: str,
        http: httpx.AsyncClient,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._url = url.rstrip("/")
        self._service = service
        self._key = ECKey.import_key(orjson.loads(private_key))
        self._http = http
        self._clock = clock
        self._token = ("", 0.0)

    async def store_secrets(self, stores: Sequence[UUID]) -> dict[UUID, StoreSecrets]:
        """The secrets of each store, made on first use."""
        secrets: dict[UUID, StoreSecrets] = {}
        for some in _batches(stores):
            answer = await self._call("stores/secrets", {"stores": some})
            secrets |= {UUID(item["store_id"]): _store_secrets(item) for item in answer["items"]}
        return secrets

    async def rotate_indexes(self, stores: Sequence[UUID]) -> list[Rotation]:
        """Give each store another secret for its blind indexes; one that is changing already goes on with that one.

        For the privacy service.
        """
        rotations: list[Rotation] = []
        for some in _batches(stores):
            answer = await self._call("stores/rotate-indexes", {"stores": some})
            rotations += [_rotation(item) for item in answer["items"]]
        return rotations

    async def rotations(self) -> list[Rotation]:
        """Stores whose rows this service has still to index anew, at most a batch."""
        return [_rotation(item) for item in (await self._call("stores/rotations", {}))["items"]]

    async def report_indexed(self, rotations: Sequence[Rotation]) -> None:
        """Say that no row of these stores is indexed by an earlier epoch here."""
        for some in _batches(rotations):
            await self._call("stores/indexed", {"items": some})

    async def restorations(self) -> list[Returned]:
        """From which backups the keyring was restored. For the privacy service."""
        answer = await self._call("restorations", {})
        return [
            Returned(UUID(item["restoration_id"]), datetime.fromisoformat(item["taken_at"]))
            for item in answer["items"]
        ]

    async def fates(self, *, after: tuple[UUID, UUID, int] | None = None) -> list[Fate]:
        """Generations that are over or on hold, a batch of them, in the order of (store, subject, generation).

        For the privacy service.
        """
        place = None if after is None else dict(zip(_PLACE, after, strict=True))
        answer = await self._call("fates", {"after": place})
        return [
            Fate(
                UUID(item["store_id"]),
                UUID(item["subject_id"]),
                item["generation"],
                item["erased"],
                item["restricted"],
            )
            for item in answer["items"]
        ]

    async def mint(self, wanted: Sequence[KeyWanted]) -> list[Outcome]:
        """The key of each, made if need be; SubjectErased where the generation is over."""
        outcomes: list[Outcome] = []
        for some in _batches(wanted):
            answer = await self._call("keys/mint", {"items": some})
            outcomes += [
                _outcome(item, store_id=one.store_id, subject_id=one.subject_id)
                for one, item in zip(some, answer["items"], strict=True)
            ]
        return outcomes

    async def open(self, key_ids: Sequence[UUID], *, purpose: Purpose) -> list[Outcome]:
        """Each key, or KeyDestroyed, KeyRestricted, KeyObjected, KeyUnknown or KeyForbidden in its place."""
        outcomes: list[Outcome] = []
        for some in _batches(key_ids):
            answer = await self._call("keys/open", {"purpose": purpose, "key_ids": some})
            outcomes += [_outcome(item) for item in answer["items"]]
        return outcomes

    async def destroy(self, erasures: Sequence[Erasure]) -> list[Erased]:
        """Erase for good what no law keeps, and say what is kept. For the privacy service."""
        erased: list[Erased] = []
        for some in _batches(erasures):
            answer = await self._call("keys/destroy", {"items": some})
            erased += [_erased(item) for item in answer["items"]]
        return erased

    async def restrict(self, lives: Sequence[Life], *, made_before: datetime | None = None) -> list[int]:
        """Put people's data on hold, or what was sealed under keys from before a moment; how many keys of each are. For
        the privacy service.
        """
        return await self._change("keys/restrict", lives, made_before=made_before)

    async def lift(self, lives: Sequence[Life]) -> list[int]:
        """End restrictions; how many keys of each open again. For the privacy service."""
        return await self._change("keys/lift", lives)

    async def object(self, objections: Sequence[Objection]) -> list[int]:
        """Close people's keys to a purpose, or allow it again; how many each has. For the privacy service."""
        return await self._change("keys/object", objections)

    async def retire(self, retirements: Sequence[Retirement]) -> list[list[UUID]]:
        """Seal no more with the present keys; all keys of each that are retired. For the privacy service."""
        retired: list[list[UUID]] = []
        for some in _batches(retirements):
            answer = await self._call("keys/retire", {"items": some})
            retired += [[UUID(key_id) for key_id in item["key_ids"]] for item in answer["items"]]
        return retired

    async def destroy_retired(self, key_ids: Sequence[UUID]) -> list[bool]:
        """Destroy retired keys for good; whether each is. For the privacy service."""
        destroyed: list[bool] = []
        for some in _batches(key_ids):
            answer = await self._call("keys/destroy-retired", {"key_ids": some})
            destroyed += [item["destroyed"] for item in answer["items"]]
        return destroyed

    async def destroy_buckets(self, buckets: Sequence[Bucketful]) -> list[list[UUID]]:
        """Destroy what ends alone for good; the keys of each that this call destroyed. For the privacy service."""
        destroyed: list[list[UUID]] = []
        for some in _batches(buckets):
            answer = await self._call("keys/destroy-buckets", {"items": some})
            destroyed += [[UUID(key_id) for key_id in item["destroyed"]] for item in answer["items"]]
        return destroyed

    async def destroy_tenants(self, stores: Sequence[UUID]) -> list[int]:
        """Destroy the keys of stores for good; how much of each is still to be forgotten. For the privacy service."""
        left: list[int] = []
        for some in _batches(stores):
            answer = await self._call("tenants/destroy", {"stores": some})
            left += [item["left"] for item in answer["items"]]
        return left

    async def expire(self, expiries: Sequence[Expiry]) -> list[int]:
        """Give buckets their last day, later or earlier; how many keys each has. For the privacy service."""
        return await self._change("keys/expire", expiries)

    async def destroy_expired(self, expiries: Sequence[Expiry]) -> list[Expired]:
        """Destroy for good what is past its last day, and say what became of each. For the privacy service."""
        expired: list[Expired] = []
        for some in _batches(expiries):
            answer = await self._call("keys/destroy-expired", {"items": some})
            expired += [
                Expired(item["outcome"], [UUID(key_id) for key_id in item["destroyed"]])
                for item in answer["items"]
            ]
        return expired

    async def _change(
        self, path: str, items: Sequence[Life] | Sequence[Objection] | Sequence[Expiry], **more: Any
    ) -> list[int]:
        keys: list[int] = []
        for some in _batches(items):
            answer = await self._call(path, {"items": some, **more})
            keys += [item["keys"] for item in answer["items"]]
        return keys

    async def status(self, subjects: Sequence[tuple[UUID, UUID]]) -> list[list[LiveKey]]:
        """The keys that still open for each (store, subject), to prove an erasure by."""
        return [[_live(key) for key in item["keys"]] for item in await self._status(subjects)]

    async def standings(self, subjects: Sequence[tuple[UUID, UUID]]) -> list[Standing]:
        """How each (store, subject) stands. For the privacy service."""
        return [
            Standing(item["generation"], item["erased"], [_live(key) for key in item["keys"]])
            for item in await self._status(subjects)
        ]

    async def objections(self, subjects: Sequence[tuple[UUID, UUID]]) -> list[list[Objection]]:
        """What each (store, subject) has objected to."""
        return [
            [
                Objection(
                    UUID(item["store_id"]),
                    UUID(item["subject_id"]),
                    one["generation"],
                    Purpose(one["purpose"]),
                )
                for one in item["objections"]
            ]
            for item in await self._status(subjects)
        ]

    async def _status(self, subjects: Sequence[tuple[UUID, UUID]]) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = []
        for some in _batches(subjects):
            asked = [{"store_id": store_id, "subject_id": subject_id} for store_id, subject_id in some]
            items += (await self._call("keys/status", {"items": asked}))["items"]
        return items

    async def _call(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        # Ids read from rows are asyncpg's own kind of UUID, which orjson does not know.
        content = orjson.dumps(body, default=str)
        try:
            answer = await self._post(path, content)
        except (httpx.ReadError, httpx.RemoteProtocolError):
            # A kept-alive connection that the keyring closed meanwhile says nothing about the keyring.
            answer = await self._post(path, content, last=True)
        if answer.status_code in {401, 403}:
            raise KeyForbidden
        if not answer.is_success:
            raise KeyringUnavailable
        return orjson.loads(answer.content)

    async def _post(self, path: str, content: bytes, *, last: bool = False) -> httpx.Response:
        headers = {"authorization": f"Bearer {self._signed()}", "content-type": "application/json"}
        if traceparent := current_traceparent():
            headers["traceparent"] = traceparent
        try:
            return await self._http.post(
                f"{self._url}/keyring/v1/{path}", content=content, headers=headers, timeout=_TIMEOUT
            )
        except httpx.HTTPError as error:
            if isinstance(error, (httpx.ReadError, httpx.RemoteProtocolError)) and not last:
                raise
            raise KeyringUnavailable from error

    def _signed(self) -> str:
        token, expires_at = self._token
        now = self._clock()
        if now > expires_at - _RENEW_BEFORE:
            expires_at = now + TOKEN_SECONDS
            claims = {"iss": self._service, "aud": AUDIENCE, "iat": int(now), "exp": int(expires_at)}
            token = jwt.encode({"alg": "ES256"}, claims, self._key)
            self._token = (token, expires_at)
        return token


def _batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[start : start + BATCH] for start in range(0, len(items), BATCH))


def _store_secrets(item: Mapping[str, Any]) -> StoreSecrets:
    indexes = tuple(
        IndexSecret(one["epoch"], b64decode(one["secret"]), one["writes_in"]) for one in item["indexes"]
    )
    return StoreSecrets(b64decode(item["secret"]), indexes)


def _rotation(item: Mapping[str, Any]) -> Rotation:
    return Rotation(UUID(item["store_id"]), item["epoch"])


def _outcome(item: Mapping[str, Any], **known: UUID) -> Outcome:
    if error := item.get("error"):
        return _ERRORS[error]
    return DataKey(
        key_id=UUID(item["key_id"]),
        material=b64decode(item["key"]),
        store_id=known.get("store_id") or UUID(item["store_id"]),
        subject_id=known.get("subject_id") or UUID(item["subject_id"]),
        generation=item["generation"],
    )


def _erased(item: Mapping[str, Any]) -> Erased:
    return Erased(
        store_id=UUID(item["store_id"]),
        subject_id=UUID(item["subject_id"]),
        generation=item["generation"],
        destroyed=[UUID(key_id) for key_id in item["destroyed"]],
        kept=[
            KeptKey(
                Retention(kept["retention"]),
                kept["bucket"],
                _date(kept["expires_on"]),
                kept["law"],
                kept["generation"],
            )
            for kept in item["kept"]
        ],
    )


def _live(key: Mapping[str, Any]) -> LiveKey:
    return LiveKey(
        key_id=UUID(key["key_id"]),
        retention=Retention(key["retention"]),
        bucket=key["bucket"],
        generation=key["generation"],
        restricted=key["state"] == "restricted",
        retired=key["retired"],
        expires_on=_date(key["expires_on"]),
    )


def _date(text: str | None) -> date | None:
    return None if text is None else date.fromisoformat(text)
