"""The words in which personal data is declared.

Categories, purposes and legal bases are keys of the Fides language, the field's common taxonomy, so that the
data map can be read by other people's tools. Retentions are ours: they decide which keys exist.
"""

import re
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
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

    @property
    def ends_alone(self) -> bool:
        """Whether a bucket is destroyed by itself, once what it belongs to is over."""
        return self in {Bucket.REQUEST, Bucket.DOCUMENT}


@dataclass(frozen=True, slots=True)
class Period:
    """How long a kind of data is kept, and on whose authority."""

    name: str
    """For people: it is shown in policies and in answers to requests."""
    law: str
    kept_by_law: bool = False
    """Erasure leaves it in place until it expires: GDPR, Art. 17(3)(b)."""
    divided_by: Bucket = Bucket.WHOLE
    years_after_the_year: int | None = None

    def check_bucket(self, bucket: str) -> None:
        """Raises ValueError unless `bucket` is a name this period gives to its buckets."""
        match self.divided_by:
            case Bucket.WHOLE:
                valid = bucket == ""
            case Bucket.YEAR:
                valid = re.fullmatch(r"[12][0-9]{3}", bucket) is not None
            case Bucket.REQUEST | Bucket.DOCUMENT:
                valid = _is_canonical_uuid(bucket)
        if not valid:
            raise ValueError(f"a bucket of “{self.name}” is named by {self.divided_by}")

    def expires_on(self, bucket: str) -> date | None:
        """The last day on which data of the bucket is kept; None while something else decides.

        Raises ValueError for a bucket of another form.
        """
        self.check_bucket(bucket)
        if self.years_after_the_year is None:
            return None
        return date(int(bucket) + self.years_after_the_year, 12, 31)


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


_PERIODS = {
    Retention.ACCOUNT: Period("As long as the account exists", "GDPR, Art. 6(1)(b)"),
    Retention.ORDER: Period("Until the order is settled", "GDPR, Art. 6(1)(b)"),
    Retention.ACCOUNTING: Period(
        "Ten years after the end of the year",
        "Code de commerce, art. L123-22; GDPR, Art. 17(3)(b)",
        kept_by_law=True,
        divided_by=Bucket.YEAR,
        years_after_the_year=10,
    ),
    Retention.CORRESPONDENCE: Period("Until the matter is settled, and a year", "GDPR, Art. 6(1)(f)"),
    Retention.EXPORT: Period(
        "Until the download link expires", "GDPR, Art. 15 and 20", divided_by=Bucket.REQUEST
    ),
    Retention.REQUEST: Period(
        "Until the request is answered and can no longer be disputed",
        "GDPR, Art. 5(2) and 12(3)",
        divided_by=Bucket.REQUEST,
    ),
    Retention.VERIFICATION: Period(
        "Until somebody has looked at it, 30 days at most",
        "GDPR, Art. 5(1)(e) and 12(6)",
        divided_by=Bucket.DOCUMENT,
    ),
}
