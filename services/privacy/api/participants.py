"""Who answers requests: for the platform."""

from typing import Annotated

from fastapi import APIRouter, Path, Request

from libs.common.auth import STAFF, Authenticated
from libs.common.errors import Forbidden
from libs.common.events.privacy import ParticipantName
from libs.common.http import PlatformSession, refusals
from services.privacy.api.means import Now, PlatformOfficer, expected
from services.privacy.participant_schemas import DepartureView, NewDeparture, ParticipantList
from services.privacy.service import participants, reading

router = APIRouter(prefix="/participants", tags=["participants"])

Name = Annotated[ParticipantName, Path(description="The participant.")]


@router.get("", response_model=ParticipantList, responses=refusals(401, 403))
async def list_participants(
    request: Request, caller: Authenticated, session: PlatformSession
) -> ParticipantList:
    """Who answers requests, how much each has still to answer, and who left."""
    if caller.role not in STAFF:
        raise Forbidden
    return ParticipantList(
        items=await reading.participants(session, expected=expected(request)),
        departed=await participants.departed(session),
    )


@router.post(
    "/{name}/departure", status_code=202, response_model=DepartureView, responses=refusals(401, 403, 404, 409)
)
async def leave(
    *,
    request: Request,
    name: Name,
    officer: PlatformOfficer,
    wanted: NewDeparture,
    session: PlatformSession,
    now: Now,
) -> DepartureView:
    """Let a participant leave, and say who has its data. It is expected no more, and what it signs is not believed any
    more; what it was asked goes to its successor, in batches: `open` says how much is left. To say the same again
    changes nothing.
    """
    return await participants.leave(
        session, name=name, wanted=wanted, by=officer.account_id, now=now, required=expected(request)
    )


@router.get("/{name}/departure", response_model=DepartureView, responses=refusals(401, 403, 404))
async def get_departure(name: Name, _: PlatformOfficer, session: PlatformSession) -> DepartureView:
    """How a participant left, and how much is still to be handed over."""
    return await participants.departure(session, name=name)


@router.delete("/{name}/departure", status_code=204, responses=refusals(401, 403, 404))
async def readmit(name: Name, officer: PlatformOfficer, session: PlatformSession, now: Now) -> None:
    """Let a participant that left announce itself again, with whatever key it comes; until then its name is refused.
    What was handed over stays so.
    """
    await participants.readmit(session, name=name, by=officer.account_id, now=now)
