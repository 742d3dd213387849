"""Requests that wait, for whoever runs the platform and for whoever answers for a store. No personal data."""

from dataclasses import replace
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request

from libs.common.auth import PLATFORM_STORE, PrivacyOfficer, StoreId
from libs.common.events.privacy import ParticipantName
from libs.common.http import Cursor, Limit, Page, PlatformSession, Session, refusals
from services.privacy.api.means import Attending, Now, PlatformOfficer, RequestId, expected
from services.privacy.desk_schemas import Language
from services.privacy.domain.rights import RightName
from services.privacy.domain.states import State
from services.privacy.service import waiting
from services.privacy.service.reading import Sought
from services.privacy.waiting_schemas import Waiting, WaitingSummary

router = APIRouter(tags=["operations"])

Words = Annotated[Language, Query(description="Of the words.")]


async def _wanted(
    *,
    state: State | None = None,
    right: RightName | None = None,
    waiting_for: Annotated[
        ParticipantName | None,
        Query(description="A participant, or a recipient, whose answer is waited for."),
    ] = None,
    overdue: bool | None = None,
    older: Annotated[
        int | None, Query(ge=0, le=36_500, description="Opened so many days ago, or longer.")
    ] = None,
    stuck: Annotated[bool, Query(description="With a part that somebody should look at.")] = False,
    ended: Annotated[bool, Query(description="Those that have ended instead, the latest first.")] = False,
) -> waiting.Wanted:
    return waiting.Wanted(
        sought=Sought(state=state, right=right, overdue=overdue),
        waiting_for=waiting_for,
        older=older,
        stuck=stuck,
        ended=ended,
    )


Wanted = Annotated[waiting.Wanted, Depends(_wanted)]
OneStore = Annotated[UUID | None, Query(description="Of this store alone.")]


@router.get("/operations/requests", response_model=Page[WaitingSummary], responses=refusals(401, 403))
async def list_waiting_of_all(
    *,
    _: PlatformOfficer,
    session: PlatformSession,
    at: Now,
    wanted: Wanted,
    store: OneStore = None,
    cursor: Cursor = None,
    limit: Limit = 20,
) -> Page[WaitingSummary]:
    """For the platform: requests of all stores and whom each waits for, the oldest first."""
    of_store = replace(wanted, store_id=store)
    return await waiting.listed(session, of_store, cursor=cursor, limit=limit, now=at)


@router.get("/operations/requests/{request_id}", response_model=Waiting, responses=refusals(401, 403, 404))
async def explain_waiting_of_any(
    *,
    request: Request,
    request_id: RequestId,
    _: PlatformOfficer,
    session: PlatformSession,
    at: Now,
    language: Words = "en",
) -> Waiting:
    """For the platform: why a request has not ended. Whom it waits for, since when, when that is tried again, what went
    wrong last, what would end it, and how far the law's last day is.
    """
    return await waiting.explained(
        session,
        store_id=None,
        request_id=request_id,
        language=language,
        services=expected(request),
        as_platform=True,
        now=at,
    )


@router.get(
    "/stores/{store_id}/waiting-requests",
    response_model=Page[WaitingSummary],
    responses=refusals(401, 403, 404),
)
async def list_waiting(
    *,
    store_id: StoreId,
    _: PrivacyOfficer,
    session: Session,
    at: Now,
    wanted: Wanted,
    cursor: Cursor = None,
    limit: Limit = 20,
) -> Page[WaitingSummary]:
    """The store's requests and whom each waits for, the oldest first."""
    of_store = replace(wanted, store_id=store_id)
    return await waiting.listed(session, of_store, cursor=cursor, limit=limit, now=at)


@router.get(
    "/stores/{store_id}/requests/{request_id}/waiting",
    response_model=Waiting,
    responses=refusals(401, 403, 404),
)
async def explain_waiting(
    *,
    request: Request,
    store_id: StoreId,
    request_id: RequestId,
    officer: Attending,
    session: Session,
    at: Now,
    language: Words = "en",
) -> Waiting:
    """Why a request has not ended: as for the platform, for whoever sees to it."""
    return await waiting.explained(
        session,
        store_id=store_id,
        request_id=request_id,
        language=language,
        services=expected(request),
        as_platform=officer.store_id == PLATFORM_STORE,
        now=at,
    )
