"""The rules of accounts, sign-in, sessions and stores.

Problem
├── SignInRefused 401        whatever the reason: nobody learns whether an account exists
├── RefreshRefused 401       unknown, expired or revoked; a reused token ends its session
├── LinkNotValid 404         unknown, expired or replaced by a newer mail
├── AlreadyRotated 409       the other of two racing refreshes has the new token
├── SlugTaken 409
└── WeakPassword 422
"""

import unicodedata
from datetime import datetime, timedelta
from enum import StrEnum

from libs.common.errors import Conflict, NotFound, Unauthenticated, Unprocessable

# --- Passwords -------------------------------------------------------------------------------------------

SHORTEST_PASSWORD = 8
LONGEST_PASSWORD = 200


class WeakPassword(Unprocessable):
    """422: the password breaks a rule; `reason` is `too-short`, `too-long`, `common` or `personal`."""

    slug = "weak-password"
    title = "Choose another password"

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"A password has {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters, is not one that many people use, "
            "and is not the e-mail address.",
            reason=reason,
        )


def normal_password(password: str) -> str:
    """One form for a password however it was typed (RFC 8265 asks for NFC; NFKC also joins width variants)."""
    return unicodedata.normalize("NFKC", password)


def check_password(password: str, *, email: str, common: frozenset[str]) -> None:
    """Raises WeakPassword for a normalised password that is too short, too long, common, or the e-mail address."""
    folded = password.casefold()
    if len(password) < SHORTEST_PASSWORD:
        raise WeakPassword("too-short")
    if len(password) > LONGEST_PASSWORD:
        raise WeakPassword("too-long")
    if folded in common or len(set(folded)) == 1:
        raise WeakPassword("common")
    if folded in {email.casefold(), email.partition("@")[0].casefold()}:
        raise WeakPassword("personal")


# --- Sign-up ---------------------------------------------------------------------------------------------

SIGN_UP_LASTS = timedelta(hours=24)


class LinkNotValid(NotFound):
    """404: the confirmation is unknown, too old, or replaced by a newer mail."""

    slug = "link-not-valid"
    title = "This link is not valid any more"
    detail = "Sign up again to get a new one."


# --- Sign-in ---------------------------------------------------------------------------------------------

ACCESS_TOKEN_LASTS = timedelta(minutes=10)


class SignInRefused(Unauthenticated):
    """401: no account, another password, not confirmed, erased: the same answer for all."""

    slug = "sign-in-refused"
    title = "The e-mail address or the password is wrong, or the account is not confirmed"


# --- Sessions --------------------------------------------------------------------------------------------

SESSION_LASTS = timedelta(days=30)
"""From sign-in on, however often it is refreshed."""
RACE_LASTS = timedelta(seconds=10)


class RefreshRefused(Unauthenticated):
    """401: sign in again."""

    slug = "refresh-refused"
    title = "This refresh token is not valid"


class AlreadyRotated(Conflict):
    """409: this token was exchanged a moment ago; the session goes on with the token given then."""

    slug = "refresh-token-already-rotated"
    title = "This refresh token was exchanged a moment ago"
    detail = "Use the refresh token of that answer. Using this one later ends the session."


class Refresh(StrEnum):
    """What a presented refresh token means."""

    ROTATE = "rotate"
    RACED = "raced"
    """The other of two racing refreshes was first: nothing changes."""
    REUSED = "reused"
    """An old token came back: somebody has a copy, and the session ends for both."""
    OVER = "over"


def judge_refresh(
    presented: bytes,
    *,
    current: bytes,
    previous: bytes | None,
    rotated_at: datetime | None,
    expires_at: datetime,
    revoked_at: datetime | None,
    now: datetime,
) -> Refresh:
    """What to do with the hash of a refresh token of a session."""
    if revoked_at is not None or now >= expires_at:
        return Refresh.OVER
    if presented == current:
        return Refresh.ROTATE
    if presented == previous and rotated_at is not None and now - rotated_at <= RACE_LASTS:
        return Refresh.RACED
    return Refresh.REUSED


# --- Signing keys ----------------------------------------------------------------------------------------

PUBLISHED_BEFORE_USE = timedelta(seconds=60)
"""A verifier asks for unknown keys at most every 10 seconds, and copies of the key set may be 30 seconds old."""
PUBLISHED_AFTER_USE = timedelta(minutes=15)
"""Longer than the longest access token."""


# --- Stores ----------------------------------------------------------------------------------------------


class SlugTaken(Conflict):
    """409: the name is in use in addresses."""

    slug = "slug-taken"
    title = "Another store has this address name"
