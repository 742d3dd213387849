"""Whoever is not one of our services, or not asked what it is granted, learns nothing and gets nothing."""

import asyncio
import hmac
import time
from base64 import urlsafe_b64encode
from typing import Any
from uuid import uuid4

import httpx
import orjson
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc import jwt
from joserfc.jwk import ECKey

from libs.common.personal.errors import KeyForbidden
from libs.common.personal.keys import Bucketful, Erasure, KeyWanted, Life, Objection, Retirement
from libs.common.personal.vocabulary import Purpose, Retention
from services.privacy.keyring.app import create_app
from services.privacy.keyring.domain import GRANTS
from services.privacy.keyring.settings import ExtraGrant
from tests.privacy.keyring.conftest import RunningKeyring, settings_of

PATHS = [
    "stores/secrets", "stores/rotate-indexes", "stores/rotations", "stores/indexed", "restorations", "fates",
    "keys/mint", "keys/open", "keys/destroy", "keys/restrict", "keys/lift", "keys/object", "keys/expire",
    "keys/destroy-expired", "keys/retire", "keys/destroy-retired", "keys/destroy-buckets", "keys/status",
]  # fmt: skip
STORE, SUBJECT = uuid4(), uuid4()
LIFE = {"store_id": str(STORE), "subject_id": str(SUBJECT), "generation": 1}
BUCKET = LIFE | {"retention": "order", "bucket": str(uuid4())}
BODIES: dict[str, dict[str, Any]] = {
    "stores/secrets": {"stores": [str(STORE)]},
    "stores/rotate-indexes": {"stores": [str(uuid4())]},
    "stores/rotations": {},
    "stores/indexed": {"items": [{"store_id": str(STORE), "epoch": 1}]},
    "restorations": {},
    "fates": {},
    "keys/mint": {"items": [{"store_id": str(STORE), "subject_id": str(SUBJECT), "retention": "order"}]},
    "keys/open": {"purpose": Purpose.FULFIL_ORDER, "key_ids": [str(uuid4())]},
    "keys/destroy": {
        "items": [
            {"store_id": str(STORE), "subject_id": str(SUBJECT), "generation": 1, "request_id": str(uuid4())}
        ]
    },
    "keys/restrict": {"items": [LIFE]},
    "keys/lift": {"items": [LIFE]},
    "keys/object": {"items": [LIFE | {"purpose": Purpose.MARKETING_MAIL, "objected": True}]},
    "keys/expire": {"items": [BUCKET | {"expires_on": "2026-12-31"}]},
    "keys/destroy-expired": {"items": [BUCKET | {"expires_on": "2026-12-31"}]},
    "keys/retire": {"items": [LIFE | {"retentions": ["order"]}]},
    "keys/destroy-retired": {"key_ids": [str(uuid4())]},
    "keys/destroy-buckets": {"items": [LIFE | {"retention": "request", "bucket": str(uuid4())}]},
    "keys/status": {"items": [{"store_id": str(STORE), "subject_id": str(SUBJECT)}]},
}


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    made = {"iss": "orders", "aud": "keyring", "iat": now, "exp": now + 60} | changes
    return {name: value for name, value in made.items() if value is not None}


def encoded(part: bytes) -> str:
    return urlsafe_b64encode(part).decode().rstrip("=")


def unsigned(header: dict[str, Any], payload: dict[str, Any]) -> str:
    return f"{encoded(orjson.dumps(header))}.{encoded(orjson.dumps(payload))}."


def signed_with_the_public_key(key: ECKey) -> str:
    """Our library refuses to make such a token, an attacker's does not."""
    secret = key.public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    content = unsigned({"alg": "HS256"}, claims()).removesuffix(".")
    return f"{content}.{encoded(hmac.digest(secret, content.encode(), 'sha256'))}"


async def post(keyring: RunningKeyring, path: str, token: str | None, **body: Any) -> httpx.Response:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return await keyring.http.post(
        f"{keyring.url}/keyring/v1/{path}", json=BODIES[path] | body, headers=headers
    )


@pytest.fixture
def own_key(keyring: RunningKeyring) -> ECKey:
    return ECKey.import_key(orjson.loads(keyring.private_key("orders")))


async def test_a_token_of_ours_is_taken(keyring: RunningKeyring, own_key: ECKey) -> None:
    answer = await post(keyring, "keys/mint", jwt.encode({"alg": "ES256"}, claims(), own_key))
    assert answer.status_code == 200


async def test_forged_and_foreign_tokens_are_refused(keyring: RunningKeyring, own_key: ECKey) -> None:
    now = int(time.time())
    stranger = ECKey.generate_key("P-256")
    header = {"alg": "ES256"}
    forged = {
        "no token": None,
        "not a token": "gibberish",
        "none": unsigned({"alg": "none"}, claims()),
        "HS256 with the public key": signed_with_the_public_key(own_key),
        "a stranger's key": jwt.encode(header, claims(), stranger),
        "a stranger's key, offered in the header": jwt.encode(
            {**header, "jwk": stranger.as_dict(private=False)}, claims(), stranger
        ),
        "a header that offers a key": jwt.encode(
            {**header, "jwk": own_key.as_dict(private=False)}, claims(), own_key
        ),
        "another service's name": jwt.encode(header, claims(iss="privacy"), own_key),
        "an unknown issuer": jwt.encode(header, claims(iss="loyalty"), own_key),
        "no issuer": jwt.encode(header, claims(iss=None), own_key),
        "an issuer that is no name": unsigned(header, claims(iss=["orders"])) + "AAAA",
        "another audience": jwt.encode(header, claims(aud="vitrine"), own_key),
        "several audiences": jwt.encode(header, claims(aud=["keyring", "vitrine"]), own_key),
        "no audience": jwt.encode(header, claims(aud=None), own_key),
        "expired": jwt.encode(header, claims(iat=now - 120, exp=now - 60), own_key),
        "no expiry": jwt.encode(header, claims(exp=None), own_key),
        "no issue date": jwt.encode(header, claims(iat=None), own_key),
        "from the future": jwt.encode(header, claims(iat=now + 600, exp=now + 660), own_key),
        "too long a life": jwt.encode(header, claims(exp=now + 3600), own_key),
    }
    for path in PATHS:
        for name, token in forged.items():
            answer = await post(keyring, path, token)
            assert answer.status_code == 401, (path, name)
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.json()["type"] == "/problems/unauthenticated"


async def test_a_service_mints_for_its_own_retentions_only(keyring: RunningKeyring) -> None:
    for service, grant in GRANTS.items():
        for retention in Retention:
            names = {
                "order": str(uuid4()),
                "year": "2026",
                "request": str(uuid4()),
                "document": str(uuid4()),
                "whole": "",
            }
            bucket = names[retention.period.divided_by]
            wanted = [KeyWanted(uuid4(), uuid4(), retention, bucket)]
            if retention in grant.mint:
                await keyring.client(service).mint(wanted)
            else:
                with pytest.raises(KeyForbidden):
                    await keyring.client(service).mint(wanted)


async def test_a_batch_with_one_item_too_many_is_refused_whole(keyring: RunningKeyring) -> None:
    store, subject = uuid4(), uuid4()
    wanted = [
        KeyWanted(store, subject, Retention.ORDER),
        KeyWanted(store, subject, Retention.ACCOUNT),
    ]
    with pytest.raises(KeyForbidden):
        await keyring.client("orders").mint(wanted)
    assert await keyring.client("privacy").status([(store, subject)]) == [[]]


@pytest.mark.parametrize("service", [name for name in GRANTS if name != "privacy"])
async def test_only_privacy_governs_and_inspects(keyring: RunningKeyring, service: str) -> None:
    store, subject = uuid4(), uuid4()
    with pytest.raises(KeyForbidden):
        await keyring.client(service).destroy([Erasure(store, subject, 1, uuid4())])
    with pytest.raises(KeyForbidden):
        await keyring.client(service).status([(store, subject)])
    for change in (keyring.client(service).restrict, keyring.client(service).lift):
        with pytest.raises(KeyForbidden):
            await change([Life(store, subject, 1)])
    with pytest.raises(KeyForbidden):
        await keyring.client(service).object([Objection(store, subject, 1, Purpose.SUPPORT)])
    with pytest.raises(KeyForbidden):
        await keyring.client(service).retire([Retirement(store, subject, 1, [Retention.ORDER])])
    with pytest.raises(KeyForbidden):
        await keyring.client(service).destroy_retired([uuid4()])
    with pytest.raises(KeyForbidden):
        await keyring.client(service).destroy_buckets(
            [Bucketful(store, subject, 1, Retention.REQUEST, str(uuid4()))]
        )


async def test_a_key_opens_for_granted_services_and_purposes_only(keyring: RunningKeyring) -> None:
    minted = await keyring.client("orders").mint([KeyWanted(uuid4(), uuid4(), Retention.ORDER)])
    [key] = minted
    assert not isinstance(key, type)
    allowed = {
        ("orders", Purpose.FULFIL_ORDER), ("orders", Purpose.SUPPORT), ("orders", Purpose.SERVICE_MAIL),
        ("orders", Purpose.RIGHTS_OF_THE_PERSON), ("billing", Purpose.ACCOUNTING), ("billing", Purpose.PAYMENT),
        ("billing", Purpose.RIGHTS_OF_THE_PERSON), ("orders", Purpose.LEGAL_CLAIMS), ("billing", Purpose.LEGAL_CLAIMS),
    }  # fmt: skip
    for service in GRANTS:
        for purpose in Purpose:
            [opened] = await keyring.client(service).open([key.key_id], purpose=purpose)
            assert opened == (key if (service, purpose) in allowed else KeyForbidden), (service, purpose)


async def test_a_sixth_participant_needs_a_grant(
    own_keyring: RunningKeyring, keyring_environment: dict[str, str]
) -> None:
    private = ECKey.generate_key("P-256")
    environment = {
        **keyring_environment,
        "LOYALTY_SERVICE_KEY": orjson.dumps(private.as_dict(private=True)).decode(),
    }
    services = {**own_keyring.settings.service_keys, "loyalty": private.as_dict(private=False)}
    wanted = [KeyWanted(uuid4(), uuid4(), Retention.CORRESPONDENCE)]

    async def with_grants(**grants: ExtraGrant) -> RunningKeyring:
        settings = settings_of(environment, service_keys=services, extra_grants=grants)
        running = RunningKeyring(settings, environment, own_keyring.http)
        await running.start()
        return running

    running = await with_grants()
    try:
        assert len(await running.client("loyalty").store_secrets([uuid4()])) == 1
        with pytest.raises(KeyForbidden):
            await running.client("loyalty").mint(wanted)
    finally:
        await running.close()

    rights = Purpose.RIGHTS_OF_THE_PERSON
    grant = ExtraGrant.model_validate_json(
        f'{{"mint": ["correspondence"], "open": {{"{rights}": ["correspondence"]}}}}'
    )
    running = await with_grants(loyalty=grant)
    try:
        [key] = await running.client("loyalty").mint(wanted)
        assert not isinstance(key, type)
        assert await running.client("loyalty").open([key.key_id], purpose=rights) == [key]
        with pytest.raises(KeyForbidden):
            await running.client("loyalty").destroy([Erasure(key.store_id, key.subject_id, 1, uuid4())])
    finally:
        await running.close()


def test_settings_cannot_widen_our_own_grants(keyring_environment: dict[str, str]) -> None:
    settings = settings_of(
        keyring_environment, extra_grants={"orders": ExtraGrant(mint=frozenset(Retention))}
    )
    with pytest.raises(ValueError, match=r"domain\.py"):
        create_app(settings)


@pytest.mark.parametrize("master_key", ["", "c2hvcnQ=", "not base64 at all!", "A" * 43])
def test_a_master_key_of_another_form_is_refused(
    keyring_environment: dict[str, str], master_key: str
) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        create_app(settings_of(keyring_environment, master_key=master_key))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("stores/secrets", {"stores": []}),
        ("stores/secrets", {"stores": ["ada@example.org"]}),
        ("stores/secrets", {"stores": [str(uuid4())] * 1001}),
        ("keys/mint", {"items": [{"store_id": str(STORE), "subject_id": str(SUBJECT), "retention": "ada"}]}),
        ("keys/mint", {"items": [{**BODIES["keys/mint"]["items"][0], "bucket": "ada@example.org"}]}),
        ("keys/mint", {"items": [{**BODIES["keys/mint"]["items"][0], "ada@example.org": 1}]}),
        ("keys/mint", {"items": None}),
        ("keys/open", {"purpose": "ada@example.org"}),
        ("keys/open", {"key_ids": 3}),
        ("keys/destroy", {"items": [{**BODIES["keys/destroy"]["items"][0], "generation": 0}]}),
        ("keys/destroy", {"items": [{**BODIES["keys/destroy"]["items"][0], "generation": 2**70}]}),
    ],
)
async def test_a_bad_body_is_refused_without_an_echo(
    keyring: RunningKeyring, own_key: ECKey, path: str, body: dict[str, Any]
) -> None:
    answer = await post(keyring, path, jwt.encode({"alg": "ES256"}, claims(), own_key), **body)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert "ada" not in answer.text


async def test_what_is_not_there_or_not_json(keyring: RunningKeyring, own_key: ECKey) -> None:
    headers = {"Authorization": f"Bearer {jwt.encode({'alg': 'ES256'}, claims(), own_key)}"}
    at = f"{keyring.url}/keyring/v1"
    for answer, status in (
        (await keyring.http.get(f"{at}/ada"), 404),
        (await keyring.http.get(f"{at}/keys/mint"), 405),
        (await keyring.http.post(f"{at}/keys/mint", content=b"{", headers=headers), 422),
    ):
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert "ada" not in answer.text


async def test_a_body_of_ten_megabytes_is_refused_before_it_is_sent(keyring: RunningKeyring) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", keyring.port)
    writer.write(b"POST /keyring/v1/keys/mint HTTP/1.1\r\nHost: keyring\r\nContent-Length: 10000000\r\n\r\n")
    async with asyncio.timeout(5):
        assert b" 413 " in await reader.readline()
    writer.close()


async def test_health(keyring: RunningKeyring) -> None:
    assert (await keyring.http.get(f"{keyring.url}/healthz/live")).json() == {"status": "live"}
    assert (await keyring.http.get(f"{keyring.url}/healthz/ready")).json() == {"status": "ready"}
