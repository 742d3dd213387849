"""What the gateway shows a person: the front page and the mailbox."""

import base64
import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from deploy.local.mailbox import Mailbox
from libs.common.errors import NotFound

_PAGES = Path(__file__).parent / "pages"
_STYLE = (_PAGES / "style.css").read_text()
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_HEADERS = {
    # Mails are somebody else's text: nothing in them may run, load or submit anything.
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}

ABOUT = {
    "catalog": "Products, variants, stock and search.",
    "orders": "Carts, guest checkout, orders and their fulfilment.",
    "identity": "Accounts, sign-in, stores and their staff.",
    "billing": "Bank transfers, invoices and the ledger.",
    "privacy": "Requests of a person: export, erasure, and the proof of both.",
}

_templates = Environment(
    loader=FileSystemLoader(_PAGES),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def front(
    services: Sequence[str],
    mailbox: Mailbox | None,
    lifespan: Callable[[Starlette], AbstractAsyncContextManager[None]] | None = None,
    demo_store: Path | None = None,
) -> Starlette:
    """The application that answers what belongs to no service.

    `demo_store` is where a few lines about the demo store appear once it is filled, `{url}` in the place of ours.
    """

    def home(request: Request) -> Response:
        about = {name: ABOUT.get(name, "") for name in services}
        store = demo_store.read_text() if demo_store and demo_store.exists() else ""
        url = _origin(request)
        return _page("front.html", services=about, url=url, store=store.replace("{url}", url))

    async def missing(_request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        headers = error.headers if isinstance(error, HTTPException) else None
        document = NotFound().document()
        if status != NotFound.status:
            document = {"type": "about:blank", "title": "This is not possible here", "status": status}
        return JSONResponse(document, status, headers, media_type="application/problem+json")

    return Starlette(
        routes=[Route("/", home), *(_mail_routes(mailbox) if mailbox else [])],
        exception_handlers={HTTPException: missing},
        lifespan=lifespan,
    )


def _mail_routes(mailbox: Mailbox) -> list[Route]:
    async def page(_request: Request) -> Response:
        return _page("mailbox.html", messages=mailbox.messages())

    async def message_page(request: Request) -> Response:
        message = mailbox.message(request.path_params["id"])
        if message is None:
            raise HTTPException(404)
        return _page("message.html", message=message)

    async def messages(request: Request) -> Response:
        found = mailbox.messages(request.query_params.get("to"))
        return JSONResponse([asdict(summary) for summary in found], headers=_HEADERS)

    async def message(request: Request) -> Response:
        found = mailbox.message(request.path_params["id"])
        if found is None:
            raise HTTPException(404)
        document = asdict(found)
        return JSONResponse(document.pop("summary") | document, headers=_HEADERS)

    return [
        Route("/mailbox", page),
        Route("/mailbox/messages", messages),
        Route("/mailbox/messages/{id}", message),
        Route("/mailbox/{id}", message_page),
    ]


def _page(template: str, **values: object) -> Response:
    return HTMLResponse(_templates.get_template(template).render(style=_STYLE, **values), headers=_HEADERS)


def _origin(request: Request) -> str:
    return str(request.base_url).rstrip("/")
