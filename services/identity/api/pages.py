"""The one page of identity: the link in the mail leads here, and a person presses the button.

Mail scanners follow links, so that only the button confirms. The token stands behind the #, which no server,
log or other site ever sees.
"""

import secrets
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

router = APIRouter(include_in_schema=False)


@router.get("/confirm")
async def confirmation_page(language: Annotated[Literal["en", "fr"], Query()] = "en") -> HTMLResponse:
    """A button that sends the token of the address."""
    nonce = secrets.token_urlsafe(16)
    html = _pages().get_template(f"confirm.{language}.html").render(nonce=nonce)
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
    folder = Path(__file__).parents[1] / "pages"
    return Environment(loader=FileSystemLoader(folder), undefined=StrictUndefined, autoescape=True)
