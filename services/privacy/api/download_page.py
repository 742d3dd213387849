"""Pages a person meets: the one a download starts from."""

from pathlib import Path
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse

from libs.common.pages import page, templates

router = APIRouter(include_in_schema=False)
_TEMPLATES = templates(Path(__file__).parents[1] / "pages")


@router.get("/download")
async def download_page(language: Annotated[Literal["en", "fr"], Query()] = "en") -> HTMLResponse:
    """Where the link in the mail leads. The token is behind the #: no server, log or other site ever sees it,
    and what looks at links in mails uses none of the downloads up.
    """
    return page(_TEMPLATES, f"download.{language}.html")
