"""The keyring: a process, a port and a database of its own, reached like a KMS by our services alone.

uvicorn services.privacy.keyring.app:create_app --factory
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, date, datetime
from uuid import UUID

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError

from libs.common import telemetry
from libs.common.db import Database
from libs.common.errors import Unavailable, Unprocessable
from libs.common.http import PROBLEM, ProblemDocument, problem_response, teach_manners
from libs.common.pages.documents import documents
from services.privacy.keyring.api import router
from services.privacy.keyring.callers import ServiceTokens
from services.privacy.keyring.domain import GRANTS, Grant
from services.privacy.keyring.master_keys import MasterKeys
from services.privacy.keyring.measuring import keep_measuring
from services.privacy.keyring.service.destroying import replay
from services.privacy.keyring.service.rewrapping import check_master_keys
from services.privacy.keyring.settings import KeyringSettings

logger = logging.getLogger(__name__)

_REPLAY_WITHIN = 60.0
_BETWEEN_ATTEMPTS = 0.5


def create_app(
    settings: KeyringSettings | None = None,
    *,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    today: Callable[[], date] | None = None,
) -> FastAPI:
    """The application. It answers nothing before the destruction log has been replayed, and nothing without a master
    key that something lies under. `today` is the day by which keys end, where that is not of the clock that tokens are
    checked by.

    Raises ValueError for a master key or a service key of another form, or a grant to one of our own services.
    """
    settings = settings or _from_environment()
    master_keys = MasterKeys(
        settings.master_key.get_secret_value(),
        [key.get_secret_value() for key in settings.old_master_keys],
    )
    tokens = ServiceTokens(settings.service_keys, clock=lambda: clock().timestamp())
    grants = _grants(settings)

    @asynccontextmanager
    async def run(app: FastAPI) -> AsyncGenerator[None]:
        async with AsyncExitStack() as stack:
            app.state.database = Database(settings.database_url, pool_size=settings.database_pool_size)
            stack.push_async_callback(app.state.database.close)
            app.state.destructions = Database(settings.destructions_database_url)
            stack.push_async_callback(app.state.destructions.close)
            app.state.master_keys, app.state.tokens, app.state.grants = master_keys, tokens, grants
            app.state.clock = clock
            app.state.today = today or (lambda: clock().date())
            app.state.lead_seconds = 2 * settings.store_secret_seconds
            await _replayed(app.state.database, app.state.destructions, settings.trusted_log)
            await check_master_keys(app.state.database, master_keys)
            measuring = asyncio.create_task(keep_measuring(app.state.database, app.state.destructions))
            stack.push_async_callback(_ended, measuring)
            yield

    app = FastAPI(
        title="Keyring",
        version="1",
        lifespan=run,
        docs_url=None,
        redoc_url=None,
        openapi_url="/keyring/openapi.json",
        responses={
            status: {"model": ProblemDocument, "content": {PROBLEM: {}}, "description": description}
            for status, description in _REFUSALS.items()
        },
        generate_unique_id_function=lambda route: route.name,
    )
    teach_manners(app, body_limits={})
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.include_router(router)
    app.include_router(documents("keyring", "Keyring"), prefix="/keyring")
    app.include_router(_health())
    return app


_REFUSALS = {401: "No valid token", 403: "Not granted", 422: "Not valid", 503: "Try again"}


def _from_environment() -> KeyringSettings:
    settings = KeyringSettings.model_validate({})
    telemetry.start("keyring", level=settings.log_level)
    return settings


def _grants(settings: KeyringSettings) -> Mapping[str, Grant]:
    if named := GRANTS.keys() & settings.extra_grants.keys():
        raise ValueError(f"{', '.join(sorted(named))}: the grants of our own services are in domain.py")
    extra = {name: Grant(mint=more.mint, open=more.open) for name, more in settings.extra_grants.items()}
    return {**GRANTS, **extra}


async def _replayed(keyring: Database, log: Database, trusted: UUID | None) -> None:
    """A database that starts together with the keyring may be a little later."""
    deadline = time.monotonic() + _REPLAY_WITHIN
    while True:
        try:
            await replay(keyring, log, trusted=trusted)
        except Unavailable:
            if time.monotonic() > deadline:
                raise
            logger.warning("the keyring waits for its databases")
            await asyncio.sleep(_BETWEEN_ATTEMPTS)
        else:
            return


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def _health() -> APIRouter:
    router = APIRouter(include_in_schema=False)

    @router.get("/healthz/live")
    async def live() -> dict[str, str]:  # pyright: ignore[reportUnusedFunction]
        return {"status": "live"}

    @router.get("/healthz/ready")
    async def ready(request: Request) -> dict[str, str]:  # pyright: ignore[reportUnusedFunction]
        """Ready while both databases answer."""
        for database in (request.app.state.database, request.app.state.destructions):
            async with database.platform_session() as session:
                await session.connection()
        return {"status": "ready"}

    return router


async def _on_invalid(_request: Request, error: Exception) -> Response:
    """Why, and nothing of what was sent, not even where: a key may be a name here."""
    found = error.errors() if isinstance(error, RequestValidationError) else []
    return problem_response(Unprocessable(reasons=sorted({entry["type"] for entry in found})))
