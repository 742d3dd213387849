"""What routes take from their request."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Path, Request

from libs.common.auth import PLATFORM_STORE, Authenticated, Caller, Role, StoreId
from libs.common.errors import Forbidden, NotFound
from services.privacy.service import deciding
from services.privacy.settings import Settings

RequestId = Annotated[UUID, Path(description="The request.")]


async def now() -> datetime:
    """The clock of requests and links, in UTC."""
    return datetime.now(UTC)


Now = Annotated[datetime, Depends(now)]


def expected(request: Request) -> Sequence[str]:
    """The participants that are asked whether they announced themselves or not."""
    settings: Settings = request.app.state.settings
    return sorted(settings.participants)


# --- Who may what ----------------------------------------------------------------------------------------

OFFICERS = frozenset({Role.OWNER, Role.PRIVACY_OFFICER})


def own(caller: Caller) -> Caller | None:
    """Whose requests a caller may see: their own, or everybody's (None). Raises Forbidden for other staff."""
    if caller.role in OFFICERS:
        return None
    if caller.role is not Role.CUSTOMER:
        raise Forbidden
    return caller


async def _answering(
    request: Request, store_id: StoreId, request_id: RequestId, caller: Authenticated
) -> Caller:
    """Whoever answers a request. To anybody else it does not exist."""
    if caller.store_id not in {store_id, PLATFORM_STORE}:
        raise NotFound
    if caller.role not in OFFICERS:
        raise Forbidden if caller.store_id == store_id else NotFound
    async with request.app.state.database.session(store_id) as session:
        await deciding.may_decide(session, store_id=store_id, request_id=request_id, officer=caller)
    return caller


async def _person_or_answering(
    request: Request, store_id: StoreId, request_id: RequestId, caller: Authenticated
) -> Caller:
    if caller.store_id == store_id:
        return caller
    return await _answering(request, store_id, request_id, caller)


Answering = Annotated[Caller, Depends(_answering)]
"""An officer of the store, or of the platform where the platform answers: the request was escalated, or the store is
closed.
"""
PersonOrAnswering = Annotated[Caller, Depends(_person_or_answering)]
"""The person, staff of the store, or the platform where it answers; `own` says what they may see."""


async def _of_platform(caller: Authenticated) -> Caller:
    if caller.store_id != PLATFORM_STORE or caller.role not in OFFICERS:
        raise Forbidden
    return caller


PlatformOfficer = Annotated[Caller, Depends(_of_platform)]


async def _attending(
    request: Request, store_id: StoreId, request_id: RequestId, caller: Authenticated
) -> Caller:
    if caller.store_id == PLATFORM_STORE and caller.role in OFFICERS:
        return caller
    return await _answering(request, store_id, request_id, caller)


Attending = Annotated[Caller, Depends(_attending)]
"""Who sees to it that everybody does their part: an officer of the store, or of the platform, whoever decides."""
