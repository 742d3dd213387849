"""Stores: opened by merchants, seen by everybody."""

from typing import Annotated

from fastapi import APIRouter, Body, Depends, Path, Request, Response

from libs.common.auth import PLATFORM_STORE, Authenticated, Caller, Role, StoreId, of_store
from libs.common.errors import Forbidden
from libs.common.http import Cursor, IfMatch, Limit, Page, PlatformSession, Session, refusals, set_etag
from libs.common.idempotency import IdempotencyKey, once
from services.identity.api.means import ThisParts, cursor_at, position
from services.identity.models import Store
from services.identity.schemas import MyStore, Slug, StoreChanges, StoreOut, StoreRequest
from services.identity.service import stores

router = APIRouter(prefix="/stores", tags=["stores"])

Owner = Annotated[Caller, Depends(of_store(Role.OWNER))]


def _merchant(caller: Authenticated) -> Caller:
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


def _shown(store: Store, response: Response) -> StoreOut:
    set_etag(response, store.version)
    response.headers["Cache-Control"] = "public, max-age=5"
    return _out(store)


def _out(store: Store) -> StoreOut:
    return StoreOut(
        id=store.store_id,
        name=store.name,
        slug=store.slug,
        country=store.country,
        currency=store.currency,
        language=store.language,
        version=store.version,
    )
