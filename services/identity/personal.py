"""What identity holds about people. With its keys destroyed nobody signs in; then the rows go."""

from collections.abc import Mapping, Sequence

from libs.common.personal.holdings import COPIES, Copy, Holding, OnErase, OnRectify, Reference
from libs.common.personal.portable import Template, each, postal_address
from libs.common.personal.vocabulary import Clock
from services.identity.kinds import Credentials, FurtherEmail, Profile
from services.identity.models import Account, AccountEmail, AccountSession, SignUp

_PERSON: Template = {
    "@type": "Person",
    "name": "/data/name",
    "email": "/data/email",
    "knowsLanguage": "/data/language",
    "address": each("/data/addresses", postal_address("/item")),
}
"""https://schema.org/Person"""

CLOCKS = frozenset({Clock.ACCOUNT_CLOSED, Clock.MESSAGE_SETTLED})
"""What this service starts."""

HOLDINGS: Sequence[Holding] = (
    Holding(
        table=AccountSession,
        on_erase=OnErase.DELETE,
        describe=("started_at", "rotated_at", "expires_at", "revoked_at"),
    ),
    Holding(
        table=AccountEmail,
        box="box",
        kind=FurtherEmail,
        proved="confirmed_at",
        on_erase=OnErase.DELETE,
        describe=("asked_at", "confirmed_at"),
        # Its owner confirmed this very address; another one is added and confirmed like it.
        on_rectify=OnRectify.KEEP,
    ),
    Holding(
        table=SignUp,
        box="profile",
        kind=Profile,
        on_erase=OnErase.DELETE,
        describe=("started_at", "used_at"),
        indexes={"email_index": ("email", "email")},
        # Its link went to the address it names, and proves that this very address is theirs.
        on_rectify=OnRectify.KEEP,
    ),
    Holding(
        table=SignUp,
        box="credentials",
        kind=Credentials,
        on_erase=OnErase.DELETE,
        on_rectify=OnRectify.KEEP,
    ),
    Holding(
        table=Account,
        box="profile",
        kind=Profile,
        on_erase=OnErase.DELETE,
        describe=("id", "confirmed_at"),
        reference=Reference.ACCOUNT,
        indexes={"email_index": ("email", "email")},
        portable=_PERSON,
    ),
    Holding(table=Account, box="credentials", kind=Credentials, on_erase=OnErase.DELETE),
)

HERE: Sequence[Copy] = (
    *COPIES,
    Copy(
        "attempts", "keyed hashes of e-mails and client addresses", "deleted an hour after they were counted"
    ),
    Copy("membership", "which stores an account works at", "goes with the account's row"),
)

KEPT: Mapping[str, str] = {"store": "That the store existed, and when it ended; it names nobody."}
"""What stays of a store that has ended."""
