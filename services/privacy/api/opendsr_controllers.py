"""A store's own privacy tools: who may ask us over OpenDSR, by which key, and what they were told."""

from datetime import timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Request, Response

from libs.common.auth import PrivacyOfficer, StoreId
from libs.common.http import Cursor, Limit, Page, Session, refusals
from libs.common.idempotency import IdempotencyKey, once
from services.privacy.api.means import Now
from services.privacy.opendsr import controllers, following
from services.privacy.opendsr.models import OpenDsrController
from services.privacy.opendsr.places import base_of
from services.privacy.opendsr.schemas import (
    CallbackView,
    ControllerView,
    ControllerWithKey,
    NewController,
    NewKey,
)

router = APIRouter(prefix="/stores/{store_id}", tags=["OpenDSR"])

ControllerId = Annotated[UUID, Path(description="The tool.")]


@router.post(
    "/opendsr-controllers",
    status_code=201,
    response_model=ControllerWithKey,
    responses=refusals(401, 403, 404, 409),
)
async def register_controller(
    *,
    request: Request,
    store_id: StoreId,
    officer: PrivacyOfficer,
    wanted: NewController,
    session: Session,
    at: Now,
    key: IdempotencyKey = None,
) -> Response:
    """Let a tool of the store ask for what people asked the store for. Its key is told this once."""
    told: str | None = None

    async def registered() -> tuple[ControllerWithKey, str]:
        nonlocal told
        controller, told = await controllers.register(
            session, wanted, store_id=store_id, by=officer.account_id, now=at
        )
        path = f"/privacy/v1/stores/{store_id}/opendsr-controllers/{controller.id}"
        return _with_key(request, controller, None), path

    caller = str(officer.account_id)
    reply = await once(session, request, key, store_id=store_id, caller=caller, make=registered)
    if told is None:
        return reply
    # What is kept to be given again is without it.
    made = ControllerWithKey.model_validate_json(bytes(reply.body)).model_copy(update={"key": told})
    headers = {"Location": reply.headers["Location"], "Cache-Control": "no-store"}
    return Response(made.model_dump_json(), status_code=201, headers=headers, media_type="application/json")


def _with_key(request: Request, controller: OpenDsrController, key: str | None) -> ControllerWithKey:
    shown = ControllerView.model_validate(controller).model_dump()
    base = base_of(request.app.state.settings.public_url, controller.store_id)
    return ControllerWithKey(**shown, key=key, base_url=base)


@router.get("/opendsr-controllers", responses=refusals(401, 403, 404))
async def list_controllers(
    store_id: StoreId, _: PrivacyOfficer, session: Session, cursor: Cursor = None, limit: Limit = 20
) -> Page[ControllerView]:
    """The tools of the store, the newest first; revoked ones too."""
    found, following_ = await controllers.of_store(session, store_id=store_id, cursor=cursor, limit=limit)
    return Page(items=[ControllerView.model_validate(one) for one in found], next=following_)


@router.get("/opendsr-controllers/{controller_id}", responses=refusals(401, 403, 404))
async def get_controller(
    store_id: StoreId, controller_id: ControllerId, _: PrivacyOfficer, session: Session
) -> ControllerView:
    """A tool."""
    found = await controllers.one(session, store_id=store_id, controller_id=controller_id)
    return ControllerView.model_validate(found)


@router.put("/opendsr-controllers/{controller_id}", responses=refusals(401, 403, 404))
async def change_controller(
    store_id: StoreId, controller_id: ControllerId, _: PrivacyOfficer, wanted: NewController, session: Session
) -> ControllerView:
    """Another name, other hosts: they count for what is asked from now on."""
    found = await controllers.one(session, store_id=store_id, controller_id=controller_id, lock=True)
    await controllers.change(session, found, wanted)
    return ControllerView.model_validate(found)


@router.post("/opendsr-controllers/{controller_id}/keys", responses=refusals(401, 403, 404))
async def rotate_key(
    *,
    request: Request,
    response: Response,
    store_id: StoreId,
    controller_id: ControllerId,
    _: PrivacyOfficer,
    wanted: NewKey,
    session: Session,
    at: Now,
) -> ControllerWithKey:
    """Another key, told this once; the one before is good for as long as it takes to put the new one in its place."""
    found = await controllers.one(session, store_id=store_id, controller_id=controller_id, lock=True)
    overlap = timedelta(hours=wanted.overlap_hours)
    key = await controllers.rotate(session, found, overlap=overlap, now=at)
    response.headers["Cache-Control"] = "no-store"
    return _with_key(request, found, key)


@router.delete("/opendsr-controllers/{controller_id}", status_code=204, responses=refusals(401, 403, 404))
async def revoke_controller(
    store_id: StoreId, controller_id: ControllerId, _: PrivacyOfficer, session: Session, at: Now
) -> None:
    """Let it in no more, and call it back no more. What it asked is done. A second time changes nothing."""
    found = await controllers.one(session, store_id=store_id, controller_id=controller_id, lock=True)
    await controllers.revoke(session, found, now=at)


@router.get("/opendsr-controllers/{controller_id}/callbacks", responses=refusals(401, 403, 404))
async def list_callbacks(
    store_id: StoreId, controller_id: ControllerId, _: PrivacyOfficer, session: Session, limit: Limit = 20
) -> list[CallbackView]:
    """The last calls to a tool, the newest first: what it was told, and how it answered."""
    found = await controllers.one(session, store_id=store_id, controller_id=controller_id)
    return [
        CallbackView(
            id=callback.id,
            subject_request_id=asked.subject_request_id,
            kind=asked.kind,  # type: ignore[arg-type]
            url=callback.url,
            status=callback.status,  # type: ignore[arg-type]
            made_at=callback.made_at,
            attempts=callback.attempts,
            due_at=callback.due_at,
            delivered_at=callback.delivered_at,
            answer=callback.answer,
            fault=callback.fault,
        )
        for callback, asked in await following.callbacks_of(session, found, limit=limit)
    ]
