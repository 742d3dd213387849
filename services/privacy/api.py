"""The privacy service over HTTP: use a right, follow the request, fetch an export, read the data map."""

from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Form, Path, Request, Response
from fastapi.responses import StreamingResponse

from libs.common.auth import PLATFORM_STORE, STAFF, Authenticated, Caller, Customer, Role, StoreId, of_store
from libs.common.errors import Forbidden
from libs.common.http import (
    Cursor,
    Limit,
    OpenVault,
    Page,
    PlatformSession,
    Session,
    refusals,
    set_etag,
)
from libs.common.idempotency import IdempotencyKey, once
from libs.common.stores import known_store
from services.privacy import downloads, service
from services.privacy.archive import archive
from services.privacy.schemas import DataMap, NewRequest, ParticipantList, RequestDetail, RequestSummary
from services.privacy.settings import Settings

router = APIRouter(tags=["privacy"])

RequestId = Annotated[UUID, Path(description="The request.")]
Reader = Annotated[Caller, Depends(of_store())]
"""The person, who sees their own requests, or who answers for the store and sees all."""
OFFICERS = frozenset({Role.OWNER, Role.PRIVACY_OFFICER})


def now() -> datetime:
    """The clock of requests and links, in UTC."""
    return datetime.now(UTC)


Now = Annotated[datetime, Depends(now)]


def _own(caller: Caller) -> Caller | None:
    """Whose requests a caller may see: their own, or everybody's (None). Raises Forbidden for other staff."""
    if caller.role in OFFICERS:
        return None
    if caller.role is not Role.CUSTOMER:
        raise Forbidden
    return caller


# --- Requests --------------------------------------------------------------------------------------------


@router.post(
    "/stores/{store_id}/requests",
    status_code=201,
    response_model=RequestSummary,
    responses={
        200: {"model": RequestSummary, "description": "A request of this kind is open already: this is it."},
        **refusals(401, 403, 404, 409),
    },
)
async def open_request(
    *,
    request: Request,
    store_id: StoreId,
    caller: Customer,
    asked: NewRequest,
    vault: OpenVault,
    session: Session,
    at: Now,
    key: IdempotencyKey = None,
) -> Response:
    """Use a right. A session is proof enough of who asks; the answer goes to the account's own address."""
    settings: Settings = request.app.state.settings
    request_id = service.new_id()
    language = asked.language or await _language(request, store_id)
    contact = await service.sealed_contact(
        vault, caller=caller, asked=asked, request_id=request_id, language=language
    )
    joined = False

    async def make() -> tuple[RequestSummary, str]:
        nonlocal joined
        opened, is_new = await service.open_request(
            session,
            caller=caller,
            right=asked.right,
            request_id=request_id,
            contact=contact,
            participants=sorted(settings.participants),
            now=at,
        )
        joined = not is_new
        return opened, f"/privacy/v1/stores/{store_id}/requests/{opened.id}"

    return await once(
        session,
        request,
        key,
        store_id=store_id,
        caller=str(caller.customer),
        make=make,
        status=lambda: 200 if joined else 201,
    )


async def _language(request: Request, store_id: UUID) -> str:
    """In a transaction of its own, which ends before the keyring is called."""
    async with request.app.state.database.session(store_id) as session:
        return await service.language_of(session, store_id)


@router.get(
    "/stores/{store_id}/requests",
    response_model=Page[RequestSummary],
    responses=refusals(401, 403, 404),
)
async def list_requests(
    store_id: StoreId, caller: Reader, session: Session, cursor: Cursor = None, limit: Limit = 20
) -> Page[RequestSummary]:
    """Newest first: a person's own, or for the owner and the privacy officer all of the store."""
    return await service.list_requests(
        session, store_id=store_id, of=_own(caller), cursor=cursor, limit=limit
    )


@router.get(
    "/stores/{store_id}/requests/{request_id}",
    response_model=RequestDetail,
    responses=refusals(401, 403, 404),
)
async def get_request(
    store_id: StoreId, request_id: RequestId, caller: Reader, session: Session, response: Response
) -> RequestDetail:
    """One request: where it is, who has answered what, what is kept, on what ground and until when."""
    detail, version = await service.get_request(
        session, store_id=store_id, request_id=request_id, of=_own(caller)
    )
    set_etag(response, version)
    return detail


# --- What is kept, and who answers -----------------------------------------------------------------------


@router.get("/stores/{store_id}/data-map", response_model=DataMap, responses=refusals(404))
async def get_data_map(store_id: StoreId, session: Session) -> DataMap:
    """What is kept about people, why, on what ground, how long and who receives it. The same for every store."""
    if store_id != PLATFORM_STORE:
        await known_store(session, store_id)
    return DataMap(items=await service.data_map(session))


@router.get("/participants", response_model=ParticipantList, responses=refusals(401, 403))
async def list_participants(
    request: Request, caller: Authenticated, session: PlatformSession
) -> ParticipantList:
    """Who answers requests, and how much each has still to answer."""
    if caller.role not in STAFF:
        raise Forbidden
    settings: Settings = request.app.state.settings
    return ParticipantList(items=await service.participants(session, expected=sorted(settings.participants)))


# --- Downloads -------------------------------------------------------------------------------------------


@router.post(
    "/downloads",
    response_class=StreamingResponse,
    responses={
        200: {"content": {"application/zip": {}}, "description": "The archive, as a stream."},
        **refusals(404),
    },
)
async def download(
    request: Request,
    vault: OpenVault,
    at: Now,
    token: Annotated[str, Form(min_length=1, max_length=100, description="What follows # in the link.")],
) -> StreamingResponse:
    """Fetch an export with the token of the link that came by mail. It works a few times, for a few days."""
    export = await downloads.begin(request.app.state.database, vault, token=token, now=at)
    return StreamingResponse(
        archive(export),
        media_type="application/zip",
        headers={
            "Content-Disposition": f'attachment; filename="export-{export.request_id}.zip"',
            "Cache-Control": "no-store",
        },
    )
