"""Each check finds what it is there for: whoever does everything passes, and whoever does one thing wrong does not."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from uuid import uuid4

import httpx
import pytest
from joserfc.jwk import ECKey

from conformance.checks import Check, Verdict, judge
from conformance.over_kafka import CHECKS, announcing, ending
from conformance.running import scene_on
from conformance.scene import Scene
from conformance.stage import Stage
from libs.common.events.privacy import ParticipantAnnounced, Verb
from libs.common.personal.keys import KeyringClient
from libs.common.personal.vault import Vault
from tests.conformance.participant import NAME, Participant

_SILENT = {
    "reads-from-the-beginning": Verb.PREVIEW,
    "answers-previews": Verb.PREVIEW,
    "answers-exports": Verb.EXPORT,
    "answers-rectifications": Verb.RECTIFY,
    "answers-restrictions": Verb.RESTRICT,
    "answers-lifted-restrictions": Verb.LIFT_RESTRICTION,
    "answers-objections": Verb.OBJECT,
    "answers-whether-an-order-is-known": Verb.RECOGNISE,
    "answers-erasures": Verb.ERASE,
    "answers-checks-of-erasures": Verb.VERIFY_ERASED,
    "answers-by-what-others-know-somebody": Verb.REFER,
    "answers-preparations": Verb.PREPARE,
}
"""Checks that are failed by never answering."""
_NOT_APPLICABLE = {"says-what-it-retains"}
_OF_RECORDS = {check.name for check in CHECKS if check.anchor == "what-the-whole-conversation-checks"}
_PATIENT = 10.0
_IMPATIENT = 1.5
"""Silence is what is waited for."""


@dataclass
class World:
    scene: Scene
    participant: Participant


@pytest.fixture(scope="module")
async def world(stage: Stage) -> AsyncIterator[World]:
    key = ECKey.generate_key("P-256", auto_kid=True)
    async with httpx.AsyncClient() as http:
        keyring = KeyringClient(
            url=stage.keyring_url, service=NAME, private_key=json.dumps(key.as_dict(private=True)), http=http
        )
        # Nothing is remembered: whatever the kit does to keys is met at once.
        vault = Vault(keyring, key_seconds=0.001)
        participant = Participant(stage.bootstrap_servers, vault, key)
        scene = scene_on(stage, http, participant=NAME, patience=_PATIENT)
        scene.seed, scene.running = participant.take, participant
        async with scene.talk.listening():
            await participant.open()
            finding = await judge(announcing.check.all[0], scene)
            assert finding.verdict is Verdict.PASSED, finding.seen
            yield World(scene, participant)
            await participant.close()


async def a_scene(world: World, *, patience: float, fault: str = "") -> Scene:
    """As at the beginning of a run, for one check."""
    world.participant.misbehave(fault)
    scene = replace(
        world.scene, store_id=uuid4(), patience=patience, people=[], issued=[], ending=None, waiting=None,
        restarted=False, start_seconds=_PATIENT, store_seconds=patience,
    )  # fmt: skip
    await scene.leave_a_task()
    return scene


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
async def test_whoever_does_everything_passes(world: World, check: Check[Scene]) -> None:
    scene = await a_scene(world, patience=_PATIENT)
    await _before(check, scene)

    finding = await judge(check, scene)

    wanted = Verdict.NOT_APPLICABLE if check.name in _NOT_APPLICABLE else Verdict.PASSED
    assert finding.verdict is wanted, finding.seen


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
async def test_whoever_does_one_thing_wrong_does_not(world: World, check: Check[Scene]) -> None:
    fault = f"silent about {_SILENT[check.name]}" if check.name in _SILENT else check.name
    scene = await a_scene(world, patience=_IMPATIENT, fault=fault)
    try:
        if check.name == "announces-itself":
            scene = replace(scene, participant="nobody", start_seconds=_IMPATIENT)
        elif check.anchor == announcing.check.anchor:
            await _announced_anew(world)
        if check.name in {"loses-nothing-when-killed", "takes-up-what-came-while-it-was-down"}:
            scene = replace(scene, start_seconds=_IMPATIENT)
        await _before(check, scene)

        finding = await judge(check, scene)

        assert finding.verdict is Verdict.MISSING, finding.seen
        assert "the check broke" not in finding.seen
    finally:
        world.participant.misbehave("")
        if check.anchor == announcing.check.anchor:
            await _announced_anew(world)


async def _before(check: Check[Scene], scene: Scene) -> None:
    """What lies before a check in a whole run."""
    if check.name in _OF_RECORDS:
        answered = await scene.ask(Verb.PREVIEW, await scene.somebody())
        assert answered.counts
    if check.anchor == ending.check.anchor and "store" in check.name:
        await ending.begin_the_end_of_a_store(scene)


async def _announced_anew(world: World) -> None:
    talk = world.scene.talk
    already = len(talk.heard(ParticipantAnnounced))
    await world.participant.announce()
    assert await talk.hear(ParticipantAnnounced, lambda _: True, within=_PATIENT, already=already)
