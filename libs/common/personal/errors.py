"""What can stand between a service and a box.

An outage never looks like an erasure, nor an erasure like an outage.

Problem
├── SubjectErased 409        the person's generation is erased; only a live command begins another
│   └── PeriodOver 409       what the bucket was for is over, and so is the time for which it was kept
├── KeyRestricted 409        on hold: opened only for the rights of the person and legal claims
│   └── KeyObjected 409      the person objected to this purpose
├── KeyDestroyed 410         final: the destruction log says so
├── KeyringUnavailable 503   nothing is lost, try again
├── KeyForbidden 500         this service may not use the key for this purpose: a mistake in our code
├── KeyUnknown 500           neither kept nor destroyed: the keyring lost data, people must look
└── BoxDoesNotOpen 500       altered bytes, or a box moved to another store, subject or kind
"""

from libs.common.errors import Conflict, Gone, Problem, Unavailable


class SubjectErased(Conflict):
    """409: data of an erased generation is refused for ever."""

    slug = "subject-erased"
    title = "This person's data was erased"


class PeriodOver(SubjectErased):
    """409: the order, the year or the request that the data belongs to is past the time for which it is kept."""

    slug = "period-over"
    title = "The time for which this data may be kept is over"


class KeyRestricted(Conflict):
    """409: the person has had processing restricted (GDPR, Art. 18)."""

    slug = "on-hold"
    title = "This person's data is on hold"


class KeyObjected(KeyRestricted):
    """409: the person has objected to the use of their data for this purpose (GDPR, Art. 21)."""

    slug = "objected"
    title = "This person has objected to this use of their data"


class KeyDestroyed(Gone):
    """410: final. The bytes may still exist somewhere; nobody can read them again."""

    slug = "personal-data-erased"
    title = "This personal data was erased"


class KeyringUnavailable(Unavailable):
    """503: the keyring cannot be reached."""

    slug = "keyring-unavailable"


class KeyForbidden(Problem):
    """500: the keyring's table of grants does not allow this."""

    slug = "key-forbidden"


class KeyUnknown(Problem):
    """500: a key that the keyring has neither kept nor destroyed."""

    slug = "key-unknown"
    title = "Stored personal data cannot be read"


class BoxDoesNotOpen(Problem):
    """500: the box and the key do not belong together."""

    slug = "box-does-not-open"
    title = "Stored personal data cannot be read"
