"""Pages open in a browser that reaches no host but ours, and run nothing that is not theirs."""

import re
from urllib.parse import urljoin

import httpx
import pytest

from deploy.local.environment import SERVICES
from tests.contract.house import House
from tests.privacy.keyring.conftest import RunningKeyring

PERSONAL = ("/identity/confirm", "/identity/confirm-email", "/privacy/download")
_OURS = re.compile(r"'none'|'self'|data:|'nonce-[\w-]{22}'")


def runs_its_own_alone(page: httpx.Response) -> None:
    """Whatever the policy allows is the page's host or carries the page's nonce."""
    directives = dict(
        directive.strip().split(" ", 1) for directive in page.headers["content-security-policy"].split(";")
    )
    assert directives["default-src"] == "'none'"
    assert all(_OURS.fullmatch(source) for sources in directives.values() for source in sources.split())
    nonce = directives["script-src"].removeprefix("'nonce-").removesuffix("'")
    parts = re.findall(r"<(?:script|style|link rel=\"stylesheet\")[^>]*>", page.text)
    assert len(parts) >= 2 and all(f'nonce="{nonce}"' in part for part in parts)


async def opens_by_itself(http: httpx.AsyncClient, address: str) -> None:
    page = await http.get(address)
    assert page.status_code == 200
    runs_its_own_alone(page)
    assert "://" not in page.text
    loaded = re.findall(r'(?:src=|href=|url: )"([^"]+)"', page.text)
    assert {"docs/swagger-ui-bundle.js", "docs/swagger-ui.css", "openapi.json"} <= set(loaded)
    for part in loaded:
        answer = await http.get(urljoin(str(page.url), part))
        assert answer.status_code == 200 and answer.content, part
    # Otherwise the page asks a host of its makers about the document.
    assert "validatorUrl: null" in page.text


@pytest.mark.parametrize("service", SERVICES)
async def test_an_api_document_opens_without_another_host(house: House, service: str) -> None:
    await opens_by_itself(house.http, f"/{service}/docs")


async def test_the_keyrings_document_too(keyring: RunningKeyring) -> None:
    async with httpx.AsyncClient() as http:
        await opens_by_itself(http, f"{keyring.url}/keyring/docs")


@pytest.mark.parametrize("language", ["en", "fr"])
@pytest.mark.parametrize("path", PERSONAL)
async def test_a_page_of_a_mail_runs_its_own_script_alone(house: House, path: str, language: str) -> None:
    page = await house.http.get(path, params={"language": language})
    runs_its_own_alone(page)
    assert f'lang="{language}"' in page.text
    assert page.headers["cache-control"] == "no-store"
    other = await house.http.get(path, params={"language": language})
    assert other.headers["content-security-policy"] != page.headers["content-security-policy"]
