"""A participant's part of a request, when it is stuck."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from libs.common.auth import StoreId
from libs.common.events.privacy import ParticipantName, Verb
from libs.common.http import OpenVault, Session, refusals
from libs.common.idempotency import IdempotencyKey, once
from services.privacy.api.means import Attending, Now, RequestId, expected
from services.privacy.participant_schemas import NewSettlement
from services.privacy.schemas import Part
from services.privacy.service import noting, parts

router = APIRouter(
    prefix="/stores/{store_id}/requests/{request_id}/parts/{participant}/{verb}", tags=["privacy desk"]
)

Name = Annotated[ParticipantName, Path(description="Whose part it is.")]
Asked = Annotated[Verb, Path(description="What was asked.")]


@router.post("/attempts", status_code=202, response_model=Part, responses=refusals(401, 403, 404, 409))
async def drive(
    *,
    store_id: StoreId,
    request_id: RequestId,
    participant: Name,
    verb: Asked,
    _: Attending,
    session: Session,
    at: Now,
) -> Part:
    """Have it asked again at once, with pauses as for the first time. To do so twice does no harm. The platform's own
    officers may do so at any store.
    """
    return await parts.drive(
        session, store_id=store_id, request_id=request_id, participant=participant, verb=verb, now=at
    )


@router.post("/settlement", response_model=Part, responses=refusals(401, 403, 404, 409, 410))
async def settle(
    *,
    request: Request,
    store_id: StoreId,
    request_id: RequestId,
    participant: Name,
    verb: Asked,
    officer: Attending,
    wanted: NewSettlement,
    vault: OpenVault,
    session: Session,
    at: Now,
    key: IdempotencyKey = None,
) -> Response:
    """Answer for a participant, with a reason on record: nothing is waited for from it any more, and the certificate
    says that others answered. For the platform's own services its own officers do so, at any store.
    """
    database = request.app.state.database
    async with database.session(store_id) as asking:
        await parts.may_settle(
            asking,
            store_id=store_id,
            request_id=request_id,
            participant=participant,
            officer=officer,
            services=expected(request),
        )
    note = await noting.sealed(database, vault, store_id=store_id, request_id=request_id, text=wanted.reason)

    async def make() -> tuple[Part, None]:
        settled = await parts.settle(
            session,
            note,
            wanted,
            participant=participant,
            verb=verb,
            by=officer.account_id,
            now=at,
            expected=expected(request),
        )
        return settled, None

    caller = str(officer.account_id)
    return await once(session, request, key, store_id=store_id, caller=caller, make=make, status=200)
