"""The boxes of the privacy service itself."""

from typing import Annotated, Literal

from pydantic import EmailStr

from libs.common.personal.data import PersonalData
from libs.common.personal.vocabulary import Category, LegalBasis, Purpose, Retention


class RequestContact(
    PersonalData,
    retention=Retention.REQUEST,
    purposes=[Purpose.RIGHTS_OF_THE_PERSON],
    legal_basis=LegalBasis.LEGAL_OBLIGATION,
    recipients=["mail provider"],
):
    """Where a privacy request is answered."""

    email: Annotated[EmailStr, Category.EMAIL]
    language: Annotated[Literal["en", "fr"], Category.LANGUAGE]
    status_token: Annotated[str, Category.CREDENTIALS] = ""
    """Of the link in every mail, under which the request can be followed without an account."""
