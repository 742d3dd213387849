"""Who may do what with which keys, and which keys outlive an erasure. Everything not granted here is refused."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from types import MappingProxyType

from libs.common.errors import Forbidden
from libs.common.personal.vocabulary import Bucket, Purpose, Retention


class NotGranted(Forbidden):
    """403: the table of grants does not allow this service to do this."""

    slug = "not-granted"
    title = "This service has no such grant"


@dataclass(frozen=True, slots=True)
class Grant:
    """What one service may do. Every service may ask for the secrets of stores."""

    mint: frozenset[Retention] = frozenset()
    open: Mapping[Purpose, frozenset[Retention]] = field(default_factory=dict[Purpose, frozenset[Retention]])
    govern: bool = False
    """To destroy, restrict, retire and release keys, to give them a last day, to close them to a purpose, and to see
    which are left."""


def _own(*retentions: Retention, purposes: tuple[Purpose, ...]) -> Mapping[Purpose, frozenset[Retention]]:
    return {**dict.fromkeys(purposes, frozenset(retentions)), **_rights(*retentions)}


def _rights(*retentions: Retention) -> Mapping[Purpose, frozenset[Retention]]:
    """What a person asks to have corrected comes to every service in a box of their request, and goes from it: by what
    they are known outside."""
    return {Purpose.RIGHTS_OF_THE_PERSON: frozenset({*retentions, Retention.REQUEST})}


GRANTS: Mapping[str, Grant] = MappingProxyType(
    {
        "catalog": Grant(mint=frozenset({Retention.EXPORT, Retention.REQUEST}), open=_rights()),
        "identity": Grant(
            mint=frozenset(
                {Retention.ACCOUNT, Retention.CORRESPONDENCE, Retention.EXPORT, Retention.REQUEST}
            ),
            open=_own(
                Retention.ACCOUNT,
                Retention.CORRESPONDENCE,
                purposes=(
                    Purpose.PROVIDE_ACCOUNT,
                    Purpose.AUTHENTICATION,
                    Purpose.SECURITY,
                    Purpose.SERVICE_MAIL,
                ),
            ),
        ),
        "orders": Grant(
            mint=frozenset({Retention.ORDER, Retention.CORRESPONDENCE, Retention.EXPORT, Retention.REQUEST}),
            open=_own(
                Retention.ORDER,
                Retention.CORRESPONDENCE,
                purposes=(Purpose.FULFIL_ORDER, Purpose.SUPPORT, Purpose.SERVICE_MAIL, Purpose.LEGAL_CLAIMS),
            ),
        ),
        # The invoice is made from the order's contact; from then on billing reads its own box.
        "billing": Grant(
            # What is not invoiced yet is sealed anew when a part of it is erased.
            mint=frozenset(
                {
                    Retention.ACCOUNTING,
                    Retention.ORDER,
                    Retention.CORRESPONDENCE,
                    Retention.EXPORT,
                    Retention.REQUEST,
                }
            ),
            open={
                Purpose.ACCOUNTING: frozenset({Retention.ACCOUNTING, Retention.ORDER}),
                Purpose.PAYMENT: frozenset({Retention.ACCOUNTING, Retention.ORDER}),
                Purpose.LEGAL_CLAIMS: frozenset({Retention.ACCOUNTING, Retention.ORDER}),
                Purpose.SERVICE_MAIL: frozenset({Retention.ACCOUNTING, Retention.CORRESPONDENCE}),
                **_rights(Retention.ACCOUNTING, Retention.ORDER, Retention.CORRESPONDENCE),
            },
        ),
        "privacy": Grant(
            mint=frozenset(
                {
                    Retention.REQUEST,
                    Retention.EXPORT,
                    Retention.CORRESPONDENCE,
                    Retention.DESK,
                    Retention.VERIFICATION,
                }
            ),
            open=_own(
                Retention.REQUEST,
                Retention.EXPORT,
                Retention.CORRESPONDENCE,
                Retention.DESK,
                Retention.VERIFICATION,
                purposes=(Purpose.SERVICE_MAIL,),
            ),
            govern=True,
        ),
    }
)

OPENS_DESPITE_RESTRICTION = frozenset(
    {Purpose.RIGHTS_OF_THE_PERSON, Purpose.LEGAL_CLAIMS, Purpose.AUTHENTICATION}
)
"""GDPR, Art. 18(2): restricted data is stored, and used for rights and legal claims. A sign-in is the person's own
act, so with their consent. To none of these can a person object."""

NEVER_RESTRICTED = frozenset({Retention.REQUEST, Retention.EXPORT, Retention.VERIFICATION})
"""What a person asked for, and the answer to it, serve their own rights."""

WHOLE = frozenset(one for one in Retention if one.period.divided_by is Bucket.WHOLE)
"""What is kept about a person as such, and goes on: a key whose day is over seals no more, and the next takes over."""

SEALS_AFTER_ERASURE = frozenset({Retention.REQUEST})
"""The request that asked for the erasure is still to be answered; its key, if it has one, goes on sealing."""


def granted(service: str, grants: Mapping[str, Grant]) -> Grant:
    """The grant of a service; one without an entry has none."""
    return grants.get(service, Grant())


def check_mint(grant: Grant, retentions: set[Retention]) -> None:
    """Raises NotGranted."""
    if not retentions <= grant.mint:
        raise NotGranted


def check_govern(grant: Grant) -> None:
    """Raises NotGranted."""
    if not grant.govern:
        raise NotGranted


def outlives_erasure(
    retention: Retention, bucket: str, expires_on: date | None, *, requests: frozenset[str], today: date
) -> bool:
    """Whether an erasure asked for by `requests` leaves a key in place.

    What the law keeps stays until its day has passed; the request itself stays, since it must be answered.
    """
    if retention is Retention.REQUEST:
        return bucket in requests
    return retention.period.kept_by_law and (expires_on is None or expires_on >= today)


# --- The keys of stores ----------------------------------------------------------------------------------


class Kind(StrEnum):
    """Which of a store's two keys."""

    ORDINARY = "ordinary"
    """Destroyed with the store."""
    KEPT = "kept-by-law"
    """What lies under it runs to a date of its own: what the law keeps, and people's requests, which are answered
    for a store that is gone too."""


def kind_of(retention: Retention) -> Kind:
    """The key of the store that wraps keys of this retention."""
    return Kind.KEPT if retention.outlives_store else Kind.ORDINARY
