"""The form, and the page that a request is followed on: in both languages, with nothing from elsewhere."""

import re
from importlib.resources import files
from typing import Any
from uuid import uuid4

import orjson
import pytest

from libs.common.personal.vocabulary import Category, Purpose, Retention
from services.privacy.domain.decisions import Ground
from services.privacy.domain.rights import Right, RightName
from services.privacy.domain.states import State
from services.privacy.domain.verification import Proof
from tests.privacy.conftest import Platform
from tests.privacy.ways import open_store


def words(language: str) -> dict[str, Any]:
    return orjson.loads((files("services.privacy") / "pages" / f"request.{language}.json").read_bytes())


@pytest.mark.parametrize("language", ["en", "fr"])
async def test_pages_speak_both_languages_and_load_nothing(platform: Platform, language: str) -> None:
    await open_store(platform)
    for path in (f"form?store={platform.store_id}&", "request?"):
        page = await platform.client.get(f"/privacy/{path}language={language}")
        assert (page.status_code, page.headers["Cache-Control"]) == (200, "no-store")
        assert f'<html lang="{language}">' in page.text
        policy = page.headers["Content-Security-Policy"]
        [nonce] = set(re.findall(r"'nonce-([\w-]+)'", policy))
        assert policy.startswith("default-src 'none'") and "form-action 'none'" in policy
        assert page.text.count(f'nonce="{nonce}"') == len(re.findall("<(?:style|script)", page.text)) == 2
        assert not re.search(r"(?:src|href|action|url)\s*[=(]|@import", page.text), "something is loaded"
        assert "https://" not in page.text and "http://" not in page.text
        # Every field has a label.
        fields = set(re.findall(r'<(?:input|select|textarea) id="([\w-]+)"', page.text))
        assert fields <= set(re.findall(r'for="([\w-]+)"', page.text)), language
    other = await platform.client.get("/privacy/request?language=en")
    assert nonce not in other.text


async def test_a_page_of_no_store_or_language_is_none(platform: Platform) -> None:
    assert (await platform.client.get(f"/privacy/form?store={uuid4()}")).status_code == 404
    for path in ("form", "form?store=nonsense", "request?language=tlh"):
        assert (await platform.client.get(f"/privacy/{path}")).status_code == 422


@pytest.mark.parametrize("language", ["en", "fr"])
def test_there_is_a_word_for_everything(language: str) -> None:
    said = words(language)
    assert said["rights"].keys() == set(RightName)
    assert set(said["form"]["offered"]) == set(Right) == said["form"]["about"].keys()
    assert said["purposes"].keys() <= set(Purpose) and said["categories"].keys() <= set(Category)
    request = said["request"]
    assert request["states"].keys() == request["steps"].keys() == set(State)
    assert request["proofs"].keys() == set(Proof) and request["grounds"].keys() == set(Ground)
    assert request["retentions"].keys() <= set(Retention)


def test_both_languages_say_the_same() -> None:
    def shape(said: Any) -> Any:
        return {name: shape(one) for name, one in said.items()} if isinstance(said, dict) else None

    assert shape(words("en")) == shape(words("fr"))
