"""`make conformance`: play the privacy service towards one participant, and say what it lacks.

    make conformance ARGS="--participant newsletter --kafka 127.0.0.1:9092 --seed-url http://127.0.0.1:8080/seed"
    make conformance ARGS="--participant newsletter --command 'node dist/main.js' --seed-command 'node dist/seed.js'"

`docs/adding-a-participant.md` says what each check means. The exit code is 0 only when nothing is missing.
"""

import argparse
import asyncio
import contextlib
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import httpx

from conformance import over_kafka
from conformance.checks import Check, Finding, Missing, Verdict, judge_all
from conformance.hooks import seed_by_command, seed_by_url, started
from conformance.over_kafka import ending
from conformance.report import as_json, line, listed, summary
from conformance.scene import Scene
from conformance.stage import Stage, staged
from conformance.talk import Talk
from deploy.local.errors import StartError
from libs.common.events.privacy import ParticipantAnnounced
from libs.common.personal.keys import KeyringClient
from libs.common.personal.vault import Vault


def main() -> None:
    """Parse the command line, check, and say what was found."""
    options = _options()
    checks = _chosen(over_kafka.CHECKS, options.only)
    if options.list:
        print("\n".join(listed(check) for check in checks))
        return
    report: Callable[[Finding], None] = (
        (lambda _: None) if options.json else (lambda one: print(line(one), flush=True))
    )
    try:
        findings = asyncio.run(check_over_kafka(options, checks, report=report))
    except StartError as error:
        sys.exit(str(error))
    print(as_json(findings) if options.json else summary(findings))
    sys.exit(any(one.verdict is Verdict.MISSING for one in findings))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make conformance", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--participant", metavar="NAME", help="the name it announces itself by")
    parser.add_argument(
        "--kafka", metavar="HOST:PORT", help="a broker that runs; otherwise the kit starts one"
    )
    parser.add_argument("--keyring-port", type=int, metavar="PORT", help="where the kit's keyring answers")
    parser.add_argument(
        "--seed-url", metavar="URL", help="takes a person as JSON by POST, and holds data of them"
    )
    parser.add_argument("--seed-command", metavar="COMMAND", help="the same, with the JSON on standard input")
    parser.add_argument(
        "--command", metavar="COMMAND", help="starts the participant, so that the kit can restart it"
    )
    parser.add_argument("--patience", type=float, default=20.0, metavar="SECONDS", help="for one answer (20)")
    parser.add_argument(
        "--only", default="", metavar="NAMES", help="these checks alone, with commas between them"
    )
    parser.add_argument("--json", action="store_true", help="the report as JSON")
    parser.add_argument("--list", action="store_true", help="name every check, and ask nobody")
    options = parser.parse_args()
    if not (options.participant or options.list):
        parser.error("--participant names who is checked")
    return options


def _chosen(checks: Sequence[Check[Scene]], only: str) -> Sequence[Check[Scene]]:
    """All, or those named, behind the first, without which nobody can be asked."""
    names = {name for name in only.split(",") if name}
    if unknown := names - {check.name for check in checks}:
        sys.exit(f"no such check: {', '.join(sorted(unknown))}; --list names them")
    return [check for check in checks if not names or check is checks[0] or check.name in names]


async def check_over_kafka(
    options: argparse.Namespace, checks: Sequence[Check[Scene]], *, report: Callable[[Finding], None]
) -> Sequence[Finding]:
    """Everything that a participant meets is started, and stopped at the end."""
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
        print(_introduction(stage, options), file=sys.stderr, flush=True)
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


def _introduction(stage: Stage, options: argparse.Namespace) -> str:
    """What the participant is to be configured with, where somebody else starts it."""
    given = "\n".join(f"    {name}={value}" for name, value in stage.variables.items())
    todo = "It is started with" if options.command else "Start it now, or have it running, with"
    return f"Waiting for {options.participant}. {todo}:\n{given}"


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
