"""The loyalty example passes the kit, and whoever is wrong is told so."""

import sys
from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from deploy.local.databases import OWNER, provision
from deploy.local.kafka import KafkaServer
from deploy.local.ports import free_port
from deploy.local.postgres import PostgresServer
from docs.examples.loyalty.seed import give_card
from docs.examples.loyalty.worker import Settings
from libs.common.migrations import upgrade
from libs.common.personal.errors import SubjectErased
from tests.conformance.kit import a_database, a_key, conformance, found_to_be
from tests.serving import serving


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

    assert found_to_be("missing", found) == {}
    assert code == 0
    assert found_to_be("not applicable", found).keys() == {
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
    assert found_to_be("passed", found).keys() == {"announces-itself", "answers-previews"}
    missing = found_to_be("missing", found)
    assert missing.keys() == {"previews", "erases", "remembers-after-a-restart"}
    assert all("--seed-url" in seen for seen in missing.values())
    assert found["erases"]["link"] == "docs/adding-a-participant.md#what-erasing-checks"
