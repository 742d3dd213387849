"""What identity publishes: stores and accounts, from their opening to their end."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import EmailStr, Field

from libs.common.events import Event, PersonalEvent
from libs.common.money import Currency
from libs.common.personal.data import PersonalData, Sealed
from libs.common.personal.vocabulary import Category, LegalBasis, Purpose, Retention


class StoreOpened(Event, type="vitrine.identity.store-opened.v1", topic="identity.stores", key="store_id"):
    """A merchant opened a store; every service keeps what it needs to serve it."""

    store_id: UUID
    slug: str
    name: str
    country: str
    """ISO 3166-1 alpha-2."""
    currency: Currency
    language: str = "en"


class StoreClosed(Event, type="vitrine.identity.store-closed.v1", topic="identity.stores", key="store_id"):
    """Its owner closed a store: it sells nothing, and can be opened again for a while."""

    store_id: UUID


class StoreReopened(
    Event, type="vitrine.identity.store-reopened.v1", topic="identity.stores", key="store_id"
):
    """A closed store is open again, as it was."""

    store_id: UUID


class StoreEnded(Event, type="vitrine.identity.store-ended.v1", topic="identity.stores", key="store_id"):
    """Nobody opened the store again: it is gone for good, and so is what no law keeps of it."""

    store_id: UUID


class AccountConfirmed(
    PersonalEvent, type="vitrine.identity.account-confirmed.v1", topic="identity.accounts", key="account_id"
):
    """A customer showed that the e-mail is theirs; from now on the account and its guest orders are one subject."""

    account_id: UUID


class AccountContact(
    PersonalData,
    retention=Retention.CORRESPONDENCE,
    purposes=[Purpose.RIGHTS_OF_THE_PERSON],
    legal_basis=LegalBasis.LEGAL_OBLIGATION,
    recipients=["mail provider"],
):
    """Where somebody whose account has ended is told what became of their data."""

    email: Annotated[EmailStr, Category.EMAIL]
    language: Annotated[Literal["en", "fr"], Category.LANGUAGE]


class AccountEnded(
    PersonalEvent, type="vitrine.identity.account-ended.v1", topic="identity.accounts", key="account_id"
):
    """Somebody closed their account and did not come back in time: their data is to be erased."""

    account_id: UUID
    contact: Sealed[AccountContact]


class _OfAddress(Event):
    """Of a further address of an account, and of who was known by it."""

    account_id: UUID
    alias_id: UUID
    """Of the address in this account, until it is removed."""
    subject_id: UUID
    generation: Annotated[int, Field(ge=1)]
    alias_subject_id: UUID
    """Whoever was known by that address."""
    alias_generation: Annotated[int, Field(ge=1)]


class EmailConfirmed(
    _OfAddress, type="vitrine.identity.email-confirmed.v1", topic="identity.accounts", key="account_id"
):
    """The owner of an account showed that another address is theirs too: both subjects are one person."""


class EmailRemoved(
    _OfAddress, type="vitrine.identity.email-removed.v1", topic="identity.accounts", key="account_id"
):
    """The address is not the account's any more: whoever comes by it is somebody else."""
