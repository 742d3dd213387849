"""Files of products, in and out."""

from typing import Annotated, Any, cast
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import StreamingResponse
from starlette.datastructures import UploadFile

from libs.common.auth import Manager, Staff, StoreId
from libs.common.db import Database
from libs.common.errors import NotFound, Problem, TooLarge, Unprocessable
from libs.common.http import Session, refusals
from libs.common.idempotency import IdempotencyKey, once
from libs.common.stores import known_store
from services.catalog.domain.sheet import ImportRefused
from services.catalog.models import ImportRun
from services.catalog.schemas import ImportDocument
from services.catalog.service import imports

router = APIRouter(prefix="/stores/{store_id}", tags=["imports"])

MAXIMUM_FILE = 10_000_000
AROUND_A_FILE = 10_000
"""Bytes that a multipart body may have besides its file."""
_FILE: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            },
            "text/csv": {"schema": {"type": "string"}},
        },
    }
}


class NoFile(Unprocessable):
    """A form without a file."""

    slug = "no-file"
    title = "The form has no file"
    detail = "Send the file in the field `file`, or as the body with Content-Type text/csv."


class NotAFile(Problem):
    """415."""

    status = 415
    slug = "unsupported-media-type"
    title = "A file comes as a form or as CSV"
    detail = "Send multipart/form-data with the field `file`, or the file itself as text/csv."


async def _file(request: Request) -> bytes:
    """The uploaded file. Raises TooLarge, NoFile, NotAFile."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "text/csv":
        content = await request.body()
    elif kind == "multipart/form-data":
        async with request.form(max_files=1, max_fields=10) as form:
            upload = form.get("file")
            if not isinstance(upload, UploadFile):
                raise NoFile
            content = await upload.read()
    else:
        raise NotAFile
    if len(content) > MAXIMUM_FILE:
        raise TooLarge(f"At most {MAXIMUM_FILE} bytes are accepted here.")
    return content


async def _database(request: Request) -> Database:
    return request.app.state.database


OpenDatabase = Annotated[Database, Depends(_database)]
File = Annotated[bytes, Depends(_file)]


@router.post(
    "/imports",
    status_code=201,
    response_model=ImportDocument,
    responses=refusals(401, 403, 404, 409, 413, 415),
    openapi_extra=_FILE,
)
async def import_products(
    *,
    request: Request,
    store_id: StoreId,
    caller: Manager,
    content: File,
    database: OpenDatabase,
    key: IdempotencyKey = None,
) -> Response:
    """Import a CSV file in the column layout that Shopify exports: everything in it, or nothing.

    A file with faults answers 422 with `errors`: for each the line in the file, the column and the reason, the first
    hundred of them; `more` counts the rest. Sent again, the file updates products by handle, variants by SKU or
    by option values; what the file does not name stays.
    """

    async def make() -> tuple[ImportDocument, str]:
        run = await imports.import_sheet(session, store_id=store_id, sheet=sheet)
        return _document(run), f"/catalog/v1/stores/{store_id}/imports/{run.id}"

    try:
        sheet = await imports.read_sheet(database, store_id, content)
        async with database.session(store_id) as session:
            return await once(
                session,
                request,
                key,
                store_id=store_id,
                caller=str(caller.account_id),
                make=make,
                body=content,
            )
    except ImportRefused as refusal:
        await imports.note_refusal(database, store_id, refusal)
        raise


@router.get("/imports/{import_id}", response_model=ImportDocument, responses=refusals(401, 403, 404))
async def read_import(
    *, store_id: StoreId, import_id: UUID, _caller: Manager, session: Session
) -> ImportDocument:
    """What became of a file."""
    run = await session.get(ImportRun, import_id)
    if run is None or run.store_id != store_id:
        raise NotFound
    return _document(run)


def _document(run: ImportRun) -> ImportDocument:
    return ImportDocument.model_validate(run, from_attributes=True)


@router.get(
    "/export.csv",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}}
    | cast(Any, refusals(401, 403, 404)),
)
async def export_products(
    *, store_id: StoreId, _caller: Staff, session: Session, database: OpenDatabase
) -> StreamingResponse:
    """All products in the layout that an import reads, as a stream."""
    await known_store(session, store_id)
    return StreamingResponse(
        imports.export_sheet(database, store_id),
        media_type="text/csv; charset=utf-8",
        headers={
            "Content-Disposition": 'attachment; filename="products.csv"',
            "Cache-Control": "private, no-store",
        },
    )
