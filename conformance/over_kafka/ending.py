"""Periods end, and stores do: what is over goes, and it is said, signed, each time somebody asks."""

from datetime import date
from typing import TypeVar
from uuid import uuid4

from conformance.checks import Checks, Missing, NotApplicable, expect
from conformance.scene import Person, Scene
from libs.common.events import Received
from libs.common.events.privacy import (
    KeysExpired,
    Outcome,
    RowsCleaned,
    StoreCleaned,
    StoreKeysDestroyed,
    Verb,
)
from libs.common.personal.answers import Forged
from libs.common.personal.answers import check as check_signature
from libs.common.personal.keys import Expiry
from libs.common.personal.vocabulary import Bucket, Retention

check = Checks[Scene]("What endings check")

_LONG_AGO = date(2020, 1, 1)

A = TypeVar("A", RowsCleaned, StoreCleaned)


@check
async def cleans_what_expired(scene: Scene) -> str:
    """`keys-expired` is answered by `rows-cleaned` on `privacy.retention`, signed as an answer is, once nothing is left
    that lies under the bucket.
    """
    person, expired = await _expired(scene)
    cleaned = await _said(scene, expired)
    _believed(scene, cleaned)
    _, records = await scene.export(person)
    expect(not any(one in str(records) for one in person.canaries), "what expired is still in an export")
    return f"cleaned {cleaned.data.counts}"


@check
async def says_again_that_it_cleaned(scene: Scene) -> str:
    """`rows-cleaned` comes each time you are told."""
    person, expired = await _expired(scene)
    first = (await _said(scene, expired)).data
    await scene.talk.say(expired, store_id=person.store_id)
    again = (await _said(scene, expired, already=1)).data
    expect(first.counts == again.counts, f"first {first.counts}, then {again.counts}")
    return "said twice"


async def _expired(scene: Scene) -> tuple[Person, KeysExpired]:
    """Somebody whose time is over: the keys of a bucket are destroyed, and everybody is told."""
    person = await scene.somebody()
    retentions = {Retention(entry["retention"]["name"]) for entry in scene.kept}
    [keys] = await scene.keyring.status([(person.store_id, person.subject_id)])
    bucket = next(
        (
            (one.retention, one.bucket)
            for one in keys
            if one.retention in retentions and one.retention.period.divided_by is Bucket.WHOLE
        ),
        None,
    )
    if bucket is None:
        raise NotApplicable("nothing that it sealed lies under a bucket that a clock ends")
    over = Expiry(person.store_id, person.subject_id, person.generation, *bucket, _LONG_AGO)
    await scene.keyring.expire([over])
    [gone] = await scene.keyring.destroy_expired([over])
    expect(gone.destroyed, f"the keyring did not destroy the bucket: {gone.outcome}")
    scene.vault.drop(person.store_id, [person.subject_id])
    expired = KeysExpired(
        subject_id=person.subject_id,
        generation=person.generation,
        retention=bucket[0],
        bucket=bucket[1],
        key_ids=list(gone.destroyed),
    )
    await scene.talk.say(expired, store_id=person.store_id)
    return person, expired


async def _said(scene: Scene, expired: KeysExpired, *, already: int = 0) -> Received[RowsCleaned]:
    heard = await scene.talk.hear(
        RowsCleaned,
        lambda one: (one.subject_id, one.participant) == (expired.subject_id, scene.participant),
        within=scene.patience,
        already=already,
    )
    if heard is None:
        raise Missing(f"no rows-cleaned within {scene.patience:g} s")
    return heard


# --- The end of a store --------------------------------------------------------------------------------------


async def begin_the_end_of_a_store(scene: Scene) -> None:
    """It takes minutes, so it begins early: somebody is held at a store of its own, whose keys are destroyed."""
    store_id = uuid4()
    await scene.open_store(store_id)
    scene.ending = await scene.somebody(store_id)
    while any(await scene.keyring.destroy_tenants([store_id])):
        pass
    scene.vault.drop(store_id)
    await scene.talk.say(StoreKeysDestroyed(store_id=store_id), store_id=store_id)


@check
async def cleans_up_after_a_store(scene: Scene) -> str:
    """`store-keys-destroyed` is answered by `store-cleaned` on `privacy.stores`, signed as an answer is, once nothing
    of the store is left but what it names as `kept`.
    """
    person = _of_the_ended(scene)
    cleaned = await _cleaned(scene, person, within=scene.store_seconds)
    _believed(scene, cleaned)
    unfounded = [one.table for one in cleaned.data.kept if not one.ground]
    expect(not unfounded, f"kept on no ground: {', '.join(unfounded)}")
    answered = await scene.ask(Verb.PREVIEW, person)
    expect(answered.outcome is Outcome.NOTHING_HELD or cleaned.data.kept, f"{answered.counts} are still held")
    return f"cleaned; kept: {', '.join(one.table for one in cleaned.data.kept) or 'nothing'}"


@check
async def says_again_that_a_store_is_clean(scene: Scene) -> str:
    """Whoever is done says the same again when asked again."""
    person = _of_the_ended(scene)
    first = (await _cleaned(scene, person, within=scene.store_seconds)).data
    await scene.talk.say(StoreKeysDestroyed(store_id=person.store_id), store_id=person.store_id)
    again = (await _cleaned(scene, person, within=scene.patience, already=1)).data
    expect(first.kept == again.kept, f"first {len(first.kept)} tables kept, then {len(again.kept)}")
    return "said twice"


def _of_the_ended(scene: Scene) -> Person:
    if scene.ending is None:
        raise Missing("the end of a store could not begin: it took the data of nobody there")
    return scene.ending


async def _cleaned(
    scene: Scene, person: Person, *, within: float, already: int = 0
) -> Received[StoreCleaned]:
    heard = await scene.talk.hear(
        StoreCleaned,
        lambda one: (one.store_id, one.participant) == (person.store_id, scene.participant),
        within=within,
        already=already,
    )
    if heard is None:
        raise Missing(f"no store-cleaned within {within:g} s")
    return heard


def _believed(scene: Scene, said: Received[A]) -> None:
    try:
        check_signature(said, public_key=scene.announced.public_key)
    except Forged:
        raise Missing("the signature is not of the announced key over what was sent") from None
