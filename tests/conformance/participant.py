"""A participant that can be made to do one thing wrong: the name of a fault is the name of the check that finds it."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Annotated, Any, TypeVar
from uuid import UUID, uuid4

import orjson
from joserfc.jwk import ECKey

from conformance.scene import Person
from libs.common.auth import PLATFORM_STORE
from libs.common.broker import Record
from libs.common.broker.kafka import KafkaBroker
from libs.common.events import Event, Undecodable, UnknownType, decode, envelope_of, headers_of
from libs.common.events.privacy import (
    ExportChunk,
    ExportedRecords,
    KeysExpired,
    Outcome,
    ParticipantAnnounced,
    References,
    Retained,
    RowsCleaned,
    StoreCleaned,
    StoreKeysDestroyed,
    TaskAnswered,
    TaskIssued,
    Verb,
)
from libs.common.personal.answers import sign
from libs.common.personal.data import PersonalData, Sealed
from libs.common.personal.errors import SubjectErased
from libs.common.personal.vault import Opened, ToOpen, ToSeal, Vault
from libs.common.personal.vocabulary import Category, LegalBasis, Purpose, Retention

NAME = "troublesome"
A = TypeVar("A", TaskAnswered, RowsCleaned, StoreCleaned)
_READ = ("privacy.tasks", "privacy.keys", "privacy.stores")


class Visitor(
    PersonalData,
    retention=Retention.ACCOUNT,
    purposes=[Purpose.MARKETING_MAIL],
    legal_basis=LegalBasis.CONSENT,
):
    """Who came by."""

    name: Annotated[str, Category.NAME]
    email: Annotated[str, Category.EMAIL]


class AnExport(ExportedRecords, retention=Retention.ACCOUNT, purposes=[Purpose.MARKETING_MAIL], legal_basis=LegalBasis.CONSENT):  # noqa: E501 # fmt: skip
    """What a chunk must not be."""


@dataclass(slots=True)
class Row:
    """What is held of one generation of a person."""

    store_id: UUID
    subject_id: UUID
    generation: int
    box: Sealed[Visitor] | None


@dataclass(slots=True)
class Memory:
    """What outlasts the process."""

    rows: list[Row] = field(default_factory=list[Row])
    erased: dict[tuple[UUID, UUID], int] = field(default_factory=dict[tuple[UUID, UUID], int])
    resting: set[UUID] = field(default_factory=set[UUID])
    answers: dict[tuple[Any, ...], TaskAnswered] = field(default_factory=dict[tuple[Any, ...], TaskAnswered])
    ended: set[UUID] = field(default_factory=set[UUID])
    cleaned: dict[UUID, RowsCleaned] = field(default_factory=dict[UUID, RowsCleaned])


class Participant:
    """Honest while `fault` is empty. `start` and `end` are a process's."""

    def __init__(self, servers: str, vault: Vault, key: ECKey) -> None:
        self._broker = KafkaBroker(servers, client_id=NAME)
        self._vault = vault
        self._key = key
        self._consuming: asyncio.Task[None] | None = None
        self._since = datetime.min.replace(tzinfo=UTC)
        self._is_dead = False
        self.fault = ""
        self.memory = Memory()

    async def open(self) -> None:
        await self._broker.start()
        await self._broker.ensure_topics([*_READ, "privacy.answers", "privacy.participants"])
        self.start()
        await self.announce()

    async def close(self) -> None:
        await self.end()
        await self._broker.stop()

    def misbehave(self, fault: str) -> None:
        self.fault, self._is_dead = fault, False

    def start(self) -> None:
        if self.fault in {"loses-nothing-when-killed", "takes-up-what-came-while-it-was-down"}:
            self._since = datetime.now(UTC)
        self._consuming = asyncio.create_task(self._consume())

    async def end(self, *, kill: bool = False) -> None:
        if self.fault == "remembers-after-a-restart":
            self.memory = replace(Memory(), rows=self.memory.rows)
        if self._consuming is not None:
            self._consuming.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._consuming

    # --- What it says of itself --------------------------------------------------------------------------

    async def announce(self) -> None:
        key = self._key.as_dict(private=self.fault == "announces-its-public-key")
        announced = ParticipantAnnounced(
            participant=NAME, public_key=dict(key), data_map=self._data_map(), prepares=True
        )
        await self._publish(announced, PLATFORM_STORE)

    def _data_map(self) -> list[dict[str, Any]]:
        kept = {
            "service": NAME, "table": "visitor", "on_erase": "delete", "source": "person", "kind": "Visitor",
            "categories": {"name": ["user.name"], "email": ["user.contact.email"]},
            "purposes": [Purpose.MARKETING_MAIL.value],
            "legal_basis": "Because" if self.fault == "announces-what-it-keeps" else "Consent",
            "retention": {"name": "account", "kept_by_law": False},
            "schema": {
                "type": "nothing" if self.fault == "announces-valid-schemas" else "object",
                "properties": {"data": {"type": "object", "properties": {"name": {"type": "string"}}}},
            },
        }  # fmt: skip
        visits = {"service": NAME, "table": "visit", "on_erase": "delete", "source": "observed"}
        return [kept, visits]

    async def take(self, person: Person) -> bool:
        """What brings data of somebody."""
        last = self.memory.erased.get((person.store_id, person.subject_id), 0)
        if self.fault == "welcomes-who-returns" and last:
            return False
        if last >= person.generation and self.fault != "refuses-late-data":
            return False
        box = None
        if last < person.generation:
            try:
                sealed = await self._vault.seal(
                    Visitor(name=person.name, email=person.email),
                    store_id=person.store_id,
                    subject_id=person.subject_id,
                )
                box = sealed.box
            except SubjectErased:
                return False
        self.memory.rows.append(Row(person.store_id, person.subject_id, person.generation, box))
        return True

    # --- What it hears ------------------------------------------------------------------------------------

    async def _consume(self) -> None:
        async with self._broker.subscribe(NAME, _READ) as subscription:
            async for batch in subscription:
                for record in batch.records:
                    await self._take(record)
                await batch.commit()

    async def _take(self, record: Record) -> None:
        try:
            received = decode(record)
        except Undecodable as error:
            unknown = "passes-over-an-unknown-verb"
            if isinstance(error, UnknownType):
                unknown = "passes-over-an-unknown-type"
            elif error.reason == "invalid-envelope":
                unknown = "passes-over-what-is-no-event"
            self._is_dead = self._is_dead or self.fault == unknown
            return
        if self._is_dead or received.envelope.time < self._since:
            return
        store_id = received.envelope.store_id
        match received.data:
            case TaskIssued() as task:
                strict = orjson.loads(record.value).keys() <= TaskIssued.model_fields.keys()
                if strict or self.fault != "ignores-unknown-fields":
                    await self._task(store_id, task)
            case KeysExpired() as expired:
                await self._expire(store_id, expired)
            case StoreKeysDestroyed():
                await self._end_store(store_id)
            case _:
                pass

    async def _task(self, store_id: UUID, task: TaskIssued) -> None:
        is_asked = not task.participants or NAME in task.participants
        if not is_asked and self.fault != "is-silent-when-others-are-asked":
            return
        place = (task.request_id, task.verb, 0 if self.fault == "answers-a-new-round" else task.round)
        answer = self.memory.answers.get(place)
        if answer is None or self.fault == "answers-the-same-again":
            answer = await self._answer(store_id, task)
            if answer.outcome is not Outcome.FAILED:
                self.memory.answers[place] = answer
        if self.fault != f"silent about {task.verb}":
            await self._tell(store_id, answer)

    async def _tell(self, store_id: UUID, answer: TaskAnswered) -> None:
        await self._publish(self._signed(answer, store_id), store_id)
        if self.fault == "answers-once":
            await self._publish(self._signed(answer, store_id), store_id)
        if self.fault == "never-contradicts-itself":
            other = answer.model_copy(update={"counts": {"something": 7}})
            await self._publish(self._signed(other, store_id), store_id)

    def _signed(self, answer: A, store_id: UUID) -> A:
        unsigned: Mapping[str, type[Event]] = {
            "signs-every-answer": TaskAnswered,
            "cleans-what-expired": RowsCleaned,
            "cleans-up-after-a-store": StoreCleaned,
        }
        is_forged = type(answer) is unsigned.get(self.fault)
        return sign(answer, store_id=store_id, key=ECKey.generate_key("P-256") if is_forged else self._key)

    # --- What it does -------------------------------------------------------------------------------------

    async def _answer(self, store_id: UUID, task: TaskIssued) -> TaskAnswered:
        outcome, more = await self._work(store_id, task)
        return TaskAnswered(
            request_id=task.request_id, verb=task.verb, round=task.round, participant=NAME, outcome=outcome,
            **more,
        )  # fmt: skip

    async def _work(self, store_id: UUID, task: TaskIssued) -> tuple[Outcome, dict[str, Any]]:
        rows = self._rows(store_id, task)
        match task.verb:
            case Verb.PREVIEW:
                return await self._preview(task, rows)
            case Verb.EXPORT:
                return await self._export(store_id, task, rows)
            case Verb.RECTIFY:
                return await self._rectify(task, rows)
            case Verb.ERASE:
                return await self._erase(store_id, task, rows)
            case Verb.VERIFY_ERASED:
                return self._verify(task, rows)
            case Verb.RESTRICT | Verb.LIFT_RESTRICTION:
                return self._rest(task, rows)
            case Verb.OBJECT:
                used = task.purpose is Purpose.MARKETING_MAIL or self.fault == "stops-what-is-objected-to"
                return _held(used), {}
            case Verb.PREPARE:
                return Outcome.DONE, {}
            case Verb.REFER:
                return await self._refer(store_id, task, rows)
            case _:
                return Outcome.NOTHING_HELD, {}

    def _rows(self, store_id: UUID, task: TaskIssued) -> list[Row]:
        alone = {
            "answers-once-for-all-subjects": True,
            "erases-all-subjects": task.verb is Verb.ERASE,
        }.get(self.fault)
        lives = {life.subject_id: life.generation for life in (task.lives[:1] if alone else task.lives)}
        anywhere = (self.fault == "exports-nothing-of-others" and task.verb is Verb.EXPORT) or (
            self.fault == "leaves-others-alone" and task.verb is Verb.ERASE
        )
        return [
            row
            for row in self.memory.rows
            if (anywhere or row.store_id == store_id) and row.generation <= lives.get(row.subject_id, 0)
        ]

    async def _preview(self, task: TaskIssued, rows: Sequence[Row]) -> tuple[Outcome, dict[str, Any]]:
        if task.proposal is not None:
            pretend = (
                task.model_copy(update={"verb": Verb.RECTIFY})
                if self.fault == "previews-a-correction"
                else task
            )
            return await self._rectify(pretend, rows)
        other = task.category is not None and not any(
            map(task.category.includes, (Category.NAME, Category.EMAIL))
        )
        if (other and self.fault != "previews-a-part") or self.fault == "previews":
            return Outcome.NOTHING_HELD, {}
        if self.fault == "previews-without-changing":
            self._forget(rows)
        return _counted(rows)

    async def _export(
        self, store_id: UUID, task: TaskIssued, rows: Sequence[Row]
    ) -> tuple[Outcome, dict[str, Any]]:
        rests = self.fault == "exports-what-rests" and task.subject_id in self.memory.resting
        records = [] if rests else await self._records(task, rows)
        if not records:
            return Outcome.NOTHING_HELD, {}
        box = await self._chunk(store_id, task, records)
        if box is None:
            return Outcome.NOTHING_HELD, {}
        first = 1 if self.fault == "numbers-its-chunks" else 0
        chunk = ExportChunk(
            request_id=task.request_id, participant=NAME, round=task.round, sequence=first, box=box
        )
        await self._publish(chunk, store_id)
        digest = sha256(sha256(box.payload).digest()).hexdigest()
        counts = dict(Counter(record["table"] for record in records))
        return Outcome.DONE, {
            "counts": counts,
            "chunks": 1,
            "digest": "0" * 64 if self.fault == "binds-its-chunks" else digest,
        }

    async def _records(self, task: TaskIssued, rows: Sequence[Row]) -> list[dict[str, Any]]:
        records = [record for row in rows if (record := await self._record(row)) is not None]
        if records and (not task.portable or self.fault == "exports-for-taking-elsewhere"):
            records.append({"table": "visit", "kind": None, "facts": {}, "data": None, "attached": {}})
        return records

    async def _record(self, row: Row) -> dict[str, Any] | None:
        opened = await self._opened(row)
        if opened is None:
            return None
        name: Any = 5 if self.fault == "exports-what-its-schemas-say" else opened.data.name
        data = {} if self.fault == "exports-what-it-holds" else {"name": name, "email": opened.data.email}
        record = {"table": "visitor", "kind": "Visitor", "facts": {}, "data": data, "attached": {}}
        if self.fault == "shapes-its-records":
            del record["attached"]
        return record

    async def _opened(self, row: Row) -> Opened[Visitor] | None:
        if row.box is None:
            return None
        [opened] = await self._vault.open_to_change(
            [ToOpen(row.box, row.store_id, row.subject_id)], purpose=Purpose.RIGHTS_OF_THE_PERSON
        )
        return opened if isinstance(opened, Opened) else None

    async def _chunk(
        self, store_id: UUID, task: TaskIssued, records: list[dict[str, Any]]
    ) -> Sealed[ExportedRecords] | None:
        if self.fault == "seals-its-chunks":
            wrong = await self._vault.seal(
                AnExport(records=records), store_id=store_id, subject_id=task.subject_id
            )
            return Sealed(ExportedRecords, wrong.box.payload)
        [sealed] = await self._vault.seal_many(
            [ToSeal(ExportedRecords(records=records), store_id, task.subject_id, bucket=str(task.request_id))]
        )
        return getattr(sealed, "box", None)

    async def _refer(
        self, store_id: UUID, task: TaskIssued, rows: Sequence[Row]
    ) -> tuple[Outcome, dict[str, Any]]:
        known = [opened.data.email for row in rows if (opened := await self._opened(row)) is not None]
        if not known:
            return Outcome.NOTHING_HELD, {}
        emails = () if self.fault == "refers" else tuple(known)
        sealed = await self._vault.seal(
            References(emails=emails),
            store_id=store_id,
            subject_id=task.subject_id,
            bucket=str(task.request_id),
        )
        digest = sha256(sealed.box.payload).hexdigest()
        return Outcome.DONE, {"references": sealed.box, "digest": digest}

    async def _rectify(self, task: TaskIssued, rows: Sequence[Row]) -> tuple[Outcome, dict[str, Any]]:
        if not rows or task.proposal is None:
            return Outcome.NOTHING_HELD, {}
        proposal = await self._vault.open(
            task.proposal, store_id=rows[0].store_id, subject_id=task.subject_id,
            purpose=Purpose.RIGHTS_OF_THE_PERSON,
        )  # fmt: skip
        [correction] = proposal.corrections
        if not isinstance(correction.value, str) and self.fault != "refuses-a-correction-that-does-not-fit":
            return Outcome.DONE, {"refused": [correction.category]}
        if task.verb is Verb.RECTIFY and self.fault != "corrects":
            for row in rows:
                if (opened := await self._opened(row)) is not None:
                    row.box = opened.seal(opened.data.model_copy(update={"name": str(correction.value)}))
        return _counted(rows)

    async def _erase(
        self, store_id: UUID, task: TaskIssued, rows: Sequence[Row]
    ) -> tuple[Outcome, dict[str, Any]]:
        if task.category is not None:
            if self.fault != "erases-a-part":
                self._forget(rows)
            return _counted(rows)
        for life in task.lives:
            self.memory.erased[store_id, life.subject_id] = life.generation
        if task.held and rows and self.fault != "keeps-what-is-held":
            [held] = task.held
            return Outcome.RETAINED, {"retained": [_retained(len(rows), held.ground, held.until)]}
        if self.fault == "says-what-it-retains":
            return Outcome.RETAINED, {"retained": [_retained(1, "", None)]}
        if self.fault != "holds-nothing-after":
            self._forget(rows)
        return (Outcome.NOTHING_HELD, {}) if self.fault == "erases" else _counted(rows)

    def _verify(self, task: TaskIssued, rows: Sequence[Row]) -> tuple[Outcome, dict[str, Any]]:
        if task.category is not None:
            rows = [row for row in rows if row.box is not None and row.box.key_id in task.retired]
        if rows and self.fault != "finds-what-was-not-erased":
            return Outcome.FAILED, {"counts": {"visitor": len(rows)}, "reread": ["visitor"]}
        return Outcome.DONE, {"reread": [] if self.fault == "verifies-that-it-erased" else ["visitor"]}

    def _rest(self, task: TaskIssued, rows: Sequence[Row]) -> tuple[Outcome, dict[str, Any]]:
        self.memory.resting ^= {task.subject_id}
        if self.fault == "rests-and-goes-on":
            self._forget(rows)
        return _counted(rows)

    def _forget(self, rows: Sequence[Row]) -> None:
        self.memory.rows = [row for row in self.memory.rows if row not in rows]

    # --- What ends ----------------------------------------------------------------------------------------

    async def _expire(self, store_id: UUID, expired: KeysExpired) -> None:
        again = self.memory.cleaned.get(expired.subject_id)
        if again is not None and self.fault == "says-again-that-it-cleaned":
            return
        rows = [row for row in self.memory.rows if row.box and row.box.key_id in expired.key_ids]
        self._forget(rows)
        cleaned = again or RowsCleaned(
            **expired.model_dump(include={"subject_id", "generation", "retention", "bucket"}),
            participant=NAME,
            counts={"visitor": len(rows)},
        )
        self.memory.cleaned[expired.subject_id] = cleaned
        await self._publish(self._signed(cleaned, store_id), store_id)

    async def _end_store(self, store_id: UUID) -> None:
        if store_id in self.memory.ended and self.fault == "says-again-that-a-store-is-clean":
            return
        self.memory.ended.add(store_id)
        self._forget([row for row in self.memory.rows if row.store_id == store_id])
        cleaned = StoreCleaned(store_id=store_id, participant=NAME)
        await self._publish(self._signed(cleaned, store_id), store_id)

    # --- On the wire --------------------------------------------------------------------------------------

    async def _publish(self, event: Event, store_id: UUID) -> None:
        envelope = envelope_of(event, store_id=store_id, source=NAME)
        key = f"{uuid4()}" if self.fault == "shapes-every-answer" else envelope.key
        headers: Mapping[str, str] = headers_of(envelope)
        if self.fault == "says-nothing-in-the-clear" and (rows := self.memory.rows):
            opened = await self._opened(rows[-1])
            headers = {**headers, "person": opened.data.name if opened else ""}
        await self._broker.publish([Record(event.topic, key, event.model_dump_json().encode(), headers)])


def _held(anything: object) -> Outcome:
    return Outcome.DONE if anything else Outcome.NOTHING_HELD


def _counted(rows: Sequence[Row]) -> tuple[Outcome, dict[str, Any]]:
    return _held(rows), {"counts": {"visitor": len(rows)} if rows else {}}


def _retained(count: int, ground: str, until: Any) -> Retained:
    return Retained(kind="Visitor", retention="account", bucket="", count=count, ground=ground, until=until)
