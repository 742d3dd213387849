"""`/keyring/v1`: for services only, never behind the public port."""

from fastapi import APIRouter, Request

from libs.common.http import PlatformSession
from services.privacy.keyring import service
from services.privacy.keyring.callers import CallingService
from services.privacy.keyring.domain import Grant, check_erase, check_mint, granted
from services.privacy.keyring.schemas import (
    Answer,
    Erased,
    ErasuresAsked,
    KeysAsked,
    MintedKey,
    OpenedKey,
    OpeningAsked,
    StoresAsked,
    StoreSecret,
    SubjectsAsked,
    SubjectStatus,
)

router = APIRouter(prefix="/keyring/v1", tags=["keyring"])


@router.post("/stores/secrets")
async def store_secrets(
    request: Request, caller: CallingService, session: PlatformSession, asked: StoresAsked
) -> Answer[StoreSecret]:
    """The secret of each store, from which subject ids and blind indexes are derived."""
    items = await service.store_secrets(
        session, stores=asked.stores, master_keys=request.app.state.master_keys
    )
    return Answer(items=items)


@router.post("/keys/mint")
async def mint(
    request: Request, caller: CallingService, session: PlatformSession, asked: KeysAsked
) -> Answer[MintedKey]:
    """Keys to seal with, made if need be. Making one twice gives the same."""
    check_mint(_grant(request, caller), {item.retention for item in asked.items})
    items = await service.mint(session, wanted=asked.items, master_keys=request.app.state.master_keys)
    return Answer(items=items)


@router.post("/keys/open")
async def open_keys(
    request: Request, caller: CallingService, session: PlatformSession, asked: OpeningAsked
) -> Answer[OpenedKey]:
    """Keys to open boxes with, counted by service and purpose."""
    state = request.app.state
    items = await service.open_keys(
        session,
        service=caller,
        grant=_grant(request, caller),
        purpose=asked.purpose,
        key_ids=asked.key_ids,
        today=state.clock().date(),
        master_keys=state.master_keys,
        log=state.destructions,
    )
    return Answer(items=items)


@router.post("/keys/destroy")
async def destroy(request: Request, caller: CallingService, asked: ErasuresAsked) -> Answer[Erased]:
    """Erase generations of people for good, and say what the law keeps."""
    check_erase(_grant(request, caller))
    state = request.app.state
    items = await service.destroy(
        state.database, state.destructions, erasures=asked.items, today=state.clock().date()
    )
    return Answer(items=items)


@router.post("/keys/status")
async def status(
    request: Request, caller: CallingService, session: PlatformSession, asked: SubjectsAsked
) -> Answer[SubjectStatus]:
    """The keys that still open, without their material."""
    check_erase(_grant(request, caller))
    return Answer(items=await service.status(session, subjects=asked.items))


def _grant(request: Request, caller: str) -> Grant:
    return granted(caller, request.app.state.grants)
