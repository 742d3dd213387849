"""The pages of identity: the link in the mail leads here, and a person presses the button.

Mail scanners follow links, so that only the button confirms. The token stands behind the #, which no server,
log or other site ever sees.
"""

from pathlib import Path
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse

from libs.common.pages import page, templates

router = APIRouter(include_in_schema=False)
_TEMPLATES = templates(Path(__file__).parents[1] / "pages")


@router.get("/confirm")
async def confirmation_page(language: Annotated[Literal["en", "fr"], Query()] = "en") -> HTMLResponse:
    """A button that sends the token of the address."""
    return page(_TEMPLATES, f"confirm.{language}.html")


@router.get("/confirm-email")
async def email_confirmation_page(language: Annotated[Literal["en", "fr"], Query()] = "en") -> HTMLResponse:
    """The same with the password of the account, which only its owner knows."""
    return page(_TEMPLATES, f"confirm-email.{language}.html")
