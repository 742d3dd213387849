"""Personal data, declared once and stored in sealed boxes only.

    class OrderContact(PersonalData, retention=Retention.ORDER, purposes=[Purpose.FULFIL_ORDER],
                       legal_basis=LegalBasis.CONTRACT, recipients=["carrier"]):
        name: Annotated[str, Category("user.name")]
        address: Address

    class Order(Base):
        contact: Mapped[Sealed[OrderContact] | None] = mapped_column(SealedColumn(OrderContact))

A box is: version (1 byte, 1) | key id (16) | nonce (12) | AES-256-GCM ciphertext and tag of the model's JSON.
Its associated data are `vitrine/box/1|store|subject|model`, so a box moved to another row does not open.
"""

import os
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Annotated, Any, ClassVar, Generic, TypeVar, cast, get_args, get_origin
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema
from sqlalchemy import Dialect, LargeBinary
from sqlalchemy.types import TypeDecorator

from libs.common.personal.errors import BoxDoesNotOpen
from libs.common.personal.vocabulary import Category, LegalBasis, Purpose, Retention, Source

VERSION = 1
_KEY_ID = slice(1, 17)
_NONCE = slice(17, 29)
_CIPHERTEXT = slice(29, None)
_SMALLEST = 29 + 16


class PersonalValue(BaseModel):
    """A part of personal data, an address for instance: immutable, strict about its fields, silent in logs.

    Every field names its Category or consists of parts that do; anything else is a TypeError at declaration.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        for name, field in cls.model_fields.items():
            if not _is_categorised(field.annotation, field.metadata):
                raise TypeError(f"{cls.__name__}.{name} holds personal data and names no Category")

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        return ()


class PersonalData(PersonalValue):
    """What one box holds. A subclass declares why the data is there, on what ground, for how long and from where."""

    retention: ClassVar[Retention]
    purposes: ClassVar[tuple[Purpose, ...]]
    legal_basis: ClassVar[LegalBasis]
    recipients: ClassVar[tuple[str, ...]]
    source: ClassVar[Source]

    def __init_subclass__(
        cls,
        *,
        retention: Retention,
        purposes: Sequence[Purpose],
        legal_basis: LegalBasis,
        recipients: Sequence[str] = (),
        source: Source = Source.PERSON,
    ) -> None:
        super().__init_subclass__()
        if not purposes:
            raise TypeError(f"{cls.__name__} names no purpose: data without one may not be kept")
        cls.retention = retention
        cls.purposes = tuple(purposes)
        cls.legal_basis = legal_basis
        cls.recipients = tuple(recipients)
        cls.source = source

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        super().__pydantic_init_subclass__()
        known = KINDS.setdefault(cls.__name__, cls)
        if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise TypeError(f"{cls.__name__} is already the name of a kind of personal data")
        KINDS[cls.__name__] = cls


KINDS: dict[str, type[PersonalData]] = {}
"""Every kind of personal data that this process has declared, by the name its boxes are bound to."""


def _is_categorised(annotation: Any, metadata: Sequence[Any] = ()) -> bool:
    if any(isinstance(item, Category) for item in metadata):
        return True
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = annotation.model_fields.values()
        return all(_is_categorised(field.annotation, field.metadata) for field in fields)
    if get_origin(annotation) is Annotated:
        inner, *marks = get_args(annotation)
        return _is_categorised(inner, marks)
    parts = [part for part in get_args(annotation) if part not in (NoneType, Ellipsis)]
    return bool(parts) and all(_is_categorised(part) for part in parts)


def categories(field: FieldInfo) -> frozenset[Category]:
    """The categories of a field and of the parts it consists of."""
    return frozenset(_categories(field.annotation, field.metadata))


def _categories(annotation: Any, metadata: Sequence[Any] = ()) -> Iterable[Category]:
    yield from (item for item in metadata if isinstance(item, Category))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for field in annotation.model_fields.values():
            yield from _categories(field.annotation, field.metadata)
    elif get_origin(annotation) is Annotated:
        inner, *marks = get_args(annotation)
        yield from _categories(inner, marks)
    else:
        for part in get_args(annotation):
            yield from _categories(part)


_SECRET = "user.authorization"  # noqa: S105 - a category


def secret_fields(kind: type[PersonalData]) -> frozenset[str]:
    """Passwords and the like, which serve to recognise a person and are no answer to them: never exported."""
    return frozenset(
        name
        for name, field in kind.model_fields.items()
        if any(category.startswith(_SECRET) for category in categories(field))
    )


M = TypeVar("M", bound=PersonalData)


@dataclass(frozen=True, slots=True)
class DataKey:
    """One opened key: 32 bytes that are never shown, logged or stored in the clear."""

    key_id: UUID
    material: bytes
    store_id: UUID
    subject_id: UUID
    generation: int

    def __repr__(self) -> str:
        return "DataKey()"


class Sealed(Generic[M]):
    """A sealed box: an immutable value, equal to another with the same bytes; base64 in JSON.

    Raises ValueError for bytes that are no box.
    """

    __slots__ = ("model", "payload")
    model: type[M]
    payload: bytes

    def __init__(self, model: type[M], payload: bytes) -> None:
        if len(payload) < _SMALLEST or payload[0] != VERSION:
            raise ValueError("not a sealed box")
        object.__setattr__(self, "model", model)
        object.__setattr__(self, "payload", bytes(payload))

    @property
    def key_id(self) -> UUID:
        """The key that opens the box."""
        return UUID(bytes=self.payload[_KEY_ID])

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a sealed box cannot be changed")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("a sealed box cannot be changed")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sealed) and self.payload == cast("Sealed[Any]", other).payload

    def __hash__(self) -> int:
        return hash(self.payload)

    def __repr__(self) -> str:
        return f"Sealed[{self.model.__name__}]"

    def __reduce__(self) -> tuple[Any, ...]:
        return Sealed, (self.model, self.payload)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        kinds = get_args(source)
        if len(kinds) != 1 or not (isinstance(kinds[0], type) and issubclass(kinds[0], PersonalData)):
            raise TypeError("a field of boxes names what they hold: Sealed[OrderContact]")
        kind: type[PersonalData] = kinds[0]

        def is_of_kind(box: Sealed[PersonalData]) -> Sealed[PersonalData]:
            if box.model is not kind:
                raise ValueError("a box of another kind")
            return box

        def from_text(text: str) -> Sealed[PersonalData]:
            return Sealed(kind, b64decode(text, validate=True))

        text = core_schema.no_info_after_validator_function(from_text, core_schema.str_schema())
        box = core_schema.no_info_after_validator_function(is_of_kind, core_schema.is_instance_schema(cls))
        return core_schema.json_or_python_schema(
            json_schema=text,
            python_schema=core_schema.union_schema([box, text]),
            serialization=core_schema.plain_serializer_function_ser_schema(
                _as_text, return_schema=core_schema.str_schema(), when_used="json"
            ),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, _: CoreSchema, __: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "contentEncoding": "base64", "description": "A sealed box."}


def _as_text(box: Sealed[Any]) -> str:
    return b64encode(box.payload).decode()


class SealedColumn(TypeDecorator[Sealed[Any]]):
    """A BYTEA column of boxes of one kind."""

    impl = LargeBinary
    cache_ok = True

    def __init__(self, model: type[PersonalData]) -> None:
        super().__init__()
        self.model = model

    def process_bind_param(self, value: Sealed[Any] | None, dialect: Dialect) -> bytes | None:
        """The bytes. Raises TypeError for a box of another kind."""
        if value is None:
            return None
        if value.model is not self.model:
            raise TypeError(f"this column holds boxes of {self.model.__name__}")
        return value.payload

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> Sealed[Any] | None:
        """The box."""
        return None if value is None else Sealed(self.model, value)


def encrypt(data: M, key: DataKey) -> Sealed[M]:
    """A new box under `key`, bound to the key's store and subject and to the kind of `data`."""
    model = type(data)
    nonce = os.urandom(12)
    text = data.model_dump_json(round_trip=True).encode()
    ciphertext = AESGCM(key.material).encrypt(nonce, text, _bound_to(key, model))
    return Sealed(model, bytes([VERSION]) + key.key_id.bytes + nonce + ciphertext)


def decrypt(box: Sealed[M], key: DataKey) -> M:
    """What the box holds. Raises BoxDoesNotOpen."""
    if box.key_id != key.key_id:
        raise BoxDoesNotOpen
    try:
        text = AESGCM(key.material).decrypt(
            box.payload[_NONCE], box.payload[_CIPHERTEXT], _bound_to(key, box.model)
        )
    except InvalidTag:
        raise BoxDoesNotOpen from None
    try:
        return box.model.model_validate_json(text)
    except ValidationError:
        raise BoxDoesNotOpen("Its declaration has changed since it was sealed.") from None


def _bound_to(key: DataKey, model: type[PersonalData]) -> bytes:
    return f"vitrine/box/1|{key.store_id}|{key.subject_id}|{model.__name__}".encode()
