"""The ends of stores, for the platform."""

from fastapi import APIRouter

from libs.common.http import Cursor, Limit, Page, PlatformSession, refusals
from services.privacy.api.means import PlatformOfficer
from services.privacy.desk_schemas import EndingView
from services.privacy.service import ending

router = APIRouter(tags=["stores"])


@router.get("/store-endings", response_model=Page[EndingView], responses=refusals(401, 403))
async def list_store_endings(
    _: PlatformOfficer, session: PlatformSession, cursor: Cursor = None, limit: Limit = 20
) -> Page[EndingView]:
    """For the platform: stores that have ended, the latest first. Whether their keys are destroyed, who has removed
    what they held, what is kept, on what ground and until when.
    """
    return await ending.endings(session, cursor=cursor, limit=limit)
