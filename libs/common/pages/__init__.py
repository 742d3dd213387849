"""Pages for a person's browser: whatever they run, load or speak to comes from the service that shows them."""

import secrets
from collections.abc import Sequence
from pathlib import Path

from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined


def templates(*folders: Path) -> Environment:
    """The pages in these folders, which may extend `frame.html`."""
    return Environment(
        loader=FileSystemLoader([*folders, Path(__file__).parent]), undefined=StrictUndefined, autoescape=True
    )


def page(templates: Environment, name: str, *, allowed: Sequence[str] = (), **values: object) -> HTMLResponse:
    """A page whose scripts and styles carry its `nonce`; `allowed` are further directives of its policy."""
    nonce = secrets.token_urlsafe(16)
    policy = [
        *("default-src 'none'", f"script-src 'nonce-{nonce}'", f"style-src 'nonce-{nonce}'"),
        *("connect-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"),
        *allowed,
    ]
    return HTMLResponse(
        templates.get_template(name).render(nonce=nonce, **values),
        headers={
            "Content-Security-Policy": "; ".join(policy),
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
        },
    )
