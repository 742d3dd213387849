"""The other rights: to see what would happen, to have it corrected, to have it rest, and to object."""

from collections.abc import Iterable
from uuid import uuid4

from conformance.checks import Checks, NotApplicable, expect
from conformance.over_kafka.answering import propose, said
from conformance.scene import Person, Scene, categories
from libs.common.events.privacy import Outcome, TaskAnswered, Verb
from libs.common.personal.keys import Life, Objection
from libs.common.personal.vocabulary import Category, Purpose
from services.privacy.keyring.domain import OPENS_DESPITE_RESTRICTION

check = Checks[Scene]("What the other rights check")

_CORRECTED = "Canary Corrected"
_ADDRESS = "canary-corrected@vitrine.example"


# --- Previews ------------------------------------------------------------------------------------------------


@check
async def previews(scene: Scene) -> str:
    """`preview` is answered `done`, with counts by table of what you hold."""
    answered = await scene.ask(Verb.PREVIEW, await scene.somebody())
    expect(answered.outcome is Outcome.DONE, f"preview was {answered.outcome}")
    expect(sum(answered.counts.values()) > 0, "no counts")
    return said(answered)


@check
async def previews_without_changing(scene: Scene) -> str:
    """A preview changes nothing: the next says the same, and an export has everything."""
    person = await scene.somebody()
    first, second = [await scene.ask(Verb.PREVIEW, person) for _ in range(2)]
    expect(first.counts == second.counts, f"first {said(first)}, then {said(second)}")
    _, records = await scene.export(person)
    expect(any(one in str(records) for one in person.canaries), "the export is empty after a preview")
    return f"twice {said(first)}"


@check
async def previews_a_part(scene: Scene) -> str:
    """A preview of a `category` that you hold nothing of is `nothing-held`; of one that you hold, `done`."""
    person, held = await scene.somebody(), categories(scene)
    wanted = next((one for one in Category if not any(one.includes(other) for other in held)), None)
    if wanted is None or not held:
        raise NotApplicable("the data map names every category, or none")
    without = await scene.ask(Verb.PREVIEW, person, category=wanted)
    expect(
        without.outcome is Outcome.NOTHING_HELD, f"{wanted}, which it does not keep, was {without.outcome}"
    )
    of_kept = await scene.ask(Verb.PREVIEW, person, category=Category(min(held)))
    expect(of_kept.outcome is Outcome.DONE, f"{min(held)}, which it keeps, was {of_kept.outcome}")
    return f"{wanted}: {said(without)}; {min(held)}: {said(of_kept)}"


@check
async def previews_a_correction(scene: Scene) -> str:
    """A `preview` with a `proposal` says what a `rectify` would do, and does not do it."""
    person, category = await scene.somebody(), correctable(scene)
    seen = await _correct(scene, Verb.PREVIEW, person, category, _value(category))
    expect(seen.outcome is Outcome.DONE and sum(seen.counts.values()) > 0, f"it was {said(seen)}")
    _, records = await scene.export(person)
    expect(_value(category) not in str(records), "a preview changed what is held")
    return said(seen)


# --- Corrections ---------------------------------------------------------------------------------------------


@check
async def corrects(scene: Scene) -> str:
    """`rectify` opens the `proposal`, puts it into what you hold, and counts what it rewrote."""
    person, category = await scene.somebody(), correctable(scene)
    answered = await _correct(scene, Verb.RECTIFY, person, category, _value(category))
    expect(answered.outcome is Outcome.DONE, f"rectify was {said(answered)}, {answered.reason}")
    expect(sum(answered.counts.values()) + sum(answered.beside.values()) > 0, "nothing was counted")
    _, records = await scene.export(person)
    expect(_value(category) in str(records), "what was to be corrected is not so in an export")
    return f"{category}: {said(answered)}"


@check
async def refuses_a_correction_that_does_not_fit(scene: Scene) -> str:
    """What your own model of a field does not take is listed in `refused`, and nothing is changed."""
    person, category = await scene.somebody(), correctable(scene)
    answered = await _correct(scene, Verb.RECTIFY, person, category, {"this": ["is", "no", "text"]})
    expect(list(answered.refused) == [category], f"refused: {answered.refused or 'nothing'}")
    _, records = await scene.export(person)
    expect(any(one in str(records) for one in person.canaries), "what was held is gone")
    return f"refused {category}"


async def _correct(
    scene: Scene, verb: Verb, person: Person, category: Category, value: object
) -> TaskAnswered:
    request_id = uuid4()
    proposal = await propose(scene, person, request_id, category, value)
    return await scene.ask(verb, person, request_id=request_id, proposal=proposal)


def correctable(scene: Scene) -> Category:
    """A category that is a text wherever it is kept. Raises NotApplicable."""
    held = categories(scene)
    for one in (Category.NAME, Category.EMAIL):
        if one in held:
            return one
    raise NotApplicable("it keeps neither names nor addresses")


def _value(category: Category) -> str:
    return _CORRECTED if category is Category.NAME else _ADDRESS


# --- On hold -------------------------------------------------------------------------------------------------


@check
async def rests_and_goes_on(scene: Scene) -> str:
    """`restrict` and `lift-restriction` are `done` for somebody you hold data of, and nothing of it is lost."""
    person = await scene.somebody()
    life = Life(person.store_id, person.subject_id, person.generation)
    for verb, change in (
        (Verb.RESTRICT, scene.keyring.restrict),
        (Verb.LIFT_RESTRICTION, scene.keyring.lift),
    ):
        await change([life])
        await scene.keys_changed(person)
        answered = await scene.ask(verb, person)
        expect(answered.outcome is Outcome.DONE, f"{verb} was {answered.outcome}")
    _, records = await scene.export(person)
    expect(any(one in str(records) for one in person.canaries), "what was on hold is gone")
    return "rested, and went on"


@check
async def exports_what_rests(scene: Scene) -> str:
    """Who is on hold can have an export all the same: keys then open for the rights of the person."""
    person = await scene.somebody()
    await scene.keyring.restrict([Life(person.store_id, person.subject_id, person.generation)])
    await scene.keys_changed(person)
    await scene.ask(Verb.RESTRICT, person)
    answered, records = await scene.export(person)
    expect(answered.outcome is Outcome.DONE, f"export was {answered.outcome}")
    expect(any(one in str(records) for one in person.canaries), "nothing of the person in it")
    return said(answered)


# --- Objections ----------------------------------------------------------------------------------------------


@check
async def stops_what_is_objected_to(scene: Scene) -> str:
    """`object` is `done` for a `purpose` that the data map names, and `nothing-held` for one it does not."""
    named = {one for entry in scene.announced.data_map for one in entry.get("purposes", ())}
    person = await scene.somebody()
    other = _first(one for one in Purpose if one.value not in named and one not in OPENS_DESPITE_RESTRICTION)
    used = _first(
        Purpose(one)
        for entry in scene.kept
        for one in entry["purposes"]
        if one not in OPENS_DESPITE_RESTRICTION
    )
    seen = {purpose: await _object(scene, person, purpose) for purpose in (used, other)}
    expect(seen[used].outcome is Outcome.DONE, f"{used}, for which it uses data, was {seen[used].outcome}")
    expect(
        seen[other].outcome is Outcome.NOTHING_HELD,
        f"{other}, not in its data map, was {seen[other].outcome}",
    )
    return ", ".join(f"{purpose}: {answered.outcome}" for purpose, answered in seen.items())


async def _object(scene: Scene, person: Person, purpose: Purpose) -> TaskAnswered:
    await scene.keyring.object([Objection(person.store_id, person.subject_id, person.generation, purpose)])
    await scene.keys_changed(person)
    return await scene.ask(Verb.OBJECT, person, purpose=purpose)


def _first(purposes: Iterable[Purpose]) -> Purpose:
    found = next(iter(purposes), None)
    if found is None:
        raise NotApplicable("the data map names every purpose, or none")
    return found
