"""All five services behind one port, with a front page and the local mailbox.

A service owns its first path segment, so that a request is handed over as it came: nothing is rewritten or copied.
"""

import argparse
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import import_module
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from deploy.local.environment import SERVICES
from deploy.local.front import front
from deploy.local.mailbox import Mailbox, receive
from libs.common import telemetry


class Gateway:
    """Dispatches by first path segment; everything else, and the lifespan, is the front's."""

    def __init__(self, services: Mapping[str, ASGIApp], front: ASGIApp) -> None:
        self._services = services
        self._front = front

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        segment = scope["path"].split("/", 2)[1] if scope["type"] != "lifespan" else ""
        await self._services.get(segment, self._front)(scope, receive, send)


def create_gateway(
    services: Mapping[str, FastAPI],
    mailbox: Mailbox | None,
    smtp_port: int = 0,
    demo_store: Path | None = None,
) -> Gateway:
    """The gateway over these services; it starts and stops them with itself, and receives mail if asked to."""

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncGenerator[None]:
        async with AsyncExitStack() as stack:
            if mailbox is not None:
                await stack.enter_async_context(receive(mailbox, smtp_port))
            for service in services.values():
                await stack.enter_async_context(service.router.lifespan_context(service))
            yield

    return Gateway(services, front(list(services), mailbox, lifespan, demo_store))


def serve(app: ASGIApp, port: int) -> None:
    """Serve an application on 127.0.0.1 until SIGTERM; requests under way are finished."""
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=port,
        loop="uvloop",
        http="httptools",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        # Longer than callers keep an idle connection: whoever uses it when the server lets go of it gets no answer.
        timeout_keep_alive=75,
        timeout_graceful_shutdown=8,
    )


def main() -> None:
    """Serve the five services, configured by the environment."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--mailbox", type=Path, help="folder of the mailbox; without it no mail is received")
    parser.add_argument("--smtp-port", type=int, default=0)
    parser.add_argument("--demo-store", type=Path, help="a text that the front page shows")
    options = parser.parse_args()
    telemetry.start("gateway")
    services = {name: _create_app(name) for name in SERVICES}
    mailbox = Mailbox(options.mailbox) if options.mailbox else None
    serve(create_gateway(services, mailbox, options.smtp_port, options.demo_store), options.port)


def _create_app(service: str) -> FastAPI:
    settings = import_module(f"services.{service}.settings").Settings()
    return import_module(f"services.{service}.app").create_app(settings)


if __name__ == "__main__":
    main()
