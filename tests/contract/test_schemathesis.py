"""Every service against its own OpenAPI document, with data that fits it and data that does not."""

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.local.environment import SERVICES
from libs.common.auth import PLATFORM_STORE, Role
from tests.contract.house import Furnished, House, Person, furnish
from tests.tokens import authorization

CHECKS = Path(__file__).with_name("examining.py")
_WITHIN = 300  # seconds
_ALLOWED = ("2xx", "3xx", "400", "401", "403", "404", "409", "412", "422", "428", "429")


def _configuration(store: Furnished, service: str, merchant: Person) -> str:
    """Real ids in every path, so that what is examined is more than the 404 of made-up ones."""
    parameters = {
        f"path.{name}": value for name, value in {"store_id": str(store.id), **store.objects}.items()
    }
    parameters |= {f"header.{name}": value for name, value in store.secrets.items()}
    lines = "\n".join(f'"{name}" = "{value}"' for name, value in parameters.items())
    manager = store.staff(Role.OWNER)["Authorization"]
    caller = store.customer.headers["Authorization"] if service in {"identity", "privacy"} else manager
    officer = authorization(PLATFORM_STORE, Role.PRIVACY_OFFICER)["Authorization"]
    return f"""
hooks = "{CHECKS}"
[generation]
deterministic = true
no-shrink = true
database = "none"
max-examples = 10
[phases.stateful]
max-steps = 3
[checks]
# Rules that no schema can say: cursors of another list, ETags, what a service allows. `examining.py` looks closer.
positive_data_acceptance.expected-statuses = [{", ".join(f'"{status}"' for status in _ALLOWED)}]
[auth.openapi]
HTTPBearer = {{ bearer = "{caller.removeprefix("Bearer ")}" }}
[parameters]
{lines}
[[operations]]
include-name = "PATCH /identity/v1/stores/{{store_id}}"
headers = {{ Authorization = "{manager}" }}
[[operations]]
# A store that was just opened has no customers; its owner is one of the platform's.
include-path-regex = "^/identity/v1/stores/.store_id./"
checks.ensure_resource_availability.enabled = false
[[operations]]
include-path-regex = "^/privacy/v1/(operations|escalations|store-endings|participants)"
headers = {{ Authorization = "{officer}" }}
[[operations]]
include-path-regex = "^/privacy/v1/stores/.store_id./(waiting-requests|requests/.request_id./(waiting|parts))"
headers = {{ Authorization = "{manager}" }}
[[operations]]
include-path = "/identity/v1/stores"
headers = {{ Authorization = "{merchant.headers["Authorization"]}" }}
"""


@dataclass(frozen=True)
class Verdict:
    """What the examination of a service came to, and its report."""

    passed: bool
    report: str


@pytest.fixture(scope="module")
async def verdicts(
    address: str, house: House, merchant: Person, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Mapping[str, asyncio.Task[Verdict]]]:
    """All services are examined at once, in a store of their own, each by a process of its own."""
    store = await furnish(house, merchant)
    tasks: dict[str, asyncio.Task[Verdict]] = {}
    for service in SERVICES:
        folder = tmp_path_factory.mktemp(service)
        (folder / "schemathesis.toml").write_text(_configuration(store, service, merchant))
        tasks[service] = asyncio.create_task(_examine(f"{address}/{service}/openapi.json", folder))
    yield tasks
    for task in tasks.values():
        task.cancel()


async def _examine(document: str, folder: Path) -> Verdict:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", "schemathesis.toml", "--no-color"),
        *("run", document),
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        words, _ = await asyncio.wait_for(process.communicate(), _WITHIN)
    finally:
        if process.returncode is None:
            process.kill()
    return Verdict(process.returncode == 0, words.decode())


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_does_what_its_document_says(
    service: str, verdicts: Mapping[str, asyncio.Task[Verdict]]
) -> None:
    verdict = await verdicts[service]
    assert verdict.passed, verdict.report
    # A run that found no operations would pass as well.
    assert "✅  Coverage" in verdict.report and "✅  Fuzzing" in verdict.report
