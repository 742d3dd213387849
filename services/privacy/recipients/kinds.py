"""The box of what is sent outside."""

from typing import Annotated

from pydantic import Field

from libs.common.personal.attachments import Bytes
from libs.common.personal.data import PersonalData
from libs.common.personal.vocabulary import Category, LegalBasis, Purpose, Retention, Source

BODY_BYTES = 1024 * 1024


class DeliveryBody(
    PersonalData,
    retention=Retention.REQUEST,
    purposes=[Purpose.RIGHTS_OF_THE_PERSON],
    legal_basis=LegalBasis.LEGAL_OBLIGATION,
    source=Source.DERIVED,
):
    """What a recipient is told about a request, byte for byte as it is sent."""

    content: Annotated[Bytes, Category.CONTENT, Field(max_length=BODY_BYTES)]
