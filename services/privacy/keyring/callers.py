"""Which service is calling: short-lived JWTs that services sign with their own keys."""

import time
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any

import orjson
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from libs.common.errors import Unauthenticated

AUDIENCE = "keyring"
LONGEST_SECONDS = 60
_ALGORITHM = "ES256"
_LEEWAY = 5
_BELIEVED = 1000
_HEADER = frozenset({"alg", "typ", "kid"})
_bearer = HTTPBearer(auto_error=False, description="A JWT signed by the calling service.")


class ServiceTokens:
    """Checks tokens against the public keys of services: the issuer names the key, the algorithm is pinned."""

    def __init__(
        self, keys: Mapping[str, Mapping[str, Any]], *, clock: Callable[[], float] = time.time
    ) -> None:
        self._keys = {service: ECKey.import_key(dict(key)) for service, key in keys.items()}
        self._clock = clock
        self._believed: dict[str, tuple[str, float]] = {}

    @property
    def services(self) -> Collection[str]:
        """The names of all that may call."""
        return self._keys.keys()

    def verify(self, token: str) -> str:
        """The name of the calling service. Raises Unauthenticated.

        A service sends the same token for most of its minute; it is checked once.
        """
        service, until = self._believed.get(token, ("", 0.0))
        if self._clock() < until:
            return service
        try:
            service, until = self._verified(token)
        except (JoseError, ValueError, KeyError, TypeError) as error:
            raise Unauthenticated from error
        if len(self._believed) >= _BELIEVED:
            self._believed.clear()
        self._believed[token] = service, until
        return service

    def _verified(self, token: str) -> tuple[str, float]:
        unverified = jws.extract_compact(token.encode())
        service = orjson.loads(unverified.payload)["iss"]
        decoded = jwt.decode(token, self._keys[service], algorithms=[_ALGORITHM])
        claims = decoded.claims
        jwt.JWTClaimsRegistry(
            now=int(self._clock()), leeway=_LEEWAY, exp={"essential": True}, iat={"essential": True}
        ).validate(claims)
        if claims["aud"] != AUDIENCE or claims["exp"] - claims["iat"] > LONGEST_SECONDS:
            raise ValueError("not a token for the keyring")
        # A header that offers a key or an extension of its own is no header that our services write.
        if not decoded.header.keys() <= _HEADER:
            raise ValueError("not a header of ours")
        return service, claims["exp"]


async def _calling_service(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> str:
    if credentials is None:
        raise Unauthenticated
    tokens: ServiceTokens = request.app.state.tokens
    return tokens.verify(credentials.credentials)


CallingService = Annotated[str, Depends(_calling_service)]
"""The name of the service that signed the call."""
