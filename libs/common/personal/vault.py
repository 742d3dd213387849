"""What a service does with personal data: name a person without looking anyone up, seal, open, forget.

    Problem
    ├── SubjectErased 409        the person's generation is erased; only a live command begins another
    ├── KeyRestricted 409        on hold
    ├── KeyDestroyed 410         final
    └── KeyringUnavailable 503   try again; keys that are still in memory go on opening

`errors.py` has the rest. Opened keys stay in memory for KEY_SECONDS at most and go at once when
`privacy.keys-destroyed` or `privacy.keys-changed` arrives: a consumer rings `announce` in its transaction, and
every process of the service that follows its database drops them.
"""

import asyncio
import hashlib
import hmac
import logging
import time
import unicodedata
from collections.abc import AsyncGenerator, Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType
from typing import Generic, Self, TypeVar
from uuid import UUID

import httpx
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.db import fetch
from libs.common.errors import Problem
from libs.common.listen import Listener
from libs.common.personal import blind_indexes
from libs.common.personal.data import DataKey, PersonalData, Sealed, decrypt, encrypt
from libs.common.personal.errors import (
    BoxDoesNotOpen,
    KeyDestroyed,
    KeyRestricted,
    KeyringUnavailable,
    SubjectErased,
)
from libs.common.personal.keys import KeyringClient, KeyWanted, Outcome, Rotation
from libs.common.personal.memory import Memory
from libs.common.personal.vocabulary import Purpose, Retention
from libs.common.settings import ServiceSettings

__all__ = [
    "KeyDestroyed", "KeyRestricted", "KeyringUnavailable", "Opened", "SealedFor", "Sealer", "SubjectErased",
    "ToOpen", "ToSeal", "Vault", "announce", "normalise", "unless_destroyed",
]  # fmt: skip

logger = logging.getLogger(__name__)

KEY_SECONDS = 120
"""The longest an opened key stays in memory: an erasure is complete everywhere after it."""
SECRET_SECONDS = 600.0
"""How long the secrets of a store are remembered: when they change, everybody knows it after that."""
CHANNEL = "keys_destroyed"
"""NOTIFY channel in a service's own database; the payload is `store:subject`, or `store:` for everybody there."""
_KEYS = 10_000
_STORES = 10_000
_POLL_SECONDS = 5.0
_BETWEEN_POLLS = 0.05

M = TypeVar("M", bound=PersonalData)
N = TypeVar("N", bound=PersonalData)


@dataclass(frozen=True, slots=True)
class ToSeal(Generic[M]):
    """Data of one person. `bucket` is what its retention asks for; `begin` as in KeyWanted."""

    data: M
    store_id: UUID
    subject_id: UUID
    bucket: str = ""
    begin: bool = False


@dataclass(frozen=True, slots=True)
class SealedFor(Generic[M]):
    """A box, and the generation of its person: both go into the row and the event."""

    box: Sealed[M]
    generation: int


@dataclass(frozen=True, slots=True)
class ToOpen(Generic[M]):
    """A box and the row it was found in: one that was moved there does not open."""

    box: Sealed[M]
    store_id: UUID
    subject_id: UUID


@dataclass(frozen=True, slots=True)
class Opened(Generic[M]):
    """What a box holds, and the key it lay under."""

    data: M
    key: DataKey

    def seal(self, data: N) -> Sealed[N]:
        """A box under the same key: what is on hold stays so, and ends with the rest."""
        return encrypt(data, self.key)


@dataclass(frozen=True, slots=True)
class Sealer:
    """Keys of one person, at hand: seals without asking anybody, so also within a transaction."""

    generation: int
    keys: Mapping[Retention, DataKey]

    def seal(self, data: M) -> Sealed[M]:
        """A box. Raises KeyError for a retention that was not asked for."""
        return encrypt(data, self.keys[type(data).retention])


@dataclass(frozen=True, slots=True)
class _StoreSecrets:
    subject: bytes
    indexes: Sequence[tuple[float, int, bytes]]
    """From when new rows are indexed by it, its epoch, and the secret; the newest first."""

    def epoch_at(self, moment: float) -> int:
        """The newest epoch whose time has come."""
        return next(epoch for begins, epoch, _ in self.indexes if begins <= moment)

    def __repr__(self) -> str:
        return "_StoreSecrets()"


class Vault:
    """One per process. Safe for concurrent use within its event loop."""

    def __init__(
        self,
        keyring: KeyringClient,
        *,
        key_seconds: float = KEY_SECONDS,
        secret_seconds: float = SECRET_SECONDS,
        capacity: int = _KEYS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keyring = keyring
        self._clock = clock
        # A key opened for one purpose must be asked for again for another: the grant may differ.
        self._opened = Memory[tuple[UUID, Purpose], DataKey](
            seconds=key_seconds, capacity=capacity, clock=clock
        )
        self._minted = Memory[Hashable, DataKey](seconds=key_seconds, capacity=capacity, clock=clock)
        self._secrets = Memory[UUID, _StoreSecrets](seconds=secret_seconds, capacity=_STORES, clock=clock)
        self._opening: dict[tuple[UUID, Purpose], asyncio.Task[dict[UUID, Outcome]]] = {}
        self._to_mint: list[tuple[Sequence[KeyWanted], asyncio.Future[list[Outcome]]]] = []
        self._minting: asyncio.Task[None] | None = None
        self._drops = 0

    @classmethod
    def connect(cls, *, service: str, settings: ServiceSettings, http: httpx.AsyncClient) -> Self:
        """The vault of a service, by its settings."""
        return cls(
            KeyringClient(
                url=settings.keyring_url,
                service=service,
                private_key=settings.service_key.get_secret_value(),
                http=http,
            ),
            key_seconds=settings.key_seconds,
            secret_seconds=settings.store_secret_seconds,
        )

    # --- Naming ------------------------------------------------------------------------------------------

    async def subject_id(self, store_id: UUID, email: str) -> UUID:
        """The person behind an e-mail address at one store, the same for a guest and for an account.

        A UUID of version 8 (RFC 9562) from HMAC-SHA-256 under the store's secret.
        """
        secret = (await self._store_secrets(store_id)).subject
        digest = bytearray(_mac(secret, normalise(email))[:16])
        digest[6] = digest[6] & 0x0F | 0x80
        digest[8] = digest[8] & 0x3F | 0x80
        return UUID(bytes=bytes(digest))

    async def blind_index(self, store_id: UUID, field: str, value: str) -> bytes:
        """What is equal for equal values of a field at one store, for a new row: at most 34 bytes."""
        return (await self.blind_indexes(store_id, field, value))[0]

    async def blind_indexes(self, store_id: UUID, field: str, value: str) -> tuple[bytes, ...]:
        """What rows with this value may be found by: of the present epoch, then of others while a secret changes."""
        secrets, normal = await self._store_secrets(store_id), normalise(value)
        present = secrets.epoch_at(self._clock())
        first = sorted(secrets.indexes, key=lambda one: one[1] != present)
        return tuple(blind_indexes.blind_index(epoch, secret, field, normal) for _, epoch, secret in first)

    async def index_epoch(self, store_id: UUID) -> int:
        """The epoch of what `blind_index` gives at this moment."""
        return (await self._store_secrets(store_id)).epoch_at(self._clock())

    async def is_indexing_anew(self, store_id: UUID) -> bool:
        """Whether rows of the store may be indexed by more than one epoch."""
        return len((await self._store_secrets(store_id)).indexes) > 1

    async def rotations(self) -> list[Rotation]:
        """Stores whose rows this service has still to index anew."""
        return await self._keyring.rotations()

    async def report_indexed(self, rotations: Sequence[Rotation]) -> None:
        """Say that no row of these stores is indexed by an earlier epoch here."""
        await self._keyring.report_indexed(rotations)

    async def _store_secrets(self, store_id: UUID) -> _StoreSecrets:
        secrets = self._secrets.get(store_id)
        if secrets is None:
            since = self._clock()
            given = (await self._keyring.store_secrets([store_id]))[store_id]
            secrets = _StoreSecrets(
                subject=blind_indexes.derived(given.secret, f"vitrine/subject/1|{store_id}"),
                indexes=[(since + one.writes_in, one.epoch, one.secret) for one in given.indexes],
            )
            self._secrets.put(store_id, secrets, since=since)
        return secrets

    # --- Sealing -----------------------------------------------------------------------------------------

    async def seal(
        self, data: M, *, store_id: UUID, subject_id: UUID, bucket: str = "", begin: bool = False
    ) -> SealedFor[M]:
        """Raises SubjectErased, KeyringUnavailable."""
        [sealed] = await self.seal_many([ToSeal(data, store_id, subject_id, bucket, begin)])
        if isinstance(sealed, Problem):
            raise sealed
        return sealed

    async def seal_many(self, items: Sequence[ToSeal[M]]) -> list[SealedFor[M] | Problem]:
        """A box, or SubjectErased in its place. Raises KeyringUnavailable."""
        wanted = [
            KeyWanted(item.store_id, item.subject_id, type(item.data).retention, item.bucket, item.begin)
            for item in items
        ]
        keys = await self._keys_to_seal(dict.fromkeys(wanted))
        return [_sealed(item.data, keys[one]) for item, one in zip(items, wanted, strict=True)]

    async def sealer(
        self,
        *retentions: Retention,
        store_id: UUID,
        subject_id: UUID,
        buckets: Mapping[Retention, str] = MappingProxyType({}),
        begin: bool = False,
    ) -> Sealer:
        """For what only a transaction finds out, such as an order's number. `buckets`: those of divided retentions.

        Raises SubjectErased, KeyringUnavailable.
        """
        wanted = [
            KeyWanted(store_id, subject_id, retention, buckets.get(retention, ""), begin=begin)
            for retention in retentions
        ]
        keys: dict[Retention, DataKey] = {}
        for one, outcome in (await self._keys_to_seal(wanted)).items():
            if not isinstance(outcome, DataKey):
                raise outcome
            keys[one.retention] = outcome
        generations = {key.generation for key in keys.values()}
        if len(generations) != 1:
            # A key from memory and one made just now, with an erasure in between.
            raise SubjectErased
        return Sealer(generations.pop(), keys)

    async def _keys_to_seal(self, wanted: Iterable[KeyWanted]) -> dict[KeyWanted, Outcome]:
        # A live command always asks: what is in memory may be of a generation that ended a moment ago.
        found: dict[KeyWanted, Outcome] = {
            one: key for one in wanted if not one.begin and (key := self._minted.get(_place(one))) is not None
        }
        missing = [one for one in wanted if one not in found]
        if missing:
            since, drops = self._clock(), self._drops
            for one, outcome in zip(missing, await self._mint(missing), strict=True):
                found[one] = outcome
                if isinstance(outcome, DataKey) and drops == self._drops:
                    self._minted.put(_place(one), outcome, since=since, tags=_tags(outcome))
        return found

    async def _mint(self, wanted: Sequence[KeyWanted]) -> list[Outcome]:
        """What is asked for while a call is under way goes together with the next.

        What may begin a generation goes alone: within a call, whoever begins anew does so for all.
        """
        if any(one.begin for one in wanted):
            return await self._keyring.mint(wanted)
        outcomes: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()
        self._to_mint.append((wanted, outcomes))
        if self._minting is None or self._minting.done():
            self._minting = asyncio.create_task(self._mint_until_none_waits())
        return await outcomes

    async def _mint_until_none_waits(self) -> None:
        while self._to_mint:
            waiting, self._to_mint = self._to_mint, []
            try:
                minted = iter(await self._keyring.mint([one for wanted, _ in waiting for one in wanted]))
            except Exception as error:
                for _, outcomes in waiting:
                    if not outcomes.done():
                        outcomes.set_exception(error)
            else:
                for wanted, outcomes in waiting:
                    some = list(islice(minted, len(wanted)))
                    if not outcomes.done():
                        outcomes.set_result(some)

    # --- Opening -----------------------------------------------------------------------------------------

    async def open(self, box: Sealed[M], *, store_id: UUID, subject_id: UUID, purpose: Purpose) -> M:
        """Raises KeyDestroyed, KeyRestricted, KeyringUnavailable, and what `errors.py` calls our mistakes."""
        [opened] = await self.open_many([ToOpen(box, store_id, subject_id)], purpose=purpose)
        if isinstance(opened, Problem):
            raise opened
        return opened

    async def open_many(self, items: Sequence[ToOpen[M]], *, purpose: Purpose) -> list[M | Problem]:
        """For each item what it holds, or the problem that stands in its place."""
        opened = await self.open_to_change(items, purpose=purpose)
        return [one.data if isinstance(one, Opened) else one for one in opened]

    async def open_to_change(
        self, items: Sequence[ToOpen[M]], *, purpose: Purpose
    ) -> list[Opened[M] | Problem]:
        """As `open_many`, with what a change of it is sealed with."""
        keys = await self._keys_to_open({item.box.key_id for item in items}, purpose)
        return [_opened(item, keys[item.box.key_id]) for item in items]

    async def _keys_to_open(self, key_ids: Iterable[UUID], purpose: Purpose) -> dict[UUID, Outcome]:
        found: dict[UUID, Outcome] = {}
        waited_for: dict[UUID, asyncio.Task[dict[UUID, Outcome]]] = {}
        missing: list[UUID] = []
        for key_id in key_ids:
            if (key := self._opened.get((key_id, purpose))) is not None:
                found[key_id] = key
            elif (task := self._opening.get((key_id, purpose))) is not None:
                waited_for[key_id] = task
            else:
                missing.append(key_id)
        if missing:
            # A task of its own: whoever asked first may be cancelled while others wait for the same key.
            task = asyncio.create_task(self._open_keys(missing, purpose))
            self._opening |= {(key_id, purpose): task for key_id in missing}
            waited_for |= dict.fromkeys(missing, task)
        for key_id, task in waited_for.items():
            found[key_id] = (await asyncio.shield(task))[key_id]
        return found

    async def _open_keys(self, key_ids: Sequence[UUID], purpose: Purpose) -> dict[UUID, Outcome]:
        since, drops = self._clock(), self._drops
        try:
            outcomes = dict(zip(key_ids, await self._keyring.open(key_ids, purpose=purpose), strict=True))
        except Problem as problem:
            return dict.fromkeys(key_ids, type(problem))
        finally:
            for key_id in key_ids:
                del self._opening[key_id, purpose]
        for key_id, outcome in outcomes.items():
            # What was dropped while the answer was under way must not come back with it.
            if isinstance(outcome, DataKey) and drops == self._drops:
                self._opened.put((key_id, purpose), outcome, since=since, tags=_tags(outcome))
        return outcomes

    # --- Forgetting --------------------------------------------------------------------------------------

    def drop(
        self, store_id: UUID, subject_ids: Iterable[UUID] | None = None, key_ids: Iterable[UUID] = ()
    ) -> None:
        """Forget the keys of these people and these keys; of the whole store when neither is named."""
        self._drops += 1
        tags: list[Hashable] = [("key", key_id) for key_id in key_ids]
        tags += [("subject", store_id, subject_id) for subject_id in subject_ids or ()]
        if not tags and subject_ids is None:
            tags = [("store", store_id)]
        for tag in tags:
            self._opened.forget(tag)
            self._minted.forget(tag)

    @asynccontextmanager
    async def following(self, url: str) -> AsyncGenerator[None]:
        """While the block runs, drop the keys that `announce` names in the service's database."""
        async with Listener(url, CHANNEL) as listener:
            task = asyncio.create_task(self._follow(listener))
            try:
                yield
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def _follow(self, listener: Listener) -> None:
        while True:
            for payload in await listener.wait(_POLL_SECONDS):
                self._heed(payload)
            self._opened.expire()
            self._minted.expire()
            # Without a server the listener returns at once; this bounds how often it asks.
            await asyncio.sleep(_BETWEEN_POLLS)

    def _heed(self, payload: str) -> None:
        store, _, subject = payload.partition(":")
        try:
            self.drop(UUID(store), [UUID(subject)] if subject else None)
        except ValueError:
            # Whoever rang with something else must not end the listening, nor cost others their news.
            logger.warning("news of destroyed keys was not understood")


def unless_destroyed(opened: M | Problem) -> M | None:
    """What a box held; None where its key was destroyed. Raises any other problem that stands in its place."""
    if isinstance(opened, KeyDestroyed):
        return None
    if isinstance(opened, Problem):
        raise opened
    return opened


async def announce_store(session: AsyncSession, store_id: UUID) -> None:
    """Tell every process that follows this database, on commit, to forget all keys of a store."""
    await fetch(session, "SELECT pg_notify($1, $2)", CHANNEL, f"{store_id}:")


async def announce(session: AsyncSession, subjects: Iterable[tuple[UUID, UUID]]) -> None:
    """Tell every process that follows this database, on commit, to forget the keys of (store, subject)."""
    payloads = [f"{store_id}:{subject_id}" for store_id, subject_id in subjects]
    await session.execute(
        text("SELECT pg_notify(:channel, payload) FROM unnest(CAST(:payloads AS text[])) AS payload"),
        {"channel": CHANNEL, "payloads": payloads},
    )


def normalise(value: str) -> str:
    """One form for what people write in many: NFKC, no blanks around it, case folded.

    RFC 5321 lets a server tell `Ada@` from `ada@`; none that people use does, and two subjects for one person
    would make every export incomplete. Dots and `+tags` stay, since they do name different mailboxes.
    """
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", value).strip().casefold())


def _mac(secret: bytes, text: str) -> bytes:
    return hmac.digest(secret, text.encode(), hashlib.sha256)


def _place(wanted: KeyWanted) -> tuple[UUID, UUID, Retention, str]:
    return wanted.store_id, wanted.subject_id, wanted.retention, wanted.bucket


def _tags(key: DataKey) -> tuple[Hashable, ...]:
    return ("store", key.store_id), ("subject", key.store_id, key.subject_id), ("key", key.key_id)


def _sealed(data: M, key: Outcome) -> SealedFor[M] | Problem:
    return SealedFor(encrypt(data, key), key.generation) if isinstance(key, DataKey) else key()


def _opened(item: ToOpen[M], key: Outcome) -> Opened[M] | Problem:
    if not isinstance(key, DataKey):
        return key()
    if (key.store_id, key.subject_id) != (item.store_id, item.subject_id):
        return BoxDoesNotOpen()
    try:
        return Opened(decrypt(item.box, key), key)
    except BoxDoesNotOpen as problem:
        return problem
