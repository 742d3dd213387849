"""How every route that opens a request answers: once for each key, and 200 where the request was open already."""

from collections.abc import Awaitable, Callable
from uuid import UUID

from fastapi import Request as HttpRequest
from fastapi import Response
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.auth import Caller, Role
from libs.common.idempotency import once
from services.privacy.schemas import RequestSummary
from services.privacy.service import reading
from services.privacy.service.opening import Opened


async def opened_once(
    session: AsyncSession,
    request: HttpRequest,
    key: str | None,
    *,
    store_id: UUID,
    caller: Caller,
    opening: Callable[[], Awaitable[tuple[Opened, bool]]],
) -> Response:
    """The reply to `opening`, which says what was opened and whether it is new, or the one given before."""
    joined = False

    async def make() -> tuple[RequestSummary, str]:
        nonlocal joined
        opened, is_new = await opening()
        joined = not is_new
        return reading.summary(opened), f"/privacy/v1/stores/{store_id}/requests/{opened.id}"

    return await once(
        session,
        request,
        key,
        store_id=store_id,
        caller=_name(caller),
        make=make,
        status=lambda: 200 if joined else 201,
    )


def _name(caller: Caller) -> str:
    """Whoever came back after an erasure is somebody else, who must not meet the replies of before."""
    if caller.role is Role.CUSTOMER:
        return f"{caller.customer}:{caller.generation}"
    return str(caller.account_id)
