"""Which revision each database has, and which one the code needs: known without importing Alembic."""

import asyncio
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import asyncpg  # pyright: ignore[reportMissingTypeStubs]

from deploy.local.nursery import ROOT

PACKAGES = {
    "catalog": "services.catalog",
    "orders": "services.orders",
    "identity": "services.identity",
    "billing": "services.billing",
    "privacy": "services.privacy",
    "keyring": "services.privacy.keyring",
    "destructions": "services.privacy.destructions",
    "broker": "libs.common.broker",
}
"""The package that keeps the migrations of each database."""

_REVISION = re.compile(r'^revision\b.*?= "(\w+)"', re.MULTILINE)
_DOWN_REVISION = re.compile(r'^down_revision\b.*?= "(\w+)"', re.MULTILINE)


async def all_at_head(environment: Mapping[str, str]) -> bool:
    """Whether there is nothing to migrate: a look at eight rows, where migrating costs seconds of imports."""
    found = await asyncio.gather(
        *(_current(environment[f"{name.upper()}_MIGRATION_DATABASE_URL"]) for name in PACKAGES)
    )
    return list(found) == [head(package) for package in PACKAGES.values()]


def head(package: str) -> str | None:
    """The newest revision in the package's migrations; None unless there is exactly one."""
    versions = ROOT / Path(*package.split(".")) / "migrations" / "versions"
    scripts = [file.read_text() for file in versions.glob("*.py")]
    revisions = {name for script in scripts for name in _REVISION.findall(script)}
    heads = revisions - {name for script in scripts for name in _DOWN_REVISION.findall(script)}
    return heads.pop() if len(heads) == 1 else None


def revisions(package: str) -> set[str]:
    """Every revision in the package's migrations."""
    versions = ROOT / Path(*package.split(".")) / "migrations" / "versions"
    return {name for file in versions.glob("*.py") for name in _REVISION.findall(file.read_text())}


async def _current(url: str) -> str | None:
    try:
        connection = cast(Any, await asyncpg.connect(url, timeout=10))  # pyright: ignore[reportUnknownMemberType]
    except (OSError, asyncpg.PostgresError):
        return None
    try:
        return await connection.fetchval("SELECT version_num FROM alembic_version")
    except asyncpg.PostgresError:
        return None
    finally:
        await connection.close()
