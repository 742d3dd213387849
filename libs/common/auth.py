"""Who is calling: access tokens of people, verified offline, and the permissions a route names.

Tokens are RFC 9068 JWTs signed with ES256. The algorithm, type, issuer and audience are pinned; keys come
only from identity's key set, never from the token.
"""

import asyncio
import base64
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

import httpx
import orjson
from fastapi import Depends, Path, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from libs.common.errors import Forbidden, NotFound, Unauthenticated, Unavailable

PLATFORM_STORE = UUID("00000000-0000-4000-8000-000000000001")
"""The platform's own accounts, merchants and their staff, are accounts of this store."""

AUDIENCE = "vitrine"
TOKEN_TYPE = "at+jwt"  # noqa: S105 - the media type of RFC 9068, not a secret
ALGORITHM = "ES256"
_LEEWAY = 5
_REFRESH_AT_MOST_EVERY = 10.0
_REQUIRED: jwt.ClaimsOption = {"essential": True}
_bearer = HTTPBearer(auto_error=False, description="An access token from identity.")


class Role(StrEnum):
    """What an account may be at a store."""

    OWNER = "owner"
    MANAGER = "manager"
    SUPPORT = "support"
    PRIVACY_OFFICER = "privacy_officer"
    CUSTOMER = "customer"


STAFF = frozenset({Role.OWNER, Role.MANAGER, Role.SUPPORT, Role.PRIVACY_OFFICER})
MANAGERS = frozenset({Role.OWNER, Role.MANAGER})


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated person: `subject_id` and `generation` name them in privacy matters."""

    account_id: UUID
    store_id: UUID
    role: Role
    session_id: UUID
    subject_id: UUID | None = None
    generation: int = 1

    @property
    def customer(self) -> UUID:
        """The subject of a customer. Raises Forbidden for anybody else."""
        if self.role is not Role.CUSTOMER or self.subject_id is None:
            raise Forbidden("Only a customer of this store can do this.")
        return self.subject_id


class TokenVerifier:
    """Checks access tokens against identity's published keys; look-ups of unknown key ids are limited."""

    def __init__(self, *, issuer: str, jwks_url: str, http: httpx.AsyncClient) -> None:
        self._claims = jwt.JWTClaimsRegistry(
            leeway=_LEEWAY,
            iss={"essential": True, "value": issuer},
            aud={"essential": True, "value": AUDIENCE},
            exp=_REQUIRED, sub=_REQUIRED, store=_REQUIRED, role=_REQUIRED, sid=_REQUIRED,
        )  # fmt: skip
        self._jwks_url = jwks_url
        self._http = http
        self._keys: KeySet | None = None
        self._fetched_at = float("-inf")
        self._fetching = asyncio.Lock()

    async def verify(self, token: str) -> Caller:
        """Raises Unauthenticated for a token that is not ours or has expired, Unavailable without keys."""
        try:
            return _caller(await self._decode(token))
        except (JoseError, ValueError, KeyError, TypeError) as error:
            raise Unauthenticated("The access token is not valid or has expired.") from error

    async def _decode(self, token: str) -> Mapping[str, Any]:
        keys = await self._keys_for(_unverified_key_id(token))
        decoded = jwt.decode(token, keys, algorithms=[ALGORITHM])
        if decoded.header.get("typ") != TOKEN_TYPE or {"jku", "jwk", "x5u", "x5c"} & decoded.header.keys():
            raise ValueError("not an access token")
        self._claims.validate(decoded.claims)
        return decoded.claims

    async def _keys_for(self, key_id: str) -> KeySet:
        if self._keys is None or key_id not in _ids(self._keys):
            await self._refresh(key_id)
        if self._keys is None:
            raise Unavailable
        return self._keys

    async def _refresh(self, key_id: str) -> None:
        async with self._fetching:
            if self._keys is not None and key_id in _ids(self._keys):
                return
            # A flood of made-up key ids must not become a flood of requests to identity.
            if time.monotonic() - self._fetched_at < _REFRESH_AT_MOST_EVERY and self._keys is not None:
                return
            try:
                answer = await self._http.get(self._jwks_url, timeout=5)
                self._keys = KeySet.import_key_set(answer.raise_for_status().json())
                self._fetched_at = time.monotonic()
            except (httpx.HTTPError, ValueError) as error:
                if self._keys is None:
                    raise Unavailable from error


def _ids(keys: KeySet) -> set[str]:
    return {key.kid for key in keys.keys if key.kid}


def _unverified_key_id(token: str) -> str:
    """Only names the key to look for; nothing of the token is believed before its signature is checked."""
    head = token.split(".", 1)[0]
    header = orjson.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    if not isinstance(header, dict) or not isinstance(header.get("kid"), str):
        raise ValueError("no key id")
    return header["kid"]


def _caller(claims: Mapping[str, Any]) -> Caller:
    return Caller(
        account_id=UUID(claims["sub"]),
        store_id=UUID(claims["store"]),
        role=Role(claims["role"]),
        session_id=UUID(claims["sid"]),
        subject_id=UUID(claims["subject"]) if "subject" in claims else None,
        generation=int(claims.get("generation", 1)),
    )


async def authenticated(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Caller:
    """The caller of a route that needs one."""
    if credentials is None:
        raise Unauthenticated
    verifier: TokenVerifier = request.app.state.tokens
    return await verifier.verify(credentials.credentials)


async def perhaps_authenticated(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Caller | None:
    """The caller if a token was sent; a bad token is still refused."""
    return await authenticated(request, credentials) if credentials else None


StoreId = Annotated[UUID, Path(description="The store.")]
Authenticated = Annotated[Caller, Depends(authenticated)]


def of_store(*roles: Role) -> Callable[..., Awaitable[Caller]]:
    """A dependency: a caller of the path's store who has one of the roles (any role when none is named).

    A token of another store meets the same 404 as a store that does not exist.
    """

    async def permitted(store_id: StoreId, caller: Authenticated) -> Caller:
        if caller.store_id != store_id:
            raise NotFound
        if roles and caller.role not in roles:
            raise Forbidden
        return caller

    return permitted


async def _visitor(
    store_id: StoreId, caller: Annotated[Caller | None, Depends(perhaps_authenticated)]
) -> Caller | None:
    if caller is not None and caller.store_id != store_id:
        raise NotFound
    return caller


Visitor = Annotated[Caller | None, Depends(_visitor)]
"""Anybody: signed in at the path's store, or nobody at all."""
Customer = Annotated[Caller, Depends(of_store(Role.CUSTOMER))]
Staff = Annotated[Caller, Depends(of_store(*STAFF))]
Manager = Annotated[Caller, Depends(of_store(*MANAGERS))]
PrivacyOfficer = Annotated[Caller, Depends(of_store(Role.OWNER, Role.PRIVACY_OFFICER))]
