"""How somebody shows that a request is theirs, and what is enough for which right.

A new proof is a word of `Proof`, an entry in `ENOUGH`, and a call of `engine.decisions.prove` where it is given: a
sign-in done again will be one.
"""

from collections.abc import Collection, Mapping
from datetime import timedelta
from enum import StrEnum
from types import MappingProxyType

from services.privacy.domain.rights import Right


class Way(StrEnum):
    """How a request came in."""

    SESSION = "session"
    FORM = "form"
    STAFF = "staff"
    AGENT = "agent"
    RESTORE = "restore"
    """Nobody asked again: the keyring says that it was erased, and a restored database has no request that says so."""
    CLOSING = "closing"
    """Nobody asked: somebody closed their account, and did not come back."""
    OPENDSR = "opendsr"
    """A tool of the store's own asked: the store, which is the controller, knows who they are and has decided."""


UNASKED = frozenset({Way.CLOSING, Way.OPENDSR})
"""What follows from what a person did while they were signed in, or what the store itself asks, needs no proof of who
they are, and no decision.
"""


class Proof(StrEnum):
    """What shows that the request is the person's own."""

    SESSION = "session"
    """They are signed in."""
    EMAIL = "email-link"
    """They followed the link that was sent to the address."""
    ORDER = "order-number"
    """They know the number of an order placed with the address."""
    DOCUMENT = "document"
    """Somebody of the store looked at a document of theirs, which was destroyed then."""
    STAFF = "staff"
    """Somebody of the store received a letter or a call, and wrote down what they saw."""


ENOUGH: Mapping[Right, frozenset[Proof]] = MappingProxyType(
    {
        **dict.fromkeys(Right, frozenset(Proof)),
        # Whoever knows an order's number and its address has seen a parcel. That opens no data and ends none.
        **dict.fromkeys(
            (Right.ERASURE, Right.RECTIFICATION, Right.LIFTING), frozenset(Proof) - {Proof.ORDER}
        ),
    }
)
"""Where a store says nothing: each of these alone is enough. The answer goes to the person's own address anyway."""


class Channel(StrEnum):
    """How a request came that somebody of the store wrote down."""

    LETTER = "letter"
    PHONE = "phone"
    IN_PERSON = "in-person"
    EMAIL = "e-mail"


def is_verified(proofs: Collection[Proof], enough: Collection[Proof]) -> bool:
    """Whether one of the proofs is enough; more than is needed is never asked."""
    return not set(enough).isdisjoint(proofs)


# --- Documents -------------------------------------------------------------------------------------------

DOCUMENT_BYTES = 5 * 1024 * 1024
DOCUMENTS = 5
"""How large a document may be, and how many of a request may wait to be looked at."""
DOCUMENT_DAYS = 30
"""How long one waits at most."""


class MediaType(StrEnum):
    """What a document may be."""

    PDF = "application/pdf"
    JPEG = "image/jpeg"
    PNG = "image/png"


_BEGINNINGS: Mapping[MediaType, bytes] = MappingProxyType(
    {
        MediaType.PDF: b"%PDF-",
        MediaType.JPEG: b"\xff\xd8\xff",
        MediaType.PNG: b"\x89PNG\r\n\x1a\n",
    }
)


def media_type_of(content: bytes) -> MediaType | None:
    """What the bytes say they are, whatever their name or sender says; None for anything that is not accepted."""
    return next((kind for kind, begins in _BEGINNINGS.items() if content.startswith(begins)), None)


class Outcome(StrEnum):
    """What became of a document. Whatever it was, its key is destroyed."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    UNSEEN = "unseen"
    """Its request ended, or 30 days passed, and nobody had looked at it."""
    ERASED = "erased"
    """It went with its person's data."""


# --- Asking again ----------------------------------------------------------------------------------------

ALIKE_WITHIN = timedelta(days=365)
"""Requests of one person for one right are counted over twelve months: the store says when it is too often."""
