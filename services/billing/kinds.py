"""The kinds of boxes that only billing keeps."""

from typing import Annotated

from pydantic import Field

from libs.common.events.orders import Address
from libs.common.personal.data import PersonalData
from libs.common.personal.vocabulary import Category, LegalBasis, Purpose, Retention


class InvoiceContact(
    PersonalData,
    retention=Retention.ACCOUNTING,
    purposes=[Purpose.ACCOUNTING],
    legal_basis=LegalBasis.LEGAL_OBLIGATION,
):
    """Who is invoiced. No e-mail address: the law asks for none, so none is kept for ten years."""

    name: Annotated[str, Category("user.name"), Field(min_length=1, max_length=200)]
    address: Annotated[Address, Category("user.contact.address")]


class CorrectedInvoice(
    PersonalData,
    retention=Retention.ACCOUNTING,
    purposes=[Purpose.ACCOUNTING],
    legal_basis=LegalBasis.LEGAL_OBLIGATION,
):
    """What an invoice should say of who is invoiced: it is issued, so this stands beside it."""

    name: Annotated[str | None, Category("user.name"), Field(min_length=1, max_length=200)] = None
    address: Annotated[Address | None, Category("user.contact.address")] = None
