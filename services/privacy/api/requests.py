"""Requests: use a right, follow what becomes of it; who answers, and what is kept."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response

from libs.common.auth import PLATFORM_STORE, Caller, Customer, StoreId, of_store
from libs.common.http import (
    Cursor,
    Limit,
    OpenVault,
    Page,
    Session,
    refusals,
    set_etag,
)
from libs.common.idempotency import IdempotencyKey
from libs.common.stores import known_store
from services.privacy.api.means import Now, PersonOrAnswering, RequestId, expected, own
from services.privacy.api.openings import opened_once
from services.privacy.domain.rights import RightName
from services.privacy.domain.states import State
from services.privacy.policies import language_of
from services.privacy.schemas import DataMap, NewRequest, RequestDetail, RequestSummary
from services.privacy.service import opening, participants, reading

router = APIRouter(tags=["privacy"])

Reader = Annotated[Caller, Depends(of_store())]
"""The person, who sees their own requests, or who answers for the store and sees all."""

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
    wanted: NewRequest,
    vault: OpenVault,
    session: Session,
    at: Now,
    key: IdempotencyKey = None,
) -> Response:
    """Use a right. A session is proof enough of who asks; the answer goes to the account's own address."""
    asking = await opening.signed_in(
        request.app.state.database,
        vault,
        caller=caller,
        asked=wanted.asked(),
        email=wanted.email,
        language=wanted.language or await language_of(request.app.state.database, store_id),
    )
    return await opened_once(
        session,
        request,
        key,
        store_id=store_id,
        caller=caller,
        opening=lambda: opening.open_request(session, asking, expected=expected(request), now=at),
    )


@router.get(
    "/stores/{store_id}/requests",
    response_model=Page[RequestSummary],
    responses=refusals(401, 403, 404),
)
async def list_requests(
    *,
    store_id: StoreId,
    caller: Reader,
    session: Session,
    at: Now,
    state: State | None = None,
    right: RightName | None = None,
    assignee: UUID | None = None,
    overdue: bool | None = None,
    cursor: Cursor = None,
    limit: Limit = 20,
) -> Page[RequestSummary]:
    """Newest first: a person's own, or for the owner and the privacy officer all of the store."""
    return await reading.list_requests(
        session,
        store_id=store_id,
        of=own(caller),
        cursor=cursor,
        limit=limit,
        sought=reading.Sought(state, right, assignee, overdue),
        now=at,
    )


@router.get(
    "/stores/{store_id}/requests/{request_id}",
    response_model=RequestDetail,
    responses=refusals(401, 403, 404),
)
async def get_request(
    *,
    store_id: StoreId,
    request_id: RequestId,
    caller: PersonOrAnswering,
    session: Session,
    at: Now,
    response: Response,
) -> RequestDetail:
    """One request: where it is, who has answered what, what is kept, on what ground and until when. The platform's own
    officers read one that was escalated.
    """
    detail, version = await reading.get_request(
        session, store_id=store_id, request_id=request_id, of=own(caller), now=at
    )
    set_etag(response, version)
    return detail


# --- What is kept ----------------------------------------------------------------------------------------


@router.get("/stores/{store_id}/data-map", response_model=DataMap, responses=refusals(404))
async def get_data_map(store_id: StoreId, session: Session) -> DataMap:
    """What is kept about people, why, on what ground, how long and who receives it. The same for every store."""
    if store_id != PLATFORM_STORE:
        await known_store(session, store_id)
    return DataMap(items=await reading.data_map(session), departed=await participants.departed(session))
