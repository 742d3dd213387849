"""What a store decides about requests."""

from fastapi import APIRouter, Request, Response

from libs.common.auth import PrivacyOfficer, StoreId
from libs.common.http import IfMatch, OpenVault, Session, refusals, set_etag
from services.privacy.api.means import Now
from services.privacy.desk_schemas import NewSettings, SettingsView
from services.privacy.service import settling

router = APIRouter(tags=["privacy desk"])


@router.get("/stores/{store_id}/settings", response_model=SettingsView, responses=refusals(401, 403, 404))
async def get_settings(
    request: Request, store_id: StoreId, _: PrivacyOfficer, vault: OpenVault, response: Response
) -> SettingsView:
    """What the store has decided, and what follows for every right, defaults among it."""
    view, version = await settling.read(request.app.state.database, vault, store_id=store_id)
    set_etag(response, version)
    return view


@router.put("/stores/{store_id}/settings", status_code=204, responses=refusals(401, 403, 404, 409, 412, 428))
async def put_settings(
    *,
    store_id: StoreId,
    _: PrivacyOfficer,
    wanted: NewSettings,
    vault: OpenVault,
    session: Session,
    now: Now,
    if_match: IfMatch = None,
) -> Response:
    """Replace all that the store has decided. What is left out is as the law has it.
    Open requests go on as they are.
    """
    desk = await settling.sealed_desk(vault, store_id=store_id, desk=wanted.desk) if wanted.desk else None
    version = await settling.write(
        session, store_id=store_id, wanted=wanted, desk=desk, if_match=if_match, now=now
    )
    response = Response(status_code=204)
    set_etag(response, version)
    return response
