"""Stores: opened by merchants, seen by everybody."""

from typing import Annotated

from fastapi import APIRouter, Body, Depends, Path, Request, Response

from libs.common.auth import PLATFORM_STORE, Authenticated, Caller, Role, StoreId, of_store
from libs.common.errors import Forbidden
from libs.common.http import (
    Cursor,
    IfMatch,
    Limit,
    Page,
    PlatformSession,
    Session,
    cursor_at,
    refusals,
    set_etag,
)
from libs.common.idempotency import IdempotencyKey, once
from services.identity.api.means import ThisParts, position
from services.identity.models import Store
from services.identity.schemas import (
    MyStore,
    SettingsChange,
    SettingsOut,
    Slug,
    StoreChanges,
    StoreClosingOut,
    StoreClosingRequest,
    StoreOut,
    StoreRequest,
)
from services.identity.service import closing, store_closing, stores

router = APIRouter(prefix="/stores", tags=["stores"])

Owner = Annotated[Caller, Depends(of_store(Role.OWNER))]


async def _merchant(caller: Authenticated) -> Caller:
    """An account of the platform's own store."""
    if caller.store_id != PLATFORM_STORE or caller.role is not Role.CUSTOMER:
        raise Forbidden("Only an account of the platform itself can do this.")
    return caller


Merchant = Annotated[Caller, Depends(_merchant)]


@router.post("", status_code=201, response_model=StoreOut, responses=refusals(401, 403, 409))
async def open_store(
    request: Request,
    caller: Merchant,
    parts: ThisParts,
    body: StoreRequest,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Open a store; the caller becomes its owner. For accounts of the platform's own store."""
    async with parts.database.session(PLATFORM_STORE) as session:

        async def make() -> tuple[StoreOut, str]:
            store = await stores.open_store(session, caller=caller, facts=body.model_dump())
            return _out(store), f"/identity/v1/stores/{store.store_id}"

        return await once(
            session,
            request,
            idempotency_key,
            store_id=PLATFORM_STORE,
            caller=str(caller.account_id),
            make=make,
        )


@router.get("", responses=refusals(401, 403))
async def list_my_stores(
    caller: Merchant, session: PlatformSession, cursor: Cursor = None, limit: Limit = 20
) -> Page[MyStore]:
    """The stores the caller works at, oldest first, with the role there."""
    found = await stores.stores_of(
        session, account_id=caller.account_id, after=position(cursor), limit=limit + 1
    )
    shown = found[:limit]
    last = shown[-1][0] if shown else None
    return Page(
        items=[MyStore(**_out(store).model_dump(), role=role) for store, role in shown],
        next=cursor_at(last.opened_at, last.store_id) if last and len(found) > limit else None,
    )


@router.get("/by-slug/{slug}", responses=refusals(404))
async def read_store_by_slug(
    slug: Annotated[Slug, Path()], session: PlatformSession, response: Response
) -> StoreOut:
    """What anybody may know of a store, by its name in addresses."""
    return _shown(await stores.store_called(session, slug=slug), response)


@router.get("/{store_id}", responses=refusals(404))
async def read_store(store_id: StoreId, session: Session, response: Response) -> StoreOut:
    """What anybody may know of a store."""
    return _shown(await stores.store_of(session, store_id=store_id), response)


@router.patch("/{store_id}", responses=refusals(401, 403, 404, 409, 412, 428))
async def change_store(
    caller: Owner,
    session: Session,
    response: Response,
    body: Annotated[StoreChanges, Body()],
    if_match: IfMatch = None,
) -> StoreOut:
    """Change a store's facts. For its owner; the currency stays."""
    changes = body.model_dump(exclude_unset=True)
    store = await stores.change_store(session, store_id=caller.store_id, changes=changes, if_match=if_match)
    set_etag(response, store.version)
    return _out(store)


# --- Closing ---------------------------------------------------------------------------------------------


@router.post("/{store_id}/closing", responses=refusals(401, 403, 404, 409))
async def close_store(caller: Owner, parts: ThisParts, body: StoreClosingRequest) -> StoreClosingOut:
    """Close a store. For its owner, who types its name. From now on it sells nothing, shows nothing to visitors and
    takes no new accounts; staff read and export, customers use their rights, which the platform answers.
    """
    return _closing(await store_closing.close_store(parts, caller=caller, name=body.name))


@router.get("/{store_id}/closing", responses=refusals(401, 403, 404))
async def read_closing(caller: Owner, session: Session) -> StoreClosingOut:
    """Whether the store is closed, and until when it can be opened again."""
    return _closing(await stores.store_of(session, store_id=caller.store_id))


@router.delete("/{store_id}/closing", responses=refusals(401, 403, 404, 409))
async def reopen_store(caller: Owner, parts: ThisParts) -> StoreClosingOut:
    """Open a closed store again, as it was. For its owner."""
    return _closing(await store_closing.reopen_store(parts, caller=caller))


# --- Settings --------------------------------------------------------------------------------------------


@router.get("/{store_id}/settings", responses=refusals(401, 403, 404))
async def read_settings(caller: Owner, session: Session, response: Response) -> SettingsOut:
    """What the store has decided about its customers' accounts; version 0 where it has decided nothing."""
    row = await closing.grace_of(session, caller.store_id)
    set_etag(response, row.version)
    return SettingsOut(grace_days=row.grace_days)


@router.put("/{store_id}/settings", status_code=204, responses=refusals(401, 403, 404, 409, 412, 428))
async def change_settings(
    caller: Owner, session: Session, body: SettingsChange, if_match: IfMatch = None
) -> Response:
    """Decide how long a closed account can be brought back. For the owner."""
    version = await closing.set_grace(
        session, store_id=caller.store_id, grace_days=body.grace_days, if_match=if_match
    )
    response = Response(status_code=204)
    set_etag(response, version)
    return response


def _closing(store: Store) -> StoreClosingOut:
    return StoreClosingOut.model_validate(
        {"state": store.state, "closed_at": store.closed_at, "ends_at": store.ends_at}
    )


def _shown(store: Store, response: Response) -> StoreOut:
    set_etag(response, store.version)
    response.headers["Cache-Control"] = "public, max-age=5"
    return _out(store)


def _out(store: Store) -> StoreOut:
    facts = ("name", "slug", "country", "currency", "language", "version", "state")
    return StoreOut.model_validate({"id": store.store_id, **{name: getattr(store, name) for name in facts}})
