"""Erased is erased: nothing is left, and nothing comes back."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from conformance.checks import Checks, NotApplicable, expect
from conformance.over_kafka.answering import said
from conformance.scene import Person, Scene, categories
from libs.common.events.privacy import Held, Outcome, Verb
from libs.common.personal.datamap import retentions_concerned
from libs.common.personal.keys import KeyWanted, Retirement
from libs.common.personal.vocabulary import Category, Retention

check = Checks[Scene]("What erasing checks")

_ERASED = frozenset({Outcome.DONE, Outcome.RETAINED})


@check
async def erases(scene: Scene) -> str:
    """`erase` is answered `done`, or `retained` where a law keeps something, with counts of what went."""
    _, erased = await scene.erase(await scene.somebody())
    expect(erased.outcome in _ERASED, f"erase was {erased.outcome}")
    expect(erased.retained or sum(erased.counts.values()) > 0, "neither counted nor retained anything")
    return said(erased)


@check
async def says_what_it_retains(scene: Scene) -> str:
    """Whatever stays is `retained`: kind, retention and count, on what ground and until when; nothing else stays."""
    _, erased = await scene.erase(await scene.somebody())
    if erased.outcome is not Outcome.RETAINED:
        expect(not erased.retained, f"{erased.outcome}, and yet something is retained")
        raise NotApplicable(f"no law keeps anything here: {said(erased)}")
    expect(erased.retained, "retained, and it does not say what")
    known = {one.value for one in Retention}
    for one in erased.retained:
        expect(one.ground, f"{one.kind} is retained on no ground")
        expect(one.retention in known, f"{one.kind} is retained as {one.retention}, which is no retention")
    return ", ".join(f"{one.kind} until {one.until}" for one in erased.retained)


@check
async def verifies_that_it_erased(scene: Scene) -> str:
    """After `erase`, `verify-erased` is `done`, and names what it read again in `reread`."""
    person = await scene.somebody()
    request_id, _ = await scene.erase(person)
    checked = await scene.ask(Verb.VERIFY_ERASED, person, request_id=request_id)
    expect(checked.outcome is Outcome.DONE, f"{said(checked)}: {checked.reason}")
    expect(checked.reread, "it does not say what it read again")
    return f"read {', '.join(checked.reread)}"


@check
async def finds_what_was_not_erased(scene: Scene) -> str:
    """`verify-erased` looks for itself: of somebody who was not erased it is `failed`, with counts of what is left."""
    person = await scene.somebody()
    checked = (await scene.answer(await scene.issue(Verb.VERIFY_ERASED, person))).data
    expect(checked.outcome is Outcome.FAILED, f"{checked.outcome}, while everything is still there")
    expect(sum(checked.counts.values()) > 0, "failed, and it does not count what is left")
    return said(checked)


@check
async def holds_nothing_after(scene: Scene) -> str:
    """After `erase`, an `export` is `nothing-held` and a `preview` counts nothing but what is retained."""
    person = await scene.somebody()
    _, erased = await scene.erase(person)
    exported, previewed = await scene.ask(Verb.EXPORT, person), await scene.ask(Verb.PREVIEW, person)
    if erased.outcome is Outcome.RETAINED:
        return f"retained; export {said(exported)}, preview {said(previewed)}"
    for verb, answered in (("export", exported), ("preview", previewed)):
        expect(answered.outcome is Outcome.NOTHING_HELD, f"{verb} was {said(answered)}")
    return "export and preview find nothing"


@check
async def refuses_late_data(scene: Scene) -> str:
    """What would bring data of an erased generation, late or replayed, is refused for ever."""
    person = await scene.somebody()
    await scene.erase(person)
    before = await scene.ask(Verb.PREVIEW, person)
    taken = await scene.plant(person)
    after = await scene.ask(Verb.PREVIEW, person)
    expect(before.counts == after.counts, f"{said(before)}, and {said(after)} after a late event")
    return f"the hook said that it was {'taken' if taken else 'refused'}; {said(after)}"


@check
async def welcomes_who_returns(scene: Scene) -> str:
    """Who returns is a new generation: its data is taken, and an erasure of the earlier one, asked again, leaves it."""
    person = await scene.somebody()
    request_id, _ = await scene.erase(person)
    returned = await _return(scene, person)
    expect(await scene.plant(returned), "the data of the next generation was refused")
    await scene.ask(Verb.ERASE, person, request_id=request_id, round=2)
    _, records = await scene.export(returned)
    expect(
        any(one in str(records) for one in returned.canaries), "the next generation was erased with the first"
    )
    return f"generation {returned.generation} is held"


async def _return(scene: Scene, person: Person) -> Person:
    """A live command begins the next generation of an erased person: what is sealed then has its number."""
    wanted = KeyWanted(person.store_id, person.subject_id, Retention.CORRESPONDENCE, begin=True)
    [key] = await scene.keyring.mint([wanted])
    generation = getattr(key, "generation", 0)
    expect(generation > person.generation, "the keyring began no generation")
    mark = uuid4().hex[:12]
    returned = replace(
        person, generation=generation, email=f"canary-{mark}@vitrine.example", name=f"Canary {mark}"
    )
    scene.people.append(returned)
    return returned


@check
async def erases_all_subjects(scene: Scene) -> str:
    """`erase` with `also` erases all subjects of the person and is answered once, with counts of all."""
    one, other, request_id = await scene.somebody(), await scene.somebody(), uuid4()
    for person in (one, other):
        await scene.destroy(person, request_id)
    erased = await scene.ask(Verb.ERASE, one, other, request_id=request_id)
    expect(erased.outcome in _ERASED, f"erase was {erased.outcome}")
    checked = await scene.ask(Verb.VERIFY_ERASED, one, other, request_id=request_id)
    expect(checked.outcome is Outcome.DONE, f"verify-erased of both was {said(checked)}")
    for person in (one, other):
        rest = await scene.ask(Verb.VERIFY_ERASED, person)
        expect(rest.outcome is Outcome.DONE, f"of one of two subjects {rest.counts} is left")
    return said(erased)


@check
async def leaves_others_alone(scene: Scene) -> str:
    """An erasure touches nobody else: not at the same store, and not the same subject at another store."""
    person, neighbour = await scene.somebody(), await scene.somebody()
    elsewhere = replace(person, store_id=uuid4(), name=f"Other {person.name}")
    await scene.open_store(elsewhere.store_id)
    expect(await scene.plant(elsewhere), "it did not take the data of a person of another store")
    await scene.erase(person)
    for other in (neighbour, elsewhere):
        answered = await scene.ask(Verb.PREVIEW, other)
        expect(answered.outcome is Outcome.DONE, f"somebody else is {answered.outcome} after it")
    return "a neighbour and the same subject at another store are still held"


# --- What stays, and what goes alone -------------------------------------------------------------------------


@check
async def keeps_what_is_held(scene: Scene) -> str:
    """With `held`, what is kept for these retentions stays: `retained`, on the ground and until the day given there."""
    person, retention = await scene.somebody(), _erasable(scene)
    until = datetime.now(UTC).date() + timedelta(days=400)
    held = [Held(retention=retention, until=until, ground="legal-claims")]
    before = await scene.ask(Verb.PREVIEW, person)
    erased = await scene.ask(Verb.ERASE, person, held=held)
    expect(erased.outcome is Outcome.RETAINED, f"erase with a hold was {said(erased)}")
    kept = [one for one in erased.retained if one.retention == retention]
    expect(kept, f"nothing of {retention} is said to be retained")
    expect(
        all((one.ground, one.until) == ("legal-claims", until) for one in kept),
        f"retained on “{kept[0].ground}” until {kept[0].until}",
    )
    after = await scene.ask(Verb.PREVIEW, person)
    expect(sum(after.counts.values()) > 0, f"{said(before)} before, {said(after)} after it")
    return f"{sum(one.count for one in kept)} rows until {until}"


@check
async def erases_a_part(scene: Scene) -> str:
    """`erase` with a `category` removes that part and leaves the person: nothing lies under the keys in `retired` then,
    and `verify-erased` says so, as it says before that something does.
    """
    person, held = await scene.somebody(), categories(scene)
    if not held:
        raise NotApplicable("the data map names no category of what is exported")
    category = Category.NAME if Category.NAME in held else Category(min(held))
    retentions = retentions_concerned(scene.announced.data_map, None, category)
    if not retentions:
        raise NotApplicable(f"a law keeps all of {category}")
    retirement = Retirement(person.store_id, person.subject_id, person.generation, retentions)
    [retired] = await scene.keyring.retire([retirement])
    await scene.keys_changed(person)
    before = await scene.issue(Verb.VERIFY_ERASED, person, category=category, retired=retired)
    looked = (await scene.answer(before)).data
    expect(
        looked.outcome is Outcome.FAILED or not retired,
        "verify-erased sees nothing under the retired keys",
    )
    part = {"request_id": uuid4(), "category": category, "retired": retired}
    erased = await scene.ask(Verb.ERASE, person, **part)
    expect(erased.outcome in _ERASED, f"erase of {category} was {said(erased)}, {erased.reason}")
    checked = await scene.ask(Verb.VERIFY_ERASED, person, **part)
    expect(checked.outcome is Outcome.DONE, f"verify-erased was {said(checked)}")
    await scene.keyring.destroy_retired(retired)
    _, records = await scene.export(person)
    own = person.name if category is Category.NAME else person.email
    # What cannot be left out, or is used for something else too, stays and is said to.
    stays = erased.outcome is Outcome.RETAINED and erased.retained
    expect(stays or own not in str(records), f"{category} is still in an export")
    return f"{category}: {said(erased)}; {len(records)} records are left"


def _erasable(scene: Scene) -> Retention:
    """A retention of what is kept here and no law keeps. Raises NotApplicable."""
    for entry in scene.kept:
        if not entry["retention"].get("kept_by_law"):
            return Retention(entry["retention"]["name"])
    raise NotApplicable("a law keeps all that is held here")
