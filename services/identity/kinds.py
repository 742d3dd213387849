"""The kinds of personal data that identity keeps: a profile, and what proves that it is its owner who signs in."""

from typing import Annotated

from pydantic import EmailStr, Field

from libs.common.events.orders import Address
from libs.common.personal.data import PersonalData
from libs.common.personal.vocabulary import Category, LegalBasis, Purpose, Retention, Source

Language = Annotated[str, Category("user.demographic.language"), Field(pattern=r"^(en|fr)$")]


class Profile(
    PersonalData,
    retention=Retention.ACCOUNT,
    purposes=[Purpose.PROVIDE_ACCOUNT],
    legal_basis=LegalBasis.CONTRACT,
):
    """What a person says of themselves, managed by themselves."""

    email: Annotated[EmailStr, Category("user.contact.email")]
    name: Annotated[str | None, Category("user.name"), Field(max_length=200)] = None
    language: Language = "en"
    addresses: Annotated[tuple[Address, ...], Category("user.contact.address"), Field(max_length=20)] = ()


class FurtherEmail(
    PersonalData,
    retention=Retention.ACCOUNT,
    purposes=[Purpose.PROVIDE_ACCOUNT],
    legal_basis=LegalBasis.CONTRACT,
):
    """Another address that the owner of an account says is theirs."""

    email: Annotated[EmailStr, Category("user.contact.email")]


class Credentials(
    PersonalData,
    retention=Retention.ACCOUNT,
    purposes=[Purpose.AUTHENTICATION],
    legal_basis=LegalBasis.CONTRACT,
    source=Source.DERIVED,
):
    """What a sign-in is checked against: with its key, the sign-in itself is destroyed."""

    password_hash: Annotated[str, Category("user.authorization.password"), Field(max_length=500)]
