"""Who is signed in: one file that nobody but its owner reads, under `$XDG_STATE_HOME/vitrine`."""

import base64
import fcntl
import json
import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

PLATFORM_STORE = "00000000-0000-4000-8000-000000000001"
"""Whoever acts at this store acts for the whole platform."""
_OTHERS = 0o077


class NotSignedIn(Exception):
    """There is no token to use, or none that is believed. The message says what to do."""


@dataclass(frozen=True, slots=True, repr=False)
class Session:
    """Somebody's sign-in at one platform, at which they act for one store. `expires_at` is in seconds since 1970."""

    url: str
    store: str
    access_token: str
    refresh_token: str
    expires_at: float


def claims_of(token: str) -> Mapping[str, Any]:
    """What an access token says, unchecked: whoever takes it checks it. Raises NotSignedIn."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return claims if isinstance(claims["store"], str) else {}
    except (IndexError, ValueError, KeyError, TypeError) as error:
        raise NotSignedIn("VITRINE_TOKEN is no access token of Vitrine.") from error


# --- The file --------------------------------------------------------------------------------------------


def _folder() -> Path:
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "vitrine"


def path() -> Path:
    """Where it lies."""
    return _folder() / "session.json"


def load() -> Session | None:
    """Who is signed in, if anybody is. Raises NotSignedIn when the file is not what it should be."""
    try:
        with path().open() as file:
            if os.fstat(file.fileno()).st_mode & _OTHERS:
                raise NotSignedIn(
                    f"Others may read {path()}: delete it, and sign in again with `vitrine login`."
                )
            return Session(**json.load(file))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise NotSignedIn(f"{path()} cannot be read: sign in again with `vitrine login`.") from error


def save(session: Session) -> None:
    """Keep it, whole or not at all."""
    beside = path().with_suffix(".new")
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(asdict(session), file)
    beside.replace(path())


def forget() -> None:
    """Nobody is signed in any more."""
    path().unlink(missing_ok=True)


@contextmanager
def locked() -> Generator[None]:
    """While the block runs no other command changes the file: a refresh token works once."""
    _folder().mkdir(mode=0o700, parents=True, exist_ok=True)
    with (_folder() / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
