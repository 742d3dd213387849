"""The kit as anybody runs it, and what those need whom it checks."""

import asyncio
import json
import os
import sys
from typing import Any

import orjson
from joserfc.jwk import ECKey

from deploy.local.nursery import ROOT
from deploy.local.postgres import PostgresServer


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


def found_to_be(verdict: str, found: dict[str, dict[str, str]]) -> dict[str, str]:
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
