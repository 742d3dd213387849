"""The words in which personal data is declared.

Categories, purposes and legal bases are keys of the Fides language, the field's common taxonomy, so that the
data map can be read by other people's tools. Retentions are ours: they decide which keys exist.
"""

import re
from calendar import monthrange
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from types import MappingProxyType
from uuid import UUID


class Category(StrEnum):
    """What a field says about a person: `Annotated[str, Category("user.name")]`.

    A key that is not listed here raises ValueError where the field is declared.
    """

    USERNAME = "user.account.username"
    CREDENTIALS = "user.authorization.credentials"
    PASSWORD = "user.authorization.password"  # noqa: S105 - a category
    BROWSING_HISTORY = "user.behavior.browsing_history"
    PURCHASE_HISTORY = "user.behavior.purchase_history"
    CONTACT = "user.contact"
    ADDRESS = "user.contact.address"
    CITY = "user.contact.address.city"
    COUNTRY = "user.contact.address.country"
    POSTAL_CODE = "user.contact.address.postal_code"
    STATE = "user.contact.address.state"
    STREET = "user.contact.address.street"
    EMAIL = "user.contact.email"
    PHONE_NUMBER = "user.contact.phone_number"
    CONTENT = "user.content"
    PRIVATE_CONTENT = "user.content.private"
    PUBLIC_CONTENT = "user.content.public"
    DATE_OF_BIRTH = "user.demographic.date_of_birth"
    LANGUAGE = "user.demographic.language"
    DEVICE = "user.device"
    COOKIE_ID = "user.device.cookie_id"
    DEVICE_ID = "user.device.device_id"
    IP_ADDRESS = "user.device.ip_address"
    FINANCIAL = "user.financial"
    BANK_ACCOUNT = "user.financial.bank_account"
    NAME = "user.name"
    PAYMENT = "user.payment"
    PRIVACY_PREFERENCES = "user.privacy_preferences"
    UNIQUE_ID = "user.unique_id"

    def includes(self, other: str) -> bool:
        """Whether `other` is this category or a part of it: `user.contact` includes `user.contact.email`."""
        return other == self or other.startswith(f"{self}.")


class Purpose(StrEnum):
    """Why data is used: what a kind of data declares, and what a service states when it opens a key."""

    PROVIDE_ACCOUNT = "essential.service"
    AUTHENTICATION = "essential.service.authentication"
    FULFIL_ORDER = "essential.service.operations"
    SUPPORT = "essential.service.operations.support"
    SERVICE_MAIL = "essential.service.notifications.email"
    PAYMENT = "essential.service.payment_processing"
    SECURITY = "essential.service.security"
    FRAUD_DETECTION = "essential.fraud_detection"
    RIGHTS_OF_THE_PERSON = "essential.legal_obligation"
    LEGAL_CLAIMS = "third_party_sharing.legal_obligation"
    ACCOUNTING = "finance"
    ANALYTICS = "analytics.reporting"
    PERSONALISATION = "personalize"
    MARKETING_MAIL = "marketing.communications.email"
    ADVERTISING = "marketing.advertising"


class Source(StrEnum):
    """From where data came (GDPR, Art. 15(1)(g)). What the person gave is theirs to take elsewhere (Art. 20(1))."""

    PERSON = "person"
    OBSERVED = "observed"
    """Noted while they used the service."""
    DERIVED = "derived"
    """Computed from something else."""


class LegalBasis(StrEnum):
    """GDPR, Art. 6(1)(a) to (f), in Fides' names."""

    CONSENT = "Consent"
    CONTRACT = "Contract"
    LEGAL_OBLIGATION = "Legal obligations"
    VITAL_INTERESTS = "Vital interests"
    PUBLIC_INTEREST = "Public interest"
    LEGITIMATE_INTERESTS = "Legitimate interests"


# --- How long ----------------------------------------------------------------------------------------------

_NOMINAL_DAYS = {"D": 1.0, "M": 365.25 / 12, "Y": 365.25}


@dataclass(frozen=True, slots=True)
class Length:
    """A number of days, months or years, written `P10D`, `P3M`, `P2Y` (ISO 8601)."""

    number: int
    unit: str

    @classmethod
    def parse(cls, written: str) -> "Length":
        """Raises ValueError for what is not written so, or is longer than a century."""
        found = re.fullmatch(r"P(0|[1-9][0-9]{0,4})([DMY])", written, re.ASCII)
        if found is None:
            raise ValueError("a length is written P10D, P3M or P2Y")
        length = cls(int(found[1]), found[2])
        if length.nominal_days > 100 * _NOMINAL_DAYS["Y"]:
            raise ValueError("nothing is kept for more than a century")
        return length

    def __str__(self) -> str:
        return f"P{self.number}{self.unit}"

    @property
    def nominal_days(self) -> float:
        """To tell which of two lengths is longer, whatever the day they begin on."""
        return self.number * _NOMINAL_DAYS[self.unit]

    def after(self, day: date) -> date:
        """The day this long after `day`; the last of its month where the month has no such day."""
        if self.unit == "D":
            return day + timedelta(days=self.number)
        months = day.year * 12 + day.month - 1 + self.number * (12 if self.unit == "Y" else 1)
        year, month = divmod(months, 12)
        return date(year, month + 1, min(day.day, monthrange(year, month + 1)[1]))


class Clock(StrEnum):
    """An event from which a period is counted. The last one that was heard of counts."""

    ACCOUNT_CLOSED = "account-closed"
    """For good: it can no longer be brought back."""
    ORDER_CONFIRMED = "order-confirmed"
    """It waits for its payment."""
    ORDER_PAID = "order-paid"
    ORDER_FULFILLED = "order-fulfilled"
    ORDER_REFUSED = "order-refused"
    ORDER_CANCELLED = "order-cancelled"
    INVOICE_ISSUED = "invoice-issued"
    MESSAGE_SETTLED = "message-settled"
    DESK_REPLACED = "desk-replaced"
    EXPORT_READY = "export-ready"
    REQUEST_ENDED = "request-ended"
    DOCUMENT_RECEIVED = "document-received"
    ERASURE_ASKED = "erasure-asked"
    """Of what a legal hold kept from an erasure: it goes when the hold ends, at once."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How long data is kept from one event on: by itself, and between which bounds a store may choose."""

    clock: Clock
    length: Length
    least: Length
    most: Length
    law: str
    """On whose authority these are the bounds."""
    from_end_of_year: bool = False

    @property
    def is_fixed(self) -> bool:
        """Whether there is nothing to choose."""
        return self.least == self.most

    def allows(self, length: Length) -> bool:
        """Whether a store may choose this."""
        return self.least.nominal_days <= length.nominal_days <= self.most.nominal_days

    def last_day(self, day: date, length: Length | None = None) -> date:
        """The last day on which data is kept, when its clock started on `day`, where the store is."""
        start = date(day.year, 12, 31) if self.from_end_of_year else day
        return (length or self.length).after(start)


class Bucket(StrEnum):
    """How the keys of one retention are divided, so that a part of the data can expire alone."""

    WHOLE = "whole"
    """One key; the bucket's name is empty."""
    YEAR = "year"
    """One key a year, named `2026`."""
    REQUEST = "request"
    """One key a privacy request, named by the request's id."""
    DOCUMENT = "document"
    """One key a document, named by the document's id: it is destroyed alone."""
    ORDER = "order"
    """One key an order, named by the order's id. What was sealed before orders had keys of their own lies under an
    empty name, and opens."""

    @property
    def ends_alone(self) -> bool:
        """Whether a bucket is destroyed by itself, once what it belongs to is over."""
        return self in {Bucket.REQUEST, Bucket.DOCUMENT, Bucket.ORDER}


@dataclass(frozen=True, slots=True)
class Period:
    """How long a kind of data is kept, and on whose authority."""

    name: str
    """For people: it is shown in policies and in answers to requests."""
    law: str
    kept_by_law: bool = False
    """Erasure leaves it in place until it expires: GDPR, Art. 17(3)(b)."""
    divided_by: Bucket = Bucket.WHOLE
    rules: tuple[Rule, ...] = ()
    """What starts its clock, and how long it is kept from then on."""

    def check_bucket(self, bucket: str) -> None:
        """Raises ValueError unless `bucket` is a name this period gives to its buckets."""
        match self.divided_by:
            case Bucket.WHOLE:
                valid = bucket == ""
            case Bucket.YEAR:
                valid = re.fullmatch(r"[12][0-9]{3}", bucket) is not None
            case Bucket.REQUEST | Bucket.DOCUMENT:
                valid = _is_canonical_uuid(bucket)
            case Bucket.ORDER:
                valid = bucket == "" or _is_canonical_uuid(bucket)
        if not valid:
            raise ValueError(f"a bucket of “{self.name}” is named by {self.divided_by}")

    def expires_on(self, bucket: str) -> date | None:
        """The last day on which data of the bucket is kept, where its name says so; None where a clock does.

        Raises ValueError for a bucket of another form.
        """
        self.check_bucket(bucket)
        if self.divided_by is not Bucket.YEAR:
            return None
        [rule] = self.rules
        return rule.last_day(date(int(bucket), 12, 31))


def _is_canonical_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


class Retention(StrEnum):
    """Why data may stay. Two retentions never share a key: one can end while the other goes on."""

    ACCOUNT = "account"
    ORDER = "order"
    ACCOUNTING = "accounting"
    CORRESPONDENCE = "correspondence"
    DESK = "desk"
    EXPORT = "export"
    REQUEST = "request"
    VERIFICATION = "verification"

    @property
    def period(self) -> Period:
        """The rule behind the name."""
        return _PERIODS[self]

    @property
    def outlives_store(self) -> bool:
        """Whether it runs to its own end when the store is gone: what the law keeps, and what people ask for."""
        return self.period.kept_by_law or self in {
            Retention.REQUEST,
            Retention.EXPORT,
            Retention.VERIFICATION,
        }


def _days(number: int) -> Length:
    return Length(number, "D")


def _months(number: int) -> Length:
    return Length(number, "M")


def _years(number: int) -> Length:
    return Length(number, "Y")


def _fixed(clock: Clock, length: Length, law: str, *, from_end_of_year: bool = False) -> Rule:
    return Rule(clock, length, length, length, law, from_end_of_year)


_LIMITED = "GDPR, Art. 5(1)(e)"
"""Kept no longer than is necessary."""
_CLAIMS = f"Code civil, art. 2224; {_LIMITED}"
"""Claims of contract lapse after five years."""

_PERIODS = {
    Retention.ACCOUNT: Period(
        "As long as the account exists",
        "GDPR, Art. 6(1)(b)",
        rules=(Rule(Clock.ACCOUNT_CLOSED, _months(3), _days(0), _years(3), _LIMITED),),
    ),
    Retention.ORDER: Period(
        "Until the order is settled",
        "GDPR, Art. 6(1)(b)",
        divided_by=Bucket.ORDER,
        rules=(
            Rule(Clock.ORDER_CONFIRMED, _years(1), _days(30), _years(5), _CLAIMS),
            Rule(
                Clock.ORDER_PAID, _years(5), _years(1), _years(10),
                f"Code de la consommation, art. L213-1; {_LIMITED}",
            ),
            # The buyer may withdraw for 14 days, and claim under the guarantee of conformity for two years.
            Rule(
                Clock.ORDER_FULFILLED, _years(2), _days(14), _years(10),
                "Code de la consommation, art. L213-1, L217-3 and L221-18",
            ),
            Rule(Clock.ORDER_REFUSED, _days(10), _days(0), _years(1), _LIMITED),
            Rule(Clock.ORDER_CANCELLED, _days(10), _days(0), _years(1), _LIMITED),
        ),
    ),
    Retention.ACCOUNTING: Period(
        "Ten years after the end of the year",
        "Code de commerce, art. L123-22; GDPR, Art. 17(3)(b)",
        kept_by_law=True,
        divided_by=Bucket.YEAR,
        # Less is unlawful; and an erasure yields to the obligation for as long as it lasts, not a day longer.
        rules=(
            _fixed(
                Clock.INVOICE_ISSUED, _years(10), "Code de commerce, art. L123-22", from_end_of_year=True
            ),
        ),
    ),
    Retention.CORRESPONDENCE: Period(
        "Until the matter is settled, and a year",
        "GDPR, Art. 6(1)(f)",
        rules=(Rule(Clock.MESSAGE_SETTLED, _years(1), _days(30), _years(5), _CLAIMS),),
    ),
    Retention.DESK: Period(
        "As long as it is the address of the privacy desk",
        "GDPR, Art. 12(1)",
        rules=(_fixed(Clock.DESK_REPLACED, _days(0), _LIMITED),),
    ),
    Retention.EXPORT: Period(
        "Until the download link expires",
        "GDPR, Art. 15 and 20",
        divided_by=Bucket.REQUEST,
        rules=(_fixed(Clock.EXPORT_READY, _days(7), _LIMITED),),
    ),
    Retention.REQUEST: Period(
        "Until the request is answered and can no longer be disputed",
        "GDPR, Art. 5(2) and 12(3)",
        divided_by=Bucket.REQUEST,
        rules=(Rule(Clock.REQUEST_ENDED, _years(3), _years(1), _years(5), f"GDPR, Art. 5(2); {_CLAIMS}"),),
    ),
    Retention.VERIFICATION: Period(
        "Until somebody has looked at it, 30 days at most",
        "GDPR, Art. 5(1)(e) and 12(6)",
        divided_by=Bucket.DOCUMENT,
        rules=(_fixed(Clock.DOCUMENT_RECEIVED, _days(30), "GDPR, Art. 5(1)(e) and 12(6)"),),
    ),
}  # fmt: skip

AFTER_A_HOLD = _fixed(Clock.ERASURE_ASKED, _days(0), "GDPR, Art. 17(1)")
"""Of whatever retention: what a legal hold kept from an erasure."""

RULES: Mapping[Clock, tuple[Retention, Rule]] = MappingProxyType(
    {rule.clock: (retention, rule) for retention in Retention for rule in retention.period.rules}
)
"""Every clock, but for that of erasures, belongs to one retention."""


def rule_of(clock: Clock) -> Rule:
    """What a clock counts."""
    return AFTER_A_HOLD if clock is Clock.ERASURE_ASKED else RULES[clock][1]
