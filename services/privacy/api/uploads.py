"""Documents that come in: read into memory, never into a file of the server."""

from typing import Any

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from libs.common.errors import BadRequest, Problem, TooLarge, Unprocessable
from services.privacy.domain.verification import DOCUMENT_BYTES

AROUND_A_DOCUMENT = 64 * 1024
"""Bytes that a form may have besides its document."""


class NotAForm(Problem):
    """415: the body is not a form."""

    status = 415
    slug = "not-a-form"
    title = "A document comes in a form"
    detail = "Send multipart/form-data."


class FormIncomplete(Unprocessable):
    """422: the form lacks a field, or has one twice. `field` says which."""

    slug = "form-incomplete"
    title = "The form is not complete"


class _InMemory(MultiPartParser):
    """Starlette's would write what is larger than a megabyte into a file, in the clear."""

    spool_max_size = DOCUMENT_BYTES + AROUND_A_DOCUMENT


async def form_with(request: Request, *, text: str, file: str) -> tuple[str, bytes]:
    """The text and the file of a form with one of each. Raises NotAForm, BadRequest, FormIncomplete, TooLarge."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise NotAForm
    try:
        form = await _InMemory(request.headers, request.stream(), max_files=1, max_fields=1).parse()
    except MultiPartException:
        raise BadRequest("The form cannot be read.") from None
    try:
        said, sent = form.get(text), form.get(file)
        if not isinstance(said, str):
            raise FormIncomplete(field=text)
        if not isinstance(sent, UploadFile):
            raise FormIncomplete(field=file)
        content = await sent.read()
    finally:
        await form.close()
    if len(content) > DOCUMENT_BYTES:
        raise TooLarge(f"At most {DOCUMENT_BYTES} bytes are accepted here.")
    return said, content


def described(*, text: str, file: str) -> dict[str, Any]:
    """`openapi_extra=` of a route that takes such a form."""
    schema = {
        "type": "object",
        "required": [text, file],
        "properties": {text: {"type": "string"}, file: {"type": "string", "format": "binary"}},
    }
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}
