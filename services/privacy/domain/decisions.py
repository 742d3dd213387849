"""Who decides what: which requests pass by themselves, and on what grounds one may be refused."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from services.privacy.domain.rights import Law, Right


class Passing(StrEnum):
    """Whether a verified request waits for the store's privacy officer."""

    AT_ONCE = "at-once"
    WHEN_CLEAR = "when-clear"
    """By itself when no participant names an obligation and no model refuses a value."""
    OFFICER = "officer"


PASSING: Mapping[Right, Passing] = MappingProxyType(
    {
        Right.ACCESS: Passing.AT_ONCE,
        Right.PORTABILITY: Passing.AT_ONCE,
        Right.RECTIFICATION: Passing.OFFICER,
        Right.ERASURE: Passing.WHEN_CLEAR,
        Right.RESTRICTION: Passing.AT_ONCE,
        Right.LIFTING: Passing.AT_ONCE,
        Right.OBJECTION: Passing.OFFICER,
        Right.WITHDRAWAL: Passing.AT_ONCE,
        Right.EXPLANATION: Passing.AT_ONCE,
    }
)
"""Where a store says nothing."""


class Decision(StrEnum):
    """How a request came to run, or not to."""

    BY_ITSELF = "by-itself"
    APPROVED = "approved"
    REFUSED = "refused"


class Extension(StrEnum):
    """Why more time is needed (GDPR, Art. 12(3))."""

    COMPLEXITY = "complexity"
    NUMBER = "number-of-requests"


@dataclass(frozen=True, slots=True)
class Authority:
    """What a ground of refusal rests on, and which rights it can answer."""

    laws: Mapping[Law, str]
    rights: frozenset[Right]


class Ground(StrEnum):
    """Why a request may be refused, and nothing else."""

    UNFOUNDED = "manifestly-unfounded"
    EXCESSIVE = "excessive"
    NOT_IDENTIFIED = "not-identified"
    RIGHTS_OF_OTHERS = "rights-of-others"
    LEGAL_OBLIGATION = "legal-obligation"
    LEGAL_CLAIMS = "legal-claims"
    FREE_EXPRESSION = "freedom-of-expression"
    DATA_IS_ACCURATE = "data-is-accurate"
    COMPELLING_GROUNDS = "compelling-grounds"
    CONDITIONS_NOT_MET = "conditions-not-met"


_ALL = frozenset(Right)
GROUNDS: Mapping[Ground, Authority] = MappingProxyType(
    {
        Ground.UNFOUNDED: Authority(
            {Law.GDPR: "GDPR, Art. 12(5)", Law.CCPA: "California Civil Code, 1798.145(h)(3)"}, _ALL
        ),
        Ground.EXCESSIVE: Authority(
            {Law.GDPR: "GDPR, Art. 12(5)", Law.CCPA: "California Civil Code, 1798.145(h)(3)"}, _ALL
        ),
        Ground.NOT_IDENTIFIED: Authority(
            {Law.GDPR: "GDPR, Art. 11(2) and 12(6)", Law.CCPA: "11 CCR 7060 to 7062"}, _ALL
        ),
        Ground.RIGHTS_OF_OTHERS: Authority(
            {Law.GDPR: "GDPR, Art. 15(4) and 20(4)", Law.CCPA: "California Civil Code, 1798.145(k)"},
            frozenset({Right.ACCESS, Right.PORTABILITY}),
        ),
        Ground.LEGAL_OBLIGATION: Authority(
            {Law.GDPR: "GDPR, Art. 17(3)(b)", Law.CCPA: "California Civil Code, 1798.105(d)(8)"},
            frozenset({Right.ERASURE}),
        ),
        Ground.LEGAL_CLAIMS: Authority(
            {Law.GDPR: "GDPR, Art. 17(3)(e), 18(2) and 21(1)", Law.CCPA: "California Civil Code, 1798.145(a)(1)"},
            frozenset({Right.ERASURE, Right.RESTRICTION, Right.OBJECTION}),
        ),
        Ground.FREE_EXPRESSION: Authority(
            {Law.GDPR: "GDPR, Art. 17(3)(a)", Law.CCPA: "California Civil Code, 1798.105(d)(4)"},
            frozenset({Right.ERASURE}),
        ),
        Ground.DATA_IS_ACCURATE: Authority(
            {Law.GDPR: "GDPR, Art. 16", Law.CCPA: "11 CCR 7023(b)"}, frozenset({Right.RECTIFICATION})
        ),
        Ground.COMPELLING_GROUNDS: Authority(
            {Law.GDPR: "GDPR, Art. 21(1)"}, frozenset({Right.OBJECTION})
        ),
        Ground.CONDITIONS_NOT_MET: Authority(
            {Law.GDPR: "GDPR, Art. 17(1), 18(1) and 20(1)", Law.CCPA: "California Civil Code, 1798.105(d)"},
            frozenset({Right.ERASURE, Right.RESTRICTION, Right.PORTABILITY}),
        ),
    }
)  # fmt: skip


def authority(ground: Ground, right: Right, law: Law) -> str | None:
    """The article a refusal rests on; None when this ground cannot answer this right under this law."""
    found = GROUNDS[ground]
    return found.laws.get(law) if right in found.rights else None


def grounds_for(right: Right, law: Law) -> list[Ground]:
    """Those that can answer this right under this law."""
    return [ground for ground in Ground if authority(ground, right, law) is not None]
