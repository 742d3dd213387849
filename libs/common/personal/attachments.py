"""Files that belong to a person: in a box like all else, and files of their own in an archive.

    class Claim(PersonalData, ...):
        photos: tuple[Attachment, ...] = ()

A record of an export travels in one chunk of at most 512 KiB, so the attachments of one box share that room.
"""

from base64 import b64decode, b64encode
from typing import Annotated

from pydantic import BeforeValidator, Field, PlainSerializer

from libs.common.personal.data import PersonalData, PersonalValue
from libs.common.personal.vocabulary import Category

MAXIMUM_ATTACHMENT = 256 * 1024
"""Bytes."""


def _from_text(value: object) -> object:
    return b64decode(value, validate=True) if isinstance(value, str) else value


def _as_text(value: bytes) -> str:
    return b64encode(value).decode()


Bytes = Annotated[
    bytes, BeforeValidator(_from_text), PlainSerializer(_as_text, return_type=str, when_used="json")
]
"""Any bytes; base64 in JSON."""


class Attachment(PersonalValue):
    """A file. In an archive its content is a file of its own, and `file` says where, in place of `content`."""

    name: Annotated[str, Category.CONTENT, Field(max_length=255)]
    media_type: Annotated[str, Category.CONTENT, Field(pattern=r"^[a-z]+/[A-Za-z0-9.+-]{1,100}$")]
    content: Annotated[Bytes, Category.CONTENT, Field(max_length=MAXIMUM_ATTACHMENT)]


def has_attachments(kind: type[PersonalData]) -> bool:
    """Whether boxes of a kind may hold files."""
    return Attachment.__name__ in kind.model_json_schema().get("$defs", {})
