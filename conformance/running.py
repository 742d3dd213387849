"""A run of the kit: everything that a participant meets is started, the checks run, and all of it is stopped."""

import contextlib
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import httpx

from conformance.checks import Check, Finding, Missing, judge_all
from conformance.hooks import seed_by_command, seed_by_url, started
from conformance.over_kafka import ending
from conformance.over_webhook.endpoint import Endpoint
from conformance.scene import Scene
from conformance.stage import Stage, staged
from conformance.talk import Talk
from libs.common.events.privacy import ParticipantAnnounced
from libs.common.personal.keys import KeyringClient
from libs.common.personal.vault import Vault
from services.privacy.recipients import shopify, webhooks
from services.privacy.recipients.words import Role

Report = Callable[[Finding], None]


async def check_over_kafka(
    options: Namespace, checks: Sequence[Check[Scene]], *, report: Report
) -> Sequence[Finding]:
    """A participant on the broker. Raises StartError."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vitrine-conformance-")))
        stage = await stack.enter_async_context(
            staged(folder, kafka=options.kafka, keyring_port=options.keyring_port)
        )
        http = await stack.enter_async_context(httpx.AsyncClient())
        scene = scene_on(stage, http, participant=options.participant, patience=options.patience)
        await stack.enter_async_context(scene.talk.listening())
        await scene.leave_a_task()
        if options.seed_url:
            scene.seed = seed_by_url(options.seed_url, http)
        elif options.seed_command:
            scene.seed = seed_by_command(options.seed_command, stage.variables)
        _introduce(stage, options)
        scene.running = await stack.enter_async_context(
            started(options.command, stage.variables, folder / "participant.log")
        )
        return await judge_all(checks, scene, report=report)


def scene_on(stage: Stage, http: httpx.AsyncClient, *, participant: str, patience: float) -> Scene:
    """The kit as the privacy service, towards one participant."""

    async def admit(announced: ParticipantAnnounced) -> None:
        await stage.admit(announced)
        await scene.open_store(scene.store_id)
        # Who holds data of nobody is told so by each check that needs somebody.
        with contextlib.suppress(Missing):
            await ending.begin_the_end_of_a_store(scene)

    keyring = KeyringClient(
        url=stage.keyring_url, service="privacy", private_key=stage.key_of_privacy, http=http
    )
    scene = Scene(
        talk=Talk(stage.bootstrap_servers),
        participant=participant,
        keyring=keyring,
        vault=Vault(keyring),
        patience=patience,
        admit=admit,
    )
    return scene


def _introduce(stage: Stage, options: Namespace) -> None:
    """What the participant is to be configured with, where somebody else starts it."""
    given = "\n".join(f"    {name}={value}" for name, value in stage.variables.items())
    todo = "It is started with" if options.command else "Start it now, or have it running, with"
    print(f"Waiting for {options.participant}. {todo}:\n{given}", file=sys.stderr, flush=True)


async def check_over_webhook(
    options: Namespace, checks: Sequence[Check[Endpoint]], *, report: Report
) -> Sequence[Finding]:
    """A recipient outside."""
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx.AsyncClient())
        endpoint = Endpoint(
            url=options.webhook,
            secret=options.secret,
            protocol=shopify if options.shopify else webhooks,
            patience=options.patience,
            role=Role.CONTROLLER if options.controller else Role.PROCESSOR,
        )
        if options.seed_url:
            endpoint.seed = seed_by_url(options.seed_url, http)
        elif options.seed_command:
            endpoint.seed = seed_by_command(options.seed_command, {})
        await stack.enter_async_context(endpoint.listening())
        return await judge_all(checks, endpoint, report=report)
