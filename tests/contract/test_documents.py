"""What is written for readers is what the code says."""

from collections.abc import Iterator
from importlib import import_module

import pytest
from pydantic import AliasChoices
from pydantic_settings import BaseSettings

from deploy.local.documents import DOCS, documents, problem_types
from deploy.local.environment import SERVICES
from libs.common.settings import ServiceSettings
from services.privacy.keyring.settings import KeyringSettings


def test_the_documents_on_disk_are_what_the_code_says() -> None:
    stale = [
        path.name
        for path, content in documents().items()
        if not path.exists() or path.read_bytes() != content
    ]
    assert stale == [], "run `make docs` and commit what it writes"


# --- Problems --------------------------------------------------------------------------------------------


def test_every_type_of_problem_is_explained() -> None:
    table = (DOCS / "problems.md").read_text()
    types = problem_types()
    assert {"not-found", "price-changed", "keyring-unavailable"} <= {one.slug for one in types}
    for one in types:
        row = next((line for line in table.splitlines() if f"`{one.slug}`" in line), "")
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert len(cells) == 5 and all(cells), one.slug
        assert cells[0] == str(one.status)
        assert cells[2] == one.title


def test_a_type_has_one_status_and_a_name_for_addresses() -> None:
    for one in problem_types():
        assert 400 <= one.status < 600
        assert one.slug == one.slug.lower() and one.slug.replace("-", "").isalnum()


@pytest.mark.parametrize("one", problem_types(), ids=lambda one: one.slug)
def test_classes_of_one_type_have_one_status(one: type[Exception]) -> None:
    for other in _subclasses(one):
        if getattr(other, "slug", "") == getattr(one, "slug", None):
            assert getattr(other, "status", 0) == getattr(one, "status", None), other.__name__


def _subclasses(one: type[Exception]) -> Iterator[type[Exception]]:
    for other in one.__subclasses__():
        yield other
        yield from _subclasses(other)


# --- Settings --------------------------------------------------------------------------------------------


def variables(settings: type[BaseSettings]) -> Iterator[tuple[str, str]]:
    """Every field and the environment variable it is read from."""
    for name, field in settings.model_fields.items():
        alias = field.validation_alias
        assert not isinstance(alias, AliasChoices)
        yield name, str(alias) if alias else f"{settings.model_config.get('env_prefix', '')}{name}".upper()


@pytest.mark.parametrize("service", [*SERVICES, "keyring"])
def test_every_setting_is_explained(service: str) -> None:
    text = (DOCS / "operations.md").read_text()
    settings = (
        KeyringSettings if service == "keyring" else import_module(f"services.{service}.settings").Settings
    )
    for name, variable in variables(settings):
        named = {f"`{variable}`"}
        if name in ServiceSettings.model_fields:
            named.add(f"`{{SERVICE}}_{name.upper()}`")
        assert any(one in text for one in named), f"docs/operations.md does not name {variable}"
