"""Two pages that a person meets without an account: the form, and the one their request is followed on.

The secret of a request stands behind the #, which no server, log or other site ever sees. A page loads nothing and
speaks to its own server alone; what looks at links in mails changes nothing, since only buttons do.
"""

import secrets
from functools import cache
from importlib.resources import files
from typing import Annotated, Any, Literal
from uuid import UUID

import orjson
from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FunctionLoader, StrictUndefined

from libs.common.stores import known_store

router = APIRouter(include_in_schema=False)

Language = Annotated[Literal["en", "fr"], Query()]


@router.get("/form")
async def form_page(request: Request, store: UUID, language: Language = "en") -> HTMLResponse:
    """A form that a store links to: every right, without an account."""
    async with request.app.state.database.session(store) as session:
        name = (await known_store(session, store)).name
    return _page("form.html", language, store=str(store), name=name)


@router.get("/request")
async def request_page(language: Language = "en") -> HTMLResponse:
    """Where the link in every mail about a request leads."""
    return _page("request.html", language)


def _page(template: str, language: str, **values: Any) -> HTMLResponse:
    nonce = secrets.token_urlsafe(16)
    html = (
        _pages()
        .get_template(template)
        .render(nonce=nonce, language=language, words=_words(language), **values)
    )
    policy = (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return HTMLResponse(
        html,
        headers={
            "Content-Security-Policy": policy,
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
        },
    )


@cache
def _words(language: str) -> dict[str, Any]:
    return orjson.loads((files("services.privacy") / "pages" / f"request.{language}.json").read_bytes())


@cache
def _pages() -> Environment:
    folder = files("services.privacy") / "pages"
    return Environment(
        loader=FunctionLoader(lambda name: (folder / name).read_text("utf-8")),
        undefined=StrictUndefined,
        autoescape=True,
    )
