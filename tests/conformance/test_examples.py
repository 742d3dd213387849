"""Both examples pass the kit as anybody runs it, over the broker and outside, and whoever is wrong is told so."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest
from joserfc.jwk import ECKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from conformance.hooks import started
from deploy.local.databases import OWNER, provision
from deploy.local.kafka import KafkaServer
from deploy.local.node import NODE, npm, variables
from deploy.local.nursery import ROOT
from deploy.local.ports import free_port, is_free
from deploy.local.postgres import PostgresServer
from deploy.local.waiting import until
from docs.examples.loyalty.seed import give_card
from docs.examples.loyalty.worker import Settings
from libs.common.migrations import upgrade
from libs.common.personal.errors import SubjectErased
from services.privacy.recipients import signatures
from tests.serving import serving

_TYPESCRIPT = ROOT / "docs" / "examples" / "typescript"


async def conformance(*arguments: str, **own: str) -> tuple[int, dict[str, dict[str, str]]]:
    """The kit's exit code, and what it found by the name of the check."""
    kit = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "conformance", "--json", *arguments),
        cwd=ROOT,
        env={**os.environ, **own},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, words = await kit.communicate()
    assert said, words.decode()
    report: dict[str, Any] = orjson.loads(said)
    assert report["conforms"] == (kit.returncode == 0)
    return kit.returncode or 0, {one["check"]: one for one in report["findings"]}


def _with(found: dict[str, dict[str, str]], verdict: str) -> dict[str, str]:
    return {name: one["seen"] for name, one in found.items() if one["verdict"] == verdict}


def a_key() -> str:
    return json.dumps(ECKey.generate_key("P-256", auto_kid=True).as_dict(private=True))


async def a_database(postgres: PostgresServer, name: str, *, owner: str) -> str:
    """Of an application that is named like it; `owner` may be itself."""
    connection = await postgres.connect()
    await connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{postgres.password(name)}'")
    await connection.execute(f"CREATE DATABASE {name} OWNER {owner}")
    await connection.close()
    return postgres.url(name, name)


# --- TypeScript ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def typescript() -> Path:
    """The example, built from its lock file."""
    npm(_TYPESCRIPT, "ci", "--prefer-offline")
    npm(_TYPESCRIPT, "run", "build")
    return _TYPESCRIPT / "dist"


@pytest.fixture(scope="module")
async def newsletter_database(postgres: PostgresServer) -> str:
    return await a_database(postgres, "newsletter", owner="newsletter")


async def test_the_example_in_typescript_is_formatted_linted_and_typed(typescript: Path) -> None:
    npm(typescript.parent, "run", "check")


def test_its_lock_file_names_no_host() -> None:
    lock = json.loads((_TYPESCRIPT / "package-lock.json").read_text())
    packages = {name: one for name, one in lock["packages"].items() if name}
    assert packages
    assert not [name for name, one in packages.items() if "resolved" in one]
    assert all(one["integrity"].startswith("sha512-") for one in packages.values())


async def test_the_newsletter_in_typescript_conforms(
    kafka: KafkaServer, typescript: Path, newsletter_database: str
) -> None:
    port = free_port()

    code, found = await conformance(
        "--participant=newsletter",
        f"--kafka={kafka.bootstrap_servers}",
        f"--command={NODE} {typescript / 'main.js'}",
        f"--seed-url=http://127.0.0.1:{port}/subscribers",
        NEWSLETTER_DATABASE_URL=newsletter_database,
        NEWSLETTER_SERVICE_KEY=a_key(),
        NEWSLETTER_PORT=str(port),
    )

    assert _with(found, "missing") == {}
    assert code == 0
    assert _with(found, "not applicable").keys() == {"answers-preparations", "says-what-it-retains"}


async def test_the_mail_provider_in_typescript_conforms(
    typescript: Path, newsletter_database: str, tmp_path: Path
) -> None:
    port, secret = free_port(), signatures.new_secret()
    own = {
        **variables(),
        "NEWSLETTER_DATABASE_URL": newsletter_database,
        "WEBHOOK_SECRET": secret,
        "WEBHOOK_PORT": str(port),
    }

    async with started(f"{NODE} {typescript / 'webhook.js'}", own, tmp_path / "webhook.log"):

        async def listens() -> bool:
            return not is_free(port)

        await until(listens, 60, (tmp_path / "webhook.log").read_text())
        code, found = await conformance(
            f"--webhook=http://127.0.0.1:{port}/hook",
            f"--secret={secret}",
            f"--seed-url=http://127.0.0.1:{port}/contacts",
        )

    assert _with(found, "missing") == {}
    assert _with(found, "not applicable") == {}
    assert code == 0


# --- Loyalty -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
async def loyalty(postgres: PostgresServer) -> AsyncIterator[tuple[dict[str, str], str]]:
    """What the example is started with, and where it is given people."""
    await provision(postgres)
    database = await a_database(postgres, "loyalty", owner=OWNER)
    await upgrade("docs.examples.loyalty", postgres.url("loyalty", OWNER), "loyalty")
    own = {"LOYALTY_DATABASE_URL": database, "LOYALTY_SERVICE_KEY": a_key()}
    keyring = free_port()
    settings = Settings.model_validate(
        {
            "database_url": database,
            "service_key": own["LOYALTY_SERVICE_KEY"],
            "keyring_url": f"http://127.0.0.1:{keyring}",
        }
    )

    async def seed(request: Request) -> Response:
        person = await request.json()
        try:
            await give_card(
                settings,
                store_id=UUID(person["store_id"]),
                subject_id=UUID(person["subject_id"]),
                generation=person["generation"],
                name=person["name"],
            )
        except SubjectErased:
            return Response(status_code=409)
        return Response(status_code=204)

    async with serving(Starlette(routes=[Route("/seed", seed, methods=["POST"])])) as url:
        yield {**own, "KEYRING_PORT": str(keyring)}, f"{url}/seed"


async def test_the_loyalty_example_conforms(kafka: KafkaServer, loyalty: tuple[dict[str, str], str]) -> None:
    own, seed = loyalty

    code, found = await conformance(
        "--participant=loyalty",
        f"--kafka={kafka.bootstrap_servers}",
        f"--keyring-port={own['KEYRING_PORT']}",
        f"--command={sys.executable} -m tests.conformance.hasty_loyalty",
        f"--seed-url={seed}",
        **own,
    )

    assert _with(found, "missing") == {}
    assert code == 0
    assert _with(found, "not applicable").keys() == {
        "answers-preparations", "says-what-it-retains", "refers",
    }  # fmt: skip


async def test_whoever_takes_nobody_in_is_told_what_is_missing(
    kafka: KafkaServer, loyalty: tuple[dict[str, str], str]
) -> None:
    own, _ = loyalty

    code, found = await conformance(
        "--participant=loyalty",
        f"--kafka={kafka.bootstrap_servers}",
        f"--command={sys.executable} -m tests.conformance.hasty_loyalty",
        "--only=previews,erases,answers-previews,remembers-after-a-restart",
        **own,
    )

    assert code == 1
    assert _with(found, "passed").keys() == {"announces-itself", "answers-previews"}
    missing = _with(found, "missing")
    assert missing.keys() == {"previews", "erases", "remembers-after-a-restart"}
    assert all("--seed-url" in seen for seen in missing.values())
    assert found["erases"]["link"] == "docs/adding-a-participant.md#what-erasing-checks"
