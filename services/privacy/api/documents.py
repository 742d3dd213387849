"""Documents that show whose a request is, for whoever answers for the store: looked at, and destroyed that moment."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import StreamingResponse

from libs.common.auth import StoreId
from libs.common.errors import Unavailable
from libs.common.http import OpenVault, Session, refusals
from libs.common.idempotency import IdempotencyKey, once
from services.privacy.api.means import Answering, Now, RequestId, expected
from services.privacy.endings import destroy_doomed, keyring_of
from services.privacy.schemas import DocumentCheckView, DocumentList, NewCheck
from services.privacy.service import documents
from services.privacy.service.documents import Check

router = APIRouter(prefix="/stores/{store_id}/requests/{request_id}/documents", tags=["privacy"])

DocumentId = Annotated[UUID, Path(description="The document.")]
_PIECE = 64 * 1024


@router.get("", responses=refusals(401, 403, 404))
async def list_documents(
    store_id: StoreId, request_id: RequestId, caller: Answering, session: Session
) -> DocumentList:
    """The documents of a request that wait to be looked at, without their content, and what became of the others."""
    return await documents.list_documents(session, store_id=store_id, request_id=request_id)


@router.get(
    "/{document_id}",
    response_class=StreamingResponse,
    responses={
        200: {
            "content": {kind: {} for kind in ("application/pdf", "image/jpeg", "image/png")},
            "description": "The document.",
        },
        **refusals(401, 403, 404),
    },
)
async def read_document(
    *,
    request: Request,
    store_id: StoreId,
    request_id: RequestId,
    document_id: DocumentId,
    caller: Answering,
    vault: OpenVault,
) -> StreamingResponse:
    """Look at a document. Each opening is counted."""
    kind, content = await documents.content_of(
        request.app.state.database, vault, store_id=store_id, request_id=request_id, document_id=document_id
    )
    return StreamingResponse(
        (content[start : start + _PIECE] for start in range(0, len(content), _PIECE)),
        media_type=kind,
        headers={
            "Cache-Control": "no-store",
            # What a stranger sent is shown and never run.
            "Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'",
            "Content-Disposition": f'attachment; filename="{document_id}.{kind.name.lower()}"',
            "Content-Length": str(len(content)),
            "Cross-Origin-Resource-Policy": "same-origin",
            "X-Content-Type-Options": "nosniff",
        },
    )


@router.post(
    "/{document_id}/checks",
    status_code=201,
    response_model=DocumentCheckView,
    responses=refusals(401, 403, 404, 409),
)
async def check_document(
    *,
    request: Request,
    store_id: StoreId,
    request_id: RequestId,
    document_id: DocumentId,
    caller: Answering,
    wanted: NewCheck,
    vault: OpenVault,
    at: Now,
    key: IdempotencyKey = None,
) -> Response:
    """Say whether a document shows whose the request is. In that moment it is destroyed, and that is on record.

    Saying the same again changes nothing. Without an answer of the keyring `destroyed_at` comes a little later.
    """
    database = request.app.state.database
    check = Check(document_id, accepted=wanted.accepted, seen=wanted.seen, by=caller.account_id)
    await documents.judge(
        database,
        vault,
        check,
        store_id=store_id,
        request_id=request_id,
        expected=expected(request),
        now=at,
    )
    try:
        keyring = keyring_of(request.app.state.settings, request.app.state.http)
        await destroy_doomed(database, keyring, now=at, only=document_id)
    except Unavailable:
        # It is noted that the key must go: the worker goes on.
        pass

    async def make() -> tuple[DocumentCheckView, None]:
        return await documents.check_of(session, document_id), None

    # Last, since the effect is the same however often it is asked for: only the reply needs the key.
    async with database.session(store_id) as session:
        caller_id = str(caller.account_id)
        return await once(session, request, key, store_id=store_id, caller=caller_id, make=make)
