"""An application behind a port, in this process."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, nullcontext
from typing import Any, Literal

import uvicorn

from deploy.local.ports import free_port
from deploy.local.waiting import until


@asynccontextmanager
async def serving(
    app: Any, *, port: int | None = None, lifespan: Literal["on", "off"] = "off"
) -> AsyncGenerator[str]:
    """The address the application is served at. Raises TimeoutError when it does not start."""
    port = port or free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_config=None, lifespan=lifespan))
    # Ctrl-C is for whoever runs this process.
    server.capture_signals = nullcontext  # type: ignore[method-assign]
    serve = asyncio.create_task(server.serve())

    async def started() -> bool:
        return server.started or serve.done()

    try:
        await until(started, 20, "the server did not start")
        if not server.started:
            raise TimeoutError("the server did not start")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await serve
