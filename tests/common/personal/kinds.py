"""Kinds of personal data that only tests declare."""

from typing import Annotated

from pydantic import BaseModel

from libs.common.personal.data import PersonalData, PersonalValue
from libs.common.personal.vocabulary import Category, LegalBasis, Purpose, Retention


class Place(PersonalValue):
    street: Annotated[str, Category("user.contact.address.street")]
    city: Annotated[str, Category("user.contact.address.city")] = ""


class Plain(BaseModel):
    line: str


class Parcel(
    PersonalData,
    retention=Retention.ORDER,
    purposes=[Purpose.FULFIL_ORDER],
    legal_basis=LegalBasis.CONTRACT,
    recipients=["carrier"],
):
    name: Annotated[str, Category("user.name")]
    place: Place | None = None
    places: list[Place] = []
    note: Annotated[Plain, Category("user.contact.address")] | None = None


class Nickname(
    PersonalData,
    retention=Retention.ACCOUNT,
    purposes=[Purpose.PROVIDE_ACCOUNT],
    legal_basis=LegalBasis.CONTRACT,
):
    name: Annotated[str, Category("user.name")]


class Bill(
    PersonalData,
    retention=Retention.ACCOUNTING,
    purposes=[Purpose.ACCOUNTING],
    legal_basis=LegalBasis.LEGAL_OBLIGATION,
):
    name: Annotated[str, Category("user.name")]


class Answer(
    PersonalData,
    retention=Retention.REQUEST,
    purposes=[Purpose.RIGHTS_OF_THE_PERSON],
    legal_basis=LegalBasis.LEGAL_OBLIGATION,
):
    name: Annotated[str, Category("user.name")]
