"""Legal holds: why something may be kept although its time is over, or its person wants it erased."""

from enum import StrEnum

from libs.common.personal.vocabulary import Retention

AUTHORITY = "GDPR, Art. 17(3)(e)"
"""For the establishment, exercise or defence of legal claims."""


class Ground(StrEnum):
    """Why. Fixed words: a note in the clear would be about somebody."""

    LITIGATION = "litigation"
    CLAIM_ANNOUNCED = "claim-announced"
    ORDER_OF_AN_AUTHORITY = "order-of-an-authority"
    INVESTIGATION = "investigation"


HOLDABLE = frozenset(
    {
        Retention.ACCOUNT,
        Retention.ORDER,
        Retention.ACCOUNTING,
        Retention.CORRESPONDENCE,
        Retention.REQUEST,
    }
)
"""What a claim can be about. A copy for the person is no evidence, an identity document is destroyed once it was seen,
and where the store reads its mail is its own."""
USUALLY = (Retention.ORDER, Retention.ACCOUNTING, Retention.CORRESPONDENCE)
"""What is held where nobody says otherwise."""
LONGEST_YEARS = 5
"""A hold is looked at again by then: it can be placed anew."""
