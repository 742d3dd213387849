"""The rules of accounts, sign-in, sessions and stores.

Problem
├── SignInRefused 401        whatever the reason: nobody learns whether an account exists
├── PasswordWrong 403        somebody who is signed in typed another password than theirs
├── AccountIsClosed 403      sign in again to bring it back
├── RefreshRefused 401       unknown, expired or revoked; a reused token ends its session
├── LinkNotValid 404         unknown, expired or replaced by a newer mail
├── AlreadyRotated 409       the other of two racing refreshes has the new token
├── SlugTaken 409
├── OwnsAnOpenStore 409      close it, or hand it over, before closing the account
├── AlreadyClosed 409
├── NotClosed 409            there is nothing to reopen
├── CannotBeClosed 409       the platform's own store
├── OwnEmail 409             the account is known by this address already
├── TooManyEmails 409
├── WeakPassword 422
└── NameDoesNotMatch 422     the store's name, typed to confirm that it is closed
"""

import unicodedata
from datetime import date, datetime, timedelta
from enum import StrEnum

from libs.common.errors import Conflict, Forbidden, NotFound, Unauthenticated, Unprocessable

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


# --- Further addresses -----------------------------------------------------------------------------------

EMAILS = 5
EMAIL_LINK_LASTS = timedelta(hours=24)


class OwnEmail(Conflict):
    """409: nothing is to be added."""

    slug = "own-email"
    title = "This is the address of your account"
    detail = "Give another one."


class TooManyEmails(Conflict):
    """409: one must go first."""

    slug = "too-many-emails"
    title = "Your account has enough addresses"
    detail = "Remove one first."


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


# --- Closing ---------------------------------------------------------------------------------------------

ACCOUNT_GRACE_DAYS = 90
"""Where a store says nothing: a closed account can be brought back for three months."""
LONGEST_GRACE_DAYS = 365
REMINDED_BEFORE = timedelta(days=7)


class PasswordWrong(Forbidden):
    """403: the password is not the account's."""

    slug = "password-wrong"
    title = "This is not the password of your account"


class AccountIsClosed(Forbidden):
    """403: the token is of an account that was closed since. `until` says how long it can be brought back."""

    slug = "account-closed"
    title = "This account is closed"
    detail = "Sign in again to bring it back."

    def __init__(self, until: datetime) -> None:
        super().__init__(until=until.isoformat())


class OwnsAnOpenStore(Conflict):
    """409: a store would be left without an owner. `stores` are their ids."""

    slug = "owns-an-open-store"
    title = "This account is the only owner of an open store"
    detail = "Close the store, or let somebody else own it, before you close your account."


class CannotBeClosed(Conflict):
    """409: merchants have their accounts there."""

    slug = "store-cannot-be-closed"
    title = "The platform's own store cannot be closed"


class AlreadyClosed(Conflict):
    """409: twice."""

    slug = "store-already-closed"
    title = "This store is closed already"
    detail = "GET of the same address says until when it can be opened again."


class NotClosed(Conflict):
    """409: the store is open."""

    slug = "store-not-closed"
    title = "This store is not closed"


class NameDoesNotMatch(Unprocessable):
    """422: closing a store takes its name, typed."""

    slug = "name-does-not-match"
    title = "This is not the name of the store"
    detail = "Type the name of the store as it is shown, to confirm that it is this one that you close."


def end_of_grace(closed_at: datetime, days: int) -> datetime:
    """The instant until which what was closed can be brought back: a midnight (UTC), so that a day can be named, and
    never sooner than the days that were promised; at once where there are none.
    """
    if days == 0:
        return closed_at
    until = closed_at + timedelta(days=days)
    midnight = until.replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight if midnight == until else midnight + timedelta(days=1)


def reminder(closed_at: datetime, ends_at: datetime) -> datetime | None:
    """When to say once more that the end comes; never where the first mail is as young as that."""
    at = ends_at - REMINDED_BEFORE
    return at if at - closed_at >= REMINDED_BEFORE else None


def last_day(ends_at: datetime) -> date:
    """The last whole day (UTC) before the end."""
    return (ends_at - timedelta(microseconds=1)).date()


class Returning(StrEnum):
    """What a sign-in means for an account."""

    OPEN = "open"
    """It was not closed."""
    REOPEN = "reopen"
    OVER = "over"
    """It is too late: what follows a mail that named the day is the same, whether anybody has looked yet or not."""


def judge_return(
    *, closed_at: datetime | None, ends_at: datetime | None, ended_at: datetime | None, now: datetime
) -> Returning:
    """Whether somebody who signs in brings their account back."""
    if ended_at is not None:
        return Returning.OVER
    if closed_at is None:
        return Returning.OPEN
    return Returning.OVER if ends_at is None or now >= ends_at else Returning.REOPEN


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
