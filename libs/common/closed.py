"""What a closed store still does, decided in one place, before any route.

Every process remembers which stores are not open: their states are read when it starts, when NOTIFY says that one has
changed, and every half minute. A call to an open store costs one look into a dictionary.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from uuid import UUID

from fastapi import Request

from libs.common.auth import STAFF, TokenVerifier
from libs.common.db import ALL_STORES, Database, fetch
from libs.common.errors import Forbidden, Gone, Unavailable
from libs.common.listen import Listener
from libs.common.stores import CHANNEL, StoreState

logger = logging.getLogger(__name__)

_POLL_SECONDS = 30.0
_PAUSE = 0.05
_NOT_OPEN = "SELECT store_id, state FROM known_store WHERE state <> 'open'"


class StoreIsClosed(Forbidden):
    """403: the store is closed for now; its owner can open it again."""

    slug = "store-closed"
    title = "This store is closed"
    detail = (
        "It sells nothing and takes no new accounts. Customers can still sign in, see their orders and use their "
        "rights; its staff can read and export, and settle what is under way."
    )


class StoreHasEnded(Gone):
    """410: the store was closed for good."""

    slug = "store-ended"
    title = "This store is gone for good"
    detail = (
        "What the law keeps of it is kept. The platform answers requests about personal data at /privacy."
    )


class StoreStates:
    """The stores that are not open, as this process knows them."""

    def __init__(self) -> None:
        self._states: dict[UUID, StoreState] = {}

    def of(self, store_id: UUID) -> StoreState:
        """Open, unless we heard otherwise."""
        return self._states.get(store_id, StoreState.OPEN)

    @asynccontextmanager
    async def following(self, database: Database) -> AsyncGenerator[None]:
        """Up to date while the block runs."""
        async with Listener(database.url, CHANNEL) as listener:
            await self._read(database)
            task = asyncio.create_task(self._follow(database, listener))
            try:
                yield
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def _follow(self, database: Database, listener: Listener) -> None:
        while True:
            await listener.wait(_POLL_SECONDS)
            await self._read(database)
            # Without a server the listener returns at once; this bounds how often it asks.
            await asyncio.sleep(_PAUSE)

    async def _read(self, database: Database) -> None:
        try:
            async with database.transaction(ALL_STORES) as transaction:
                rows = await fetch(transaction, _NOT_OPEN)
        except Unavailable:
            logger.warning("the states of stores cannot be read now")
            return
        self._states = {row.store_id: StoreState(row.state) for row in rows}


async def refuse_closed(request: Request) -> None:
    """A dependency of every route. At a closed store staff go on reading, and the routes that the service names in
    `while_closed` go on; at one that has ended, nothing does.

    Raises StoreIsClosed, StoreHasEnded, and what a bad token raises.
    """
    state = _state(request)
    if state is StoreState.ENDED:
        raise StoreHasEnded
    if state is StoreState.OPEN or request.scope["route"].name in request.app.state.while_closed:
        return
    if not await _is_staff_reading(request):
        raise StoreIsClosed


def _state(request: Request) -> StoreState:
    try:
        store_id = UUID(request.path_params["store_id"])
    except (KeyError, ValueError):
        return StoreState.OPEN
    states: StoreStates = request.app.state.stores
    return states.of(store_id)


async def _is_staff_reading(request: Request) -> bool:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if request.method != "GET" or scheme.lower() != "bearer":
        return False
    verifier: TokenVerifier = request.app.state.tokens
    caller = await verifier.verify(token)
    return caller.role in STAFF and str(caller.store_id) == request.path_params["store_id"].lower()
