"""The examples in TypeScript pass the kit, over the broker and outside."""

import json
from pathlib import Path

import pytest

from conformance.hooks import started
from deploy.local.kafka import KafkaServer
from deploy.local.node import NODE, npm, variables
from deploy.local.nursery import ROOT
from deploy.local.ports import free_port, is_free
from deploy.local.postgres import PostgresServer
from deploy.local.waiting import until
from services.privacy.recipients import signatures
from tests.conformance.kit import a_database, a_key, conformance, found_to_be

_TYPESCRIPT = ROOT / "docs" / "examples" / "typescript"


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

    assert found_to_be("missing", found) == {}
    assert code == 0
    assert found_to_be("not applicable", found).keys() == {"answers-preparations", "says-what-it-retains"}


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

    assert found_to_be("missing", found) == {}
    assert found_to_be("not applicable", found) == {}
    assert code == 0
