"""How somebody shows that a request is theirs, and what is enough for which right."""

from collections.abc import Collection, Mapping
from enum import StrEnum
from types import MappingProxyType

from services.privacy.domain.rights import Right


class Way(StrEnum):
    """How a request came in."""

    SESSION = "session"
    FORM = "form"
    STAFF = "staff"
    AGENT = "agent"


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


def is_verified(proofs: Collection[Proof], enough: Collection[Proof]) -> bool:
    """Whether one of the proofs is enough; more than is needed is never asked."""
    return not set(enough).isdisjoint(proofs)
