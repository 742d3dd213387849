"""Tokens that only identity can make, keys that change without one refused request."""

import asyncio
import base64
import hmac
import json
import os
import time
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc import jwt
from joserfc.jwk import ECKey
from sqlalchemy import select, text

from libs.common import auth
from libs.common.auth import PLATFORM_STORE, TokenVerifier
from libs.common.db import Database
from libs.common.errors import Unauthenticated
from services.identity.domain import PUBLISHED_AFTER_USE, PUBLISHED_BEFORE_USE
from services.identity.keys import SigningKeys, forget_retired
from services.identity.models import SigningKey
from services.identity.parts import now
from services.identity.rotate import rotate
from tests.identity.conftest import MakeWorld, MovableClock, World


@pytest.fixture
async def keys_alone(world: World) -> AsyncIterator[Database]:
    """The table of keys, empty before and after, so that other tests never meet these."""
    database = world.parts.database
    async with database.platform_session() as session:
        await session.execute(text("DELETE FROM signing_key"))
    yield database
    async with database.platform_session() as session:
        await session.execute(text("DELETE FROM signing_key"))
    world.parts.keys._known = None  # pyright: ignore[reportPrivateUsage]
    world.parts.keys._private.clear()  # pyright: ignore[reportPrivateUsage]
    world.app.state.tokens = TokenVerifier(
        issuer=world.settings.issuer, jwks_url="/identity/v1/jwks.json", http=world.http
    )


async def _claims(world: World) -> dict[str, Any]:
    person = await world.person(PLATFORM_STORE)
    body = person.access_token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(body + "=="))


async def test_the_key_set_holds_public_keys_only(world: World) -> None:
    await world.person(PLATFORM_STORE)
    answer = await world.http.get("/identity/v1/jwks.json")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "public, max-age=30")
    for key in answer.json()["keys"]:
        assert set(key) == {"kty", "crv", "x", "y", "kid", "use", "alg"}
        assert (key["kty"], key["crv"], key["alg"]) == ("EC", "P-256", "ES256")


async def test_private_keys_are_stored_under_the_master_key(world: World) -> None:
    await world.person(PLATFORM_STORE)
    async with world.parts.database.platform_session() as session:
        stored = (await session.scalars(select(SigningKey).limit(1))).one()
    assert b'"d"' not in stored.wrapped and b"EC" not in stored.wrapped
    thief = SigningKeys(world.parts.database, os.urandom(32), now)
    with pytest.raises(InvalidTag):
        await thief.sign({})


# --- Forgeries -------------------------------------------------------------------------------------------


def _encoded(*parts: dict[str, Any]) -> str:
    return ".".join(
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts
    )


def _hs256(claims: dict[str, Any], header: dict[str, Any], public: Mapping[str, str]) -> str:
    """By hand: the library refuses to make what it would refuse to read."""
    key = ECKey.import_key(dict(public)).public_key
    secret = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signed = _encoded({**header, "alg": "HS256"}, claims)
    mac = hmac.digest(secret, signed.encode(), "sha256")
    return f"{signed}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"


async def test_forged_tokens_are_refused(world: World) -> None:
    claims = await _claims(world)
    published = (await world.http.get("/identity/v1/jwks.json")).json()["keys"][0]
    stranger = ECKey.generate_key("P-256")
    header = {"alg": "ES256", "typ": "at+jwt", "kid": published["kid"]}
    stranger_jwk = stranger.as_dict(private=False)

    def by_stranger(**extra: Any) -> str:
        return jwt.encode({**header, **extra}, claims, stranger)

    forged = {
        "none": _encoded({**header, "alg": "none"}, claims) + ".",
        "HS256 with the public key": _hs256(claims, header, published),
        "another key under our key id": by_stranger(),
        "jwk header": by_stranger(jwk=stranger_jwk),
        "jku header": by_stranger(jku="https://attacker.example/jwks.json"),
        "unknown key id": by_stranger(kid=str(uuid4())),
        "no key id": jwt.encode({"alg": "ES256", "typ": "at+jwt"}, claims, stranger),
        "no token": "nonsense",
        "three dots": "...",
    }
    for name, token in forged.items():
        await _is_refused(world, token, name)


async def _is_refused(world: World, token: str, name: str) -> None:
    with pytest.raises(Unauthenticated):
        await world.app.state.tokens.verify(token)
    answer = await world.http.get(
        f"/identity/v1/stores/{PLATFORM_STORE}/me", headers={"Authorization": f"Bearer {token}"}
    )
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer"), name
    assert not token or token not in answer.text


@pytest.mark.parametrize(
    "change",
    [
        {"aud": "keyring"},
        {"aud": None},
        {"iss": "https://attacker.example/identity"},
        {"iss": None},
        {"exp": int(time.time()) - 60},
        {"exp": None},
        {"exp": "tomorrow"},
        {"sub": None},
        {"store": None},
        {"role": "admin"},
        {"sid": "no uuid"},
        {"nbf": int(time.time()) + 600},
    ],
)
async def test_tokens_with_wrong_claims_are_refused(world: World, change: dict[str, Any]) -> None:
    claims = await _claims(world)
    changed = {name: value for name, value in (claims | change).items() if value is not None}
    await _is_refused(world, await world.parts.keys.sign(changed), str(change))


@pytest.mark.parametrize("kind", ["JWT", "dpop+jwt", ""])
async def test_tokens_of_another_type_are_refused(
    world: World, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims = await _claims(world)
    monkeypatch.setattr("services.identity.keys.TOKEN_TYPE", kind)
    await _is_refused(world, await world.parts.keys.sign(claims), kind)


async def test_unknown_key_ids_do_not_flood_identity(world: World) -> None:
    asked = 0

    async def count(request: httpx.Request) -> httpx.Response:
        nonlocal asked
        asked += 1
        return httpx.Response(200, json={"keys": await world.parts.keys.published()})

    async with httpx.AsyncClient(transport=httpx.MockTransport(count)) as http:
        verifier = TokenVerifier(
            issuer=world.settings.issuer, jwks_url="https://identity/jwks.json", http=http
        )
        claims = await _claims(world)
        stranger = ECKey.generate_key("P-256")
        for _ in range(20):
            token = jwt.encode({"alg": "ES256", "typ": "at+jwt", "kid": str(uuid4())}, claims, stranger)
            with pytest.raises(Unauthenticated):
                await verifier.verify(token)
    assert asked == 1


# --- Rotation --------------------------------------------------------------------------------------------


async def test_the_first_key_is_made_once(keys_alone: Database, world: World) -> None:
    processes = [SigningKeys(keys_alone, world.settings.master_key_bytes, now) for _ in range(8)]
    published = await asyncio.gather(*(process.published() for process in processes))
    assert {tuple(key["kid"] for key in keys) for keys in published} == {(published[0][0]["kid"],)}


async def test_a_rotation_publishes_then_signs_then_retires(keys_alone: Database, world: World) -> None:
    clock = MovableClock()
    keys = SigningKeys(keys_alone, world.settings.master_key_bytes, clock)

    async def signer() -> str:
        token = await keys.sign({})
        return json.loads(base64.urlsafe_b64decode(token.split(".")[0] + "=="))["kid"]

    old = await signer()
    fresh = (await keys.rotate()).key_id
    assert (await keys.rotate()).key_id == fresh  # a rotation under way is not doubled
    assert {key["kid"] for key in await keys.published()} == {old, fresh}
    assert await signer() == old
    clock.ahead = PUBLISHED_BEFORE_USE + timedelta(seconds=1)
    assert await signer() == fresh
    assert {key["kid"] for key in await keys.published()} == {old, fresh}
    clock.ahead = PUBLISHED_BEFORE_USE + PUBLISHED_AFTER_USE + timedelta(seconds=1)
    assert {key["kid"] for key in await keys.published()} == {fresh}
    clock.ahead += PUBLISHED_AFTER_USE
    assert await forget_retired(keys_alone, clock()) == 1


async def test_no_request_is_refused_during_a_rotation(
    keys_alone: Database, make_world: MakeWorld, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All periods a sixtieth as long: verifiers ask every sixth of a second, the new key signs after one."""
    monkeypatch.setattr(auth, "_REFRESH_AT_MOST_EVERY", 1 / 6)
    monkeypatch.setattr("services.identity.keys._REMEMBERED", timedelta(seconds=1 / 12))
    claims = await _claims(world)
    verifier = TokenVerifier(issuer=world.settings.issuer, jwks_url="/identity/v1/jwks.json", http=world.http)
    other = await make_world()
    signers: set[str] = set()

    async def sign_and_verify() -> None:
        token = await world.parts.keys.sign(claims)
        await verifier.verify(token)
        signers.add(token.split(".")[0])

    await sign_and_verify()
    await other.parts.keys.rotate(lead=timedelta(seconds=1))
    deadline = time.monotonic() + 20
    while len(signers) < 2:
        await sign_and_verify()
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)
    for _ in range(50):
        await sign_and_verify()


async def test_the_command_rotates(keys_alone: Database, world: World) -> None:
    keys = SigningKeys(keys_alone, world.settings.master_key_bytes, now)
    await keys.published()
    said = await rotate(world.settings)
    async with keys_alone.platform_session() as session:
        stored = (await session.scalars(select(SigningKey).order_by(SigningKey.active_from))).all()
    assert [key.retired_at is None for key in stored] == [False, True]
    assert said.startswith(f"key {stored[-1].key_id} is published and signs from")
