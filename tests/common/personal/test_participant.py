"""The generic participant, over a real database and a real keyring: from the declarations of a made-up shop alone."""

from hashlib import sha256
from operator import itemgetter
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import asyncpg
import httpx
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import ECKey
from sqlalchemy import select, text

from libs.common.broker import Record
from libs.common.errors import Unavailable
from libs.common.events import Received
from libs.common.events.privacy import (
    CHUNK_BYTES,
    ExportChunk,
    KeysDestroyed,
    Life,
    Outcome,
    ParticipantAnnounced,
    TaskAnswered,
    TaskIssued,
    Verb,
)
from libs.common.mail import Letter, RequestLetter, WaitingLetter
from libs.common.personal.answers import UNSIGNED, Forged, check, sign
from libs.common.personal.erasure import Asked
from libs.common.personal.errors import SubjectErased
from libs.common.personal.export import Gathering, Unreadable
from libs.common.personal.holdings import Holding, OnErase
from libs.common.personal.keys import Erasure, KeyringClient
from libs.common.personal.participant import Participant
from libs.common.personal.tombstones import guard
from libs.common.personal.vault import Vault
from libs.common.settings import ServiceSettings
from tests.common.personal import shop
from tests.common.personal.conftest import KEY, PUBLIC_KEY, Shop, received, task
from tests.common.personal.shop import (
    SHOP,
    Invoice,
    Purchase,
    ShopContact,
    ShopInvoice,
    Visit,
    VisitPage,
)

# --- Erasing ---------------------------------------------------------------------------------------------


async def test_an_erasure_clears_deletes_keeps_and_says_so(made_shop: Shop) -> None:
    somebody, other = uuid4(), uuid4()
    for person in (somebody, other):
        await made_shop.purchase(person)
        await made_shop.purchase(person)
        await made_shop.invoice(person)
        await made_shop.visit(person)
        await made_shop.letter(person, Letter)
    await made_shop.letter(somebody, RequestLetter)
    [answer] = await made_shop.ask(task(Verb.ERASE, somebody))
    assert answer.outcome is Outcome.RETAINED
    assert answer.counts == {"purchase": 2, "visit": 1, "waiting_letter": 1}
    [kept] = answer.retained
    assert (kept.kind, kept.bucket, kept.count, str(kept.until)) == ("ShopInvoice", "2026", 1, "2036-12-31")
    assert "L123-22" in kept.ground
    async with made_shop.database.session(made_shop.store_id) as session:
        purchases = (await session.scalars(select(Purchase).order_by(Purchase.subject_id))).all()
        invoices = (await session.scalars(select(Invoice))).all()
        letters = (await session.scalars(select(WaitingLetter))).all()
    emptied = [(one.contact, one.email_index, one.version) for one in purchases if one.subject_id == somebody]
    assert emptied == [(None, None, 2)] * 2
    assert all(one.contact and one.email_index for one in purchases if one.subject_id == other)
    assert all(one.contact for one in invoices) and len(invoices) == 2
    assert sorted((one.subject_id == somebody, one.kind) for one in letters) == [
        (False, "Letter"), (True, "RequestLetter"),
    ]  # fmt: skip
    assert await made_shop.count(Visit) == await made_shop.count(VisitPage) == 1


async def test_nothing_held_is_an_answer(made_shop: Shop) -> None:
    [answer] = await made_shop.ask(task(Verb.ERASE, uuid4()))
    assert (answer.outcome, answer.counts, answer.retained) == (Outcome.NOTHING_HELD, {}, [])


async def test_people_of_one_batch_each_get_their_own_answer(made_shop: Shop) -> None:
    people = [uuid4() for _ in range(20)]
    for number, person in enumerate(people[:5]):
        for _ in range(number + 1):
            await made_shop.visit(person)
    answers = await made_shop.ask(*(task(Verb.ERASE, person) for person in people))
    assert [one.counts.get("visit", 0) for one in answers] == [1, 2, 3, 4, 5] + [0] * 15


async def test_another_store_is_not_touched(made_shop: Shop) -> None:
    somebody = uuid4()
    await made_shop.visit(somebody)
    elsewhere = Shop(
        made_shop.database, made_shop.owners_url, made_shop.keyring, made_shop.participant, made_shop.vault
    )
    [answer] = await elsewhere.ask(task(Verb.ERASE, somebody))
    assert answer.outcome is Outcome.NOTHING_HELD
    assert await made_shop.count(Visit) == 1


async def test_a_later_life_is_not_touched_and_an_earlier_one_stays_refused(made_shop: Shop) -> None:
    somebody = uuid4()
    await made_shop.visit(somebody)
    async with made_shop.database.session(made_shop.store_id) as session:
        session.add(Visit(store_id=made_shop.store_id, subject_id=somebody, generation=2))
    await made_shop.ask(task(Verb.ERASE, somebody))
    assert await made_shop.count(Visit) == 1
    async with made_shop.database.session(made_shop.store_id) as session:
        await guard(session, made_shop.store_id, somebody, 2)
        with pytest.raises(SubjectErased):
            await guard(session, made_shop.store_id, somebody, 1)


async def test_a_rule_of_the_service_runs_before_the_rows_change(made_shop: Shop) -> None:
    somebody, seen = uuid4(), list[Any]()
    await made_shop.purchase(somebody)

    async def rule(session: Any, store_id: UUID, people: Any) -> None:
        rows = (await session.scalars(select(Purchase.contact))).all()
        seen.append((store_id, people, [row is not None for row in rows]))

    holding = Holding(
        table=Purchase,
        box="contact",
        kind=ShopContact,
        bucket="id",
        on_erase=OnErase.CLEAR,
        before_erase=rule,
    )
    made_shop.participant = Participant(service=SHOP, holdings=[holding], settings=ServiceSettings)
    made_shop.participant.__dict__["key"] = KEY
    await made_shop.ask(task(Verb.ERASE, somebody))
    assert seen == [(made_shop.store_id, [(somebody, 1)], [True])]


# --- Several subjects of one person ----------------------------------------------------------------------


def of_both(verb: Verb, one: UUID, other: UUID, **more: Any) -> TaskIssued:
    also = [Life(subject_id=other, generation=1)]
    return task(verb, one).model_copy(update={"also": also, **more})


async def test_a_person_with_two_subjects_is_answered_once_with_what_both_have(made_shop: Shop) -> None:
    one, other, stranger = uuid4(), uuid4(), uuid4()
    for somebody in (one, other, stranger):
        await made_shop.visit(somebody)
        await made_shop.invoice(somebody)
    [seen] = await made_shop.ask(of_both(Verb.PREVIEW, one, other))
    assert (seen.counts["visit"], seen.counts["invoice"]) == (2, 2)
    [held] = await made_shop.ask(of_both(Verb.RESTRICT, one, other))
    assert held.counts["visit"] == 2
    [answer] = await made_shop.ask(of_both(Verb.ERASE, one, other))
    assert (answer.outcome, answer.counts["visit"]) == (Outcome.RETAINED, 2)
    assert [(kept.kind, kept.count) for kept in answer.retained] == [("ShopInvoice", 2)]
    assert (await made_shop.count(Visit), await made_shop.count(Invoice)) == (1, 3)
    async with made_shop.database.session(made_shop.store_id) as session:
        for somebody in (one, other):
            with pytest.raises(SubjectErased):
                await guard(session, made_shop.store_id, somebody, 1)


async def test_what_is_left_of_either_subject_fails_the_check(made_shop: Shop) -> None:
    one, other = uuid4(), uuid4()
    await made_shop.ask(of_both(Verb.ERASE, one, other))
    await made_shop.visit(other)
    [left] = await made_shop.ask(of_both(Verb.VERIFY_ERASED, one, other))
    assert (left.outcome, left.counts) == (Outcome.FAILED, {"visit": 1})


async def test_an_order_of_either_subject_shows_whose_a_request_is(made_shop: Shop) -> None:
    one, other = uuid4(), uuid4()
    await made_shop.purchase(other)
    async with made_shop.database.session(made_shop.store_id) as session:
        number = await session.scalar(select(Purchase.number))
    [known] = await made_shop.ask(of_both(Verb.RECOGNISE, one, other, order_number=number))
    [unknown] = await made_shop.ask(task(Verb.RECOGNISE, one).model_copy(update={"order_number": number}))
    assert (known.outcome, unknown.outcome) == (Outcome.DONE, Outcome.NOTHING_HELD)


# --- The same task again ---------------------------------------------------------------------------------


async def test_a_task_issued_again_gets_the_same_answer_and_does_no_work(made_shop: Shop) -> None:
    somebody = uuid4()
    await made_shop.visit(somebody)
    first = task(Verb.ERASE, somebody)
    [answer] = await made_shop.ask(first)
    await made_shop.visit(somebody)
    [again] = await made_shop.ask(first.model_copy(update={"attempt": 2, "participants": [SHOP]}))
    assert again == answer
    assert await made_shop.count(Visit) == 1


async def test_a_new_round_does_the_work_anew_and_an_old_one_is_over(made_shop: Shop) -> None:
    somebody = uuid4()
    first = task(Verb.ERASE, somebody)
    await made_shop.ask(first)
    await made_shop.visit(somebody)
    second = first.model_copy(update={"round": 2})
    [answer] = await made_shop.ask(second)
    assert (answer.round, answer.counts) == (2, {"visit": 1})
    assert await made_shop.ask(first) == []
    assert await made_shop.ask(second) == [answer]


async def test_a_task_for_others_is_left_to_them(made_shop: Shop) -> None:
    assert await made_shop.ask(task(Verb.ERASE, uuid4(), participants=["somebody-else"])) == []


async def test_an_answer_is_signed_over_all_it_says(made_shop: Shop) -> None:
    somebody = uuid4()
    await made_shop.invoice(somebody)
    [answer] = await made_shop.ask(task(Verb.ERASE, somebody))
    check(received(answer, made_shop.store_id), public_key=PUBLIC_KEY)
    changes: list[dict[str, Any]] = [
        {"participant": "billing"}, {"outcome": Outcome.DONE}, {"retained": []}, {"request_id": uuid4()},
        {"verb": Verb.VERIFY_ERASED}, {"round": 2}, {"counts": {"purchase": 1}}, {"chunks": 1}, {"signature": ""},
    ]  # fmt: skip
    for change in changes:
        with pytest.raises(Forged):
            check(received(answer.model_copy(update=change), made_shop.store_id), public_key=PUBLIC_KEY)
    with pytest.raises(Forged):
        check(received(answer, uuid4()), public_key=PUBLIC_KEY)
    other: Any = ECKey.generate_key("P-256").as_dict(private=False)
    with pytest.raises(Forged):
        check(received(answer, made_shop.store_id), public_key=other)


async def test_what_a_newer_participant_signed_counts_as_it_was_sent(made_shop: Shop) -> None:
    answer = TaskAnswered(request_id=uuid4(), verb=Verb.ERASE, participant=SHOP, outcome=Outcome.DONE)
    body = answer.model_dump(mode="json", exclude=set(UNSIGNED)) | {"news": "later"}
    canonical = orjson.dumps(body | {"store_id": str(made_shop.store_id)}, option=orjson.OPT_SORT_KEYS)
    head, _, signature = jws.serialize_compact({"alg": "ES256"}, canonical, KEY).split(".")
    one = received(answer, made_shop.store_id)
    value = orjson.dumps(body | {"signature": f"{head}..{signature}"})
    sent = Received(TaskAnswered.model_validate_json(value), one.envelope, Record("t", "k", value))
    check(sent, public_key=PUBLIC_KEY)
    unchanged = sign(answer, store_id=made_shop.store_id, key=KEY)
    check(received(unchanged, made_shop.store_id), public_key=PUBLIC_KEY)


# --- Reading again ---------------------------------------------------------------------------------------


async def test_a_check_after_an_erasure_finds_nothing(made_shop: Shop) -> None:
    somebody = uuid4()
    await made_shop.purchase(somebody)
    await made_shop.invoice(somebody)
    await made_shop.visit(somebody)
    await made_shop.letter(somebody, RequestLetter)
    await made_shop.ask(task(Verb.ERASE, somebody))
    [answer] = await made_shop.ask(task(Verb.VERIFY_ERASED, somebody))
    assert (answer.outcome, answer.counts) == (Outcome.DONE, {})


async def test_a_check_finds_what_is_left_wherever_it_is(made_shop: Shop) -> None:
    somebody = uuid4()
    await made_shop.purchase(somebody)
    await made_shop.invoice(somebody)
    await made_shop.visit(somebody)
    await made_shop.letter(somebody, Letter)
    await made_shop.letter(somebody, RequestLetter)
    [answer] = await made_shop.ask(task(Verb.VERIFY_ERASED, somebody))
    assert (answer.outcome, answer.reason) == (Outcome.FAILED, "left-over")
    assert answer.counts == {"purchase": 1, "visit": 1, "waiting_letter": 1}
    [other] = await made_shop.ask(task(Verb.VERIFY_ERASED, uuid4()))
    assert other.outcome is Outcome.DONE


async def test_a_check_that_failed_looks_again(made_shop: Shop) -> None:
    somebody = uuid4()
    await made_shop.visit(somebody)
    check_task = task(Verb.VERIFY_ERASED, somebody)
    [answer] = await made_shop.ask(check_task)
    assert answer.outcome is Outcome.FAILED
    async with made_shop.database.session(made_shop.store_id) as session:
        await session.execute(text("DELETE FROM visit"))
    [again] = await made_shop.ask(check_task)
    assert again.outcome is Outcome.DONE


async def test_a_check_finds_tables_and_columns_that_nobody_declared(made_shop: Shop) -> None:
    somebody = uuid4()
    purchase_id = await made_shop.purchase(somebody)
    await made_shop.ask(task(Verb.ERASE, somebody))
    owner: Any = await asyncpg.connect(made_shop.owners_url)
    app = urlsplit(made_shop.database.url).username
    await owner.execute(f"""
        ALTER TABLE purchase ADD COLUMN remark text;
        CREATE TABLE newsletter (store_id uuid, subject_id uuid, email text);
        GRANT SELECT ON newsletter TO {app}
    """)
    try:
        await owner.execute(f"SET app.store = '{made_shop.store_id}'")
        await owner.execute("UPDATE purchase SET remark = 'call me' WHERE id = $1", purchase_id)
        await owner.execute(
            "INSERT INTO newsletter VALUES ($1, $2, 'somebody')", made_shop.store_id, somebody
        )
        made_shop.participant = shop.shop_participant(KEY)
        [answer] = await made_shop.ask(task(Verb.VERIFY_ERASED, somebody))
        assert answer.counts == {"purchase": 1, "newsletter": 1}
    finally:
        await owner.execute("ALTER TABLE purchase DROP COLUMN remark; DROP TABLE newsletter")
        await owner.close()


# --- Exporting -------------------------------------------------------------------------------------------


async def test_an_export_shows_what_is_held_and_no_password(made_shop: Shop) -> None:
    somebody = uuid4()
    await made_shop.purchase(somebody, name="Zoé", lines=2)
    await made_shop.invoice(somebody)
    await made_shop.purchase(uuid4(), name="Not this one")
    answer, chunks = await made_shop.export(task(Verb.EXPORT, somebody))
    check(received(answer, made_shop.store_id), public_key=PUBLIC_KEY)
    assert (answer.outcome, answer.counts, answer.chunks) == (Outcome.DONE, {"purchase": 1, "invoice": 1}, 1)
    assert answer.digest == sha256(sha256(chunks[0].box.payload).digest()).hexdigest()
    records = await made_shop.open(somebody, chunks[0])
    records[0]["attached"]["purchase_line"].sort(key=itemgetter("title"))
    assert records == [
        {
            "table": "purchase", "kind": "ShopContact", "facts": {"number": "1001"},
            "data": {"name": "Zoé", "email": "canary@vitrine.example"},
            "attached": {"purchase_line": [{"title": "Tea 0"}, {"title": "Tea 1"}]},
        },
        {
            "table": "invoice", "kind": "ShopInvoice", "facts": {"year": "2026"}, "data": {"name": "Canary"},
            "attached": {},
        },
    ]  # fmt: skip


async def test_an_export_shows_this_life_and_not_what_is_kept_of_an_earlier_one(made_shop: Shop) -> None:
    somebody = uuid4()
    await made_shop.purchase(somebody)
    await made_shop.invoice(somebody)
    await made_shop.ask(task(Verb.ERASE, somebody))
    await made_shop.keyring.client("privacy").destroy([Erasure(made_shop.store_id, somebody, 1, uuid4())])
    await made_shop.purchase(somebody, name="Back again")
    asked = task(Verb.EXPORT, somebody).model_copy(update={"generation": 2})
    answer, _ = await made_shop.export(asked)
    assert answer.counts == {"purchase": 1}


async def test_an_export_of_nobody_has_no_chunks(made_shop: Shop) -> None:
    answer, chunks = await made_shop.export(task(Verb.EXPORT, uuid4()))
    assert (answer.outcome, answer.chunks, answer.digest, chunks) == (Outcome.NOTHING_HELD, 0, "", [])


async def test_an_export_asked_for_twice_is_made_once(made_shop: Shop) -> None:
    somebody = uuid4()
    await made_shop.visit(somebody)
    asked = task(Verb.EXPORT, somebody)
    await made_shop.ask(asked)
    assert await made_shop.ask(asked.model_copy(update={"attempt": 2})) == []
    answer, chunks = await made_shop.export(asked)
    assert await made_shop.ask(asked.model_copy(update={"attempt": 3})) == [answer]
    assert len(chunks) == len(await made_shop.published(ExportChunk)) == 1


async def test_a_large_export_leaves_in_chunks_that_fit(made_shop: Shop) -> None:
    somebody = uuid4()
    sealed = await made_shop.vault.seal(
        ShopContact(name="N" * 2000, email="canary@vitrine.example"),
        store_id=made_shop.store_id,
        subject_id=somebody,
        begin=True,
    )
    async with made_shop.database.session(made_shop.store_id) as session:
        session.add_all(
            Purchase(
                store_id=made_shop.store_id, subject_id=somebody, generation=1, number=str(number),
                contact=sealed.box,
            )
            for number in range(700)
        )  # fmt: skip
    answer, chunks = await made_shop.export(task(Verb.EXPORT, somebody))
    assert answer.counts == {"purchase": 700} and answer.chunks == len(chunks) > 2
    assert all(len(chunk.box.payload) <= CHUNK_BYTES for chunk in chunks)
    assert [chunk.sequence for chunk in chunks] == list(range(len(chunks)))
    numbers = [one["facts"]["number"] for chunk in chunks for one in await made_shop.open(somebody, chunk)]
    assert sorted(numbers, key=int) == [str(number) for number in range(700)]


async def test_what_was_erased_meanwhile_is_shown_as_erased(made_shop: Shop) -> None:
    somebody = uuid4()
    await made_shop.purchase(somebody)
    await made_shop.keyring.client("privacy").destroy([Erasure(made_shop.store_id, somebody, 1, uuid4())])
    made_shop.vault.drop(made_shop.store_id, [somebody])
    await made_shop.ask(task(Verb.EXPORT, somebody))
    await made_shop.participant.export(made_shop.work)
    # Nothing can be sealed for somebody erased: no answer leaves, and the erasure takes the task away.
    assert await made_shop.published(TaskAnswered) == []
    await made_shop.ask(task(Verb.ERASE, somebody))
    async with made_shop.database.session(made_shop.store_id) as session:
        assert await session.scalar(text("SELECT count(*) FROM participant_job WHERE answer IS NULL")) == 0


async def test_what_is_asked_too_late_finds_nothing_and_names_nobody(made_shop: Shop) -> None:
    somebody = uuid4()
    await made_shop.invoice(somebody)
    export = task(Verb.EXPORT, somebody)
    # In one batch with the erasure, as after an outage, and in a new round when it is over.
    answers = await made_shop.ask(export, task(Verb.ERASE, somebody))
    answers += await made_shop.ask(export.model_copy(update={"round": export.round + 1}))
    assert [one.outcome for one in answers if one.verb is Verb.EXPORT] == [Outcome.NOTHING_HELD] * 2
    async with made_shop.database.session(made_shop.store_id) as session:
        named = text("SELECT count(*) FROM participant_job WHERE subject_id IS NOT NULL")
        assert await session.scalar(named) == 0


async def test_a_box_that_should_open_and_does_not_fails_its_own_export_alone(made_shop: Shop) -> None:
    somebody, other = uuid4(), uuid4()
    purchase_id = await made_shop.purchase(somebody)
    await made_shop.purchase(other)
    async with made_shop.database.session(made_shop.store_id) as session:
        moved = await session.scalar(select(Purchase.contact).where(Purchase.subject_id == other))
        await session.execute(
            text("UPDATE purchase SET contact = :box WHERE id = :id"),
            {"box": moved.payload if moved else b"", "id": purchase_id},
        )
    tasks = [task(Verb.EXPORT, person) for person in (somebody, other)]
    await made_shop.ask(*tasks)
    await made_shop.participant.export(made_shop.work)
    answers = {one.request_id: one for one in await made_shop.published(TaskAnswered)}
    failed, done = (answers[one.request_id] for one in tasks)
    assert (failed.outcome, failed.reason, failed.chunks) == (Outcome.FAILED, "box-does-not-open", 0)
    assert done.outcome is Outcome.DONE
    check(received(failed, made_shop.store_id), public_key=PUBLIC_KEY)


async def test_without_the_keyring_an_export_waits(made_shop: Shop) -> None:
    somebody = uuid4()
    await made_shop.purchase(somebody)
    await made_shop.ask(asked := task(Verb.EXPORT, somebody))
    vault, made_shop.vault = made_shop.vault, _vault_without_keyring()
    with pytest.raises(Unavailable):
        await made_shop.participant.export(made_shop.work)
    assert await made_shop.published(TaskAnswered) == []
    made_shop.vault = vault
    async with made_shop.database.session(made_shop.store_id) as session:
        waits = await session.scalar(text("SELECT next_try_at < now() + interval '5 s' FROM participant_job"))
        assert waits, "the lease was not given back"
        await session.execute(text("UPDATE participant_job SET next_try_at = now()"))
    answer, _ = await made_shop.export(asked)
    assert answer.outcome is Outcome.DONE


def _vault_without_keyring() -> Vault:
    def refuse(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("nobody listens")

    private = orjson.dumps(KEY.as_dict(private=True)).decode()
    http = httpx.AsyncClient(transport=httpx.MockTransport(refuse))
    return Vault(KeyringClient(url="http://keyring", service=SHOP, private_key=private, http=http))


@given(st.lists(st.integers(1, 300_000), max_size=12))
def test_chunks_hold_every_record_once_in_order_and_never_too_much(sizes: list[int]) -> None:
    gathering = Gathering(Asked(uuid4(), uuid4(), uuid4(), 1), 1)
    chunks: list[list[dict[str, Any]]] = []
    for number, size in enumerate(sizes):
        record = {"table": "t", "n": number, "text": "x" * size}
        if full := gathering.add(record):
            chunks.append(full)
    if rest := gathering.take():
        chunks.append(rest)
    assert [one["n"] for chunk in chunks for one in chunk] == list(range(len(sizes)))
    assert all(len(orjson.dumps({"records": chunk})) <= CHUNK_BYTES - 100 for chunk in chunks)


def test_a_record_that_fits_no_chunk_is_refused() -> None:
    gathering = Gathering(Asked(uuid4(), uuid4(), uuid4(), 1), 1)
    with pytest.raises(Unreadable, match="record-too-large"):
        gathering.add({"table": "t", "text": "x" * CHUNK_BYTES})


# --- Forgetting and announcing ---------------------------------------------------------------------------


async def test_destroyed_keys_leave_the_memory_of_every_process(made_shop: Shop) -> None:
    somebody = uuid4()
    await made_shop.purchase(somebody)
    heard: list[str] = []
    listening: Any = await asyncpg.connect(made_shop.database.url)

    def hear(_connection: Any, _pid: int, _channel: str, payload: str) -> None:
        heard.append(payload)

    await listening.add_listener("keys_destroyed", hear)
    handler: Any = made_shop.participant.handlers[KeysDestroyed]
    async with made_shop.database.session(made_shop.store_id) as session:
        await handler(
            session, [received(KeysDestroyed(subject_id=somebody, generation=1), made_shop.store_id)]
        )
    for _ in range(100):
        if heard:
            break
        await listening.fetch("SELECT pg_sleep(0.02)")
    await listening.close()
    assert heard == [f"{made_shop.store_id}:{somebody}"]


async def test_an_announcement_is_made_once_until_something_changes(made_shop: Shop) -> None:
    async def announced() -> list[ParticipantAnnounced]:
        async with made_shop.database.platform_session() as session:
            rows = await session.execute(
                text("SELECT payload FROM outbox WHERE headers ->> 'ce_type' = :type ORDER BY id"),
                {"type": ParticipantAnnounced.type},
            )
            return [ParticipantAnnounced.model_validate_json(row.payload) for row in rows.all()]

    before = len(await announced())
    await made_shop.participant.announce(made_shop.work)
    await made_shop.participant.announce(made_shop.work)
    first, *more = (await announced())[before:]
    assert not more
    assert first.public_key == PUBLIC_KEY and "d" not in first.public_key
    assert {entry["table"] for entry in first.data_map if "table" in entry} == {
        "purchase", "invoice", "invoice_correction", "member", "visit", "waiting_letter", "participant_job",
        "restricted_subject",
    }  # fmt: skip
    changed = Participant(service=SHOP, holdings=shop.HOLDINGS[:1], settings=ServiceSettings)
    changed.__dict__["key"] = KEY
    await changed.announce(made_shop.work)
    second = (await announced())[-1]
    assert second.version == first.version + 1 and len(second.data_map) < len(first.data_map)


# --- Declarations ----------------------------------------------------------------------------------------


def test_a_declaration_that_does_not_fit_its_table_is_refused() -> None:
    wrong: list[dict[str, Any]] = [
        {"box": "contact"},
        {"box": "contact", "kind": ShopInvoice},
        {"box": "nothing", "kind": ShopContact},
        {"box": "contact", "kind": ShopContact, "clears": ("number",)},
        {"box": "contact", "kind": ShopContact, "describe": ("nothing",)},
    ]
    for declaration in wrong:
        with pytest.raises(TypeError):
            Holding(table=Purchase, on_erase=OnErase.CLEAR, **declaration)
    with pytest.raises(TypeError):
        Holding(table=Invoice, box="contact", kind=ShopInvoice, on_erase=OnErase.CLEAR)
