"""Preview, recognition, restriction, objection and rectification, from the declarations of a made-up shop alone."""

from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select, text

from libs.common.events import privacy
from libs.common.events.privacy import (
    ExportChunk,
    KeysChanged,
    KeysDestroyed,
    Outcome,
    TaskAnswered,
    TaskIssued,
    Verb,
)
from libs.common.mail import Letter
from libs.common.personal.boxes import Moved
from libs.common.personal.erasure import Asked
from libs.common.personal.errors import KeyRestricted
from libs.common.personal.holdings import Beside, Holding, OnErase, OnRectify
from libs.common.personal.jobs import ParticipantJob
from libs.common.personal.keys import Erasure, Life
from libs.common.personal.participant import Participant
from libs.common.personal.rectification import correct, judge
from libs.common.personal.restrictions import RestrictedSubject, is_restricted
from libs.common.personal.vocabulary import Category, Purpose
from libs.common.settings import ServiceSettings
from tests.common.personal.conftest import KEY, Shop, received, task
from tests.common.personal.shop import (
    SHOP,
    Invoice,
    InvoiceCorrection,
    Member,
    Place,
    Purchase,
    ShopContact,
    ShopInvoice,
    ShopProfile,
    Visit,
)


def part_of(verb: Verb, subject_id: UUID, **part: Any) -> TaskIssued:
    return task(verb, subject_id).model_copy(update=part)


# --- Preview ---------------------------------------------------------------------------------------------


async def test_a_preview_counts_what_an_export_shows_and_keeps_what_an_erasure_keeps(made_shop: Shop) -> None:
    somebody = uuid4()
    await made_shop.purchase(somebody)
    await made_shop.purchase(somebody)
    await made_shop.invoice(somebody)
    await made_shop.visit(somebody)
    await made_shop.letter(somebody, Letter)
    await made_shop.purchase(uuid4())
    [preview] = await made_shop.ask(task(Verb.PREVIEW, somebody))
    exported, _ = await made_shop.export(task(Verb.EXPORT, somebody))
    [erased] = await made_shop.ask(task(Verb.ERASE, somebody))
    assert preview.outcome is Outcome.DONE
    assert preview.counts == exported.counts == {"purchase": 2, "invoice": 1, "visit": 1}
    assert preview.retained == erased.retained != []
    assert preview.obligations == []


async def test_a_preview_changes_nothing_and_nobody_is_nothing(made_shop: Shop) -> None:
    somebody = uuid4()
    await made_shop.purchase(somebody)
    for _ in range(2):
        [preview] = await made_shop.ask(task(Verb.PREVIEW, somebody))
        assert preview.counts == {"purchase": 1}
    [nobody] = await made_shop.ask(task(Verb.PREVIEW, uuid4()))
    assert (nobody.outcome, nobody.counts, nobody.retained) == (Outcome.NOTHING_HELD, {}, [])


async def test_a_preview_says_what_speaks_against_an_erasure_of_whom(made_shop: Shop) -> None:
    waits, quiet = uuid4(), uuid4()
    await made_shop.purchase(waits, number="on-its-way")
    await made_shop.purchase(quiet)
    previews = await made_shop.ask(task(Verb.PREVIEW, waits), task(Verb.PREVIEW, quiet))
    assert [one.obligations for one in previews] == [["parcel-on-its-way"], []]


@pytest.mark.parametrize(
    ("part", "counts"),
    [
        ({"purpose": Purpose.MARKETING_MAIL}, {"member": 1}),
        ({"purpose": Purpose.FULFIL_ORDER}, {"purchase": 1}),
        ({"purpose": Purpose.ANALYTICS}, {}),
        ({"category": Category.EMAIL}, {"purchase": 1}),
        ({"category": Category.CONTACT}, {"purchase": 1, "member": 1}),
        ({"category": Category.ADDRESS, "purpose": Purpose.FULFIL_ORDER}, {}),
    ],
)
async def test_a_preview_of_a_part_counts_that_part(
    made_shop: Shop, part: dict[str, Any], counts: dict[str, int]
) -> None:
    somebody = uuid4()
    await made_shop.purchase(somebody)
    await made_shop.member(somebody, ShopProfile(handle="canary"))
    await made_shop.visit(somebody)
    whole, one = await made_shop.ask(task(Verb.PREVIEW, somebody), part_of(Verb.PREVIEW, somebody, **part))
    assert whole.counts == {"purchase": 1, "member": 1, "visit": 1}
    assert one.counts == counts
    assert one.outcome is (Outcome.DONE if counts else Outcome.NOTHING_HELD)


# --- Recognition -----------------------------------------------------------------------------------------


async def test_an_order_is_recognised_by_its_number_for_its_person_alone(made_shop: Shop) -> None:
    somebody, other = uuid4(), uuid4()
    await made_shop.purchase(somebody, number="1007")
    await made_shop.purchase(other, number="1008")
    answers = await made_shop.ask(
        part_of(Verb.RECOGNISE, somebody, order_number="1007"),
        part_of(Verb.RECOGNISE, somebody, order_number="1008"),
        part_of(Verb.RECOGNISE, somebody, order_number="9999"),
        part_of(Verb.RECOGNISE, somebody, order_number="1007", generation=2),
        part_of(Verb.RECOGNISE, somebody),
    )
    nothing = Outcome.NOTHING_HELD
    assert [one.outcome for one in answers] == [Outcome.DONE, nothing, nothing, nothing, nothing]
    assert all(one.counts == {} for one in answers)
    elsewhere = Shop(
        made_shop.database, made_shop.owners_url, made_shop.keyring, made_shop.participant, made_shop.vault
    )
    [foreign] = await elsewhere.ask(part_of(Verb.RECOGNISE, somebody, order_number="1007"))
    assert foreign.outcome is nothing


# --- Restriction and objection ---------------------------------------------------------------------------


async def restricted(made_shop: Shop) -> list[UUID]:
    async with made_shop.database.session(made_shop.store_id) as session:
        return list((await session.scalars(select(RestrictedSubject.subject_id))).all())


async def test_a_restriction_is_noted_until_it_is_lifted_and_counts_what_is_held(made_shop: Shop) -> None:
    somebody, nobody = uuid4(), uuid4()
    await made_shop.purchase(somebody)
    answers = await made_shop.ask(task(Verb.RESTRICT, somebody), task(Verb.RESTRICT, nobody))
    assert [(one.outcome, one.counts) for one in answers] == [
        (Outcome.DONE, {"purchase": 1}), (Outcome.NOTHING_HELD, {}),
    ]  # fmt: skip
    assert sorted(await restricted(made_shop)) == sorted([somebody, nobody])
    [lifted] = await made_shop.ask(task(Verb.LIFT_RESTRICTION, somebody))
    assert (lifted.outcome, lifted.counts) == (Outcome.DONE, {"purchase": 1})
    assert await restricted(made_shop) == [nobody]


async def test_of_several_words_about_one_person_the_last_counts_also_in_one_batch(made_shop: Shop) -> None:
    somebody, other = uuid4(), uuid4()
    await made_shop.ask(task(Verb.RESTRICT, other))
    await made_shop.ask(
        task(Verb.RESTRICT, somebody), task(Verb.LIFT_RESTRICTION, other), task(Verb.LIFT_RESTRICTION, somebody),
        task(Verb.RESTRICT, other),
    )  # fmt: skip
    assert await restricted(made_shop) == [other]


async def test_who_is_erased_is_put_on_hold_no_more(made_shop: Shop) -> None:
    """As when a restriction from before is asked for again after a restore."""
    erased, other = uuid4(), uuid4()
    await made_shop.ask(task(Verb.ERASE, erased))
    [answer, _] = await made_shop.ask(task(Verb.RESTRICT, erased), task(Verb.RESTRICT, other))
    assert answer.outcome is Outcome.NOTHING_HELD
    assert await restricted(made_shop) == [other]


async def test_an_old_word_that_comes_again_changes_nothing(made_shop: Shop) -> None:
    somebody = uuid4()
    restrict, lift = task(Verb.RESTRICT, somebody), task(Verb.LIFT_RESTRICTION, somebody)
    await made_shop.ask(restrict)
    await made_shop.ask(lift)
    await made_shop.ask(restrict)
    assert await restricted(made_shop) == []


async def test_an_erasure_forgets_the_restriction(made_shop: Shop) -> None:
    somebody = uuid4()
    await made_shop.ask(task(Verb.RESTRICT, somebody))
    await made_shop.ask(task(Verb.ERASE, somebody))
    assert await restricted(made_shop) == []
    [checked] = await made_shop.ask(task(Verb.VERIFY_ERASED, somebody))
    assert checked.outcome is Outcome.DONE


async def test_a_timer_can_leave_the_rows_of_people_on_hold_alone(made_shop: Shop) -> None:
    somebody, other = uuid4(), uuid4()
    await made_shop.visit(somebody)
    await made_shop.visit(other)
    await made_shop.ask(task(Verb.RESTRICT, somebody))
    async with made_shop.database.session(made_shop.store_id) as session:
        gone = await session.execute(
            text(f"DELETE FROM visit WHERE NOT {is_restricted('visit')} RETURNING subject_id")
        )
        assert list(gone.scalars()) == [other]


async def test_hooks_are_called_for_whom_it_is_about(made_shop: Shop) -> None:
    somebody, other, called = uuid4(), uuid4(), list[Any]()

    def noting(word: str) -> Any:
        async def hook(session: Any, store_id: UUID, people: Any) -> None:
            called.append((word, store_id, list(people)))

        return hook

    holding = Holding(
        table=Purchase, box="contact", kind=ShopContact, bucket="id", on_erase=OnErase.CLEAR,
        on_restrict=noting("restrict"), on_lift=noting("lift"), on_object=noting("object"),
    )  # fmt: skip
    made_shop.participant = Participant(service=SHOP, holdings=[holding], settings=ServiceSettings)
    made_shop.participant.__dict__["key"] = KEY
    await made_shop.ask(
        task(Verb.RESTRICT, somebody), task(Verb.LIFT_RESTRICTION, other),
        part_of(Verb.OBJECT, somebody, purpose=Purpose.FULFIL_ORDER),
        part_of(Verb.OBJECT, other, purpose=Purpose.MARKETING_MAIL),
    )  # fmt: skip
    assert called == [
        ("restrict", made_shop.store_id, [(somebody, 1)]),
        ("lift", made_shop.store_id, [(other, 1)]),
        ("object", made_shop.store_id, [(somebody, 1)]),
    ]


async def test_an_objection_is_answered_by_who_uses_data_for_the_purpose(made_shop: Shop) -> None:
    somebody = uuid4()
    answers = await made_shop.ask(
        part_of(Verb.OBJECT, somebody, purpose=Purpose.MARKETING_MAIL),
        part_of(Verb.OBJECT, somebody, purpose=Purpose.ADVERTISING),
    )
    assert [one.outcome for one in answers] == [Outcome.DONE, Outcome.NOTHING_HELD]


@pytest.mark.parametrize("kind", [KeysChanged, KeysDestroyed])
async def test_keys_in_memory_are_asked_for_again_when_something_changed(made_shop: Shop, kind: Any) -> None:
    somebody = uuid4()
    await made_shop.purchase(somebody)
    handler: Any = made_shop.participant.handlers[kind]
    heard: list[Any] = []

    def hear(*news: Any) -> None:
        heard.append(news[-1])

    async with made_shop.database.engine.connect() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        await driver.add_listener("keys_destroyed", hear)
        async with made_shop.database.session(made_shop.store_id) as session:
            await handler(session, [received(kind(subject_id=somebody, generation=1), made_shop.store_id)])
        await driver.fetchval("SELECT 1")
        assert heard == [f"{made_shop.store_id}:{somebody}"]
        await driver.reset()


# --- Rectification ---------------------------------------------------------------------------------------


async def test_what_is_wrong_is_put_right_in_every_box_that_has_it(made_shop: Shop) -> None:
    somebody, other = uuid4(), uuid4()
    await made_shop.purchase(somebody, name="Canari")
    await made_shop.purchase(somebody, name="Canari")
    await made_shop.member(somebody, ShopProfile(handle="canary", nickname="Canari"))
    await made_shop.purchase(other, name="Canari")
    _, answer = await made_shop.rectify(somebody, NAME="Canary")
    assert (answer.outcome, answer.counts) == (Outcome.DONE, {"purchase": 2, "member": 1})
    assert (answer.refused, answer.beside, answer.reason) == ([], {}, "")
    assert sorted(one.name for one in await made_shop.opened(Purchase)) == ["Canari", "Canary", "Canary"]
    [member] = await made_shop.opened(Member, "profile")
    assert (member.handle, member.nickname) == ("canary", "Canary")
    async with made_shop.database.session(made_shop.store_id) as session:
        versions = (await session.scalars(select(Purchase.version).order_by(Purchase.version))).all()
    assert versions == [1, 2, 2]


async def test_nothing_of_the_category_is_nothing_held(made_shop: Shop) -> None:
    somebody = uuid4()
    await made_shop.purchase(somebody)
    _, answer = await made_shop.rectify(somebody, PHONE_NUMBER="+33 1 23 45 67 89")
    assert (answer.outcome, answer.counts) == (Outcome.NOTHING_HELD, {})


async def test_a_blind_index_follows_its_field(made_shop: Shop) -> None:
    somebody, new = uuid4(), "canary-new@vitrine.example"
    await made_shop.purchase(somebody)
    await made_shop.rectify(somebody, EMAIL=new)
    async with made_shop.database.session(made_shop.store_id) as session:
        [index] = (await session.scalars(select(Purchase.email_index))).all()
    assert index == await made_shop.vault.blind_index(made_shop.store_id, "email", new)


async def test_what_a_model_does_not_take_changes_nothing_and_the_rest_is_done(made_shop: Shop) -> None:
    somebody = uuid4()
    await made_shop.purchase(somebody)
    _, answer = await made_shop.rectify(somebody, EMAIL="not an address", NAME="Zoé")
    assert (answer.outcome, answer.refused) == (Outcome.DONE, [Category.EMAIL])
    assert answer.counts == {"purchase": 1}
    [contact] = await made_shop.opened(Purchase)
    assert (contact.name, contact.email) == ("Zoé", "canary@vitrine.example")


async def test_one_box_that_does_not_take_it_stops_a_correction_everywhere(made_shop: Shop) -> None:
    somebody = uuid4()
    await made_shop.purchase(somebody)
    await made_shop.member(somebody, ShopProfile(handle="canary", nickname="Canary"))
    # A profile needs no name, a contact does.
    _, answer = await made_shop.rectify(somebody, NAME=None)
    assert (answer.outcome, answer.counts, answer.refused) == (Outcome.DONE, {}, [Category.NAME])
    [member] = await made_shop.opened(Member, "profile")
    assert member.nickname == "Canary"


async def test_a_password_is_never_what_somebody_else_says(made_shop: Shop) -> None:
    somebody = uuid4()
    await made_shop.purchase(somebody)
    _, answer = await made_shop.rectify(somebody, PASSWORD="known")
    assert answer.refused == [Category.PASSWORD]
    [contact] = await made_shop.opened(Purchase)
    assert contact.password_hash == "never-shown"


async def test_what_must_be_unique_and_is_somebody_elses_is_refused(made_shop: Shop) -> None:
    somebody = uuid4()
    await made_shop.member(uuid4(), ShopProfile(handle="taken"))
    mine = await made_shop.member(somebody, ShopProfile(handle="canary"))
    _, answer = await made_shop.rectify(somebody, USERNAME="Taken")
    assert (answer.outcome, answer.refused, answer.reason) == (Outcome.DONE, [Category.USERNAME], "taken")
    async with made_shop.database.session(made_shop.store_id) as session:
        member = await session.get_one(Member, mine)
    assert member.handle_index == await made_shop.vault.blind_index(made_shop.store_id, "handle", "canary")


async def test_parts_and_lists_of_a_category_are_found(made_shop: Shop) -> None:
    somebody = uuid4()
    home = Place(street="1 rue", city="Lyon")
    await made_shop.member(somebody, ShopProfile(handle="canary", home=home, parcels=(home,)))
    _, answer = await made_shop.rectify(somebody, CITY="Paris", ADDRESS={"street": "2 rue", "city": "Nice"})
    assert answer.refused == []
    [member] = await made_shop.opened(Member, "profile")
    assert member.home == Place(street="1 rue", city="Paris")
    assert member.parcels == (Place(street="2 rue", city="Nice"),)


async def test_one_value_for_several_is_refused_and_a_list_is_taken(made_shop: Shop) -> None:
    somebody = uuid4()
    two = (Place(street="1 rue", city="Lyon"), Place(street="2 rue", city="Lyon"))
    await made_shop.member(somebody, ShopProfile(handle="canary", parcels=two))
    _, answer = await made_shop.rectify(somebody, ADDRESS={"street": "3 rue", "city": "Nice"})
    assert answer.refused == [Category.ADDRESS]
    _, answer = await made_shop.rectify(somebody, ADDRESS=[{"street": "3 rue", "city": "Nice"}])
    assert answer.refused == []
    [member] = await made_shop.opened(Member, "profile")
    assert member.parcels == (Place(street="3 rue", city="Nice"),)


async def test_what_was_issued_is_not_rewritten_and_gets_a_correction_beside_it(made_shop: Shop) -> None:
    somebody = uuid4()
    await made_shop.invoice(somebody)
    asked, answer = await made_shop.rectify(somebody, NAME="Canary, née Canari")
    assert (answer.outcome, answer.counts, answer.beside) == (Outcome.DONE, {}, {"invoice": 1})
    [invoice] = await made_shop.opened(Invoice)
    [beside] = await made_shop.opened(InvoiceCorrection, "box")
    assert (invoice.name, beside.name) == ("Canary", "Canary, née Canari")
    async with made_shop.database.session(made_shop.store_id) as session:
        row = (await session.scalars(select(InvoiceCorrection))).one()
        issued = (await session.scalars(select(Invoice))).one()
    assert (row.request_id, row.invoice_id, row.year) == (asked.request_id, issued.id, "2026")
    assert issued.contact is not None and row.box.key_id == issued.contact.key_id
    exported, [chunk] = await made_shop.export(task(Verb.EXPORT, somebody))
    assert exported.counts == {"invoice": 1, "invoice_correction": 1}
    names = [one["data"]["name"] for one in await made_shop.open(somebody, chunk)]
    assert names == ["Canary", "Canary, née Canari"]


async def test_a_correction_that_takes_one_back_is_beside_it_too(made_shop: Shop) -> None:
    somebody = uuid4()
    await made_shop.invoice(somebody)
    names = ("Canary", "Canary, née Canari", "Canary")
    _, second, third = [(await made_shop.rectify(somebody, NAME=name))[0].request_id for name in names]
    async with made_shop.database.session(made_shop.store_id) as session:
        requests = (await session.scalars(select(InvoiceCorrection.request_id))).all()
    beside = await made_shop.opened(InvoiceCorrection, "box")
    said = {request: one.name for request, one in zip(requests, beside, strict=True)}
    assert said == {second: names[1], third: names[2]}, "the first says what was issued"


@pytest.mark.parametrize("by_another_address", [False, True])
async def test_of_two_corrections_that_wait_together_the_last_one_is_the_last_word(
    made_shop: Shop, by_another_address: bool
) -> None:
    for _ in range(4):
        somebody, alias = uuid4(), uuid4()
        await made_shop.purchase(somebody, name="Canari")
        first, last = task(Verb.RECTIFY, somebody), task(Verb.RECTIFY, somebody)
        if by_another_address:
            also = [privacy.Life(subject_id=somebody, generation=1)]
            first = part_of(Verb.RECTIFY, alias, also=also)
        await made_shop.ask(
            *[
                one.model_copy(
                    update={"proposal": await made_shop.proposal(one.subject_id, one.request_id, NAME=name)}
                )
                for one, name in ((first, "Canaria"), (last, "Canary"))
            ]
        )
    while await made_shop.participant.rectify(made_shop.work):
        pass
    assert {one.name for one in await made_shop.opened(Purchase)} == {"Canary"}


async def test_what_is_on_hold_is_corrected_and_stays_on_hold(made_shop: Shop) -> None:
    somebody = uuid4()
    await made_shop.purchase(somebody, name="Canari")
    await made_shop.keyring.client("privacy").restrict([Life(made_shop.store_id, somebody, 1)])
    made_shop.vault.drop(made_shop.store_id, [somebody])
    _, answer = await made_shop.rectify(somebody, NAME="Canary")
    assert answer.counts == {"purchase": 1}
    assert [one.name for one in await made_shop.opened(Purchase)] == ["Canary"]
    async with made_shop.database.session(made_shop.store_id) as session:
        [box] = (await session.scalars(select(Purchase.contact))).all()
    assert box is not None
    with pytest.raises(KeyRestricted):
        await made_shop.vault.open(
            box, store_id=made_shop.store_id, subject_id=somebody, purpose=Purpose.FULFIL_ORDER
        )


async def test_a_preview_of_a_rectification_says_the_same_and_changes_nothing(made_shop: Shop) -> None:
    somebody = uuid4()
    await made_shop.purchase(somebody, name="Canari")
    await made_shop.invoice(somebody)
    values: dict[str, Any] = {"NAME": "Canary", "EMAIL": "no address"}
    _, preview = await made_shop.rectify(somebody, verb=Verb.PREVIEW, **values)
    assert [one.name for one in await made_shop.opened(Purchase)] == ["Canari"]
    assert await made_shop.count(InvoiceCorrection) == 0
    _, answer = await made_shop.rectify(somebody, **values)
    for said in ("outcome", "counts", "beside", "refused"):
        assert getattr(preview, said) == getattr(answer, said), said
    assert (preview.counts, preview.beside) == ({"purchase": 1}, {"invoice": 1})


async def test_a_rectification_issued_again_gets_its_answer_and_the_person_is_named_no_more(
    made_shop: Shop,
) -> None:
    somebody = uuid4()
    await made_shop.purchase(somebody)
    asked, answer = await made_shop.rectify(somebody, NAME="Zoé")
    assert await made_shop.ask(asked.model_copy(update={"attempt": 2})) == [answer]
    async with made_shop.database.session(made_shop.store_id) as session:
        job = await session.get_one(ParticipantJob, (asked.request_id, Verb.RECTIFY))
    assert (job.subject_id, job.proposal) == (None, None)


async def test_another_round_comes_to_the_same_and_writes_nothing_twice(made_shop: Shop) -> None:
    somebody = uuid4()
    await made_shop.purchase(somebody)
    await made_shop.invoice(somebody)
    asked, first = await made_shop.rectify(somebody, NAME="Zoé")
    await made_shop.ask(asked.model_copy(update={"round": 2}))
    await made_shop.participant.rectify(made_shop.work)
    again = (await made_shop.published(TaskAnswered))[-1]
    assert (again.round, again.counts, again.beside) == (2, first.counts, first.beside)
    async with made_shop.database.session(made_shop.store_id) as session:
        assert (await session.scalars(select(Purchase.version))).all() == [2]
    assert await made_shop.count(InvoiceCorrection) == 1


async def test_a_row_that_changed_meanwhile_is_not_overwritten(made_shop: Shop) -> None:
    somebody = uuid4()
    purchase = await made_shop.purchase(somebody, name="Canari")
    asked = task(Verb.RECTIFY, somebody)
    proposal = await made_shop.proposal(somebody, asked.request_id, NAME="Canary")
    opened = await made_shop.vault.open(
        proposal, store_id=made_shop.store_id, subject_id=somebody, purpose=Purpose.RIGHTS_OF_THE_PERSON
    )
    of = Asked(asked.request_id, made_shop.store_id, somebody, 1)
    database, vault, holdings = made_shop.database, made_shop.vault, made_shop.participant.holdings
    verdict = await judge(database, vault, holdings, [of], opened.corrections)

    async def changing(item: Any, **values: Any) -> Any:
        found = await type(vault).open_to_change(vault, item, **values)
        fresh = await vault.seal(
            ShopContact(name="Canari", email="later@vitrine.example"),
            store_id=made_shop.store_id,
            subject_id=somebody,
        )
        async with database.session(made_shop.store_id) as session:
            (await session.get_one(Purchase, purchase)).contact = fresh.box
        return found

    vault.open_to_change = changing  # type: ignore[method-assign]
    with pytest.raises(Moved):
        await correct(database, vault, holdings, of, verdict)
    del vault.open_to_change
    await correct(database, vault, holdings, of, verdict)
    [contact] = await made_shop.opened(Purchase)
    assert (contact.name, contact.email) == ("Canary", "later@vitrine.example")


async def test_an_erasure_takes_what_was_to_be_corrected_with_it(made_shop: Shop) -> None:
    somebody = uuid4()
    await made_shop.purchase(somebody)
    asked = task(Verb.RECTIFY, somebody)
    asked = asked.model_copy(
        update={"proposal": await made_shop.proposal(somebody, asked.request_id, NAME="Zoé")}
    )
    await made_shop.ask(asked)
    erasure = Erasure(made_shop.store_id, somebody, 1, uuid4())
    await made_shop.keyring.client("privacy").destroy([erasure])
    made_shop.vault.drop(made_shop.store_id, [somebody])
    await made_shop.participant.rectify(made_shop.work)
    await made_shop.ask(task(Verb.ERASE, somebody))
    assert not [one for one in await made_shop.published(TaskAnswered) if one.request_id == asked.request_id]
    async with made_shop.database.session(made_shop.store_id) as session:
        jobs = await session.scalars(select(ParticipantJob).where(ParticipantJob.subject_id == somebody))
        assert jobs.all() == []


async def test_without_a_proposal_there_is_nothing_to_do_and_it_is_said(made_shop: Shop) -> None:
    asked = task(Verb.RECTIFY, uuid4())
    await made_shop.ask(asked)
    await made_shop.participant.rectify(made_shop.work)
    answer = (await made_shop.published(TaskAnswered))[-1]
    assert (answer.request_id, answer.outcome, answer.reason) == (
        asked.request_id, Outcome.FAILED, "no-proposal",
    )  # fmt: skip


# --- Portability -----------------------------------------------------------------------------------------


async def test_a_portable_export_is_of_what_was_given_for_a_contract_or_by_consent(made_shop: Shop) -> None:
    somebody = uuid4()
    await made_shop.purchase(somebody)
    await made_shop.invoice(somebody)
    await made_shop.visit(somebody)
    answer, [chunk] = await made_shop.export(part_of(Verb.EXPORT, somebody, portable=True))
    assert answer.counts == {"purchase": 1}
    assert [one["table"] for one in await made_shop.open(somebody, chunk)] == ["purchase"]
    whole, _ = await made_shop.export(task(Verb.EXPORT, somebody))
    assert whole.counts == {"purchase": 1, "invoice": 1, "visit": 1}
    assert len(await made_shop.published(ExportChunk)) == 2


# --- Declarations ----------------------------------------------------------------------------------------


def test_a_correction_goes_beside_a_row_where_it_says_so_and_nowhere_else() -> None:
    beside = Beside(InvoiceCorrection, by="invoice_id", kind=ShopInvoice)
    holding: dict[str, Any] = {"table": Visit, "on_erase": OnErase.DELETE}
    wrongs: list[dict[str, Any]] = [{"on_rectify": OnRectify.BESIDE}, {"beside": beside}]
    for wrong in wrongs:
        with pytest.raises(TypeError):
            Holding(**holding, **wrong)
    with pytest.raises(TypeError):
        Holding(**holding, order_number="no such column")
    with pytest.raises(TypeError):
        Holding(**holding, indexes={"no such column": ("email", "email")})
