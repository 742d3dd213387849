"""The boxes of the privacy service itself."""

from typing import Annotated, Literal

from pydantic import ConfigDict, EmailStr, Field

from libs.common.personal.attachments import Bytes
from libs.common.personal.data import PersonalData
from libs.common.personal.vocabulary import Category, LegalBasis, Purpose, Retention, Source


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


PIECE_BYTES = 380 * 1024
"""Of an archive in one box, which base64 makes a third larger: at most 512 KiB."""


class ArchivePiece(
    PersonalData,
    retention=Retention.EXPORT,
    purposes=[Purpose.RIGHTS_OF_THE_PERSON],
    legal_basis=LegalBasis.LEGAL_OBLIGATION,
    source=Source.DERIVED,
):
    """A piece of the archive that answers a request, until its link expires."""

    content: Annotated[Bytes, Category.CONTENT, Field(max_length=PIECE_BYTES)]


class AgentContact(
    PersonalData,
    retention=Retention.REQUEST,
    purposes=[Purpose.RIGHTS_OF_THE_PERSON],
    legal_basis=LegalBasis.LEGAL_OBLIGATION,
    recipients=["mail provider"],
):
    """Who asks on somebody's behalf. They are told how the request goes, and nothing about the person."""

    name: Annotated[str, Category.NAME, Field(max_length=100)]
    email: Annotated[EmailStr, Category.EMAIL]
    language: Annotated[Literal["en", "fr"], Category.LANGUAGE]


class DocumentContent(
    PersonalData,
    retention=Retention.VERIFICATION,
    purposes=[Purpose.RIGHTS_OF_THE_PERSON],
    legal_basis=LegalBasis.LEGAL_OBLIGATION,
):
    """A document that shows whose a request is: an identity card, an authorisation that was signed."""

    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    content: Annotated[bytes, Category.PRIVATE_CONTENT]


class NoteText(
    PersonalData,
    retention=Retention.REQUEST,
    purposes=[Purpose.RIGHTS_OF_THE_PERSON],
    legal_basis=LegalBasis.LEGAL_OBLIGATION,
    recipients=["mail provider"],
    source=Source.OBSERVED,
):
    """What was written about a request: notes, questions to its person and their answers, reasons, what was seen."""

    text: Annotated[str, Category.CONTENT, Field(min_length=1, max_length=4000)]


class DeskAddress(
    PersonalData,
    retention=Retention.DESK,
    purposes=[Purpose.SERVICE_MAIL],
    legal_basis=LegalBasis.LEGAL_OBLIGATION,
    recipients=["mail provider"],
):
    """Where whoever answers for a store is told of requests: the privacy desk."""

    email: Annotated[EmailStr, Category.EMAIL]
    language: Annotated[Literal["en", "fr"], Category.LANGUAGE]
