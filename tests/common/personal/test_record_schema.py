"""The form of exported records, and attachments in them."""

from typing import Annotated
from uuid import UUID, uuid4

import pytest
from jsonschema import Draft202012Validator
from pydantic import ValidationError
from sqlalchemy import MetaData
from sqlalchemy.orm import Mapped, mapped_column

from libs.common import db
from libs.common.personal.attachments import MAXIMUM_ATTACHMENT, Attachment, has_attachments
from libs.common.personal.data import DataKey, PersonalData, Sealed, SealedColumn, decrypt, encrypt
from libs.common.personal.holdings import Holding, OnErase
from libs.common.personal.record_schema import record_schema
from libs.common.personal.vocabulary import Category, LegalBasis, Purpose, Retention
from tests.common.personal.shop import HOLDINGS, ShopContact


class Complaint(
    PersonalData, retention=Retention.ACCOUNT, purposes=[Purpose.SUPPORT], legal_basis=LegalBasis.CONTRACT
):
    """What somebody complained of."""

    words: Annotated[str, Category.PRIVATE_CONTENT]
    photos: tuple[Attachment, ...] = ()


class Base(db.Base):
    __abstract__ = True
    metadata = MetaData()


class ComplaintRow(Base):
    __tablename__ = "complaint"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    store_id: Mapped[UUID]
    subject_id: Mapped[UUID]
    generation: Mapped[int]
    box: Mapped[Sealed[Complaint] | None] = mapped_column(SealedColumn(Complaint))


PHOTO = Attachment(name="photo.png", media_type="image/png", content=bytes(range(256)))


def test_an_attachment_is_any_bytes_and_comes_out_of_its_box_as_it_went_in() -> None:
    key = DataKey(uuid4(), bytes(32), uuid4(), uuid4(), 1)
    complaint = Complaint(words="It broke.", photos=(PHOTO,))
    assert decrypt(encrypt(complaint, key), key) == complaint
    assert "photo" not in repr(PHOTO)
    with pytest.raises(ValidationError):
        Attachment(name="x", media_type="image/png", content=bytes(MAXIMUM_ATTACHMENT + 1))
    with pytest.raises(ValidationError):
        Attachment(name="x", media_type='text/html" onclick="', content=b"")


def test_a_record_with_attachments_says_where_they_are() -> None:
    holding = Holding(table=ComplaintRow, box="box", kind=Complaint, on_erase=OnErase.CLEAR)
    assert has_attachments(Complaint) and not has_attachments(ShopContact)
    validator = Draft202012Validator(record_schema(holding))
    record = {
        "table": "complaint", "kind": "Complaint", "facts": {}, "attached": {},
        "data": {"words": "x", "photos": [{"name": "a", "media_type": "image/png", "file": "x/files/a"}]},
    }  # fmt: skip
    assert validator.is_valid(record)
    record["data"] = Complaint(words="x", photos=(PHOTO,)).model_dump(mode="json")
    assert not validator.is_valid(record), "the content is a file of its own"


def test_what_is_secret_is_no_part_of_the_form() -> None:
    data = record_schema(HOLDINGS[0])["properties"]["data"]["anyOf"][0]
    assert set(data["properties"]) == {"name", "email"} == set(data["required"])
