"""Looking up a key: how many a second saturate the keyring, and how long one takes at half of that."""

import asyncio
import itertools
import json
import time
from functools import partial
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey

from bench.figures import Figure, Floor, percentile
from bench.load import Client, drive, pace, request
from bench.town import Town
from deploy.local.databases import database
from libs.common.personal.keys import AUDIENCE, TOKEN_SECONDS
from libs.common.personal.vocabulary import Purpose

_CLIENTS = 16
_SECONDS = 10.0
_PEOPLE = 500
"""Whose keys are asked for one after the other, so that none is fresh in any memory but the database's."""
_turns = itertools.count()


async def look_up(client: Client, _number: int, *, contents: list[bytes]) -> None:
    """One key, of another person each time."""
    answer = await client.send(contents[next(_turns) % len(contents)])
    if answer.status != 200:
        raise RuntimeError(f"the keyring answered {answer.status}")


async def figures(town: Town, floor: Floor) -> list[Figure]:
    """Of people whose boxes open."""
    environment = town.platform.environment
    subjects = [one.subject_id for one in town.crowd.people[-_PEOPLE:]]
    # The keyring's database shows its keys to nobody else.
    superuser = await town.platform.postgres.connect(database("keyring"))
    key_ids = await superuser.fetch(
        "SELECT key_id FROM data_key WHERE store_id = $1 AND subject_id = ANY($2) AND retention = 'order'",
        town.store_id, subjects,
    )  # fmt: skip
    await superuser.close()
    url = environment["KEYRING_URL"]
    scenario = partial(look_up, contents=_asking(environment["ORDERS_SERVICE_KEY"], key_ids))
    saturated = await asyncio.to_thread(drive, url, scenario, clients=_CLIENTS, seconds=_SECONDS)
    half = await asyncio.to_thread(
        pace, url, scenario, clients=_CLIENTS, seconds=_SECONDS, per_second=saturated.per_second / 2
    )
    what = f"keyring look-ups among {town.size:,} people"
    return [
        Figure(f"{what}, saturated", saturated.per_second, "1/s", floor),
        Figure(f"{what}, at half of that, p50", percentile(half.seconds, 0.5) * 1000, "ms"),
        Figure(f"{what}, at half of that, p99", percentile(half.seconds, 0.99) * 1000, "ms", aim=15.0),
    ]


def _asking(private_key: str, key_ids: list[Any]) -> list[bytes]:
    """What the orders service would send to open each of them."""
    now = int(time.time())
    claims = {"iss": "orders", "aud": AUDIENCE, "iat": now, "exp": now + TOKEN_SECONDS}
    token = jwt.encode({"alg": "ES256"}, claims, ECKey.import_key(json.loads(private_key)))
    bodies = ({"purpose": Purpose.FULFIL_ORDER, "key_ids": [str(row["key_id"])]} for row in key_ids)
    path, authorization = "/keyring/v1/keys/open", f"Bearer {token}"
    return [request("POST", path, body, authorization=authorization) for body in bodies]
