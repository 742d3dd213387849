"""The rules alone."""

import asyncio
import threading
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.errors import Unavailable
from libs.common.throttle import network
from services.identity.domain import (
    RACE_LASTS,
    SESSION_LASTS,
    Refresh,
    WeakPassword,
    check_password,
    judge_refresh,
    normal_password,
)
from services.identity.passwords import Passwords, common_passwords

START = datetime(2026, 1, 1, tzinfo=UTC)


@given(
    steps=st.lists(
        st.tuples(st.integers(min_value=0, max_value=20), st.floats(min_value=0, max_value=40 * 86400)),
        max_size=30,
    )
)
def test_only_the_newest_token_of_a_living_session_is_ever_exchanged(steps: list[tuple[int, float]]) -> None:
    """Whatever tokens come in whatever order: a model of a session, driven by the judgement."""
    tokens, rotated_at, revoked_at = [b"0"], None, None
    for index, seconds in sorted(steps, key=lambda step: step[1]):
        now = START + timedelta(seconds=seconds)
        presented = tokens[min(index, len(tokens) - 1)]
        verdict = judge_refresh(
            presented,
            current=tokens[-1],
            previous=tokens[-2] if len(tokens) > 1 else None,
            rotated_at=rotated_at,
            expires_at=START + SESSION_LASTS,
            revoked_at=revoked_at,
            now=now,
        )
        alive = revoked_at is None and now < START + SESSION_LASTS
        assert (verdict is Refresh.OVER) == (not alive)
        assert (verdict is Refresh.ROTATE) == (alive and presented == tokens[-1])
        if verdict is Refresh.RACED:
            assert rotated_at is not None and presented == tokens[-2] and now - rotated_at <= RACE_LASTS
        if verdict is Refresh.ROTATE:
            tokens.append(str(len(tokens)).encode())
            rotated_at = now
        if verdict is Refresh.REUSED:
            revoked_at = now


@given(st.text(max_size=300))
def test_a_password_is_refused_or_fits_its_bounds(password: str) -> None:
    normal = normal_password(password)
    assert normal_password(normal) == normal
    try:
        check_password(normal, email="someone@vitrine.example", common=common_passwords())
    except WeakPassword as refused:
        assert refused.extensions["reason"] in {"too-short", "too-long", "common", "personal"}
        assert len(normal) < 8 or normal not in str(refused.document())
    else:
        assert 8 <= len(normal) <= 200
        assert normal.casefold() not in common_passwords()


def test_the_shipped_passwords_would_all_be_allowed_by_length() -> None:
    assert len(common_passwords()) > 1000
    assert min(map(len, common_passwords())) >= 8
    assert {"password", "12345678", "qwertyuiop"} <= common_passwords()


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("testclient", "unknown"),
    ],
)
def test_a_client_is_known_by_its_network(address: str, expected: str) -> None:
    assert network(address) == expected


async def test_hashing_is_bounded_and_off_the_event_loop() -> None:
    passwords = Passwords(threads=1, queue=2)
    loop_thread = threading.get_ident()
    seen: list[int] = []

    class Hasher:
        def hash(self, _password: str) -> str:
            seen.append(threading.get_ident())
            return "hash"

    passwords._hasher = Hasher()  # type: ignore[assignment]
    results = await asyncio.gather(*(passwords.hash("x") for _ in range(5)), return_exceptions=True)
    assert [type(result) for result in results].count(Unavailable) == 2
    assert len(seen) == 3 and loop_thread not in seen
    assert await passwords.hash("x") == "hash"
    passwords.close()


async def test_nobodys_hash_is_as_dear_as_anybodys_and_never_right() -> None:
    passwords = Passwords()
    encoded = await passwords.hash("correct horse battery staple")
    assert encoded.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert passwords._nobody.split("$")[:4] == encoded.split("$")[:4]  # pyright: ignore[reportPrivateUsage]
    assert await passwords.verify(encoded, "correct horse battery staple")
    assert not await passwords.verify(encoded, "another")
    assert not await passwords.verify(None, "the password of nobody")
    assert not await passwords.verify("not a hash", "another")
    passwords.close()
