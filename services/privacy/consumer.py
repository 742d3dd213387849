"""What the privacy service does when participants announce themselves and answer."""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import orjson
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.db import ring_after_commit
from libs.common.ending import Endings
from libs.common.events import Received
from libs.common.events.identity import AccountEnded, EmailConfirmed, EmailRemoved, StoreEnded, StoreOpened
from libs.common.events.privacy import (
    ClockStarted,
    ClockStopped,
    DatabaseRestored,
    ExportChunk,
    Life,
    ParticipantAnnounced,
    RowsCleaned,
    StoreCleaned,
    TaskAnswered,
)
from libs.common.inbox import Handlers, batched
from libs.common.mail import SENDING
from libs.common.personal.errors import SubjectErased
from libs.common.personal.participant import Participant as Answering
from libs.common.stores import STORES, known_store, on_store_opened
from libs.common.worker import Duty
from services.privacy import (
    assembling,
    closings,
    duties,
    endings,
    key_tasks,
    letters,
    measuring,
    redoing,
    store_endings,
    watching,
)
from services.privacy.believing import MOST, believed, refuse, sound
from services.privacy.domain.parts import Unwanted
from services.privacy.domain.problems import TooManySubjects
from services.privacy.domain.states import KEYRING, RECIPIENT, TaskState
from services.privacy.engine import joining, leaving, people
from services.privacy.engine.answers import record, refused
from services.privacy.engine.archives import ARCHIVES
from services.privacy.engine.chunks import keep_chunks
from services.privacy.engine.phases import DELIVERIES, KEYRING_TASKS, NOTICES
from services.privacy.engine.tasks import Answer
from services.privacy.evidence import certificates, ending, placing
from services.privacy.models import Base, Departure, Participant, RemovedEmail
from services.privacy.opendsr import callbacks, following
from services.privacy.personal import HERE, HOLDINGS, KEPT
from services.privacy.recipients import deliveries, references
from services.privacy.recipients import measuring as deliveries_measuring
from services.privacy.retention import clocks, expiring, moving, periods
from services.privacy.settings import Settings, present

logger = logging.getLogger(__name__)


@batched
async def on_announced(session: AsyncSession, events: Sequence[Received[ParticipantAnnounced]]) -> None:
    """Know who answers. A name keeps the key it came with; ours are those the platform was set up with. One that left
    is refused until it is let in again, and one that is new gets its part of what is open.
    """
    pinned = present().service_keys
    for event in events:
        announced = event.data
        row = await session.get(Participant, announced.participant, with_for_update=True)
        key = pinned.get(announced.participant) or (
            row.public_key if row is not None else announced.public_key
        )
        if _is_reserved(announced.participant) or _point(key) != _point(announced.public_key):
            refuse("ParticipantAnnounced", announced.participant)
        elif row is None and await _left_after(session, announced.participant, event.envelope.time):
            refuse("ParticipantAnnounced", announced.participant, Unwanted.DEPARTED)
        elif row is None or row.announced_at < event.envelope.time:
            values = {
                "public_key": announced.public_key,
                "data_map": announced.data_map,
                "prepares": announced.prepares,
                "announced_at": event.envelope.time,
            }
            await session.execute(
                upsert(Participant)
                .values(name=announced.participant, joining_until=datetime.now(UTC) + joining.WHILE, **values)
                .on_conflict_do_update(index_elements=[Participant.name], set_=values)
            )
            await session.flush()
            ring_after_commit(session, joining.CHANNEL)


def _is_reserved(name: str) -> bool:
    """The keyring's name and those of recipients are given to nobody."""
    return name == KEYRING or name.startswith(RECIPIENT)


async def _left_after(session: AsyncSession, name: str, announced_at: datetime) -> bool:
    """Whether a participant is gone, or was when it said so: an old announcement does not bring it back."""
    left = await session.scalars(
        select(Departure).where(
            Departure.name == name,
            Departure.readmitted_at.is_(None) | (Departure.departed_at >= announced_at),
        )
    )
    return left.first() is not None


def _point(key: dict[str, object]) -> tuple[object, ...]:
    return tuple(key.get(name) for name in ("kty", "crv", "x", "y"))


@batched
async def on_answers(session: AsyncSession, events: Sequence[Received[TaskAnswered]]) -> None:
    """Believe what is signed with the key of the participant that it names, and nothing else."""
    given = sound(await believed(session, events))
    await references.keep(session, events[0].envelope.store_id, [event.data for event in given])
    answers = [_answer(event) for event in given]
    await record(
        session,
        events[0].envelope.store_id,
        answers,
        expected=sorted(present().participants),
        now=datetime.now(UTC),
    )
    await redoing.take(session, answers)


def _answer(event: Received[TaskAnswered]) -> Answer:
    answered = event.data
    received = orjson.loads(event.record.value)
    answer = Answer(
        request_id=answered.request_id,
        participant=answered.participant,
        verb=answered.verb,
        round=answered.round,
        state=TaskState(answered.outcome),
        content=answered.model_dump(mode="json", exclude={"references"}),
        received={name: value for name, value in received.items() if name != "references"},
    )
    return answer if references.fits(answered) else refused(answer)


@batched
async def on_chunks(session: AsyncSession, events: Sequence[Received[ExportChunk]]) -> None:
    """Keep pieces of exports; the signed answer after them says whether they are the right ones."""
    chunks = [event.data for event in events if max(event.data.round, event.data.sequence) <= MOST]
    await keep_chunks(session, events[0].envelope.store_id, chunks)


async def on_email_confirmed(session: AsyncSession, event: Received[EmailConfirmed]) -> None:
    """Two subjects are one person, unless one was erased since, or the address is not the account's any more."""
    if await session.get(RemovedEmail, event.data.alias_id) is not None:
        return
    account, address = _lives(event.data)
    expected, now = sorted(present().participants), datetime.now(UTC)
    try:
        await people.join(session, event.envelope.store_id, account, address, now=now, expected=expected)
    except SubjectErased:
        logger.info("not joined: one of two subjects is erased")
    except TooManySubjects:
        logger.warning("not joined: a person has too many subjects")


async def on_email_removed(session: AsyncSession, event: Received[EmailRemoved]) -> None:
    """Whoever comes by the address from now on is somebody else."""
    store_id, now = event.envelope.store_id, datetime.now(UTC)
    noted = (
        upsert(RemovedEmail)
        .values(email_id=event.data.alias_id, store_id=store_id, removed_at=now)
        .on_conflict_do_nothing()
        .returning(RemovedEmail.email_id)
    )
    if await session.scalar(noted) is not None:
        _, address = _lives(event.data)
        expected = sorted(present().participants)
        await people.separate(session, store_id, address, now=now, expected=expected)


def _lives(data: EmailConfirmed | EmailRemoved) -> tuple[Life, Life]:
    return (
        Life(subject_id=data.subject_id, generation=data.generation),
        Life(subject_id=data.alias_subject_id, generation=data.alias_generation),
    )


PARTICIPANT = Answering(
    service="privacy", holdings=HOLDINGS, settings=Settings, copies=HERE, clocks=clocks.CLOCKS
)
ENDINGS = Endings(PARTICIPANT, metadata=Base.metadata, holdings=HOLDINGS, kept=KEPT)


async def on_store(session: AsyncSession, event: Received[StoreOpened]) -> None:
    """Know the store, and the zone in which its days begin."""
    await on_store_opened(session, event)
    store = await known_store(session, event.data.store_id)
    await periods.place(session, store_id=store.store_id, country=store.country)


HANDLERS: Handlers = {
    **STORES,
    StoreOpened: on_store,
    ClockStarted: clocks.on_clock_started,
    ClockStopped: clocks.on_clock_stopped,
    RowsCleaned: expiring.on_rows_cleaned,
    StoreEnded: store_endings.on_store_ended,
    StoreCleaned: store_endings.on_store_cleaned,
    AccountEnded: closings.on_account_ended,
    EmailConfirmed: on_email_confirmed,
    EmailRemoved: on_email_removed,
    ParticipantAnnounced: on_announced,
    TaskAnswered: on_answers,
    ExportChunk: on_chunks,
    DatabaseRestored: redoing.on_restored,
    **PARTICIPANT.handlers,
    **ENDINGS.handlers,
}

DUTIES: Sequence[Duty] = (
    Duty("keyring", key_tasks.ask_keyring, timedelta(seconds=1), channel=KEYRING_TASKS),
    Duty("issue again", duties.issue_again, timedelta(seconds=1)),
    Duty("let participants join", joining.join, timedelta(seconds=1), channel=joining.CHANNEL),
    Duty("let participants leave", leaving.hand_over, timedelta(seconds=1), channel=joining.CHANNEL),
    Duty("write letters", letters.write, timedelta(seconds=1), channel=NOTICES),
    Duty("deliver outside", deliveries.deliver, timedelta(seconds=1), channel=DELIVERIES),
    # Two, so that an archive of a million rows keeps only half of the others waiting.
    Duty("assemble archives", assembling.assemble, timedelta(seconds=1), channel=ARCHIVES),
    Duty("assemble more archives", assembling.assemble, timedelta(seconds=1), channel=ARCHIVES),
    Duty("follow OpenDSR requests", following.watch, timedelta(seconds=1)),
    Duty("call tools back", callbacks.call, timedelta(seconds=5), channel=following.CALLBACKS),
    Duty("place evidence", placing.place, timedelta(seconds=1)),
    Duty("issue certificates", certificates.issue, timedelta(seconds=1)),
    Duty("forget evidence", ending.forget, timedelta(minutes=10)),
    Duty("watch deadlines", watching.watch, timedelta(seconds=30)),
    Duty("destroy keys", endings.destroy_keys, timedelta(seconds=5), channel=endings.DOOMED),
    Duty("open erasures", closings.open_erasures, timedelta(seconds=5), channel=closings.CHANNEL),
    Duty("end stores", store_endings.step, timedelta(seconds=5), channel=store_endings.CHANNEL),
    Duty("expire requests", endings.expire_requests, timedelta(minutes=10)),
    Duty("expire documents", endings.expire_documents, timedelta(minutes=1)),
    Duty("forget attempts", endings.forget_attempts, timedelta(minutes=10)),
    Duty("forget exports", duties.forget_exports, timedelta(minutes=10)),
    Duty("hear of a restored keyring", redoing.ask_keyring, timedelta(minutes=1)),
    Duty("compare what was restored", redoing.compare, timedelta(seconds=1)),
    Duty("ask again after a restore", redoing.redo, timedelta(seconds=1)),
    Duty("forget what was asked again", redoing.forget, timedelta(hours=1)),
    Duty("tell the keyring of last days", expiring.tell, timedelta(seconds=5)),
    Duty("expire", expiring.expire, timedelta(seconds=30)),
    Duty("remind of what expired", expiring.remind, timedelta(seconds=5)),
    Duty("finish what expired", expiring.finish, timedelta(seconds=30), channel=expiring.CHANNEL),
    Duty("forget what expired", expiring.purge, timedelta(hours=1)),
    Duty("move periods", moving.move, timedelta(seconds=5), channel=moving.CHANNEL),
    Duty("measure expiries", expiring.measure, timedelta(seconds=30)),
    Duty("measure deliveries", deliveries_measuring.measure, timedelta(seconds=15)),
    Duty("measure requests", measuring.measure, timedelta(seconds=5)),
    SENDING,
    *PARTICIPANT.duties,
    *ENDINGS.duties,
)
