"""What identity publishes: stores and accounts."""

from uuid import UUID

from libs.common.events import Event, PersonalEvent
from libs.common.money import Currency


class StoreOpened(Event, type="vitrine.identity.store-opened.v1", topic="identity.stores", key="store_id"):
    """A merchant opened a store; every service keeps what it needs to serve it."""

    store_id: UUID
    slug: str
    name: str
    country: str
    """ISO 3166-1 alpha-2."""
    currency: Currency
    language: str = "en"


class AccountConfirmed(
    PersonalEvent, type="vitrine.identity.account-confirmed.v1", topic="identity.accounts", key="account_id"
):
    """A customer showed that the e-mail is theirs; from now on the account and its guest orders are one subject."""

    account_id: UUID
