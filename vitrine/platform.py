"""A platform over HTTP, as one of its officers: signs in, keeps the token fresh, puts what goes wrong into words."""

import os
import time
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any, Self
from urllib.parse import urlsplit
from uuid import uuid4

import httpx

from vitrine import session as sessions
from vitrine.session import PLATFORM_STORE, NotSignedIn, Session, claims_of

DEFAULT_URL = "http://127.0.0.1:8000"
OFFICERS = frozenset({"owner", "privacy_officer"})
_SECONDS = 15
_EARLY = 15
"""Seconds before its end in which a token is exchanged already."""
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class Refused(Exception):
    """The platform said no, and why."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


class Unreachable(Exception):
    """The platform does not answer, or says that it cannot now."""


class Platform:
    """Calls as whoever `vitrine login` signed in, or as the bearer of `VITRINE_TOKEN`.

        with Platform(url=None) as platform:
            platform.call("GET", "/privacy/v1/participants")

    Raises NotSignedIn. A call raises Refused, Unreachable, NotSignedIn.
    """

    def __init__(self, url: str | None) -> None:
        self._token = os.environ.get("VITRINE_TOKEN")
        self._session = None if self._token else sessions.load()
        self.url = address(url or (self._session.url if self._session else None))
        if self._session is not None and self._session.url != self.url:
            raise NotSignedIn(
                f"You are signed in at {self._session.url}, not at {self.url}: sign in there with `vitrine login`."
            )
        self._http = httpx.Client(base_url=self.url, timeout=_SECONDS)

    def __enter__(self) -> Self:
        """The platform itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the connection."""
        self._http.close()

    @property
    def store(self) -> str:
        """The store that is acted for; the platform's own for its officers. Raises NotSignedIn."""
        return str(claims_of(self._bearer())["store"])

    @property
    def is_whole(self) -> bool:
        """Whether it is acted for the platform as a whole."""
        return self.store == PLATFORM_STORE

    def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
    ) -> Any:
        """The JSON of the answer."""
        headers = {"Idempotency-Key": str(uuid4())} if method == "POST" else {}
        options: dict[str, Any] = {"params": params, "json": json}
        answer = self._sent(method, path, headers=headers | self._authorization(), **options)
        if answer.status_code == HTTPStatus.UNAUTHORIZED and self._session is not None:
            self._refresh()
            answer = self._sent(method, path, headers=headers | self._authorization(), **options)
        return _content(answer)

    def items(self, path: str, params: Mapping[str, Any], *, limit: int) -> Iterator[Any]:
        """The first `limit` items of a list, and how it goes on: `None` when there is more."""
        cursor: str | None = None
        left = limit
        while left > 0:
            page = self.call("GET", path, params={**params, "limit": min(left, 100), "cursor": cursor})
            yield from page["items"]
            left -= len(page["items"])
            cursor = page["next"]
            if cursor is None:
                return
        yield None

    def _sent(self, method: str, path: str, **options: Any) -> httpx.Response:
        if options.get("params"):
            options["params"] = {
                name: value for name, value in options["params"].items() if value is not None
            }
        return _sent(self._http, method, path, **options)

    # --- The token ---------------------------------------------------------------------------------------

    def _authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._bearer()}"}

    def _bearer(self) -> str:
        if self._token is not None:
            return self._token
        if self._session is None:
            raise NotSignedIn("Nobody is signed in: type `vitrine login`, or set VITRINE_TOKEN.")
        if self._session.expires_at - _EARLY < time.time():
            self._refresh()
        return self._session.access_token

    def _refresh(self) -> None:
        """Another command may have done so meanwhile: a refresh token works once."""
        with sessions.locked():
            known, present = self._session, sessions.load()
            if known is None or present is None:
                raise NotSignedIn("Nobody is signed in any more: type `vitrine login`.")
            if present.access_token == known.access_token:
                present = _exchanged(self._http, present)
                sessions.save(present)
            self._session = present


# --- Signing in and out ----------------------------------------------------------------------------------


def address(url: str | None) -> str:
    """Where the platform is: as given, by `VITRINE_URL`, or on this machine. Raises NotSignedIn for one that would
    carry secrets in the clear.
    """
    found = (url or os.environ.get("VITRINE_URL") or DEFAULT_URL).rstrip("/")
    parts = urlsplit(found)
    if parts.scheme == "https" and parts.hostname:
        return found
    if parts.scheme == "http" and parts.hostname in _LOOPBACK:
        return found
    raise NotSignedIn(
        f"{found}: give an address that begins with https://; http:// is for this machine alone."
    )


def sign_in(url: str | None, *, email: str, password: str, store: str) -> Session:
    """Keep a sign-in as an officer of a store, or of the platform. Raises NotSignedIn, Unreachable, Refused."""
    at = address(url)
    with httpx.Client(base_url=at, timeout=_SECONDS) as http, sessions.locked():
        given = {"grant_type": "password", "email": email, "password": password}
        answer = _sent(http, "POST", _TOKENS, json=given)
        if answer.status_code in {HTTPStatus.UNAUTHORIZED, HTTPStatus.UNPROCESSABLE_ENTITY}:
            raise NotSignedIn("This e-mail and this password do not open an account of the platform.")
        tokens = _content(answer)
        signed_in = _exchanged(http, Session(at, store, "", tokens["refresh_token"], 0))
        sessions.save(signed_in)
    return signed_in


def sign_out() -> bool:
    """End the sign-in here, and at the platform if it can be reached. Whether there was one."""
    with sessions.locked():
        known = sessions.load()
        if known is None:
            return False
        sessions.forget()
    try:
        with httpx.Client(base_url=known.url, timeout=_SECONDS) as http:
            given = {"grant_type": "refresh_token", "refresh_token": known.refresh_token}
            token = _content(_sent(http, "POST", _TOKENS, json=given))["access_token"]
            path = f"/identity/v1/stores/{PLATFORM_STORE}/sessions/current"
            _content(_sent(http, "DELETE", path, headers={"Authorization": f"Bearer {token}"}))
    except (Refused, Unreachable):
        pass
    return True


_TOKENS = f"/identity/v1/stores/{PLATFORM_STORE}/tokens"


def _exchanged(http: httpx.Client, known: Session) -> Session:
    """Fresh tokens of the same sign-in."""
    given = {"grant_type": "refresh_token", "refresh_token": known.refresh_token, "act_at": known.store}
    answer = _sent(http, "POST", _TOKENS, json=given)
    if answer.status_code == HTTPStatus.UNAUTHORIZED:
        sessions.forget()
        raise NotSignedIn("The sign-in has ended: type `vitrine login`.")
    if answer.status_code == HTTPStatus.NOT_FOUND:
        whose = "the platform" if known.store == PLATFORM_STORE else f"store {known.store}"
        raise NotSignedIn(f"This account does not work for {whose}. (`--store ID` signs in for a store.)")
    tokens = _content(answer)
    if claims_of(tokens["access_token"]).get("role") not in OFFICERS:
        raise NotSignedIn("This account is neither an owner nor a privacy officer there.")
    expires_at = time.time() + tokens["expires_in"]
    return Session(known.url, known.store, tokens["access_token"], tokens["refresh_token"], expires_at)


# --- Answers ---------------------------------------------------------------------------------------------


def _sent(http: httpx.Client, method: str, path: str, **options: Any) -> httpx.Response:
    try:
        return http.request(method, path, **options)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Unreachable(f"{http.base_url} does not answer ({type(error).__name__}).") from error


def _content(answer: httpx.Response) -> Any:
    if answer.is_success:
        return answer.json() if answer.content else None
    problem = _problem(answer)
    if answer.status_code == HTTPStatus.UNAUTHORIZED:
        raise NotSignedIn(
            "The token is not valid, or has ended: type `vitrine login`, or set another VITRINE_TOKEN."
        )
    if answer.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise Unreachable(f"The platform cannot answer now ({answer.status_code}): {problem}")
    raise Refused(answer.status_code, _MEANT.get(answer.status_code, "{}").format(problem))


_MEANT: Mapping[int, str] = {
    HTTPStatus.FORBIDDEN: "Not permitted: only an owner or a privacy officer may do this. {}",
    HTTPStatus.NOT_FOUND: "Not found, or not yours to see. {}",
    HTTPStatus.CONFLICT: "It is not as it was any more: look again with `requests show`. {}",
    HTTPStatus.TOO_MANY_REQUESTS: "Too many attempts: wait some minutes. {}",
}


def _problem(answer: httpx.Response) -> str:
    """What a problem (RFC 9457) says."""
    try:
        said = answer.json()
        words = [said["title"], said.get("detail") or ""]
        words += [f"({one['at']}: {one['reason']})" for one in said.get("errors", [])]
        return ". ".join(word.rstrip(".") for word in words if word) + "."
    except (ValueError, KeyError, TypeError):
        return f"{answer.status_code} {answer.reason_phrase}"
