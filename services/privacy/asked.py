"""What somebody asks for, checked, whatever it was called and whichever way it came in."""

from dataclasses import dataclass

from libs.common.events.privacy import Proposal
from services.privacy.domain.rights import Law, Right


@dataclass(frozen=True, slots=True)
class Asked:
    """A right under a law, of all of a person's data or of a part of it."""

    right: Right
    law: Law = Law.GDPR
    purpose: str | None = None
    category: str | None = None
    proposal: Proposal | None = None
