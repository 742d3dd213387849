"""What a person may ask for, under the names of two laws.

California's rights are the same work under names and deadlines of their own: `named` and `name_of` translate.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


class Law(StrEnum):
    """Under which law a request is made: it gives the right its name and its deadline."""

    GDPR = "gdpr"
    """Regulation (EU) 2016/679."""
    CCPA = "ccpa"
    """California Civil Code, 1798.100 and on, and 11 CCR 7000 and on."""


class Right(StrEnum):
    """What a person may ask for (GDPR, Art. 7(3), 13 to 18, 20 and 21)."""

    ACCESS = "access"
    PORTABILITY = "portability"
    RECTIFICATION = "rectification"
    ERASURE = "erasure"
    RESTRICTION = "restriction"
    LIFTING = "restriction-lifting"
    """The end of a restriction: asked for by the person, or told to them before (Art. 18(3))."""
    OBJECTION = "objection"
    WITHDRAWAL = "consent-withdrawal"
    EXPLANATION = "explanation"


class RightName(StrEnum):
    """The names a request can be made under: the rights themselves, and California's."""

    ACCESS = "access"
    PORTABILITY = "portability"
    RECTIFICATION = "rectification"
    ERASURE = "erasure"
    RESTRICTION = "restriction"
    LIFTING = "restriction-lifting"
    OBJECTION = "objection"
    WITHDRAWAL = "consent-withdrawal"
    EXPLANATION = "explanation"
    KNOW = "know"
    DELETE = "delete"
    CORRECT = "correct"
    LIMIT = "limit"
    OPT_OUT = "opt-out"


@dataclass(frozen=True, slots=True)
class Named:
    """What a name stands for; `purpose` is given where the name itself says which use is meant."""

    right: Right
    law: Law = Law.GDPR
    purpose: str | None = None


_CALIFORNIA: Mapping[RightName, Named] = MappingProxyType(
    {
        RightName.KNOW: Named(Right.ACCESS, Law.CCPA),
        RightName.DELETE: Named(Right.ERASURE, Law.CCPA),
        RightName.CORRECT: Named(Right.RECTIFICATION, Law.CCPA),
        RightName.LIMIT: Named(Right.OBJECTION, Law.CCPA, "personalize"),
        RightName.OPT_OUT: Named(Right.OBJECTION, Law.CCPA, "marketing.advertising"),
    }
)


def named(name: RightName) -> Named:
    """What is asked under a name."""
    return _CALIFORNIA.get(name) or Named(Right(name))


def name_of(right: Right, law: Law, purpose: str | None) -> RightName:
    """The name a request was made under."""
    californian = (
        name
        for name, one in _CALIFORNIA.items()
        if (one.right, one.law) == (right, law) and one.purpose in {None, purpose}
    )
    return next(californian, RightName(right))


ABOUT_A_PURPOSE = frozenset({Right.OBJECTION, Right.WITHDRAWAL})
"""Say which use of their data the person means."""


def stops_at_once(right: Right, purpose: str | None) -> bool:
    """What nobody weighs: an objection to marketing (GDPR, Art. 21(3)), to sale or sharing (California Civil Code,
    1798.120), and the withdrawal of a consent (Art. 7(3)).
    """
    return right is Right.WITHDRAWAL or (
        right is Right.OBJECTION
        and purpose is not None
        and purpose.partition(".")[0] in {"marketing", "personalize"}
    )


class Misused(Exception):
    """A right was asked for with too much or too little. `fault` is a fixed word."""

    def __init__(self, fault: str) -> None:
        super().__init__(fault)
        self.fault = fault


def check(right: Right, *, purpose: str | None, category: str | None, corrects: bool) -> None:
    """Raises Misused unless the right has what it needs and nothing that it has no use for."""
    if right in ABOUT_A_PURPOSE and purpose is None:
        raise Misused("purpose-needed")
    if right is Right.RECTIFICATION and not corrects:
        raise Misused("corrections-needed")
    if purpose is not None and right not in {*ABOUT_A_PURPOSE, Right.ERASURE}:
        raise Misused("purpose-not-used")
    if category is not None and right is not Right.ERASURE:
        raise Misused("category-not-used")
    if corrects and right is not Right.RECTIFICATION:
        raise Misused("corrections-not-used")
