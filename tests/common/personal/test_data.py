"""What a declaration refuses, what a box reveals (nothing), and which bytes open it (its own)."""

import pickle
from datetime import date
from typing import Annotated, Any, Optional
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError
from sqlalchemy import LargeBinary
from sqlalchemy.dialects import postgresql

from libs.common.personal.data import (
    KINDS,
    DataKey,
    PersonalData,
    PersonalValue,
    Sealed,
    SealedColumn,
    categories,
    decrypt,
    encrypt,
)
from libs.common.personal.errors import BoxDoesNotOpen
from libs.common.personal.vocabulary import Category, LegalBasis, Purpose, Retention
from tests.common.personal.kinds import Nickname, Parcel, Place, Plain

CANARY = "Zéphyrine Canari"


class Shipment(BaseModel):
    contact: Sealed[Parcel]
    other: Sealed[Nickname] | None = None


def key(**changes: Any) -> DataKey:
    made: dict[str, Any] = {
        "key_id": uuid4(),
        "material": uuid4().bytes + uuid4().bytes,
        "store_id": uuid4(),
        "subject_id": uuid4(),
        "generation": 1,
    }
    return DataKey(**(made | changes))


def as_other(one: DataKey, **changes: Any) -> DataKey:
    return key(**{name: getattr(one, name) for name in DataKey.__slots__} | changes)


# --- Boxes -----------------------------------------------------------------------------------------------


@given(st.text(), st.text(), st.lists(st.text(), max_size=3))
def test_any_text_comes_out_as_it_went_in(name: str, street: str, streets: list[str]) -> None:
    data = Parcel(name=name, place=Place(street=street), places=[Place(street=one) for one in streets])
    one = key()
    assert decrypt(encrypt(data, one), one) == data


def test_the_same_data_is_never_sealed_into_the_same_bytes() -> None:
    one = key()
    assert len({encrypt(Nickname(name=CANARY), one).payload for _ in range(50)}) == 50


@pytest.mark.parametrize("field", ["store_id", "subject_id"])
def test_a_box_moved_to_another_row_does_not_open(field: str) -> None:
    one = key()
    box = encrypt(Nickname(name=CANARY), one)
    with pytest.raises(BoxDoesNotOpen):
        decrypt(box, as_other(one, **{field: uuid4()}))


def test_a_box_read_as_another_kind_does_not_open() -> None:
    one = key()
    box = encrypt(Nickname(name=CANARY), one)
    with pytest.raises(BoxDoesNotOpen):
        decrypt(Sealed(Parcel, box.payload), one)


def test_another_key_of_the_same_name_does_not_open() -> None:
    one = key()
    with pytest.raises(BoxDoesNotOpen):
        decrypt(encrypt(Nickname(name=CANARY), one), as_other(one, material=bytes(32)))


def test_no_flipped_bit_goes_unnoticed() -> None:
    one = key()
    payload = encrypt(Nickname(name="A"), one).payload
    for position in range(len(payload) * 8):
        altered = bytearray(payload)
        altered[position // 8] ^= 1 << position % 8
        with pytest.raises((BoxDoesNotOpen, ValueError)):
            decrypt(Sealed(Nickname, bytes(altered)), one)


@given(st.binary(max_size=60))
def test_bytes_that_are_no_box_are_refused(payload: bytes) -> None:
    if len(payload) >= 45 and payload[0] == 1:
        assert Sealed(Nickname, payload).key_id == UUID(bytes=payload[1:17])
    else:
        with pytest.raises(ValueError, match="not a sealed box"):
            Sealed(Nickname, payload)


def test_a_box_is_a_value() -> None:
    one = key()
    box = encrypt(Nickname(name=CANARY), one)
    same = Sealed(Nickname, box.payload)
    assert box == same
    assert len({box, same, encrypt(Nickname(name=CANARY), one)}) == 2
    assert box.key_id == one.key_id
    assert pickle.loads(pickle.dumps(box)) == box
    with pytest.raises(AttributeError):
        box.payload = b""
    with pytest.raises(AttributeError):
        del box.payload


def test_a_declaration_that_changed_meanwhile_says_so_without_the_data() -> None:
    class Before(
        PersonalData, retention=Retention.ORDER, purposes=[Purpose.SUPPORT], legal_basis=LegalBasis.CONTRACT
    ):
        name: Annotated[str, Category.NAME]

    one = key()
    box = encrypt(Before(name=CANARY), one)

    class After(PersonalValue):
        number: Annotated[int, Category.NAME]

    After.__name__ = "Before"
    with pytest.raises(BoxDoesNotOpen) as refused:
        decrypt(Sealed(After, box.payload), one)  # type: ignore[type-var]
    assert CANARY not in str(refused.value.document())


# --- What shows -------------------------------------------------------------------------------------------


def test_nothing_shows() -> None:
    one = key()
    data = Parcel(name=CANARY, place=Place(street=CANARY), note=Plain(line=CANARY))
    box = encrypt(data, one)
    shown = [
        f"{thing}{thing!r}" for thing in (data, data.place, box, one, [data, box], Shipment(contact=box))
    ]
    assert not any(CANARY in text or one.material.hex() in text or "\\x" in text for text in shown)
    with pytest.raises(ValidationError) as refused:
        Parcel.model_validate({"name": CANARY, "place": CANARY, CANARY: 1})
    assert f"input_value='{CANARY}'" not in str(refused.value)


def test_a_box_travels_as_base64_in_json() -> None:
    shipment = Shipment(contact=encrypt(Parcel(name=CANARY), key()))
    for copy in (
        Shipment.model_validate_json(shipment.model_dump_json()),
        Shipment.model_validate(shipment.model_dump(mode="json")),
        Shipment.model_validate(shipment.model_dump()),
    ):
        assert copy == shipment
        assert copy.contact.model is Parcel
    schema = Shipment.model_json_schema()["properties"]["contact"]
    assert (schema["type"], schema["contentEncoding"]) == ("string", "base64")


@pytest.mark.parametrize("contact", ["", "AAAA", "not base64!", 3, None, {}])
def test_json_that_is_no_box_is_refused(contact: object) -> None:
    with pytest.raises(ValidationError):
        Shipment.model_validate({"contact": contact})


def test_a_box_of_another_kind_is_refused() -> None:
    with pytest.raises(ValidationError):
        Shipment.model_validate({"contact": encrypt(Nickname(name=CANARY), key())})


def test_a_field_of_boxes_names_their_kind() -> None:
    with pytest.raises(TypeError):
        TypeAdapter(Sealed)
    with pytest.raises(TypeError):
        TypeAdapter(Sealed[str])  # type: ignore[type-var]


def test_a_column_takes_boxes_of_its_kind() -> None:
    column = SealedColumn(Nickname)
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    box = encrypt(Nickname(name=CANARY), key())
    assert isinstance(column.load_dialect_impl(dialect), LargeBinary)
    assert column.process_bind_param(box, dialect) == box.payload
    assert column.process_result_value(box.payload, dialect) == box
    assert column.process_bind_param(None, dialect) is None
    assert column.process_result_value(None, dialect) is None
    with pytest.raises(TypeError):
        column.process_bind_param(encrypt(Parcel(name=CANARY), key()), dialect)


# --- Declarations ------------------------------------------------------------------------------------------


def declare(name: str, annotations: dict[str, Any], **arguments: Any) -> type[PersonalData]:
    given_: dict[str, Any] = {
        "retention": Retention.ORDER,
        "purposes": [Purpose.FULFIL_ORDER],
        "legal_basis": LegalBasis.CONTRACT,
    }
    made: Any = type(PersonalData)
    return made(
        name, (PersonalData,), {"__annotations__": annotations, "__module__": __name__}, **given_ | arguments
    )


@pytest.mark.parametrize(
    "annotation",
    [
        str, str | None, list[str], dict[str, str], Plain, list[Plain], Place | str,
        tuple[Annotated[str, Category.NAME], str],
    ],
)  # fmt: skip
def test_a_field_without_a_category_is_refused(annotation: Any) -> None:
    with pytest.raises(TypeError, match="names no Category"):
        declare(f"Refused{uuid4().hex}", {"field": annotation})


@pytest.mark.parametrize(
    "annotation",
    [
        Annotated[str, Category.NAME], Optional[Annotated[str, Category.NAME]],  # noqa: UP045 - what `|` refuses on 3.11
        Annotated[str | None, Category.NAME],
        list[Annotated[str, Category.NAME]], Place, Place | None, list[Place], tuple[Place, ...],
        Annotated[Plain, Category.ADDRESS], Annotated[dict[str, str], Category.CONTENT],
    ],
)  # fmt: skip
def test_a_field_whose_parts_name_categories_is_taken(annotation: Any) -> None:
    assert declare(f"Taken{uuid4().hex}", {"field": annotation}).model_fields


def test_categories_of_a_field_include_those_of_its_parts() -> None:
    assert categories(Parcel.model_fields["place"]) == {Category.STREET, Category.CITY}
    assert categories(Parcel.model_fields["note"]) == {Category.ADDRESS}
    assert categories(Parcel.model_fields["name"]) == {Category.NAME}


def test_a_category_outside_the_vocabulary_is_refused() -> None:
    with pytest.raises(ValueError, match="not a valid Category"):
        Category("user.favourite_colour")


def test_a_declaration_without_a_reason_is_refused() -> None:
    with pytest.raises(TypeError, match="no purpose"):
        declare(f"Refused{uuid4().hex}", {}, purposes=[])
    for missing in ("retention", "purposes", "legal_basis"):
        arguments: dict[str, Any] = {
            "retention": Retention.ORDER,
            "purposes": [Purpose.FULFIL_ORDER],
            "legal_basis": LegalBasis.CONTRACT,
        }
        del arguments[missing]
        made: Any = type(PersonalData)
        with pytest.raises(TypeError):
            made(f"Refused{uuid4().hex}", (PersonalData,), {"__module__": __name__}, **arguments)


def test_two_kinds_cannot_share_a_name() -> None:
    assert KINDS["Parcel"] is Parcel
    with pytest.raises(TypeError, match="already the name"):
        declare("Parcel", {"name": Annotated[str, Category.NAME]})
    assert KINDS["Parcel"] is Parcel


def test_declarations_are_kept() -> None:
    assert (Parcel.retention, Parcel.purposes, Parcel.legal_basis, Parcel.recipients) == (
        Retention.ORDER,
        (Purpose.FULFIL_ORDER,),
        LegalBasis.CONTRACT,
        ("carrier",),
    )


def test_personal_data_cannot_be_changed_or_extended() -> None:
    data = Nickname(name=CANARY)
    with pytest.raises(ValidationError):
        data.name = "another"
    with pytest.raises(ValidationError):
        Nickname.model_validate({"name": CANARY, "more": 1})


# --- Retention -------------------------------------------------------------------------------------------


def test_accounting_ends_ten_years_after_the_year() -> None:
    period = Retention.ACCOUNTING.period
    assert period.expires_on("2026") == date(2036, 12, 31)
    assert period.kept_by_law
    assert "L123-22" in period.law


@pytest.mark.parametrize("retention", [one for one in Retention if one is not Retention.ACCOUNTING])
def test_nothing_else_has_a_date_or_outlives_an_erasure_by_law(retention: Retention) -> None:
    named_by_id = retention.period.divided_by.ends_alone
    assert retention.period.expires_on(str(uuid4()) if named_by_id else "") is None
    assert not retention.period.kept_by_law


@pytest.mark.parametrize(
    ("retention", "bucket"),
    [
        (Retention.ACCOUNT, "2026"), (Retention.ACCOUNTING, ""), (Retention.ACCOUNTING, "26"),
        (Retention.ACCOUNTING, "2026\n"), (Retention.ACCOUNTING, "٢٠٢٦"), (Retention.REQUEST, ""),
        (Retention.EXPORT, "ada@example.org"), (Retention.REQUEST, "6F9619FF-8B86-4011-B42D-00C04FC964FF"),
    ],
)  # fmt: skip
def test_a_bucket_of_another_form_is_refused(retention: Retention, bucket: str) -> None:
    with pytest.raises(ValueError, match="a bucket of"):
        retention.period.expires_on(bucket)
