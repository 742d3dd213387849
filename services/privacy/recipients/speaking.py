"""Which module speaks which protocol."""

from collections.abc import Mapping
from types import MappingProxyType

from libs.common.events.privacy import Verb
from services.privacy.recipients import opendsr, shopify, webhooks
from services.privacy.recipients.protocols import Spoken
from services.privacy.recipients.words import Protocol, Role

PROTOCOLS: Mapping[Protocol, Spoken] = MappingProxyType(
    {Protocol.WEBHOOK: webhooks, Protocol.SHOPIFY: shopify, Protocol.OPENDSR: opendsr}
)
TOLD_OUTSIDE = frozenset(verb for spoken in PROTOCOLS.values() for verb in spoken.VERBS)
"""What recipients can have a part in at all."""
PARTIAL_PROTOCOLS = sorted(protocol for protocol, spoken in PROTOCOLS.items() if spoken.PARTS)
"""Which can be told of an erasure that is not of everything."""
POLLED = frozenset(protocol for protocol, spoken in PROTOCOLS.items() if hasattr(spoken, "poll"))
"""By which one can ask how far somebody is."""
_OF_PROCESSORS = frozenset({Verb.EXPORT})
"""What somebody who decides for themselves answers the person about, not us."""


def part_in(role: Role, protocol: Protocol) -> list[Verb]:
    """What such a recipient has a part in."""
    verbs = PROTOCOLS[protocol].VERBS
    return sorted(verbs if role is Role.PROCESSOR else verbs - _OF_PROCESSORS)
