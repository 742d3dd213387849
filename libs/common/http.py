"""The manners of every HTTP interface: problems, bounds, sessions, ETags, cursors, health."""

import base64
import binascii
import logging
import re
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, Generic, TypeVar
from uuid import UUID

import httpx
import orjson
from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from libs.common import telemetry
from libs.common.auth import StoreId, TokenVerifier
from libs.common.closed import StoreStates, refuse_closed
from libs.common.db import Database, is_outage
from libs.common.errors import (
    BadRequest,
    NotFound,
    PreconditionFailed,
    PreconditionRequired,
    Problem,
    TooLarge,
    Unavailable,
    Unprocessable,
)
from libs.common.garbage import seldom_collect
from libs.common.pages.documents import documents
from libs.common.personal.vault import Vault
from libs.common.settings import ServiceSettings

logger = logging.getLogger(__name__)

PROBLEM = "application/problem+json"
MAXIMUM_BODY = 1024 * 1024
"""Bytes; a route that takes files names a bound of its own."""


class ProblemDocument(BaseModel):
    """RFC 9457. Members beyond these depend on the problem type."""

    type: str = Field(description="Stable URI of the problem type.")
    title: str
    status: int
    detail: str | None = None


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """`responses=` of a route that may refuse with these statuses; 400, 422 and 503 are every route's."""
    return {
        status: {
            "model": ProblemDocument,
            "content": {PROBLEM: {}},
            "description": HTTPStatus(status).phrase,
        }
        for status in statuses
    }


# --- Problems --------------------------------------------------------------------------------------------


def problem_response(problem: Problem) -> Response:
    """A problem as the answer it is."""
    return JSONResponse(
        problem.document(), status_code=problem.status, headers=problem.headers, media_type=PROBLEM
    )


async def _on_problem(request: Request, error: Exception) -> Response:
    if isinstance(error, Unavailable):
        return _turned_away(request, error, error.__cause__ or error)
    return problem_response(error if isinstance(error, Problem) else Problem())


def _turned_away(request: Request, answer: Unavailable, why: BaseException) -> Response:
    """What was away, or had no room, is in the log by the class of its error: the answer does not say."""
    words = {"route": _route(request), "outcome": answer.slug, "error": type(why).__name__}
    logger.warning("a request was turned away", extra=words)
    return problem_response(answer)


def _route(request: Request) -> str | None:
    """The pattern of the path, which holds nothing of anybody."""
    return getattr(request.scope.get("route"), "path", None)


async def _on_invalid(_request: Request, error: Exception) -> Response:
    """Where and why a payload is invalid; what was sent is never repeated."""
    found = error.errors() if isinstance(error, RequestValidationError) else []
    if any(entry["type"] == "json_invalid" for entry in found):
        return problem_response(BadRequest("The body is not valid JSON."))
    errors = [{"at": _pointer(entry), "reason": entry["type"]} for entry in found]
    return problem_response(Unprocessable("See errors for each place and reason.", errors=errors))


def _pointer(error: Mapping[str, Any]) -> str:
    """The place in the request; a key the caller invented is not repeated."""
    location = error["loc"][:-1] if error["type"] == "extra_forbidden" else error["loc"]
    names = [
        str(part)
        for part in location
        if isinstance(part, int) or re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]{0,39}", str(part))
    ]
    return "/".join(names)


async def _on_http(request: Request, error: Exception) -> Response:
    if isinstance(error.__cause__, Problem):
        # The framework wraps what was raised while it read the body.
        return problem_response(error.__cause__)
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = dict(getattr(error, "headers", None) or {})
    if status == NotFound.status:
        return problem_response(NotFound(headers=headers))
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(_allowed(request))
    problem = {
        "type": "about:blank",
        "title": _PHRASES.get(status, "The request was refused"),
        "status": status,
    }
    return JSONResponse(problem, status_code=status, headers=headers, media_type=PROBLEM)


def _allowed(request: Request) -> list[str]:
    """The methods of a path. The router itself names only those of the first route it met there."""
    return [
        method
        for method in ("DELETE", "GET", "PATCH", "POST", "PUT")
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL
            for route in request.app.routes
        )
    ]


_PHRASES = {400: "The request cannot be understood", 405: "This method is not allowed here"}


async def _on_anything_else(request: Request, error: Exception) -> Response:
    if is_outage(error):
        return _turned_away(request, Unavailable(), error)
    logger.error("unexpected error", extra={"route": _route(request)}, exc_info=error)
    return problem_response(Problem())


# --- The application -------------------------------------------------------------------------------------


def build_app(
    *,
    service: str,
    settings: ServiceSettings,
    title: str,
    description: str,
    routers: Sequence[APIRouter],
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]] | None = None,
    body_limits: Mapping[str, int] | None = None,
    while_closed: Collection[str] = (),
    outlives_stores: bool = False,
) -> FastAPI:
    """A service's application: state, handlers, bounds, health and documents, under `/{service}`.

    `app.state` holds `settings`, `database`, `vault`, `tokens`, `stores` and `http` while the application runs.
    `body_limits` gives the bytes that routes ending so may take (`{"/imports": 10_000_000}`). `while_closed` names the
    routes that go on at a closed store: see `closed.py`. A service that outlives stores asks for nothing of the kind.
    """

    @asynccontextmanager
    async def run(app: FastAPI) -> AsyncGenerator[None]:
        seldom_collect()
        async with httpx.AsyncClient(timeout=5) as http:
            app.state.settings = settings
            app.state.database = Database(settings.database_url, pool_size=settings.database_pool_size)
            app.state.http = http
            app.state.tokens = TokenVerifier(
                issuer=settings.issuer, jwks_url=settings.keys_of_identity, http=http
            )
            app.state.vault = Vault.connect(service=service, settings=settings, http=http)
            app.state.stores = StoreStates()
            try:
                async with (
                    app.state.vault.following(app.state.database.url),
                    app.state.stores.following(app.state.database),
                ):
                    if lifespan is None:
                        yield
                    else:
                        async with lifespan(app):
                            yield
            finally:
                await app.state.database.close()

    app = _Application(
        title=title,
        description=description,
        version="1",
        lifespan=run,
        docs_url=None,
        redoc_url=None,
        openapi_url=f"/{service}/openapi.json",
        dependencies=[] if outlives_stores else [Depends(refuse_closed)],
        responses={
            400: {"model": ProblemDocument, "content": {PROBLEM: {}}, "description": "Not understood"},
            422: {"model": ProblemDocument, "content": {PROBLEM: {}}, "description": "Not valid"},
            503: {"model": ProblemDocument, "content": {PROBLEM: {}}, "description": "Try again"},
        },
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.while_closed = frozenset(while_closed)
    teach_manners(app, body_limits=body_limits or {})
    for router in routers:
        app.include_router(router, prefix=f"/{service}/v1")
    app.include_router(documents(service, title), prefix=f"/{service}")
    app.include_router(_health(service), prefix=f"/{service}")
    return app


def teach_manners(app: FastAPI, *, body_limits: Mapping[str, int]) -> None:
    """Every error becomes a problem, every body has a bound, and a request is traced if anybody keeps traces."""
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(Exception, _on_anything_else)
    app.add_middleware(BoundedBody, limits=body_limits)
    if telemetry.is_kept():
        FastAPIInstrumentor.instrument_app(app, excluded_urls="healthz", exclude_spans=["receive", "send"])


class _Application(FastAPI):
    """Its document offers no null where only text can travel: in a header, a query or a path."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document."""
        if self.openapi_schema is None:
            for path in super().openapi()["paths"].values():
                for operation in path.values():
                    for parameter in operation.get("parameters", []):
                        parameter["schema"] = _without_null(parameter["schema"])
        return super().openapi()


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    choices = [one for one in schema.get("anyOf", []) if one != {"type": "null"}]
    if len(choices) != 1:
        return schema
    return choices[0] | {name: value for name, value in schema.items() if name != "anyOf"}


def _health(service: str) -> APIRouter:
    router = APIRouter(include_in_schema=False)

    @router.get("/healthz/live", name=f"{service}_live")
    async def live() -> dict[str, str]:  # pyright: ignore[reportUnusedFunction]
        return {"status": "live"}

    @router.get("/healthz/ready", name=f"{service}_ready")
    async def ready(request: Request) -> dict[str, str]:  # pyright: ignore[reportUnusedFunction]
        """Ready once PostgreSQL answers."""
        async with request.app.state.database.platform_session() as session:
            await session.connection()
        return {"status": "ready"}

    return router


class BoundedBody:
    """Refuses a body over its bound, by its declared length or as soon as it is exceeded."""

    def __init__(self, app: ASGIApp, limits: Mapping[str, int]) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        limit = next(
            (n for suffix, n in self._limits.items() if scope["path"].endswith(suffix)), MAXIMUM_BODY
        )
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > limit:
            return await problem_response(_too_large(limit))(scope, receive, send)
        received = 0

        async def bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise _too_large(limit)
            return message

        return await self._app(scope, bounded, send)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"At most {limit} bytes are accepted here.", headers={"Connection": "close"})


# --- Sessions --------------------------------------------------------------------------------------------


async def _store_session(request: Request, store_id: StoreId) -> AsyncGenerator[AsyncSession]:
    database: Database = request.app.state.database
    async with database.session(store_id) as session:
        yield session


async def _platform_session(request: Request) -> AsyncGenerator[AsyncSession]:
    database: Database = request.app.state.database
    async with database.platform_session() as session:
        yield session


# The scope commits before the response leaves: an answer is only given once its effect is durable.
Session = Annotated[AsyncSession, Depends(_store_session, scope="function")]
"""A transaction bound to the store of the path."""
PlatformSession = Annotated[AsyncSession, Depends(_platform_session, scope="function")]
"""A transaction over all stores, for the few routes that have no store in their path."""


async def _vault(request: Request) -> Vault:
    return request.app.state.vault


OpenVault = Annotated[Vault, Depends(_vault)]
"""Seals and opens boxes."""


async def _client_address(request: Request) -> str:
    return request.client.host if request.client else "unknown"


ClientAddress = Annotated[str, Depends(_client_address)]
"""The address of the client as the server sees it; behind an ingress the server must be told to trust it."""


# --- ETags -----------------------------------------------------------------------------------------------


IfMatch = Annotated[str | None, Header(alias="If-Match", max_length=100, description="The ETag you read.")]


def set_etag(response: Response, version: int) -> None:
    """The ETag of a versioned object."""
    response.headers["ETag"] = f'"{version}"'


def require_match(if_match: str | None, version: int) -> None:
    """Raises PreconditionRequired without an If-Match, PreconditionFailed with a stale one."""
    if if_match is None:
        raise PreconditionRequired
    if if_match.strip() not in {f'"{version}"', "*"}:
        raise PreconditionFailed


# --- Lists -----------------------------------------------------------------------------------------------

Item = TypeVar("Item", bound=BaseModel)


class Page(BaseModel, Generic[Item]):
    """A part of a list; `next` is the cursor of the part after it, and absent at the end."""

    items: list[Item]
    next: str | None = None


class InvalidCursor(BadRequest):
    """A cursor that this list did not give."""

    slug = "invalid-cursor"
    title = "This cursor is not one of this list"
    detail = "Start again without a cursor."


Cursor = Annotated[str | None, Query(max_length=400, description="`next` of the part before.")]
Limit = Annotated[int, Query(ge=1, le=100, description="Items in a part.")]


def encode_cursor(*position: str | int) -> str:
    """An opaque cursor for a position in a stable order."""
    return base64.urlsafe_b64encode(orjson.dumps(position)).decode().rstrip("=")


def decode_cursor(cursor: str, *types: type) -> tuple[Any, ...]:
    """The position in a cursor. Raises InvalidCursor unless it has exactly these types."""
    try:
        position = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError) as error:
        raise InvalidCursor from error
    if not isinstance(position, list) or [type(part) for part in position] != list(types):  # pyright: ignore[reportUnknownVariableType]
        raise InvalidCursor
    if not all(_is_storable(part) for part in position):  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        raise InvalidCursor
    return tuple(position)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


def cursor_at(moment: datetime, identifier: UUID) -> str:
    """The cursor of a position in an order by time, and by id at one time."""
    return encode_cursor(moment.isoformat(), str(identifier))


def position_in(cursor: str) -> tuple[datetime, UUID]:
    """The time and the id in such a cursor. Raises InvalidCursor."""
    moment, identifier = decode_cursor(cursor, str, str)
    try:
        return datetime.fromisoformat(moment), UUID(identifier)
    except ValueError as error:
        raise InvalidCursor from error


def _is_storable(part: object) -> bool:
    """PostgreSQL has no integer beyond 64 bits and no NUL in a text."""
    if isinstance(part, int):
        return -(2**63) <= part < 2**63
    return not (isinstance(part, str) and "\0" in part)
