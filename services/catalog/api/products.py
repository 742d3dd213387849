"""Products: read by anybody, changed by managers."""

import hashlib
import re
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Path, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from libs.common.auth import STAFF, Manager, Staff, StoreId, Visitor
from libs.common.db import Database
from libs.common.errors import Forbidden
from libs.common.http import IfMatch, Page, Session, refusals, set_etag
from libs.common.idempotency import IdempotencyKey, once
from libs.common.stores import known_store
from services.catalog.domain.description import tidy
from services.catalog.domain.products import Status
from services.catalog.models import Variant
from services.catalog.schemas import (
    Facets,
    Filters,
    Handle,
    ListQuery,
    NewProduct,
    ProductCard,
    ProductChange,
    ProductDocument,
    StockCount,
    StockDocument,
    VariantChange,
)
from services.catalog.service import listing, products, stock

router = APIRouter(prefix="/stores/{store_id}", tags=["products"])

IfNoneMatch = Annotated[
    str | None, Header(alias="If-None-Match", max_length=400, description="The ETag of the last answer.")
]
UNCHANGED: dict[int | str, dict[str, Any]] = {304: {"description": "What you have is still so."}}
ANYBODY: dict[str, Any] = {"security": [{}]}
"""Documents that the access token may be left out."""
_SHARED = "public, max-age=0, must-revalidate"
_PRIVATE = "private, no-store"


# --- Queries ---------------------------------------------------------------------------------------------
# FastAPI takes a third of a list's time to look for fourteen parameters one by one. Here the model does it, which
# leaves their documentation to us.

Q = TypeVar("Q", bound=BaseModel)


def _parsed(model: type[Q]) -> Callable[[Request], Awaitable[Q]]:
    """A dependency: the query string as a model says it must be."""

    async def parsed(request: Request) -> Q:
        try:
            return model.model_validate(dict(request.query_params))
        except ValidationError as error:
            raise RequestValidationError(error.errors()) from error

    return parsed


def _documented(model: type[BaseModel]) -> dict[str, Any]:
    """`openapi_extra=` of a route with such a dependency, open to anybody."""
    schema = model.model_json_schema()
    words = schema.get("$defs", {})

    def inlined(part: dict[str, Any]) -> dict[str, Any]:
        if "$ref" in part:
            part = words[part["$ref"].rsplit("/", 1)[-1]] | {k: v for k, v in part.items() if k != "$ref"}
        # An absent parameter is left out and never null.
        choices = [inlined(choice) for choice in part.pop("anyOf", []) if choice.get("type") != "null"]
        return {k: v for k, v in (part | choices[0] if choices else part).items() if k != "title"}

    fields = {name: inlined(dict(part)) for name, part in schema["properties"].items()}
    parameters = [
        {"name": name, "in": "query", "required": False, "schema": part} for name, part in fields.items()
    ]
    return ANYBODY | {"parameters": parameters}


# --- For everybody ---------------------------------------------------------------------------------------


@router.get(
    "/products",
    response_model=Page[ProductCard],
    responses=UNCHANGED | refusals(401, 403, 404),
    openapi_extra=_documented(ListQuery),
)
async def list_products(
    *,
    request: Request,
    store_id: StoreId,
    query: Annotated[ListQuery, Depends(_parsed(ListQuery))],
    caller: Visitor,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """The store's products, filtered, searched, sorted. `next` is a cursor, which holds while products come and go."""
    shown_to_all = query.status is Status.ACTIVE
    if not shown_to_all and (caller is None or caller.role not in STAFF):
        raise Forbidden
    page = await listing.list_products(
        _database(request),
        store_id,
        query.selection(query.status),
        sort=query.sort,
        cursor=query.cursor,
        limit=query.limit,
    )
    return _fresh(page, if_none_match, shared=shown_to_all)


@router.get(
    "/facets",
    response_model=Facets,
    responses=UNCHANGED | refusals(401, 404),
    openapi_extra=_documented(Filters),
)
async def count_facets(
    *,
    request: Request,
    store_id: StoreId,
    filters: Annotated[Filters, Depends(_parsed(Filters))],
    _caller: Visitor,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """How many of the selected products have which vendor, type, tag and price."""
    facets = await listing.count_facets(_database(request), store_id, filters.selection())
    return _fresh(facets, if_none_match)


@router.get(
    "/products/by-handle/{handle}",
    response_model=ProductDocument,
    responses=UNCHANGED | refusals(401, 404),
    openapi_extra=ANYBODY,
)
async def read_product_by_handle(
    *,
    request: Request,
    store_id: StoreId,
    handle: Annotated[Handle, Path()],
    caller: Visitor,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """A product by the name in its address; drafts and archived ones for staff only."""
    drafts = caller is not None and caller.role in STAFF
    version, document = await listing.read_product(_database(request), store_id, handle=handle, drafts=drafts)
    return _fresh(document, if_none_match, version=version, shared=not drafts)


@router.get(
    "/products/{product_id}",
    response_model=ProductDocument,
    responses=UNCHANGED | refusals(401, 404),
    openapi_extra=ANYBODY,
)
async def read_product(
    *,
    request: Request,
    store_id: StoreId,
    product_id: UUID,
    caller: Visitor,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """A product with its variants; drafts and archived ones for staff only."""
    drafts = caller is not None and caller.role in STAFF
    version, document = await listing.read_product(
        _database(request), store_id, product_id=product_id, drafts=drafts
    )
    return _fresh(document, if_none_match, version=version, shared=not drafts)


def _database(request: Request) -> Database:
    return request.app.state.database


def _fresh(
    body: bytes, if_none_match: str | None, *, version: int | None = None, shared: bool = True
) -> Response:
    """The body as PostgreSQL wrote it, or 304 where the caller has it already.

    A product's ETag is its version, which a manager edits, and a digest, since stock moves without an edit.
    """
    digest = hashlib.blake2b(body, digest_size=12).hexdigest()
    etag = f'"{digest}"' if version is None else f'"{version}-{digest}"'
    headers = {"ETag": etag, "Cache-Control": _SHARED if shared else _PRIVATE, "Vary": "Authorization"}
    if if_none_match is not None and (etag in if_none_match or if_none_match.strip() == "*"):
        return Response(status_code=304, headers=headers)
    return Response(body, media_type="application/json", headers=headers)


# --- For managers ----------------------------------------------------------------------------------------


@router.post(
    "/products", status_code=201, response_model=ProductDocument, responses=refusals(401, 403, 404, 409)
)
async def create_product(
    *,
    request: Request,
    store_id: StoreId,
    wanted: NewProduct,
    caller: Manager,
    session: Session,
    key: IdempotencyKey = None,
) -> Response:
    """A new product with its variants, priced in the store's currency."""

    async def make() -> tuple[ProductDocument, str]:
        product_id = await products.create(session, store_id=store_id, wanted=wanted)
        document = await listing.document_of(session, store_id, product_id)
        path = f"/catalog/v1/stores/{store_id}/products/{product_id}"
        return ProductDocument.model_validate_json(document), path

    return await once(session, request, key, store_id=store_id, caller=str(caller.account_id), make=make)


@router.patch(
    "/products/{product_id}",
    response_model=ProductDocument,
    responses=refusals(401, 403, 404, 409, 412, 428),
)
async def change_product(
    *,
    store_id: StoreId,
    product_id: UUID,
    wanted: ProductChange,
    _caller: Manager,
    session: Session,
    if_match: IfMatch = None,
) -> Response:
    """Change what is named. `status: archived` takes a product off sale; its past orders stay."""
    changes = wanted.model_dump(exclude_unset=True)
    if "description" in changes:
        changes["description"] = tidy(wanted.description)
    if "status" in changes:
        changes["status"] = wanted.status.value
    await products.change(
        session, store_id=store_id, product_id=product_id, if_match=_version_of(if_match), changes=changes
    )
    document = await listing.document_of(session, store_id, product_id)
    version = ProductDocument.model_validate_json(document).version
    return _fresh(document, None, version=version, shared=False)


def _version_of(if_match: str | None) -> str | None:
    """Stock that moved since is no conflict of edits: only the version before the digest counts."""
    return if_match and re.sub(r'-[0-9a-f]{24}"$', '"', if_match.strip())


@router.patch(
    "/variants/{variant_id}",
    response_model=StockDocument,
    responses=refusals(401, 403, 404, 409, 412, 428),
)
async def change_variant(
    *,
    response: Response,
    store_id: StoreId,
    variant_id: UUID,
    wanted: VariantChange,
    _caller: Manager,
    session: Session,
    if_match: IfMatch = None,
) -> StockDocument:
    """Change a variant's price, SKU, weight, or whether it is sold past zero. The ETag is that of its stock."""
    variant = await products.change_variant(
        session,
        store_id=store_id,
        variant_id=variant_id,
        if_match=if_match,
        changes=wanted.model_dump(exclude_unset=True),
    )
    return _stock(response, variant)


@router.get("/variants/{variant_id}/stock", response_model=StockDocument, responses=refusals(401, 403, 404))
async def read_stock(
    *, response: Response, store_id: StoreId, variant_id: UUID, _caller: Staff, session: Session
) -> StockDocument:
    """How many pieces there are, and how many of them are promised."""
    await known_store(session, store_id)
    return _stock(response, await products.find_variant(session, store_id, variant_id))


@router.put(
    "/variants/{variant_id}/stock",
    response_model=StockDocument,
    responses=refusals(401, 403, 404, 409, 412, 428),
)
async def count_stock(
    *,
    response: Response,
    store_id: StoreId,
    variant_id: UUID,
    counted: StockCount,
    _caller: Manager,
    session: Session,
    if_match: IfMatch = None,
) -> StockDocument:
    """Set what an inventory found. A count made before pieces were shipped is stale and refused."""
    variant = await stock.count(
        session, store_id=store_id, variant_id=variant_id, if_match=if_match, on_hand=counted.on_hand
    )
    return _stock(response, variant)


def _stock(response: Response, variant: Variant) -> StockDocument:
    set_etag(response, variant.version)
    response.headers["Cache-Control"] = _PRIVATE
    return StockDocument(
        variant_id=variant.id,
        on_hand=variant.on_hand,
        reserved=variant.reserved,
        available=variant.stock.available,
        backorder=variant.backorder,
        version=variant.version,
    )
