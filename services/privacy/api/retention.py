"""How long a store keeps things, what that comes to, and what is held beyond it."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request, Response

from libs.common.auth import PrivacyOfficer, StoreId
from libs.common.http import Cursor, IfMatch, Limit, OpenVault, Page, Session, refusals, set_etag
from libs.common.idempotency import IdempotencyKey, once
from libs.common.personal.vault import Vault
from services.privacy import holds
from services.privacy.api.means import Now
from services.privacy.desk_schemas import (
    HoldView,
    Language,
    NewHold,
    NewPeriods,
    RetentionForecast,
    RetentionPreview,
    RetentionView,
)
from services.privacy.policies import language_of
from services.privacy.retention import moving, periods, surveying

router = APIRouter(prefix="/stores/{store_id}", tags=["retention"])

HoldId = Annotated[UUID, Path(description="The hold.")]
Months = Annotated[int, Query(ge=1, le=120, description="How many months, this one among them.")]
Spoken = Annotated[Language | None, Query(description="Of words for people; the store's by itself.")]


@router.get("/retention", responses=refusals(401, 403, 404))
async def get_retention(
    request: Request,
    store_id: StoreId,
    _: PrivacyOfficer,
    session: Session,
    response: Response,
    language: Spoken = None,
) -> RetentionView:
    """How long everything is kept, from which event on, and between which bounds the store may choose."""
    spoken = language or await language_of(request.app.state.database, store_id)
    view, version = await surveying.periods(session, store_id=store_id, language=spoken)
    set_etag(response, version)
    return view


@router.put("/retention", status_code=204, responses=refusals(401, 403, 404, 412, 428))
async def put_retention(
    store_id: StoreId, _: PrivacyOfficer, wanted: NewPeriods, session: Session, if_match: IfMatch = None
) -> Response:
    """Replace all that the store has chosen. What is left out is as it is by itself; what runs already moves, in
    batches: `left_to_move` says how far that is. What is destroyed does not come back.
    """
    version = await periods.choose(session, store_id=store_id, lengths=wanted.parsed, if_match=if_match)
    moving.soon(session)
    response = Response(status_code=204)
    set_etag(response, version)
    return response


@router.post("/retention/preview", responses=refusals(401, 403, 404))
async def preview_retention(
    store_id: StoreId, _: PrivacyOfficer, wanted: NewPeriods, session: Session, now: Now
) -> RetentionPreview:
    """What would expire earlier, later and at once, if this were chosen. Changes nothing."""
    return await surveying.preview(session, store_id=store_id, lengths=wanted.parsed, now=now)


@router.get("/retention/forecast", responses=refusals(401, 403, 404))
async def get_forecast(
    store_id: StoreId, _: PrivacyOfficer, session: Session, now: Now, months: Months = 12
) -> RetentionForecast:
    """What expires in this month and the next ones."""
    return await surveying.forecast(session, store_id=store_id, months=months, now=now)


# --- Holds -----------------------------------------------------------------------------------------------


@router.post("/holds", status_code=201, response_model=HoldView, responses=refusals(401, 403, 404, 409))
async def place_hold(
    *,
    request: Request,
    store_id: StoreId,
    caller: PrivacyOfficer,
    wanted: NewHold,
    vault: OpenVault,
    session: Session,
    now: Now,
    key: IdempotencyKey = None,
) -> Response:
    """Keep something of one person, or of everybody, for a claim: no timer takes it until the hold ends.

    An erasure meanwhile takes everything else, and says that this is kept, on which ground and until when.
    """
    subject_id = await _subject(vault, store_id, wanted)

    async def placed() -> tuple[HoldView, str]:
        hold = await holds.place(
            session,
            store_id=store_id,
            subject_id=subject_id,
            wanted=wanted,
            placed_by=caller.account_id,
            now=now,
        )
        return HoldView.model_validate(hold), f"/privacy/v1/stores/{store_id}/holds/{hold.id}"

    return await once(session, request, key, store_id=store_id, caller=str(caller.account_id), make=placed)


async def _subject(vault: Vault, store_id: UUID, wanted: NewHold) -> UUID | None:
    return await vault.subject_id(store_id, wanted.email) if wanted.email is not None else None


@router.get("/holds", responses=refusals(401, 403, 404))
async def list_holds(
    *,
    store_id: StoreId,
    _: PrivacyOfficer,
    session: Session,
    now: Now,
    in_force: Annotated[bool, Query(description="Only those that hold something now.")] = False,
    subject_id: Annotated[
        UUID | None, Query(description="Only those that are about this person too.")
    ] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[HoldView]:
    """The holds of the store, the newest first."""
    found, following = await holds.of_store(
        session,
        store_id=store_id,
        subject_id=subject_id,
        in_force_at=now if in_force else None,
        cursor=cursor,
        limit=limit,
    )
    return Page(items=[HoldView.model_validate(hold) for hold in found], next=following)


@router.get("/holds/{hold_id}", responses=refusals(401, 403, 404))
async def get_hold(store_id: StoreId, hold_id: HoldId, _: PrivacyOfficer, session: Session) -> HoldView:
    """Who placed it, why, and until when."""
    return HoldView.model_validate(await holds.one(session, store_id=store_id, hold_id=hold_id))


@router.delete("/holds/{hold_id}", status_code=204, responses=refusals(401, 403, 404))
async def lift_hold(
    store_id: StoreId, hold_id: HoldId, caller: PrivacyOfficer, session: Session, now: Now
) -> None:
    """End a hold before its day: what was only waiting for that goes now. Its record stays."""
    await holds.lift(session, store_id=store_id, hold_id=hold_id, by=caller.account_id, now=now)
