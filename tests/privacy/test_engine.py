"""The engine against answers that are late, doubled, contradictory, forged or missing."""

import asyncio
import logging
from datetime import timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID, uuid4

import pytest
from joserfc.jwk import ECKey
from sqlalchemy import select, text

from libs.common.errors import Unavailable
from libs.common.events.privacy import (
    ExportChunk,
    ExportedRecords,
    KeysDestroyed,
    Outcome,
    ParticipantAnnounced,
    TaskAnswered,
    TaskIssued,
    Verb,
)
from libs.common.personal.answers import sign
from libs.common.personal.errors import SubjectErased
from libs.common.personal.keys import Erasure
from libs.common.personal.vocabulary import Retention
from libs.common.worker import Work
from services.privacy import duties, key_tasks
from services.privacy.models import Participant, Request, Task
from tests.common.personal.shop import SHOP
from tests.privacy.conftest import Person, Platform


async def until_erase_is_issued(platform: Platform) -> tuple[Person, UUID]:
    person = await platform.person()
    request_id = await platform.opened(person, "erasure")
    await platform.ask_keyring()
    return person, request_id


async def until_checking(platform: Platform) -> tuple[Person, UUID]:
    person, request_id = await until_erase_is_issued(platform)
    await platform.answer_itself(request_id, Verb.ERASE)
    await platform.deliver(platform.answer(request_id, Verb.ERASE))
    assert await platform.state(person, request_id) == "checking"
    return person, request_id


async def make_due(platform: Platform, request_id: UUID) -> None:
    """Move the clock of a request's tasks, not the test's; before all that other tests left behind."""
    async with platform.database.session(platform.store_id) as session:
        await session.execute(
            text(
                "UPDATE task SET next_issue_at = now() - interval '1 day'"
                " WHERE request_id = :id AND next_issue_at IS NOT NULL"
            ),
            {"id": request_id},
        )


async def issue_again(platform: Platform) -> None:
    await duties.issue_again(platform.work)


def forged(answer: TaskAnswered, **changes: Any) -> TaskAnswered:
    return answer.model_copy(update=changes)


# --- Answers ---------------------------------------------------------------------------------------------


async def test_a_participant_that_is_down_delays_and_never_loses(platform: Platform) -> None:
    person, request_id = await until_erase_is_issued(platform)
    await platform.answer_itself(request_id, Verb.ERASE)
    for attempt in (2, 3, 4):
        await make_due(platform, request_id)
        await issue_again(platform)
        issued = (await platform.tasks(request_id, Verb.ERASE))[-1]
        assert (issued.attempt, issued.participants, issued.round) == (attempt, [SHOP], 1)
        assert await platform.state(person, request_id) == "running"
    await platform.deliver(platform.answer(request_id, Verb.ERASE))
    assert await platform.state(person, request_id) == "checking"


async def test_the_pauses_between_two_issues_double_up_to_ten_minutes(platform: Platform) -> None:
    _, request_id = await until_erase_is_issued(platform)
    pauses: list[float] = []
    for _ in range(11):
        await make_due(platform, request_id)
        await issue_again(platform)
        async with platform.database.session(platform.store_id) as session:
            pause: timedelta | None = await session.scalar(
                text("SELECT max(next_issue_at) - now() FROM task WHERE request_id = :id"), {"id": request_id}
            )
            assert pause is not None
            pauses.append(pause.total_seconds())
    assert [round(pause) for pause in pauses] == [4, 8, 16, 32, 64, 128, 256, 512, 600, 600, 600]


async def test_nothing_is_issued_again_before_its_time_or_after_its_answer(platform: Platform) -> None:
    _, request_id = await until_erase_is_issued(platform)
    await issue_again(platform)
    assert len(await platform.tasks(request_id, Verb.ERASE)) == 1
    await platform.answer_itself(request_id, Verb.ERASE)
    await platform.deliver(platform.answer(request_id, Verb.ERASE))
    await make_due(platform, request_id)
    await issue_again(platform)
    assert len(await platform.tasks(request_id, Verb.ERASE)) == 1
    assert len(await platform.tasks(request_id, Verb.VERIFY_ERASED)) == 2


async def test_late_doubled_and_contradictory_answers_change_nothing(platform: Platform) -> None:
    person, request_id = await until_erase_is_issued(platform)
    done = platform.answer(request_id, Verb.ERASE, Outcome.DONE, counts={"purchase": 3})
    await platform.deliver(done, done)
    await platform.deliver(
        done, platform.answer(request_id, Verb.ERASE, Outcome.FAILED, reason="changed my mind")
    )
    before = await platform.detail(person, request_id)
    [part] = [part for part in before["parts"] if part["participant"] == SHOP]
    assert (part["state"], part["counts"], part["reason"]) == ("done", {"purchase": 3}, "")
    await platform.answer_itself(request_id, Verb.ERASE)
    await platform.ask_keyring()
    await platform.deliver(platform.answer(request_id, Verb.VERIFY_ERASED))
    await platform.answer_itself(request_id, Verb.VERIFY_ERASED)
    ended = await platform.detail(person, request_id)
    assert ended["state"] == "completed"
    await platform.deliver(done, platform.answer(request_id, Verb.VERIFY_ERASED, Outcome.FAILED))
    assert await platform.detail(person, request_id) == ended


async def test_an_answer_to_a_phase_that_has_not_begun_does_not_count(platform: Platform) -> None:
    person, request_id = await until_erase_is_issued(platform)
    await platform.deliver(platform.answer(request_id, Verb.VERIFY_ERASED, Outcome.DONE))
    await platform.answer_itself(request_id, Verb.ERASE)
    assert await platform.state(person, request_id) == "running"
    await platform.deliver(platform.answer(uuid4(), Verb.ERASE))


async def test_a_failure_is_tried_again_and_the_next_answer_counts(platform: Platform) -> None:
    person, request_id = await until_erase_is_issued(platform)
    await platform.answer_itself(request_id, Verb.ERASE)
    await platform.deliver(platform.answer(request_id, Verb.ERASE, Outcome.FAILED, reason="disk-full"))
    detail = await platform.detail(person, request_id)
    assert detail["state"] == "running"
    assert [part["reason"] for part in detail["parts"] if part["participant"] == SHOP] == ["disk-full"]
    await make_due(platform, request_id)
    await issue_again(platform)
    assert (await platform.tasks(request_id, Verb.ERASE))[-1].participants == [SHOP]
    await platform.deliver(platform.answer(request_id, Verb.ERASE))
    assert await platform.state(person, request_id) == "checking"


async def test_forged_answers_are_refused_and_counted(
    platform: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    person, request_id = await until_erase_is_issued(platform)
    true = platform.answer(request_id, Verb.ERASE)
    stranger = ECKey.generate_key("P-256")
    fakes = [
        forged(true, signature=""),
        forged(true, counts={"purchase": 1}),
        # Signed by the shop, in the name of another.
        sign(forged(true, participant="privacy"), store_id=platform.store_id, key=platform.shop_key),
        sign(forged(true, participant="keyring"), store_id=platform.store_id, key=platform.shop_key),
        sign(forged(true, participant="nobody-knows-me"), store_id=platform.store_id, key=stranger),
        sign(true, store_id=platform.store_id, key=stranger),
        # Signed for another store.
        sign(true, store_id=uuid4(), key=platform.shop_key),
    ]
    with caplog.at_level(logging.WARNING, logger="services.privacy.consumer"):
        await platform.deliver(*fakes)
    assert len([record for record in caplog.records if record.message == "not believed"]) == len(fakes)
    detail = await platform.detail(person, request_id)
    assert {part["state"] for part in detail["parts"] if part["participant"] in {SHOP, "privacy"}} == {
        "waiting"
    }


async def test_an_answer_for_a_request_of_another_store_does_not_count(platform: Platform) -> None:
    person, request_id = await until_erase_is_issued(platform)
    elsewhere = uuid4()
    answer = TaskAnswered(request_id=request_id, verb=Verb.ERASE, participant=SHOP, outcome=Outcome.DONE)
    await platform.deliver(sign(answer, store_id=elsewhere, key=platform.shop_key), store_id=elsewhere)
    detail = await platform.detail(person, request_id)
    assert [part["state"] for part in detail["parts"] if part["participant"] == SHOP] == ["waiting"]


async def test_of_two_last_answers_one_ends_the_phase(platform: Platform) -> None:
    requests = [await until_erase_is_issued(platform) for _ in range(8)]
    for _, request_id in requests:
        await platform.deliver((await platform.tasks(request_id, Verb.ERASE))[-1])
    own = {one.request_id: one for one in await platform.published(TaskAnswered)}
    ids = [request_id for _, request_id in requests]
    await asyncio.gather(
        platform.deliver(*(own[id_] for id_ in ids)),
        platform.deliver(*(platform.answer(id_, Verb.ERASE) for id_ in reversed(ids))),
    )
    for person, request_id in requests:
        assert await platform.state(person, request_id) == "checking"
        assert len(await platform.tasks(request_id, Verb.VERIFY_ERASED)) == 1


# --- Checks ----------------------------------------------------------------------------------------------


async def test_what_a_check_finds_sends_everybody_to_work_again(platform: Platform) -> None:
    person, request_id = await until_checking(platform)
    await platform.ask_keyring()
    await platform.answer_itself(request_id, Verb.VERIFY_ERASED)
    await platform.deliver(
        platform.answer(
            request_id, Verb.VERIFY_ERASED, Outcome.FAILED, reason="left-over", counts={"purchase": 1}
        )
    )
    assert await platform.state(person, request_id) == "running"
    await make_due(platform, request_id)
    await platform.ask_keyring()
    issued = (await platform.tasks(request_id, Verb.ERASE))[-1]
    assert issued.round == 2
    late = platform.answer(request_id, Verb.ERASE, round=1)
    await platform.deliver(late)
    await platform.answer_itself(request_id, Verb.ERASE)
    assert await platform.state(person, request_id) == "running"
    await platform.deliver(platform.answer(request_id, Verb.ERASE, round=2))
    await platform.ask_keyring()
    await platform.answer_itself(request_id, Verb.VERIFY_ERASED)
    await platform.deliver(platform.answer(request_id, Verb.VERIFY_ERASED, round=2))
    assert await platform.state(person, request_id) == "completed"


async def test_a_key_that_still_opens_is_found_by_the_keyring_itself(platform: Platform) -> None:
    person, request_id = await until_checking(platform)
    async with platform.keyring.database.platform_session() as session:
        await session.execute(
            text("""
                INSERT INTO data_key (key_id, store_id, subject_id, generation, retention, bucket, wrapped,
                    master_key_id, tenant_key_id, expires_on)
                SELECT gen_random_uuid(), store_id, subject_id, generation, :retention, '', wrapped, master_key_id,
                    tenant_key_id, NULL FROM data_key WHERE subject_id = :subject_id LIMIT 1
            """),
            {"retention": Retention.ORDER, "subject_id": person.subject_id},
        )
    await platform.ask_keyring()
    detail = await platform.detail(person, request_id)
    assert detail["state"] == "running"
    await make_due(platform, request_id)
    await platform.ask_keyring()
    assert (await platform.tasks(request_id, Verb.ERASE))[-1].round == 2


async def test_the_keys_go_before_anybody_cleans_up_and_nothing_new_is_sealed(platform: Platform) -> None:
    person = await platform.person()
    request_id = await platform.opened(person, "erasure")
    assert await platform.published(TaskIssued) == await platform.published(KeysDestroyed) == []
    await platform.ask_keyring()
    assert await platform.published(KeysDestroyed)
    live = await platform.keyring.client("privacy").status([(platform.store_id, person.subject_id)])
    assert [(key.retention, key.bucket) for key in live[0]] == [(Retention.REQUEST, str(request_id))]
    with pytest.raises(SubjectErased):
        await platform.keyring.vault("orders").seal(
            ExportedRecords(records=[]),
            store_id=platform.store_id,
            subject_id=person.subject_id,
            bucket=str(uuid4()),
        )


async def test_without_the_keyring_an_erasure_waits_and_nobody_cleans_up(
    platform: Platform, work: Work
) -> None:
    person = await platform.person()
    request_id = await platform.opened(person, "erasure")
    away = Work(
        work.service, work.settings.model_copy(update={"keyring_url": "http://127.0.0.1:1"}), work.database,
        work.broker, work.vault, work.http,
    )  # fmt: skip
    with pytest.raises(Unavailable):
        await key_tasks.ask_keyring(away)
    assert await platform.tasks(request_id, Verb.ERASE) == []
    await make_due(platform, request_id)
    await platform.ask_keyring()
    assert len(await platform.tasks(request_id, Verb.ERASE)) == 1


async def test_keys_destroyed_twice_after_a_crash_end_as_if_once(platform: Platform) -> None:
    person = await platform.person()
    request_id = await platform.opened(person, "erasure")
    async with platform.database.session(platform.store_id) as session:
        row = await session.get_one(Request, request_id)
    # The keyring has done it, and the worker dies before it can save what it was told.
    erasure = Erasure(platform.store_id, person.subject_id, row.generation, request_id)
    await platform.keyring.client("privacy").destroy([erasure])
    await platform.ask_keyring()
    assert len(await platform.published(KeysDestroyed)) == 1
    assert len(await platform.tasks(request_id, Verb.ERASE)) == 1


# --- Exports ---------------------------------------------------------------------------------------------


async def chunk_of(
    platform: Platform, person: Person, request_id: UUID, number: int = 0, **more: Any
) -> ExportChunk:
    sealed = await platform.work.vault.seal(
        ExportedRecords(records=[{"table": "purchase", "n": number}]),
        store_id=platform.store_id,
        subject_id=person.subject_id,
        bucket=str(request_id),
    )
    return ExportChunk(request_id=request_id, participant=SHOP, sequence=number, box=sealed.box, **more)


def digest_of(*chunks: ExportChunk) -> str:
    return sha256(b"".join(sha256(chunk.box.payload).digest() for chunk in chunks)).hexdigest()


async def test_an_export_is_complete_when_its_chunks_are_those_that_were_signed(platform: Platform) -> None:
    person = await platform.person()
    request_id = await platform.opened(person, "access")
    await platform.answer_itself(request_id, Verb.EXPORT)
    chunks = [await chunk_of(platform, person, request_id, number) for number in range(3)]
    await platform.deliver(*chunks, *chunks)
    assert await platform.state(person, request_id) == "running"
    await platform.deliver(
        platform.answer(request_id, Verb.EXPORT, Outcome.DONE, chunks=3, digest=digest_of(*chunks))
    )
    assert await platform.state(person, request_id) == "running", "its archive is still to be made"
    await platform.assemble()
    assert await platform.state(person, request_id) == "completed"


@pytest.mark.parametrize(
    "loss", ["a chunk is missing", "a chunk is somebody else's", "a chunk is of another round"]
)
async def test_an_export_that_is_not_whole_is_made_anew(platform: Platform, loss: str) -> None:
    person = await platform.person()
    request_id = await platform.opened(person, "access")
    await platform.answer_itself(request_id, Verb.EXPORT)
    chunks = [await chunk_of(platform, person, request_id, number) for number in range(2)]
    other = await chunk_of(platform, person, request_id, 1)
    arrived = {
        "a chunk is missing": chunks[:1],
        "a chunk is somebody else's": [*chunks, other],
        "a chunk is of another round": [chunks[0], chunks[1].model_copy(update={"round": 2})],
    }[loss]
    await platform.deliver(*arrived)
    answer = platform.answer(request_id, Verb.EXPORT, Outcome.DONE, chunks=2, digest=digest_of(*chunks))
    await platform.deliver(answer)
    assert await platform.state(person, request_id) == "running"
    await make_due(platform, request_id)
    await issue_again(platform)
    issued = (await platform.tasks(request_id, Verb.EXPORT))[-1]
    assert (issued.round, issued.participants) == (2, sorted([SHOP, "privacy"]))
    await platform.deliver(answer)
    assert await platform.state(person, request_id) == "running", "an answer of the first round counted"
    again = [await chunk_of(platform, person, request_id, number, round=2) for number in range(2)]
    await platform.deliver(*again)
    await platform.deliver(
        platform.answer(request_id, Verb.EXPORT, Outcome.DONE, chunks=2, digest=digest_of(*again), round=2)
    )
    await platform.answer_itself(request_id, Verb.EXPORT)
    await platform.assemble()
    assert await platform.state(person, request_id) == "completed"


async def test_chunks_nobody_asked_for_are_dropped(platform: Platform) -> None:
    person = await platform.person()
    request_id = await platform.opened(person, "access")
    chunk = await chunk_of(platform, person, request_id)
    await platform.deliver(
        chunk.model_copy(update={"participant": "nobody-knows-me"}),
        chunk.model_copy(update={"request_id": uuid4()}),
    )
    async with platform.database.session(platform.store_id) as session:
        assert await session.scalar(text("SELECT count(*) FROM export_chunk")) == 0


async def test_an_erasure_ends_an_export_of_the_same_person(platform: Platform) -> None:
    person = await platform.person()
    access = await platform.opened(person, "access")
    await platform.deliver(await chunk_of(platform, person, access))
    erasure = await platform.opened(person, "erasure")
    await platform.ask_keyring()
    await platform.answer_itself(erasure, Verb.ERASE)
    assert await platform.state(person, access) == "cancelled"
    await make_due(platform, access)
    await issue_again(platform)
    assert len(await platform.tasks(access, Verb.EXPORT)) == 1
    async with platform.database.session(platform.store_id) as session:
        assert await session.scalar(text("SELECT count(*) FROM export_chunk")) == 0
        rows = (await session.scalars(select(Request).order_by(Request.opened_at))).all()
        assert [row.contact is None for row in rows] == [True, False]
    await platform.deliver(platform.answer(access, Verb.EXPORT))
    assert await platform.state(person, access) == "cancelled"


# --- Who takes part --------------------------------------------------------------------------------------


async def test_a_name_keeps_the_key_it_came_with(platform: Platform) -> None:
    own: Any = ECKey.generate_key("P-256").as_dict(private=False)
    other: Any = ECKey.generate_key("P-256").as_dict(private=False)
    name = f"sixth-{uuid4().hex[:8]}"
    await platform.deliver(ParticipantAnnounced(participant=name, public_key=own, data_map=[]))
    await platform.deliver(
        ParticipantAnnounced(participant=name, public_key=other, data_map=[{"table": "x"}])
    )
    # The shop is in SERVICE_KEYS, and the keyring's name is nobody's.
    await platform.deliver(ParticipantAnnounced(participant=SHOP, public_key=other, data_map=[]))
    await platform.deliver(ParticipantAnnounced(participant="keyring", public_key=other, data_map=[]))
    try:
        async with platform.database.session(platform.store_id) as session:
            known = {one.name: one for one in await session.scalars(select(Participant))}
        assert known[name].public_key == own and known[name].data_map == []
        assert known[SHOP].public_key == platform.shop_key.as_dict(private=False)
        assert "keyring" not in known
    finally:
        await _forget(platform, name)


async def test_a_participant_that_joins_is_part_of_what_is_opened_later(platform: Platform) -> None:
    key = ECKey.generate_key("P-256")
    public: Any = key.as_dict(private=False)
    name = f"sixth-{uuid4().hex[:8]}"
    earlier = await until_erase_is_issued(platform)
    await platform.deliver(ParticipantAnnounced(participant=name, public_key=public, data_map=[]))
    try:
        later = await until_erase_is_issued(platform)
        for (person, request_id), expected in ((earlier, "checking"), (later, "running")):
            await platform.answer_itself(request_id, Verb.ERASE)
            await platform.deliver(platform.answer(request_id, Verb.ERASE))
            assert await platform.state(person, request_id) == expected
        person, request_id = later
        answer = TaskAnswered(request_id=request_id, verb=Verb.ERASE, participant=name, outcome=Outcome.DONE)
        await platform.deliver(sign(answer, store_id=platform.store_id, key=key))
        assert await platform.state(person, request_id) == "checking"
    finally:
        await _forget(platform, name)


async def test_who_is_expected_and_never_announced_is_waited_for(platform: Platform) -> None:
    async with platform.database.platform_session() as session:
        await session.execute(text("DELETE FROM participant WHERE name = :name"), {"name": SHOP})
    person, request_id = await until_erase_is_issued(platform)
    await platform.answer_itself(request_id, Verb.ERASE)
    await platform.deliver(platform.answer(request_id, Verb.ERASE))
    assert await platform.state(person, request_id) == "running", "an answer nobody can check was believed"
    public: Any = platform.shop_key.as_dict(private=False)
    await platform.deliver(ParticipantAnnounced(participant=SHOP, public_key=public, data_map=[]))
    await platform.deliver(platform.answer(request_id, Verb.ERASE))
    assert await platform.state(person, request_id) == "checking"


async def _forget(platform: Platform, name: str) -> None:
    async with platform.database.platform_session() as session:
        await session.execute(text("DELETE FROM participant WHERE name = :name"), {"name": name})


async def test_many_requests_move_together(platform: Platform) -> None:
    people = [await platform.person() for _ in range(30)]
    ids = [await platform.opened(person, "erasure") for person in people]
    await platform.ask_keyring()
    tasks = [one for one in await platform.published(TaskIssued) if one.verb is Verb.ERASE]
    assert sorted(one.request_id for one in tasks) == sorted(ids)
    await platform.deliver(*tasks)
    await platform.deliver(*await platform.published(TaskAnswered))
    await platform.deliver(*(platform.answer(id_, Verb.ERASE) for id_ in ids))
    await platform.ask_keyring()
    checks = [one for one in await platform.published(TaskIssued) if one.verb is Verb.VERIFY_ERASED]
    await platform.deliver(*checks)
    await platform.deliver(*(platform.answer(id_, Verb.VERIFY_ERASED) for id_ in ids))
    await platform.deliver(
        *(one for one in await platform.published(TaskAnswered) if one.verb is Verb.VERIFY_ERASED)
    )
    async with platform.database.session(platform.store_id) as session:
        states = (await session.scalars(select(Request.state).distinct())).all()
        open_tasks = (
            await session.scalars(select(Task.next_issue_at).where(Task.next_issue_at.is_not(None)))
        ).all()
    assert states == ["completed"] and open_tasks == []
