"""Pages a person meets: the one a download starts from."""

import secrets
from functools import cache
from importlib.resources import files
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FunctionLoader, StrictUndefined

router = APIRouter(include_in_schema=False)


@router.get("/download")
async def download_page(language: Annotated[Literal["en", "fr"], Query()] = "en") -> HTMLResponse:
    """Where the link in the mail leads. The token is behind the #: no server, log or other site ever sees it,
    and what looks at links in mails uses none of the downloads up.
    """
    nonce = secrets.token_urlsafe(16)
    html = _pages().get_template(f"download.{language}.html").render(nonce=nonce)
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
def _pages() -> Environment:
    folder = files("services.privacy") / "pages"
    return Environment(
        loader=FunctionLoader(lambda name: (folder / name).read_text("utf-8")),
        undefined=StrictUndefined,
        autoescape=True,
    )
